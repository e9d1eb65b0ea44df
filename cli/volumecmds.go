package cli

// volumeCommands manage volumes.
func volumeCommands() []command {
	const v, vs = "VOLUME", "VOLUME [VOLUME...]"
	return []command{
		{
			names: []string{"volume create"}, usage: "[VOLUME]", args: atMost(1),
			short: "Create a volume", setup: setupVolumeCreate,
		},
		{
			names: []string{"volume inspect"}, usage: vs, args: atLeast(1),
			short: "Display detailed information on one or more volumes", setup: setupVolumeInspect,
		},
		{
			names: []string{"volume ls", "volume list"}, args: exactly(0),
			short: "List volumes", setup: setupVolumeLs,
		},
		{
			names: []string{"volume prune"}, args: exactly(0),
			short: "Remove unused local volumes", setup: setupVolumePrune,
		},
		{
			names: []string{"volume rm", "volume remove"}, usage: vs, args: atLeast(1),
			short: "Remove one or more volumes. You cannot remove a volume that is in use by a container.", setup: setupVolumeRm,
		},
	}
}
