package cli

// lifeCommands change and watch containers.
func lifeCommands() []command {
	return []command{
		{
			names: []string{"commit", "container commit"}, usage: "CONTAINER [REPOSITORY[:TAG]]", args: between(1, 2),
			short: "Create a new image from a container's changes", setup: setupCommit,
		},
		{
			names: []string{"cp", "container cp"}, usage: "CONTAINER:SRC_PATH DEST_PATH|-\n\ttug cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", args: exactly(2),
			short: "Copy files/folders between a container and the local filesystem", setup: setupCp,
		},
		{
			names: []string{"debug"}, usage: "CONTAINER|IMAGE [COMMAND] [ARG...]", args: atLeast(1), passArgs: true,
			short: "Get a shell with a userland of tug's into a running container, or into an image", setup: setupDebug,
		},
		{
			names: []string{"diff", "container diff"}, usage: "CONTAINER", args: exactly(1), noOptions: true,
			short: "Inspect changes to files or directories on a container's filesystem", setup: setupDiff,
		},
		{
			names: []string{"pause", "container pause"}, usage: "CONTAINER [CONTAINER...]", args: atLeast(1), noOptions: true,
			short: "Pause all processes within one or more containers", setup: setupPause,
		},
		{
			names: []string{"port", "container port"}, usage: "CONTAINER [PRIVATE_PORT[/PROTO]]", args: between(1, 2), noOptions: true,
			short: "List port mappings or a specific mapping for the container", setup: setupPort,
		},
		{
			names: []string{"rename", "container rename"}, usage: "CONTAINER NEW_NAME", args: exactly(2), noOptions: true,
			short: "Rename a container", setup: setupRename,
		},
		{
			names: []string{"stats", "container stats"}, usage: "[CONTAINER...]", args: atLeast(0),
			short: "Display a live stream of container(s) resource usage statistics", setup: setupStats,
		},
		{
			names: []string{"system start"}, args: exactly(0), noOptions: true,
			short: "Start the containers that are to run after a reboot", setup: setupSystemStart,
		},
		{
			names: []string{"top", "container top"}, usage: "CONTAINER [ps OPTIONS]", args: atLeast(1), passArgs: true, noOptions: true,
			short: "Display the running processes of a container", setup: setupTop,
		},
		{
			names: []string{"unpause", "container unpause"}, usage: "CONTAINER [CONTAINER...]", args: atLeast(1), noOptions: true,
			short: "Unpause all processes within one or more containers", setup: setupUnpause,
		},
		{
			names: []string{"update", "container update"}, usage: "CONTAINER [CONTAINER...]", args: atLeast(1),
			short: "Update configuration of one or more containers", setup: setupUpdate,
		},
	}
}
