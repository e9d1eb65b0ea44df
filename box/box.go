// Package box is the userland of tug-box: a shell and some eighty small
// programs, here called applets, each with the flags that people type.
//
// An applet is a function of a call: arguments and streams in, exit code out.
// It runs in a process of its own, so it may change directory, be killed and
// read until the end of its input. Errors are one line, "NAME: WHAT: WHY"; the
// exit code is 1 then, 2 for wrong usage, as far as the program's tradition has
// no other.
//
// The surprising rule: an applet is found by its name before any file in PATH,
// and is started from /proc/self/exe. So in a container all of them are there
// without a single file of theirs, and nothing has to be mounted for `tug
// debug`; see docs/decisions/0010-debug-without-a-mount.md.
package box

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"tug/sys"
)

// call is one run of an applet.
type call struct {
	name string
	args []string // without the name
	in   io.Reader
	out  *bufio.Writer
	err  io.Writer
	code int  // set by fail
	live bool // the output is a terminal
}

// applet is one program.
type applet struct {
	name  string
	usage string // arguments
	run   func(*call) int
}

// Exit codes.
const (
	exitUsage      = 2
	exitCannotExec = 126
	exitNotFound   = 127
)

// applets lists all of them. It is a function, so that it costs nothing when
// the program starts.
func applets() []applet {
	return slices.Concat(shellApplets(), fileApplets(), textApplets(), processApplets(), diskApplets(), netApplets())
}

// find returns the applet of that name.
func find(name string) (applet, bool) {
	for _, a := range applets() {
		if a.name == name {
			return a, true
		}
	}
	return applet{}, false
}

// Names lists the applets, for the links in the built-in image.
func Names() []string {
	var out []string
	for _, a := range applets() {
		out = append(out, a.name)
	}
	slices.Sort(out)
	return out
}

// Main runs the applet that argv[0] names. By the program's own name it is
//
//	tug-box               the shell
//	tug-box --list        the names of all applets
//	tug-box NAME ARG...   the applet, or else the program in PATH, of that name
func Main(argv []string) int {
	// The process may have rights in a container that others there have not.
	_ = sys.SetDumpable(false)
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT) // else the Go runtime shows its stacks
	go func() {
		<-quit
		os.Exit(128 + int(syscall.SIGQUIT))
	}()
	name := "sh"
	if len(argv) > 0 {
		name = strings.TrimPrefix(path.Base(argv[0]), "-")
	}
	args := argv[min(1, len(argv)):]
	if name == "tug-box" {
		switch {
		case len(args) == 0:
			name = "sh"
		case args[0] == "--list":
			fmt.Println(strings.Join(Names(), "\n"))
			return 0
		default:
			name, args = args[0], args[1:]
		}
	}
	a, ok := find(name)
	if !ok {
		return become(append([]string{name}, args...))
	}
	setName(name)
	c := &call{name: name, args: args, in: os.Stdin, out: bufio.NewWriterSize(os.Stdout, 32<<10), err: os.Stderr, live: sys.IsTerminal(1)}
	return c.run(a)
}

// setName is what ps shows; of a program started from a descriptor that would
// be a number.
func setName(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }

// run runs the applet and flushes its output.
func (c *call) run(a applet) int {
	code := a.run(c)
	if err := c.out.Flush(); err != nil && code == 0 {
		c.fail(err)
	}
	if code == 0 {
		code = c.code
	}
	return code
}

// fail reports an error and lets the applet end with exit code 1, later.
func (c *call) fail(err error) { c.failf("%s", why(err)) }

func (c *call) failf(format string, args ...any) {
	c.out.Flush()
	fmt.Fprintf(c.err, "%s: %s\n", c.name, printable(fmt.Sprintf(format, args...)))
	c.code = max(c.code, 1)
}

// why is an error without the name of the system call.
func why(err error) string {
	var pe *fs.PathError
	var le *os.LinkError
	var se *os.SyscallError
	switch {
	case errors.As(err, &pe):
		return pe.Path + ": " + pe.Err.Error()
	case errors.As(err, &le):
		return le.Old + " -> " + le.New + ": " + le.Err.Error()
	case errors.As(err, &se):
		return se.Err.Error()
	}
	return err.Error()
}

// printable keeps names from moving the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// shown is a name as it is written to the output: as it is, but for terminals.
func (c *call) shown(name string) string {
	if c.live {
		return printable(name)
	}
	return name
}

// printf writes to the output; a line is seen at once where somebody looks.
func (c *call) printf(format string, args ...any) {
	fmt.Fprintf(c.out, format, args...)
	if c.live && strings.HasSuffix(format, "\n") {
		c.out.Flush()
	}
}

// flags returns an empty set of flags.
func (c *call) flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.SortFlags = false
	return fs
}

// parse parses the flags and returns what is left, at least min and at most max
// (-1: any number) arguments. When ok is false the applet ends with code.
func (c *call) parse(fs *pflag.FlagSet, min, max int) (rest []string, code int, ok bool) {
	err := fs.Parse(c.args)
	rest = fs.Args()
	switch {
	case errors.Is(err, pflag.ErrHelp):
		c.help(fs)
		return nil, 0, false
	case err != nil:
	case len(rest) < min:
		err = errors.New("too few arguments")
	case max >= 0 && len(rest) > max:
		err = fmt.Errorf("too many arguments: %s", rest[max])
	}
	if err != nil {
		return nil, c.misuse(err), false
	}
	return rest, 0, true
}

// misuse is how an applet ends that was called wrongly.
func (c *call) misuse(err error) int {
	c.out.Flush()
	fmt.Fprintf(c.err, "%s: %s; see '%s --help'\n", c.name, printable(err.Error()), c.name)
	return exitUsage
}

func (c *call) help(fs *pflag.FlagSet) {
	a, _ := find(c.name)
	c.printf("Usage: %s %s\n", c.name, a.usage)
	if fs.HasFlags() {
		c.printf("\n%s", fs.FlagUsages())
	}
}

// flag defines a flag that people know by its letter.
func flag(fs *pflag.FlagSet, letter, long, usage string) *bool {
	return fs.BoolP(long, letter, false, usage)
}

// each calls f for every named file, "-" and none being the input.
func (c *call) each(names []string, f func(name string, r io.Reader) error) {
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, n := range names {
		r := c.in
		if n != "-" {
			file, err := os.Open(n)
			if err != nil {
				c.fail(err)
				continue
			}
			r = file
		}
		if err := f(n, r); err != nil {
			c.fail(err)
		}
		if file, ok := r.(*os.File); ok && n != "-" {
			file.Close()
		}
	}
}

// maxLine bounds a line of text.
const maxLine = 64 << 20

// lines calls f for every line, without its end, until f says stop.
func lines(r io.Reader, f func(line string) (more bool)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), maxLine)
	s.Split(splitLines)
	for s.Scan() {
		if !f(s.Text()) {
			return nil
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line has more than %d bytes", maxLine)
	}
	return s.Err()
}

// splitLines is bufio.ScanLines, which keeps a carriage return.
func splitLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	for i, b := range data {
		if b == '\n' {
			return i + 1, data[:i], nil
		}
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
