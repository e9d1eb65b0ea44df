package cli

// volumeCommands manage volumes.
func volumeCommands() []command {
	const v, vs = "VOLUME", "VOLUME [VOLUME...]"
	return []command{
		{
			names: []string{"volume clone"}, usage: "VOLUME[@SNAPSHOT] NEW_VOLUME", args: exactly(2), noOptions: true,
			short: "Make a new volume with the data of another one or of its snapshot", setup: setupVolumeClone,
		},
		{
			names: []string{"volume create"}, usage: "[VOLUME]", args: atMost(1),
			short: "Create a volume", setup: setupVolumeCreate,
		},
		{
			names: []string{"volume export"}, usage: "VOLUME[@SNAPSHOT]", args: exactly(1),
			short: "Export a volume's data as a tar archive", setup: setupVolumeExport,
		},
		{
			names: []string{"volume import"}, usage: "VOLUME file|-", args: exactly(2),
			short: "Import a volume's data from a tar archive, plain or compressed", setup: setupVolumeImport,
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
			names: []string{"volume rename"}, usage: "VOLUME NEW_NAME", args: exactly(2), noOptions: true,
			short: "Rename a volume that is not in use", setup: setupVolumeRename,
		},
		{
			names: []string{"volume rm", "volume remove"}, usage: vs, args: atLeast(1),
			short: "Remove one or more volumes. You cannot remove a volume that is in use by a container.", setup: setupVolumeRm,
		},
		{
			names: []string{"volume snapshot create"}, usage: "VOLUME [SNAPSHOT]", args: between(1, 2), noOptions: true,
			short: "Keep the present data of a volume", setup: setupSnapshotCreate,
		},
		{
			names: []string{"volume snapshot ls", "volume snapshot list"}, usage: "[VOLUME...]", args: atLeast(0),
			short: "List snapshots of volumes", setup: setupSnapshotLs,
		},
		{
			names: []string{"volume snapshot restore"}, usage: "VOLUME SNAPSHOT", args: exactly(2), noOptions: true,
			short: "Give a volume the data of a snapshot again", setup: setupSnapshotRestore,
		},
		{
			names: []string{"volume snapshot rm", "volume snapshot remove"}, usage: "VOLUME SNAPSHOT [SNAPSHOT...]", args: atLeast(2), noOptions: true,
			short: "Remove one or more snapshots", setup: setupSnapshotRm,
		},
	}
}
