package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"tug/runtime/oci"
	"tug/sys"
)

func setupOCIRun(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	var c oci.CreateOptions
	ociCreateFlags(fs, &c)
	detach := fs.BoolP("detach", "d", false, "Do not wait for the container's end")
	keep := fs.Bool("keep", false, "Do not delete the container after its end")
	fs.Bool("no-subreaper", false, "Accepted for compatibility")
	hide(fs, "no-subreaper")
	return func(args []string) error {
		if err := o.init(c.Preserve); err != nil {
			return err
		}
		c.ID, c.Stdio = args[0], o.stdio()
		if *detach {
			if _, err := o.runtime.Create(c); err != nil {
				return err
			}
			return o.startOrDelete(c.ID)
		}
		c.Terminal = c.ConsoleSocket == ""
		signals := catchAll()
		master, err := o.runtime.Create(c)
		if err != nil {
			return err
		}
		o.resize(master)
		st, err := o.runtime.State(c.ID)
		if err == nil {
			err = o.startOrDelete(c.ID)
		}
		if err != nil {
			return err
		}
		code := o.wait(st.Pid, master, signals)
		if !*keep {
			if err := o.runtime.Delete(c.ID, true); err != nil {
				return err
			}
		}
		return exitWith(code)
	}
}

// startOrDelete leaves nothing of a container whose program cannot be executed.
func (o *ociApp) startOrDelete(id string) error {
	err := o.runtime.Start(id)
	if err == nil {
		return nil
	}
	if derr := o.runtime.Delete(id, true); derr != nil {
		o.warn(derr.Error())
	}
	return err
}

func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}

// catchAll catches the signals that are the program's.
func catchAll() chan os.Signal {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, append(proxied(), syscall.SIGWINCH)...)
	return signals
}

// wait serves a process, which is a child of this one, until its end.
func (o *ociApp) wait(pid int, master *os.File, signals <-chan os.Signal) int {
	var output chan struct{}
	if master != nil {
		output = o.connect(master)
	}
	ended := make(chan int, 1)
	go func() {
		code, err := sys.Reap(pid)
		if err != nil {
			code = 255
		}
		ended <- code
	}()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGWINCH {
				o.resize(master)
				continue
			}
			_ = syscall.Kill(pid, sig.(syscall.Signal))
		case code := <-ended:
			if output != nil {
				select {
				case <-output: // the terminal's last words
				case <-time.After(time.Second):
				}
			}
			o.restore()
			return code
		}
	}
}

// connect joins the user's terminal with the program's. The channel is closed
// at the end of the output.
func (o *ociApp) connect(master *os.File) chan struct{} {
	o.resize(master)
	if isTerminal(o.In) {
		if err := o.raw(); err != nil {
			o.warn(err.Error())
		}
	}
	o.background(func() { _, _ = io.Copy(master, o.In) })
	done := make(chan struct{})
	o.background(func() {
		defer close(done)
		_, _ = io.Copy(o.Out, master)
	})
	return done
}

func (o *ociApp) resize(master *os.File) {
	if rows, cols := o.size(); master != nil && rows > 0 {
		_ = sys.SetWinsize(master, rows, cols)
	}
}

// ociExec holds what `exec` is told.
type ociExec struct {
	oci.ExecOptions
	process, cwd, user      string
	env, caps               []string
	tty, detach, noNewPrivs bool
	groups                  []uint
}

func setupOCIExec(o *ociApp, fs *pflag.FlagSet) func([]string) error {
	e := new(ociExec)
	fs.StringVarP(&e.process, "process", "p", "", `File with the process in JSON ("-" for standard input)`)
	fs.StringVar(&e.cwd, "cwd", "", "Working directory")
	fs.StringArrayVarP(&e.env, "env", "e", nil, "Environment variables")
	fs.StringVarP(&e.user, "user", "u", "", "UID[:GID]")
	fs.StringArrayVarP(&e.caps, "cap", "c", nil, "Further capabilities")
	fs.UintSliceVarP(&e.groups, "additional-gids", "g", nil, "Supplementary groups")
	fs.BoolVarP(&e.tty, "tty", "t", false, "Give the process a terminal")
	fs.BoolVarP(&e.detach, "detach", "d", false, "Do not wait for the process's end")
	fs.BoolVar(&e.noNewPrivs, "no-new-privs", false, "Set no_new_privs")
	fs.StringVar(&e.PidFile, "pid-file", "", "File to write the process id to")
	fs.StringVar(&e.ConsoleSocket, "console-socket", "", "Unix socket to send the terminal's master to")
	fs.IntVar(&e.Preserve, "preserve-fds", 0, "Pass this many descriptors from 3 on to the program")
	fs.BoolVar(&e.Paused, "ignore-paused", false, "Execute in a paused container: the process waits with the others")
	return func(args []string) error {
		if err := o.exec(e, args); err != nil {
			var exit *exitError
			if errors.As(err, &exit) {
				return err
			}
			return &exitError{code: 255, err: err}
		}
		return nil
	}
}

func (o *ociApp) exec(e *ociExec, args []string) (err error) {
	if err := o.init(e.Preserve); err != nil {
		return err
	}
	if err := e.make(o, args); err != nil {
		return err
	}
	e.ID, e.Stdio = args[0], o.stdio()
	e.Terminal = e.Process.Terminal && e.ConsoleSocket == "" && !e.detach
	var signals chan os.Signal
	if !e.detach {
		signals = catchAll()
	}
	pid, master, err := o.runtime.Exec(e.ExecOptions)
	if err != nil || e.detach {
		return err
	}
	return exitWith(o.wait(pid, master, signals))
}

// make makes the process: that of a file, or the container's with another
// program.
func (e *ociExec) make(o *ociApp, args []string) (err error) {
	if e.process != "" {
		e.Process, err = oci.ReadProcess(e.process, o.In)
		return err
	}
	if len(args) < 2 {
		return errors.New("no command specified")
	}
	if e.Process, err = o.runtime.Process(args[0]); err != nil {
		return err
	}
	p := e.Process
	p.Args, p.Terminal = args[1:], e.tty
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	p.Env = append(p.Env, e.env...)
	p.NoNewPrivileges = p.NoNewPrivileges || e.noNewPrivs
	for _, g := range e.groups {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	if len(e.caps) > 0 {
		if p.Capabilities == nil {
			p.Capabilities = new(specs.LinuxCapabilities)
		}
		c := p.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
			*set = append(*set, e.caps...)
		}
	}
	return e.setUser(p)
}

func (e *ociExec) setUser(p *specs.Process) error {
	if e.user == "" {
		return nil
	}
	uid, gid, withGroup := strings.Cut(e.user, ":")
	n, err := strconv.ParseUint(uid, 10, 31)
	if err == nil {
		p.User.UID = uint32(n)
	}
	if err == nil && withGroup {
		n, err = strconv.ParseUint(gid, 10, 31)
		p.User.GID = uint32(n)
	}
	if err != nil {
		return fmt.Errorf("--user %q: want UID[:GID], both numbers", e.user)
	}
	return nil
}
