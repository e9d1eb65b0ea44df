package cli

import (
	"github.com/spf13/pflag"

	"tug/engine"
)

// versionJSON is `version --format json`, with Docker's two halves. They are
// the same program here: there is no server. There is no API yet either, so its
// versions are empty.
type versionJSON struct {
	Client clientVersion
	Server serverVersion
}

type clientVersion struct {
	Platform          *platformName `json:",omitempty"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string
	Context           string
}

type platformName struct{ Name string }

type serverVersion struct {
	Platform      platformName
	Components    []versionPart
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	GitCommit     string
	GoVersion     string
	Os            string
	Arch          string
	KernelVersion string
	Experimental  bool `json:",omitempty"`
	BuildTime     string
}

type versionPart struct {
	Name    string
	Version string
	Details map[string]string
}

func toVersionJSON() *versionJSON {
	v := engine.Version()
	version, build := versionAndBuild()
	details := map[string]string{
		"Arch": v.Arch, "GitCommit": build, "GoVersion": v.GoVersion, "KernelVersion": v.KernelVersion, "Os": v.Os,
	}
	return &versionJSON{
		Client: clientVersion{Version: version, GitCommit: build, GoVersion: v.GoVersion, Os: v.Os, Arch: v.Arch},
		Server: serverVersion{
			Components: []versionPart{{Name: "Engine", Version: version, Details: details}},
			Version:    version, GitCommit: build, GoVersion: v.GoVersion, Os: v.Os, Arch: v.Arch, KernelVersion: v.KernelVersion,
		},
	}
}

func setupVersion(a *app, fs *pflag.FlagSet) func([]string) error {
	format := fs.StringP("format", "f", "", inspectFormatUsage)
	return func([]string) error {
		v := toVersionJSON()
		if *format != "" {
			return printOne(a.Out, *format, v)
		}
		c := &v.Client
		return a.printf("Client:\n Version:           %s\n Go version:        %s\n Git commit:        %s\n OS/Arch:           %s/%s\n"+
			"\nServer: none, the commands do the work themselves\n", c.Version, c.GoVersion, c.GitCommit, c.Os, c.Arch)
	}
}
