package cli

// storeCommands move images in and out of files, and look after the store.
func storeCommands() []command {
	const is = "IMAGE [IMAGE...]"
	return []command{
		{
			names: []string{"save", "image save"}, usage: is, args: atLeast(1),
			short: "Save one or more images to a tar archive (streamed to STDOUT by default)", setup: setupSave,
		},
	}
}
