package cli

// storeCommands move images in and out of files, and look after the store.
func storeCommands() []command {
	const is = "IMAGE [IMAGE...]"
	return []command{
		{
			names: []string{"events", "system events"}, args: exactly(0),
			short: "Get events of the store, also those of the past", setup: setupEvents,
		},
		{
			names: []string{"history", "image history"}, usage: "IMAGE", args: exactly(1),
			short: "Show the history of an image", setup: setupHistory,
		},
		{
			names: []string{"import", "image import"}, usage: "file|URL|- [REPOSITORY[:TAG]]", args: between(1, 2),
			short: "Import the contents from a tarball to create a filesystem image", setup: setupImport,
		},
		{
			names: []string{"image prune"}, args: exactly(0),
			short: "Remove unused images", setup: setupImagePrune,
		},
		{
			names: []string{"image tree"}, usage: "[IMAGE...]", args: atLeast(0),
			short: "Show which layers images have in common", setup: setupImageTree,
		},
		{
			names: []string{"container prune"}, args: exactly(0),
			short: "Remove all stopped containers", setup: setupContainerPrune,
		},
		{
			names: []string{"system df"}, args: exactly(0),
			short: "Show disk usage", setup: setupSystemDf,
		},
		{
			names: []string{"system prune"}, args: exactly(0),
			short: "Remove unused data", setup: setupSystemPrune,
		},
		{
			names: []string{"save", "image save"}, usage: is, args: atLeast(1),
			short: "Save one or more images to a tar archive (streamed to STDOUT by default)", setup: setupSave,
		},
	}
}
