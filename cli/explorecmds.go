package cli

// exploreCommands look into images and at the store's health.
func exploreCommands() []command {
	return []command{
		{
			names: []string{"export", "container export"}, usage: "CONTAINER", args: exactly(1),
			short: "Export a container's filesystem as a tar archive", setup: setupExport,
		},
		{
			names: []string{"explain"}, usage: "CONTAINER|IMAGE", args: exactly(1),
			short: "Show what a container is made of: layers, changes, mounts, limits, namespaces", setup: setupExplain,
		},
		{
			names: []string{"image explore"}, usage: "IMAGE", args: exactly(1),
			short: "Show layer by layer what is in an image", setup: setupExplore,
		},
		{
			names: []string{"image diff"}, usage: "IMAGE IMAGE", args: exactly(2),
			short: "Show how two images differ, in files and in config (exits with 0 also when they do)", setup: setupImageDiff,
		},
		{
			names: []string{"image verify"}, usage: "[IMAGE...]", args: atLeast(0),
			short: "Prove that what is on disk of images is what their digests say", setup: setupVerify,
		},
		{
			names: []string{"system check"}, args: exactly(0),
			short: "Check the store and, if asked to, mend it", setup: setupCheck,
		},
	}
}
