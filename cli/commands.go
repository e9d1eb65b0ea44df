package cli

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// command is one command. It may be called by several names, flat and in its
// group; the first is the one that help texts show.
type command struct {
	names  []string
	usage  string // arguments, after [OPTIONS]
	short  string
	args   arity
	common bool // listed first
	hidden bool

	// passArgs: flags end at the first argument, the rest is the program's.
	passArgs bool
	// noOptions: the usage line has no [OPTIONS].
	noOptions bool

	// setup defines the flags and returns what runs after they are parsed.
	setup func(*app, *pflag.FlagSet) func(args []string) error
}

// arguments is the usage line behind the command's name.
func (c *command) arguments() string {
	s := ""
	if !c.noOptions {
		s = " [OPTIONS]"
	}
	if c.usage != "" {
		s += " " + c.usage
	}
	return s
}

// group is a command that only holds others.
type group struct{ name, short string }

func groups() []group {
	return []group{
		{"container", "Manage containers"},
		{"image", "Manage images"},
		{"manifest", "Manage image manifests and manifest lists"},
		{"mirror", "Manage mirrors of registries"},
		{"system", "Manage tug"},
		{"volume", "Manage volumes"},
		{"volume snapshot", "Manage snapshots of volumes"},
	}
}

func findGroup(name string) *group {
	for _, g := range groups() {
		if g.name == name {
			return &g
		}
	}
	return nil
}

// commands is the table of all commands.
func commands() []command {
	return slices.Concat(containerCommands(), lifeCommands(), imageCommands(), registryCommands(), storeCommands(), exploreCommands(), volumeCommands(), ociCommand())
}

func containerCommands() []command {
	const c, cs = "CONTAINER", "CONTAINER [CONTAINER...]"
	return []command{
		{
			names: []string{"run", "container run"}, usage: "IMAGE [COMMAND] [ARG...]", args: atLeast(1), passArgs: true, common: true,
			short: "Create and run a new container from an image", setup: setupRun,
		},
		{
			names: []string{"exec", "container exec"}, usage: "CONTAINER COMMAND [ARG...]", args: atLeast(2), passArgs: true, common: true,
			short: "Execute a command in a running container", setup: setupExec,
		},
		{
			names: []string{"ps", "container ls", "container list", "container ps"}, args: exactly(0), common: true,
			short: "List containers", setup: setupPs,
		},
		{
			names: []string{"attach", "container attach"}, usage: c, args: exactly(1),
			short: "Attach local standard input, output, and error streams to a running container", setup: setupAttach,
		},
		{
			names: []string{"create", "container create"}, usage: "IMAGE [COMMAND] [ARG...]", args: atLeast(1), passArgs: true,
			short: "Create a new container", setup: setupCreate,
		},
		{
			names: []string{"inspect"}, usage: "NAME|ID [NAME|ID...]", args: atLeast(1),
			short: "Return low-level information on containers and images", setup: setupInspect,
		},
		{
			names: []string{"container inspect"}, usage: cs, args: atLeast(1),
			short: "Display detailed information on one or more containers", setup: setupContainerInspect,
		},
		{
			names: []string{"kill", "container kill"}, usage: cs, args: atLeast(1),
			short: "Kill one or more running containers", setup: setupKill,
		},
		{
			names: []string{"logs", "container logs"}, usage: c + "\n\ttug logs clear CONTAINER [CONTAINER...]", args: exactly(1),
			short: "Fetch the logs of a container", setup: setupLogs,
		},
		{
			names: []string{"logs clear", "container logs clear"}, usage: cs, args: atLeast(1), noOptions: true,
			short: "Empty the logs of one or more containers", setup: setupClear,
		},
		{
			names: []string{"restart", "container restart"}, usage: cs, args: atLeast(1),
			short: "Restart one or more containers", setup: setupRestart,
		},
		{
			names: []string{"rm", "container rm", "container remove"}, usage: cs, args: atLeast(1),
			short: "Remove one or more containers", setup: setupRm,
		},
		{
			names: []string{"start", "container start"}, usage: cs, args: atLeast(1),
			short: "Start one or more stopped containers", setup: setupStart,
		},
		{
			names: []string{"stop", "container stop"}, usage: cs, args: atLeast(1),
			short: "Stop one or more running containers", setup: setupStop,
		},
		{
			names: []string{"wait", "container wait"}, usage: cs, args: atLeast(1), noOptions: true,
			short: "Block until one or more containers stop, then print their exit codes", setup: setupWait,
		},
	}
}

func imageCommands() []command {
	const is = "IMAGE [IMAGE...]"
	return []command{
		{
			names: []string{"pull", "image pull"}, usage: "NAME[:TAG|@DIGEST]", args: exactly(1), common: true,
			short: "Download an image from a registry", setup: setupPull,
		},
		{
			names: []string{"push", "image push"}, usage: "NAME[:TAG]", args: exactly(1), common: true,
			short: "Upload an image to a registry", setup: setupPush,
		},
		{
			names: []string{"images", "image ls", "image list"}, usage: "[REPOSITORY[:TAG]]", args: atMost(1), common: true,
			short: "List images", setup: setupImages,
		},
		{
			names: []string{"version"}, args: exactly(0), common: true,
			short: "Show the tug version information", setup: setupVersion,
		},
		{
			names: []string{"info", "system info"}, args: exactly(0), common: true,
			short: "Display system-wide information", setup: setupInfo,
		},
		{
			names: []string{"image inspect"}, usage: is, args: atLeast(1),
			short: "Display detailed information on one or more images", setup: setupImageInspect,
		},
		{
			names: []string{"load", "image load"}, args: exactly(0),
			short: "Load an image from a tar archive or STDIN", setup: setupLoad,
		},
		{
			names: []string{"rmi", "image rm", "image remove"}, usage: is, args: atLeast(1),
			short: "Remove one or more images", setup: setupRmi,
		},
		{
			names: []string{"tag", "image tag"}, usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", args: exactly(2), noOptions: true,
			short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", setup: setupTag,
		},
		{
			names: []string{"supervise"}, args: exactly(0), hidden: true,
			short: "Own the running containers of a store (started by tug itself)", setup: setupSupervise,
		},
	}
}

// find returns the command that args begin with, the name it is called by, and
// the arguments behind the name.
func find(table []command, args []string) (c *command, name string, rest []string) {
	name, rest = args[0], args[1:]
	for findGroup(name) != nil {
		if len(rest) == 0 {
			return nil, name, nil
		}
		name, rest = name+" "+rest[0], rest[1:]
	}
	if clearsLogs(name, rest) {
		name, rest = name+" "+rest[0], rest[1:]
	}
	for i := range table {
		if slices.Contains(table[i].names, name) {
			return &table[i], name, rest
		}
	}
	return nil, name, args[1:]
}

// clearsLogs tells `logs clear CONTAINER...` from the logs of a container that
// is called clear: there a flag follows, or nothing. --help is the former's.
func clearsLogs(name string, rest []string) bool {
	return (name == "logs" || name == "container logs") && len(rest) > 1 && rest[0] == "clear" &&
		(rest[1] == "--help" || !strings.HasPrefix(rest[1], "-"))
}

// inGroup returns the first name of c within a group, or "".
func (c *command) inGroup(group string) string {
	for _, n := range c.names {
		if sub, ok := strings.CutPrefix(n, group+" "); ok {
			return sub
		}
	}
	return ""
}

// arity is how many arguments a command takes; max < 0 is any number.
type arity struct{ min, max int }

func exactly(n int) arity    { return arity{n, n} }
func atLeast(n int) arity    { return arity{n, -1} }
func between(n, m int) arity { return arity{n, m} }
func atMost(n int) arity     { return arity{0, n} }

// check returns Docker's words for a wrong number of arguments, or "".
func (r arity) check(n int) string {
	count := func(n int) string {
		if n == 1 {
			return "1 argument"
		}
		return itoa(n) + " arguments"
	}
	switch {
	case n >= r.min && (r.max < 0 || n <= r.max):
		return ""
	case r.max == 0:
		return "accepts no arguments"
	case r.min == r.max:
		return "requires " + count(r.min)
	case n < r.min:
		return "requires at least " + count(r.min)
	}
	return "requires at most " + count(r.max)
}
