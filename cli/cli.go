// Package cli is tug's command line: Docker's commands, flags, tables,
// templates, JSON, messages and exit codes over package engine. It parses,
// calls one or two functions of the engine and prints; it holds no logic of
// images or containers, and no state between two calls of Main.
//
// A command is a row of the table in commands.go. Only the row that is asked
// for is set up, so the number of commands and flags costs nothing at start.
// Parsing is pflag; cobra is used for shell completion alone, over the same
// table.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/engine"
	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// Stdio is what the program reads and writes. Terminals are recognized when
// the streams are *os.File.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is one run of the program.
type app struct {
	Stdio
	ctx  context.Context
	opts engine.Options
	name string // of the command as the user called it, without "tug "

	opened *engine.Engine
	term   terminal

	began   time.Time     // when main did
	loading time.Duration // processor time before
}

// Main runs the command line args (without the program's name) and returns the
// exit code.
func Main(args []string, stdio Stdio) (code int) {
	a := &app{Stdio: stdio, ctx: context.Background()}
	a.loaded()
	// A panic must not leave the user's terminal in raw mode.
	defer a.restore()
	code = a.report(a.main(args))
	if a.opened != nil {
		a.opened.Layers.Settle()
	}
	return code
}

// engine opens the store, once.
func (a *app) engine() (*engine.Engine, error) {
	if a.opened == nil {
		if err := layerLimits(&a.opts); err != nil {
			return nil, err
		}
		a.opts.Command = "tug " + a.name
		e, err := engine.Open(a.opts)
		if err != nil {
			return nil, err
		}
		a.opened = e
	}
	return a.opened, nil
}

// globals are the flags before the command's name.
type globals struct {
	version, help, debug bool
	logLevel             string
}

func (a *app) globalFlags(g *globals) *pflag.FlagSet {
	fs := newFlagSet()
	fs.StringVar(&a.opts.Root, "root", fromEnv("TUG_ROOT", engine.DefaultRoot), "Directory of the store")
	fs.StringVar(&a.opts.Run, "run-root", fromEnv("TUG_RUN_ROOT", engine.DefaultRun), "Directory of sockets and mounts")
	fs.StringVar(&a.opts.Storage, "storage", os.Getenv("TUG_STORAGE"), `How layers are mounted ("erofs", "erofs-loop", "dir"; default: the first that works)`)
	fs.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	fs.StringVarP(&g.logLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
	fs.BoolVarP(&g.help, "help", "h", false, "Print usage")
	// There is no log to set a level of; scripts that pass the two go on working.
	hide(fs, "help", "debug", "log-level")
	absentGlobalFlags(fs)
	return fs
}

func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// layerLimits reads how much a layer may be, which is a matter of the machine
// and not of a command.
func layerLimits(o *engine.Options) error {
	if s := os.Getenv(layer.SizeVar); s != "" {
		n, err := units.RAMInBytes(s)
		if err != nil || n <= 0 {
			return errs.New(errs.Invalid, "%s is %.40q, which is no size", layer.SizeVar, s).WithHint("write a number of bytes, or one with a unit such as 20g")
		}
		o.MaxLayerSize = n
	}
	if s := os.Getenv(layer.EntriesVar); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n <= 0 {
			return errs.New(errs.Invalid, "%s is %.40q, which is no number of entries", layer.EntriesVar, s)
		}
		o.MaxLayerEntries = n
	}
	return nil
}

func (a *app) main(args []string) error {
	var g globals
	fs := a.globalFlags(&g)
	if err := fs.Parse(args); err != nil {
		return usageError(125, "tug", err)
	}
	if err := missingFlags(fs, ""); err != nil {
		return &exitError{code: 125, err: err}
	}
	if err := checkLogLevel(g.logLevel); err != nil {
		return &exitError{code: 1, err: err}
	}
	rest := fs.Args()
	switch {
	case g.version:
		version, build := versionAndBuild()
		return a.printf("tug version %s, build %s\n", version, build)
	case len(rest) == 0:
		return a.printHelp(fs)
	case g.help:
		return a.help(fs, rest)
	}
	return a.dispatch(fs, rest)
}

func checkLogLevel(s string) error {
	switch strings.ToLower(s) {
	case "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace":
		return nil
	}
	return fmt.Errorf("unable to parse logging level: %s", s)
}

func (a *app) dispatch(global *pflag.FlagSet, args []string) error {
	switch args[0] {
	case "help":
		return a.help(global, args[1:])
	case "completion", "__complete", "__completeNoDesc":
		return a.complete(args)
	}
	c, name, rest := find(commands(), args)
	if c != nil {
		return a.run(c, name, rest)
	}
	if g := findGroup(args[0]); g != nil {
		rest = args[1:]
		for len(rest) > 0 && findGroup(g.name+" "+rest[0]) != nil {
			g, rest = findGroup(g.name+" "+rest[0]), rest[1:]
		}
		return a.runGroup(g, rest)
	}
	if missing(args[0]) {
		return &exitError{code: 1, err: fmt.Errorf("%s is not there yet", args[0])}
	}
	return usageError(1, "tug", fmt.Errorf("unknown command: tug %s", args[0]))
}

// runGroup handles a group without one of its commands.
func (a *app) runGroup(g *group, rest []string) error {
	if len(rest) == 0 || rest[0] == "--help" || rest[0] == "help" || rest[0] == "-h" {
		return a.printGroupHelp(g)
	}
	if missing(g.name + " " + rest[0]) {
		return &exitError{code: 1, err: fmt.Errorf("%s %s is not there yet", g.name, rest[0])}
	}
	if strings.HasPrefix(rest[0], "-") {
		return usageError(125, "tug "+g.name, fmt.Errorf("unknown flag: %s", rest[0]))
	}
	return usageError(1, "tug "+g.name, fmt.Errorf("unknown command: tug %s %s", g.name, rest[0]))
}

// run parses the flags of command c and runs it.
func (a *app) run(c *command, name string, args []string) error {
	a.name = name
	fs := newFlagSet()
	fs.SetInterspersed(!c.passArgs)
	help := fs.Bool("help", false, "Print usage")
	hide(fs, "help")
	body := c.setup(a, fs)
	short := helpShorthand(fs, args, c.passArgs)
	if err := fs.Parse(args); err != nil && !short {
		if errors.Is(err, pflag.ErrHelp) {
			return a.printCommandHelp(c, name, fs)
		}
		return usageError(125, "tug "+name, err)
	}
	if *help || short {
		return a.printCommandHelp(c, name, fs)
	}
	if err := missingFlags(fs, name); err != nil {
		return &exitError{code: 125, err: err}
	}
	if err := c.args.check(len(fs.Args())); err != "" {
		return usageError(1, "tug "+name, fmt.Errorf("'tug %s' %s", name, err))
	}
	return body(fs.Args())
}

// helpShorthand reports whether args ask for help by -h where the command has
// no such flag of its own.
func helpShorthand(fs *pflag.FlagSet, args []string, passArgs bool) bool {
	return len(args) == 1 && args[0] == "-h" && fs.ShorthandLookup("h") == nil && !passArgs
}

func newFlagSet() *pflag.FlagSet {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// hide keeps flags out of help texts.
func hide(fs *pflag.FlagSet, names ...string) {
	for _, n := range names {
		fs.Lookup(n).Hidden = true
	}
}

// versionAndBuild splits "v0.1.0-3-gabcdef0" of git describe.
func versionAndBuild() (version, build string) {
	v := strings.TrimPrefix(spec.Version, "v")
	dirty := ""
	if d, ok := strings.CutSuffix(v, "-dirty"); ok {
		v, dirty = d, "-dirty"
	}
	if i := strings.LastIndex(v, "-g"); i > 0 {
		return v[:i] + dirty, v[i+2:]
	}
	return v + dirty, v
}
