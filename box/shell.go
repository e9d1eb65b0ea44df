package box

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"tug/sys"
)

func shellApplets() []applet {
	return []applet{
		{"[", "EXPRESSION ]", builtin},
		{"ash", "[-e] [-u] [-x] [-c COMMAND | FILE] [ARG...]", shell},
		{"bash", "[-e] [-u] [-x] [-c COMMAND | FILE] [ARG...]", shell},
		{"echo", "[-n] [-e] [WORD...]", builtin},
		{"false", "", func(*call) int { return 1 }},
		{"printf", "FORMAT [ARG...]", builtin},
		{"pwd", "", builtin},
		{"sh", "[-e] [-u] [-x] [-c COMMAND | FILE] [ARG...]", shell},
		{"test", "EXPRESSION", builtin},
		{"true", "", func(*call) int { return 0 }},
		{"which", "NAME...", which},
	}
}

// builtin runs what the shell has built in, for those who start it as a
// program: find -exec, xargs, env.
func builtin(c *call) int {
	r, err := interp.New(
		interp.Params(append([]string{"--", c.name}, c.args...)...),
		interp.Env(expand.ListEnviron(os.Environ()...)),
		interp.StdIO(strings.NewReader(""), c.out, c.err),
	)
	if err != nil {
		return c.misuse(err)
	}
	f, err := syntax.NewParser().Parse(strings.NewReader(`"$@"`), c.name)
	if err != nil {
		return c.misuse(err)
	}
	return exitStatus(r.Run(context.Background(), f))
}

// exitStatus is the exit code that a run of the interpreter stands for.
func exitStatus(err error) int {
	var code interp.ExitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, context.Canceled):
		return 128 + int(syscall.SIGINT)
	}
	return exitUsage
}

// shell is the language of mvdan.cc/sh, read from -c, a file, the input or, on
// a terminal, from somebody who types.
func shell(c *call) int {
	o, err := parseShell(c.args)
	if err != nil {
		return c.misuse(err)
	}
	if o.help {
		c.help(c.flags())
		return 0
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	r, err := interp.New(
		interp.Params(append(append(o.set, "--"), o.args...)...),
		interp.Env(expand.ListEnviron(os.Environ()...)),
		interp.Dir(dir),
		interp.StdIO(c.in, streamOf(c), c.err),
		interp.Interactive(o.interactive),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return execute }),
		interp.CallHandler(func(_ context.Context, args []string) ([]string, error) {
			if args[0] == "kill" || args[0] == "umask" { // builtins that the interpreter has not got
				args = append([]string{past + args[0]}, args[1:]...)
			}
			return args, nil
		}),
	)
	if err != nil {
		c.fail(err)
		return exitUsage
	}
	switch {
	case o.hasCommand:
		return c.script(r, strings.NewReader(o.command), "sh")
	case o.file != "":
		f, err := os.Open(o.file)
		if err != nil {
			c.fail(err)
			return exitNotFound
		}
		defer f.Close()
		return c.script(r, f, o.file)
	case o.interactive || sys.IsTerminal(0) && c.in == io.Reader(os.Stdin):
		return c.converse(r)
	}
	return c.script(r, c.in, "sh")
}

// streamOf is where a shell writes: children get the descriptor itself.
func streamOf(c *call) io.Writer {
	if c.err == io.Writer(os.Stderr) {
		return os.Stdout
	}
	return c.out
}

// shellOptions are the shell's arguments.
type shellOptions struct {
	set               []string // -e, -u, -x ... of the set builtin
	command, file     string
	args              []string
	hasCommand, help  bool
	interactive, stop bool
}

func parseShell(args []string) (o shellOptions, err error) {
	for len(args) > 0 && !o.stop {
		a := args[0]
		switch {
		case a == "--help":
			o.help = true
			return o, nil
		case a == "--" || a == "-":
			o.stop = true
		case len(a) < 2 || a[0] != '-':
			o.stop = true
			continue
		case strings.HasPrefix(a, "--"):
			// --login, --norc and the like change nothing here.
		default:
			for _, letter := range a[1:] {
				switch letter {
				case 'c':
					o.hasCommand = true
				case 'i':
					o.interactive = true
				case 'l', 's':
				case 'e', 'u', 'x', 'f', 'n', 'a':
					o.set = append(o.set, "-"+string(letter))
				default:
					return o, fmt.Errorf("unknown option -%c", letter)
				}
			}
		}
		args = args[1:]
	}
	switch {
	case o.hasCommand && len(args) == 0:
		return o, errors.New("-c needs a command")
	case o.hasCommand:
		o.command, o.args = args[0], args[1:]
		if len(o.args) > 0 {
			o.args = o.args[1:] // the first is $0
		}
	case len(args) > 0:
		o.file, o.args = args[0], args[1:]
	}
	return o, nil
}

// script runs a whole program, which is read to its end before.
func (c *call) script(r *interp.Runner, from io.Reader, name string) int {
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(from, name)
	if err != nil {
		c.out.Flush()
		fmt.Fprintf(c.err, "%s: %s\n", c.name, printable(strings.TrimPrefix(err.Error(), "sh:")))
		return exitUsage
	}
	err = r.Run(context.Background(), f)
	code := exitStatus(err)
	if err != nil && !errors.As(err, new(interp.ExitStatus)) {
		c.failf("%v", err)
	}
	return code
}

// past calls what follows past the interpreter's builtins.
const past = "past:"

// umaskNow is the mask of this process.
func umaskNow() uint32 {
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	return uint32(mask)
}

// umask sets the mask of the shell's own process, which children inherit.
func umask(h *interp.HandlerContext, args []string) error {
	if len(args) == 0 {
		fmt.Fprintf(h.Stdout, "%04o\n", umaskNow())
		return nil
	}
	n, err := strconv.ParseUint(args[0], 8, 32)
	if err != nil || n > 0o777 || len(args) > 1 {
		fmt.Fprintf(h.Stderr, "umask: %s is no mask in octal\n", printable(strings.Join(args, " ")))
		return interp.ExitStatus(1)
	}
	syscall.Umask(int(n))
	return nil
}

// execute runs a program for the interpreter.
func execute(ctx context.Context, args []string) error {
	h := interp.HandlerCtx(ctx)
	if name, ok := strings.CutPrefix(args[0], past); ok {
		if name == "umask" {
			return umask(&h, args[1:])
		}
		args = append([]string{name}, args[1:]...)
	}
	var env []string
	h.Env.Each(func(name string, v expand.Variable) bool {
		if v.Exported && v.Kind == expand.String {
			env = append(env, name+"="+v.String())
		}
		return true
	})
	cmd, err := start(args, h.Dir, env, h.Stdin, h.Stdout, h.Stderr)
	if err != nil {
		fmt.Fprintf(h.Stderr, "sh: %s\n", printable(execText(args[0], err)))
		return asStatus(execCode(err))
	}
	// An interrupt reaches it by the terminal, or it is killed here.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGINT) })
	defer stop()
	return asStatus(wait(cmd))
}

func asStatus(code int) error {
	if code == 0 {
		return nil
	}
	return interp.ExitStatus(code)
}

// which tells where programs come from.
func which(c *call) int {
	rest, code, ok := c.parse(c.flags(), 1, -1)
	if !ok {
		return code
	}
	for _, name := range rest {
		if _, ok := find(name); ok {
			c.printf("%s: built into tug-box\n", name)
			continue
		}
		file, err := search(name, os.Getenv("PATH"), "/")
		if err != nil {
			c.code = 1
			continue
		}
		c.printf("%s\n", file)
	}
	return c.code
}

// converse reads commands from a terminal, with history and completion.
func (c *call) converse(r *interp.Runner) int {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	signal.Ignore(syscall.SIGTSTP, syscall.SIGTTOU, syscall.SIGTTIN)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP, syscall.SIGTERM)
	go func() {
		sig := <-hangup
		os.Exit(128 + int(sig.(syscall.Signal)))
	}()
	e, err := newEditor(os.Stdin, os.Stdout)
	if err != nil {
		c.fail(err)
		return 1
	}
	code := 0
	for {
		text, ok := c.readCommand(e, r)
		if !ok {
			return code
		}
		f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
		if err != nil {
			fmt.Fprintf(c.err, "sh: %s\n", printable(err.Error()))
			code = exitUsage
			continue
		}
		for _, stmt := range f.Stmts {
			err := c.perform(r, stmt, interrupts)
			code = exitStatus(err)
			switch {
			case errors.Is(err, context.Canceled):
			case r.Exited():
				return code
			case err != nil && !errors.As(err, new(interp.ExitStatus)):
				fmt.Fprintf(c.err, "sh: %s\n", printable(err.Error()))
			}
			if errors.Is(err, context.Canceled) {
				break
			}
		}
	}
}

// perform runs one statement, which Ctrl-C ends. Otherwise its context is not
// cancelled: what it has started in the background goes by it.
func (c *call) perform(r *interp.Runner, stmt *syntax.Stmt, interrupts <-chan os.Signal) error {
	select {
	case <-interrupts: // meant for the one before
	default:
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-interrupts:
			cancel()
		case <-done:
		}
	}()
	err := r.Run(ctx, stmt)
	if ctx.Err() != nil {
		err = context.Canceled
		fmt.Fprintln(os.Stdout)
	}
	close(done)
	<-stopped
	return err
}

// readCommand reads lines until they make a command; ok is false at the end of
// the input.
func (c *call) readCommand(e *editor, r *interp.Runner) (text string, ok bool) {
	prompt := promptOf(r.Dir)
	for {
		line, err := e.readLine(prompt, r.Dir)
		switch {
		case errors.Is(err, errInterrupted):
			text, prompt = "", promptOf(r.Dir)
			continue
		case err != nil:
			fmt.Fprintln(os.Stdout, "exit")
			return "", false
		}
		text += line + "\n"
		_, err = syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
		if !syntax.IsIncomplete(err) && !strings.HasSuffix(line, "\\") {
			return text, true
		}
		prompt = "> "
	}
}

func promptOf(dir string) string {
	host, _ := os.Hostname()
	mark := "$"
	if os.Geteuid() == 0 {
		mark = "#"
	}
	return printable(fmt.Sprintf("%s:%s%s ", host, dir, mark))
}
