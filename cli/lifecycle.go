package cli

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/pflag"

	"tug/engine"
	"tug/sys"
)

// signalFlag parses -s; empty is 0, the container's own.
func signalFlag(s string) (syscall.Signal, error) {
	if s == "" {
		return 0, nil
	}
	return sys.ParseSignal(s)
}

// maxParallel is how many containers one command handles at the same time.
const maxParallel = 50

// together does f for all names at once and prints, in their order, the name
// or the error, as "cannot VERB container NAME: ..." when there is a verb. With
// lenient, an error that says so of itself does not count.
func (a *app) together(names []string, verb string, lenient func(error) bool, f func(e *engine.Engine, id string) error) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	results := make([]chan error, len(names))
	slots := make(chan struct{}, maxParallel)
	for i, name := range names {
		results[i] = make(chan error, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := e.Containers.Find(name)
			if err == nil {
				err = f(e, c.ID)
				if err != nil && verb != "" {
					err = fmt.Errorf("cannot %s container %s: %w", verb, name, err)
				}
			}
			results[i] <- err
		}()
	}
	failed := false
	for i, name := range names {
		switch err := <-results[i]; {
		case err == nil:
			if err := a.printf("%s\n", name); err != nil {
				return err
			}
		default:
			a.complain(err)
			failed = failed || lenient == nil || !lenient(err)
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

func setupStop(a *app, fs *pflag.FlagSet) func([]string) error { return setupStopping(a, fs, false) }

func setupRestart(a *app, fs *pflag.FlagSet) func([]string) error { return setupStopping(a, fs, true) }

func setupStopping(a *app, fs *pflag.FlagSet, again bool) func([]string) error {
	signal := fs.StringP("signal", "s", "", "Signal to send to the container")
	timeout := fs.IntP("timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(timeout, "time", 0, "")
	hide(fs, "time")
	verb := "stop"
	if again {
		verb = "restart"
	}
	return func(args []string) error {
		sig, err := signalFlag(*signal)
		if err != nil {
			return err
		}
		var wait *int
		switch {
		case fs.Changed("time") && fs.Changed("timeout"):
			return errors.New("conflicting options: cannot specify both --timeout and --time")
		case fs.Changed("time") || fs.Changed("timeout"):
			wait = timeout
		}
		return a.together(args, verb, nil, func(e *engine.Engine, id string) error {
			if again {
				warnings, err := e.Containers.Restart(a.ctx, id, sig, wait)
				a.startWarnings(warnings)
				return err
			}
			return e.Containers.Stop(a.ctx, id, sig, wait)
		})
	}
}

func setupKill(a *app, fs *pflag.FlagSet) func([]string) error {
	signal := fs.StringP("signal", "s", "", "Signal to send to the container (SIGKILL when none is named)")
	return func(args []string) error {
		sig, err := signalFlag(*signal)
		if err != nil {
			return err
		}
		if sig == 0 {
			sig = syscall.SIGKILL
		}
		return a.together(args, "kill", nil, func(e *engine.Engine, id string) error {
			return e.Containers.Kill(id, sig)
		})
	}
}

func setupRm(a *app, fs *pflag.FlagSet) func([]string) error {
	force := fs.BoolP("force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	volumes := fs.BoolP("volumes", "v", false, "Remove anonymous volumes associated with the container")
	absentFlags(fs, "link,l:bool")
	return func(args []string) error {
		// With -f a container that is not there is as it should be.
		lenient := func(err error) bool { return *force && isGone(err) }
		return a.together(args, "", lenient, func(e *engine.Engine, id string) error {
			return e.Containers.Remove(a.ctx, id, *force, *volumes)
		})
	}
}

func setupWait(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			c, err := e.Containers.Find(name)
			if err != nil {
				return err
			}
			code, err := e.Containers.Wait(a.ctx, c.ID)
			if err != nil {
				return err
			}
			return a.printf("%d\n", code)
		})
	}
}

func setupSupervise(a *app, fs *pflag.FlagSet) func([]string) error {
	// The flags come after the command here, so that the process list says
	// whose supervisor it is.
	fs.StringVar(&a.opts.Root, "root", a.opts.Root, "Directory of the store")
	fs.StringVar(&a.opts.Run, "run-root", a.opts.Run, "Directory of sockets and mounts")
	fs.StringVar(&a.opts.Storage, "storage", a.opts.Storage, "How layers are mounted")
	return func([]string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		if err := e.Supervise(a.ctx); err != nil {
			return fmt.Errorf("supervise: %w", err)
		}
		return nil
	}
}
