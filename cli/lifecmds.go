package cli

// lifeCommands change and watch containers.
func lifeCommands() []command {
	return []command{
		{
			names: []string{"rename", "container rename"}, usage: "CONTAINER NEW_NAME", args: exactly(2), noOptions: true,
			short: "Rename a container", setup: setupRename,
		},
	}
}
