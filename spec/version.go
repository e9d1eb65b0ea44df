package spec

// Version is tug's version, from git, put in by the Makefile with
// -ldflags "-X tug/spec.Version=...". A tug and a tug-init of different
// versions do not work together.
var Version = "unknown"
