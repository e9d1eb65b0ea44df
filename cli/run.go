package cli

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"tug/container"
	"tug/engine"
	"tug/errs"
	"tug/runtime"
	"tug/spec"
)

func setupRun(a *app, fs *pflag.FlagSet) func([]string) error {
	f := &runFlags{}
	f.define(fs)
	detach := fs.BoolP("detach", "d", false, "Run container in background and print container ID")
	proxy := fs.Bool("sig-proxy", true, "Proxy received signals to the process")
	keys := fs.String("detach-keys", "", "Override the key sequence for detaching a container")
	timed := fs.Bool("timing", false, "Print afterwards where the time of the start went")
	return func(args []string) error {
		req, err := f.request(args)
		if err != nil {
			return engineError(err)
		}
		if *detach {
			if len(f.attach.values) > 0 {
				return errors.New("conflicting options: cannot specify both --attach and --detach")
			}
			detached(req)
		} else if err := a.checkTTY(req.AttachIn, req.Tty); err != nil {
			return err
		}
		t := &attachment{app: a, tty: req.Tty, stdin: req.AttachIn && req.OpenStdin, sigProxy: *proxy}
		if err = t.setKeys(*keys); err != nil {
			return engineError(err)
		}
		if *timed {
			if t.timing, err = a.timing(); err != nil {
				return engineError(err)
			}
		}
		t.timing.done("command line read")
		if e, err := a.engine(); err == nil {
			e.Containers.Warm()
		}
		e, c, err := a.create(f, req)
		if err != nil {
			return engineError(err)
		}
		t.timing.done("image found, container made")
		if *detach {
			err = a.startDetached(e, c)
			t.timing.done("answered")
		} else {
			err = a.startAttached(e, c, t)
			t.timing.done("output and end told, container cleaned up")
		}
		a.tell(t.timing)
		return engineError(err)
	}
}

func setupCreate(a *app, fs *pflag.FlagSet) func([]string) error {
	f := &runFlags{}
	f.define(fs)
	return func(args []string) error {
		req, err := f.request(args)
		if err != nil {
			return engineError(err)
		}
		_, c, err := a.create(f, req)
		if err != nil {
			return err
		}
		return a.printf("%s\n", c.ID)
	}
}

// create makes the container, pulling its image where needed, and writes the
// --cidfile.
func (a *app) create(f *runFlags, req *container.Request) (*engine.Engine, *spec.Container, error) {
	cidfile, err := openCidfile(f.cidfile)
	if err != nil {
		return nil, nil, err
	}
	var c *spec.Container
	e, err := a.engine()
	if err == nil {
		c, err = a.createWith(e, f, req)
	}
	return e, c, cidfile.finish(c, err)
}

func (a *app) createWith(e *engine.Engine, f *runFlags, req *container.Request) (*spec.Container, error) {
	p := newProgress(a.pullMessages(f.quiet), a.width())
	c, warnings, err := e.Create(a.ctx, *req, engine.Pulling{Policy: f.pull, Progress: p, Around: a.interruptible})
	p.close()
	for _, w := range append(f.warnings(), warnings...) {
		a.warn(w)
	}
	return c, err
}

// cidfile is the file of --cidfile. It is made before the container, so that
// two commands cannot both have it, and removed when there is none.
type cidfile struct{ f *os.File }

func openCidfile(path string) (*cidfile, error) {
	if path == "" {
		return &cidfile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidfile{f}, nil
}

// finish writes the id, or removes the file when creating failed with err.
func (c *cidfile) finish(ctr *spec.Container, err error) error {
	if c.f == nil {
		return err
	}
	defer c.f.Close()
	if err != nil {
		os.Remove(c.f.Name())
		return err
	}
	if _, err := c.f.WriteString(ctr.ID); err != nil {
		return fmt.Errorf("failed to write the container ID to the file: %w", err)
	}
	return nil
}

func (a *app) startDetached(e *engine.Engine, c *spec.Container) error {
	warnings, err := e.Containers.Start(a.ctx, c.ID)
	if err != nil {
		a.discard(e, c)
		return err
	}
	a.startWarnings(warnings)
	return a.printf("%s\n", c.ID)
}

// discard removes a container with --rm that did not start.
func (a *app) discard(e *engine.Engine, c *spec.Container) {
	if !c.Host.AutoRemove {
		return
	}
	if err := e.Containers.Remove(a.ctx, c.ID, true, true); err != nil && !errs.Is(err, errs.NotFound) {
		a.complain(err)
	}
}

// startAttached starts the container attached to the user's streams and
// returns its exit code as an exitError.
func (a *app) startAttached(e *engine.Engine, c *spec.Container, t *attachment) error {
	t.catch()
	s, err := e.Containers.StartAttached(a.ctx, c.ID, t.options(c.AttachOut, c.AttachErr))
	if err != nil {
		a.discard(e, c)
		return err
	}
	a.startWarnings(s.Warnings)
	if !c.AttachOut && !c.AttachErr {
		if err := a.printf("%s\n", c.ID); err != nil {
			return err
		}
	}
	t.readerGone = s.Detach
	if c.Host.AutoRemove {
		// Nobody will ever see the output, and nobody would clean up.
		t.readerGone = func() { e.Containers.Kill(c.ID, syscall.SIGKILL) }
	}
	code, err := t.run(s, s.Stdin)
	t.timing.ended(s.Ended)
	return a.exitOf(code, err)
}

func (a *app) startWarnings(warnings []string) {
	for _, w := range warnings {
		a.warn(w)
	}
}

// isGone reports whether err says that an object is not there (any more).
func isGone(err error) bool { return errs.Is(err, errs.NotFound) || errors.Is(err, os.ErrNotExist) }

// exitOf is the end of an attached command: the program's code, silently; 0 and
// Docker's words when the user detached; 141 when the reader of the output went.
func (a *app) exitOf(code int, err error) error {
	switch {
	case errors.Is(err, container.ErrDetached):
		fmt.Fprintln(a.Err, "read escape sequence")
		return nil
	case errors.Is(err, errReaderGone):
		return &exitError{code: exitSigpipe}
	case err != nil:
		return err
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}

func setupStart(a *app, fs *pflag.FlagSet) func([]string) error {
	attach := fs.BoolP("attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	interactive := fs.BoolP("interactive", "i", false, "Attach container's STDIN")
	keys := fs.String("detach-keys", "", "Override the key sequence for detaching a container")
	absentFlags(fs, "checkpoint:string", "checkpoint-dir:string")
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		if *attach || *interactive {
			if len(args) > 1 {
				return errors.New("you cannot start and attach multiple containers at once")
			}
			return a.startAndAttach(e, args[0], *attach, *interactive, *keys)
		}
		var failed []string
		err = a.each(args, func(name string) error {
			err := a.start(e, name)
			if err != nil {
				failed = append(failed, name)
			}
			return err
		})
		if len(failed) > 0 {
			a.complain(fmt.Errorf("failed to start containers: %s", strings.Join(failed, ", ")))
		}
		return err
	}
}

func (a *app) start(e *engine.Engine, name string) error {
	c, err := e.Containers.Find(name)
	if err != nil {
		return err
	}
	warnings, err := e.Containers.Start(a.ctx, c.ID)
	if err != nil {
		return err
	}
	a.startWarnings(warnings)
	return a.printf("%s\n", name)
}

func (a *app) startAndAttach(e *engine.Engine, name string, output, input bool, detachKeys string) error {
	c, err := e.Containers.Find(name)
	if err != nil {
		return err
	}
	t := &attachment{app: a, tty: c.Tty, stdin: input && c.OpenStdin, sigProxy: true}
	if err = t.setKeys(detachKeys); err != nil {
		return err
	}
	if err := a.checkTTY(t.stdin, t.tty); err != nil {
		return err
	}
	if isRunning(c) {
		return a.attach(e, c, t)
	}
	// With -i alone the output is shown too, as with Docker.
	c.AttachOut, c.AttachErr = true, true
	return a.startAttached(e, &c.Container, t)
}

func setupAttach(a *app, fs *pflag.FlagSet) func([]string) error {
	keys := fs.String("detach-keys", "", "Override the key sequence for detaching a container")
	noStdin := fs.Bool("no-stdin", false, "Do not attach STDIN")
	proxy := fs.Bool("sig-proxy", true, "Proxy all received signals to the process")
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		c, err := e.Containers.Find(args[0])
		if err != nil {
			return err
		}
		if isRestarting(c) {
			return errs.New(errs.Conflict, "cannot attach to a restarting container, wait until it is running")
		}
		if !isRunning(c) {
			return errs.New(errs.Conflict, "cannot attach to a stopped container, start it first")
		}
		if c.State.Paused {
			return errs.New(errs.Conflict, "cannot attach to a paused container, unpause it first")
		}
		t := &attachment{app: a, tty: c.Tty, stdin: c.OpenStdin && !*noStdin, sigProxy: *proxy}
		if err = t.setKeys(*keys); err != nil {
			return err
		}
		if err := a.checkTTY(t.stdin, t.tty); err != nil {
			return err
		}
		return a.attach(e, c, t)
	}
}

func (a *app) attach(e *engine.Engine, c *container.Summary, t *attachment) error {
	t.catch()
	s, err := e.Containers.Attach(a.ctx, c.ID, t.options(true, true))
	if err != nil {
		return err
	}
	t.readerGone, t.redraw = s.Detach, true
	return a.exitOf(t.run(s, s.Stdin))
}

func setupExec(a *app, fs *pflag.FlagSet) func([]string) error {
	var x spec.ExecSpec
	env, files := list{check: checkEnv}, list{}
	detach := fs.BoolP("detach", "d", false, "Detached mode: run command in the background")
	keys := fs.String("detach-keys", "", "Override the key sequence for detaching a container")
	fs.VarP(&env, "env", "e", "Set environment variables")
	fs.Var(&files, "env-file", "Read in a file of environment variables")
	fs.BoolVarP(&x.Stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVar(&x.Privileged, "privileged", false, "Give extended privileges to the command")
	fs.BoolVarP(&x.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&x.User, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.StringVarP(&x.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return func(args []string) (err error) {
		if x.Env, err = readEnv(files.values, env.values); err != nil {
			return err
		}
		if x.WorkingDir != "" && !path.IsAbs(x.WorkingDir) {
			err := fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", x.WorkingDir)
			return &exitError{code: 126, err: err}
		}
		x.Args = args[1:]
		return a.exec(args[0], x, *detach, *keys)
	}
}

func (a *app) exec(name string, x spec.ExecSpec, detach bool, detachKeys string) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	c, err := e.Containers.Find(name)
	if err != nil {
		return err
	}
	if isRestarting(c) {
		return errs.New(errs.Conflict, "Container %s is restarting, wait until the container is running", c.ID)
	}
	if !isRunning(c) {
		return errs.New(errs.Conflict, "container %s is not running", c.ID)
	}
	if detach {
		x.Stdin = false
		return execError(e.Containers.ExecDetached(a.ctx, c.ID, x))
	}
	if err := a.checkTTY(x.Stdin, x.Tty); err != nil {
		return err
	}
	// Docker does not proxy signals to an exec'ed program; a terminal's keys
	// reach it as keys.
	t := &attachment{app: a, tty: x.Tty, stdin: x.Stdin}
	if err = t.setKeys(detachKeys); err != nil {
		return err
	}
	t.catch()
	s, err := e.Containers.Exec(a.ctx, c.ID, x, t.options(true, true))
	if err != nil {
		return execError(err)
	}
	a.startWarnings(s.Warnings)
	t.readerGone = func() { s.Signal(syscall.SIGPIPE) }
	return a.exitOf(t.run(s, s.Stdin))
}

// execError gives 127 where exec's program does not exist and 126 where it
// could not be started otherwise; the engine's own errors are 1, as in Docker.
func execError(err error) error {
	se := runtime.AsStartError(err)
	if se == nil {
		return err
	}
	code := se.Code
	if code == 125 {
		code = 126
	}
	return &exitError{code: code, err: err}
}
