package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"tug/engine"
	"tug/errs"
	"tug/runtime/oci"
	"tug/spec"
	"tug/sys"
)

// OCIName is the name by which tug, called as it, is `tug oci`: container
// engines want the path of a runtime and no argument.
const OCIName = "tug-oci"

func ociCommand() []command {
	return []command{{
		names: []string{"oci"}, usage: "COMMAND [ARG...]", args: atLeast(0), passArgs: true,
		short: "Run OCI bundles, as a runtime for podman, containerd and others", setup: setupOCI,
	}}
}

// ociApp is one run of `tug oci`. Its command line is runc's, as far as
// engines use it, and so are its exit codes: 1 for every error.
type ociApp struct {
	*app
	runtime   *oci.Runtime
	log       string
	logFormat string
}

// ociVerb is one of its commands.
type ociVerb struct {
	name, usage, short string
	args               arity
	passArgs           bool // flags end at the first argument
	setup              func(*ociApp, *pflag.FlagSet) func(args []string) error
}

func ociVerbs() []ociVerb {
	const id = "CONTAINER"
	return []ociVerb{
		{name: "create", usage: id, short: "Create a container from a bundle", args: exactly(1), setup: setupOCICreate},
		{name: "start", usage: id, short: "Execute the program of a created container", args: exactly(1), setup: ociPlain((*ociApp).start)},
		{name: "run", usage: id, short: "Create a container, start it and wait for its end", args: exactly(1), setup: setupOCIRun},
		{name: "state", usage: id, short: "Print the state of a container", args: exactly(1), setup: ociPlain((*ociApp).state)},
		{name: "kill", usage: id + " [SIGNAL]", short: "Send a signal to a container (default SIGTERM)", args: between(1, 2), setup: setupOCIKill},
		{name: "delete", usage: id, short: "Remove a stopped container", args: exactly(1), setup: setupOCIDelete},
		{name: "exec", usage: id + " COMMAND [ARG...]", short: "Execute one more program in a container", args: atLeast(1), passArgs: true, setup: setupOCIExec},
		{name: "list", short: "List containers", args: exactly(0), setup: setupOCIList},
		{name: "ps", usage: id, short: "Print the processes of a container", args: atLeast(1), passArgs: true, setup: setupOCIPs},
		{name: "pause", usage: id, short: "Stop the processes of a container", args: exactly(1), setup: ociPlain((*ociApp).pause)},
		{name: "resume", usage: id, short: "Let them go on", args: exactly(1), setup: ociPlain((*ociApp).resume)},
		{name: "update", usage: id, short: "Change the resources of a container", args: exactly(1), setup: setupOCIUpdate},
		{name: "spec", short: "Write a config.json to begin with", args: exactly(0), setup: setupOCISpec},
		{name: "features", short: "Print what the runtime can do", args: exactly(0), setup: setupOCIFeatures},
	}
}

// ociPlain is the setup of a command without flags.
func ociPlain(f func(*ociApp, string) error) func(*ociApp, *pflag.FlagSet) func([]string) error {
	return func(a *ociApp, _ *pflag.FlagSet) func([]string) error {
		return func(args []string) error { return f(a, args[0]) }
	}
}

func setupOCI(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &ociApp{app: a}
	root := fs.String("root", oci.DefaultRoot, "Directory of the containers' states")
	fs.StringVar(&o.log, "log", "", "File to write errors and warnings to")
	fs.StringVar(&o.logFormat, "log-format", "text", `Format of the log ("text", "json")`)
	version := fs.BoolP("version", "v", false, "Print version information and quit")
	systemd := fs.Bool("systemd-cgroup", false, "Not supported: cgroupsPath is a path")
	fs.Bool("debug", false, "Accepted for compatibility")
	fs.String("rootless", "auto", "Accepted for compatibility")
	hide(fs, "systemd-cgroup", "debug", "rootless")
	return func(args []string) error {
		if *version {
			v, build := versionAndBuild()
			return a.printf("%s version %s\ncommit: %s\nspec: %s\n", OCIName, v, build, oci.Version)
		}
		if len(args) == 0 {
			return o.printVerbs()
		}
		o.runtime = oci.New(oci.Options{Root: *root, Warn: o.warn})
		err := o.dispatch(args, *systemd)
		var e *exitError
		if err != nil && (!errors.As(err, &e) || e.err != nil) {
			o.record("error", message(err))
		}
		return err
	}
}

func (o *ociApp) dispatch(args []string, systemd bool) error {
	if o.logFormat != "text" && o.logFormat != "json" {
		return usageError(1, "tug oci", fmt.Errorf("invalid --log-format %q", o.logFormat))
	}
	for _, v := range ociVerbs() {
		if v.name != args[0] {
			continue
		}
		if systemd && v.name != "features" {
			return errs.New(errs.Unsupported, "--systemd-cgroup is not supported").WithHint("set the caller's cgroup manager to cgroupfs")
		}
		return o.do(&v, args[1:])
	}
	return usageError(1, "tug oci", fmt.Errorf("unknown command: tug oci %s", args[0]))
}

func (o *ociApp) do(v *ociVerb, args []string) error {
	name := "tug oci " + v.name
	fs := newFlagSet()
	fs.SetInterspersed(!v.passArgs)
	body := v.setup(o, fs)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return o.printf("Usage:  %s [OPTIONS] %s\n\n%s\n\nOptions:\n%s", name, v.usage, v.short, fs.FlagUsages())
		}
		return usageError(1, name, err)
	}
	if err := v.args.check(fs.NArg()); err != "" {
		return usageError(1, name, fmt.Errorf("'%s' %s", name, err))
	}
	return body(fs.Args())
}

func (o *ociApp) printVerbs() error {
	w := tabwriter.NewWriter(o.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Usage:  tug oci [OPTIONS] COMMAND [ARG...]\n\nCommands:\n")
	for _, v := range ociVerbs() {
		fmt.Fprintf(w, "  %s\t%s\n", v.name, v.short)
	}
	return w.Flush()
}

func (o *ociApp) warn(s string) {
	o.app.warn(s)
	o.record("warning", s)
}

// record writes to the log. Errors of that have nowhere to go.
func (o *ociApp) record(level, msg string) {
	if o.log == "" {
		return
	}
	f, err := os.OpenFile(o.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339)
	if o.logFormat == "json" {
		b, _ := json.Marshal(map[string]string{"level": level, "msg": msg, "time": now})
		fmt.Fprintf(f, "%s\n", b)
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, msg)
}

// init finds tug-init, for the commands that start something. Of what the
// caller left open the program gets no more than the first, preserved from 3 on.
func (o *ociApp) init(preserved int) (err error) {
	if preserved < 0 {
		return errs.New(errs.Invalid, "--preserve-fds %d: want a number of descriptors", preserved)
	}
	for fd := range preserved {
		if !sys.Inherited(3 + fd) {
			return errs.New(errs.Invalid, "--preserve-fds %d: descriptor %d is not open", preserved, 3+fd)
		}
	}
	if o.runtime.InitPath, err = engine.InitPath(); err != nil {
		return err
	}
	return sys.CloexecFrom(3)
}

func (o *ociApp) stdio() [3]*os.File { return [3]*os.File{file(o.In), file(o.Out), file(o.Err)} }

func ociCreateFlags(fs *pflag.FlagSet, c *oci.CreateOptions) {
	fs.StringVarP(&c.Bundle, "bundle", "b", "", "Directory of the bundle (default: the working directory)")
	fs.StringVar(&c.PidFile, "pid-file", "", "File to write the process id to")
	fs.StringVar(&c.ConsoleSocket, "console-socket", "", "Unix socket to send the terminal's master to")
	fs.IntVar(&c.Preserve, "preserve-fds", 0, "Pass this many descriptors from 3 on to the program")
	fs.Bool("no-pivot", false, "Accepted for compatibility")
	fs.Bool("no-new-keyring", false, "Accepted for compatibility")
	hide(fs, "no-pivot", "no-new-keyring")
}

func setupOCICreate(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	var c oci.CreateOptions
	ociCreateFlags(fs, &c)
	return func(args []string) error {
		if err := o.init(c.Preserve); err != nil {
			return err
		}
		c.ID, c.Stdio = args[0], o.stdio()
		_, err := o.runtime.Create(c)
		return err
	}
}

func (o *ociApp) start(id string) error { return o.runtime.Start(id) }

func (o *ociApp) state(id string) error {
	s, err := o.runtime.State(id)
	if err != nil {
		return err
	}
	return o.printJSON(s)
}

func (o *ociApp) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return o.printf("%s\n", b)
}

func setupOCIKill(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	all := fs.BoolP("all", "a", false, "Signal all processes of the container")
	return func(args []string) error {
		name := "TERM"
		if len(args) > 1 {
			name = args[1]
		}
		sig, err := sys.ParseSignal(name)
		if err != nil {
			return err
		}
		return o.runtime.Kill(args[0], sig, *all)
	}
}

func setupOCIDelete(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	force := fs.BoolP("force", "f", false, "Kill the container first; that there is none is no error")
	return func(args []string) error { return o.runtime.Delete(args[0], *force) }
}

func (o *ociApp) pause(id string) error  { return o.runtime.Pause(o.ctx, id) }
func (o *ociApp) resume(id string) error { return o.runtime.Resume(id) }

func setupOCIUpdate(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	path := fs.StringP("resources", "r", "", `File with the new resources in JSON ("-" for standard input)`)
	return func(args []string) error {
		if *path == "" {
			return usageError(1, "tug oci update", errors.New("--resources is missing"))
		}
		return o.runtime.Update(args[0], *path, o.In)
	}
}

func setupOCISpec(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	bundle := fs.StringP("bundle", "b", "", "Directory of the bundle (default: the working directory)")
	return func([]string) error { return oci.WriteSpec(*bundle) }
}

func setupOCIFeatures(o *ociApp, _ *pflag.FlagSet) func([]string) error {
	return func([]string) error {
		f := oci.Features()
		f.Annotations = map[string]string{"dev.tug.version": spec.Version}
		return o.printJSON(f)
	}
}

func setupOCIList(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	format := fs.StringP("format", "f", "table", `"table" or "json"`)
	quiet := fs.BoolP("quiet", "q", false, "Only container IDs")
	return func([]string) error {
		all, err := o.runtime.List()
		switch {
		case err != nil:
			return err
		case *quiet:
			for _, s := range all {
				if err := o.printf("%s\n", s.ID); err != nil {
					return err
				}
			}
			return nil
		case *format == "json":
			return o.printJSON(all)
		case *format != "table":
			return usageError(1, "tug oci list", fmt.Errorf("invalid --format %q", *format))
		}
		w := tabwriter.NewWriter(o.Out, 12, 1, 3, ' ', 0)
		fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED")
		for _, s := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339))
		}
		return w.Flush()
	}
}

func setupOCIPs(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	format := fs.StringP("format", "f", "table", `"table" or "json"`)
	return func(args []string) error {
		pids, err := o.runtime.Pids(args[0])
		switch {
		case err != nil:
			return err
		case *format == "json":
			return o.printJSON(pids)
		case *format != "table":
			return usageError(1, "tug oci ps", fmt.Errorf("invalid --format %q", *format))
		}
		if err := o.printf("%-8s %s\n", "PID", "CMD"); err != nil {
			return err
		}
		for _, pid := range pids {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			if err := o.printf("%-8d %s\n", pid, oneLine(strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " "))); err != nil {
				return err
			}
		}
		return nil
	}
}
