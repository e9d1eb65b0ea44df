package cli

// lifeCommands change and watch containers.
func lifeCommands() []command {
	return []command{
		{
			names: []string{"pause", "container pause"}, usage: "CONTAINER [CONTAINER...]", args: atLeast(1), noOptions: true,
			short: "Pause all processes within one or more containers", setup: setupPause,
		},
		{
			names: []string{"rename", "container rename"}, usage: "CONTAINER NEW_NAME", args: exactly(2), noOptions: true,
			short: "Rename a container", setup: setupRename,
		},
		{
			names: []string{"unpause", "container unpause"}, usage: "CONTAINER [CONTAINER...]", args: atLeast(1), noOptions: true,
			short: "Unpause all processes within one or more containers", setup: setupUnpause,
		},
	}
}
