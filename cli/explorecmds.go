package cli

// exploreCommands look into images.
func exploreCommands() []command { return nil }
