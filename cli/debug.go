package cli

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/spf13/pflag"

	"tug/container"
	"tug/engine"
	"tug/errs"
	"tug/spec"
)

// debugOptions are those of debug. Input and terminal are there by themselves
// where the user has them.
type debugOptions struct {
	env, envFiles     list
	user, workdir     string
	stdin, tty, noTTY bool
	privileged        bool
}

func setupDebug(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &debugOptions{env: list{check: checkEnv}}
	fs.VarP(&o.env, "env", "e", "Set environment variables")
	fs.Var(&o.envFiles, "env-file", "Read in a file of environment variables")
	fs.BoolVarP(&o.stdin, "interactive", "i", false, "Pass the input on to COMMAND also if it is no terminal")
	fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the shell")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY (default when input and output are terminals)")
	fs.BoolVarP(&o.noTTY, "no-tty", "T", false, "Allocate none")
	fs.StringVarP(&o.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]"; default root)`)
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	return func(args []string) error { return a.debug(o, args[0], args[1:]) }
}

func (a *app) debug(o *debugOptions, name string, command []string) error {
	if o.workdir != "" && !path.IsAbs(o.workdir) {
		return &exitError{code: 126, err: fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", o.workdir)}
	}
	env, err := readEnv(o.envFiles.values, o.env.values)
	if err != nil {
		return err
	}
	tty := !o.noTTY && (o.tty || isTerminal(a.In) && isTerminal(a.Out))
	stdin := o.stdin || tty || len(command) == 0
	if err := a.checkTTY(stdin, tty); err != nil {
		return err
	}
	if term := os.Getenv("TERM"); tty && term != "" {
		env = append([]string{"TERM=" + term}, env...)
	}
	x := spec.ExecSpec{
		Box: true, Args: boxArgs(command), Env: env, User: o.user, WorkingDir: o.workdir, Tty: tty, Stdin: stdin, Privileged: o.privileged,
	}
	e, err := a.engine()
	if err != nil {
		return err
	}
	c, err := e.Containers.Find(name)
	switch {
	case err == nil:
		return a.debugContainer(e, c, x)
	case !errs.Is(err, errs.NotFound):
		return err
	}
	return a.debugImage(e, name, x)
}

// boxArgs is how tug-box is called for a shell, or for a command.
func boxArgs(command []string) []string {
	if len(command) == 0 {
		return []string{"sh"}
	}
	return append([]string{"tug-box"}, command...)
}

// debugContainer runs tug-box in the namespaces of a running container. It ends
// with this command, so there is nothing to detach from.
func (a *app) debugContainer(e *engine.Engine, c *container.Summary, x spec.ExecSpec) error {
	if !isRunning(c) {
		return errs.New(errs.Conflict, "container %s is not running", c.Name).
			WithHint("start it, or look at a copy of its files: tug commit %s copy && tug debug copy", c.Name)
	}
	t := &attachment{app: a, tty: x.Tty, stdin: x.Stdin}
	t.catch()
	s, err := e.Containers.Exec(a.ctx, c.ID, x, t.options(true, true))
	if err != nil {
		return execError(err)
	}
	a.startWarnings(s.Warnings)
	t.readerGone = s.Detach
	return a.exitOf(t.run(s, s.Stdin))
}

// debugImage runs tug-box in a container of its own from an image, which goes
// when it ends.
func (a *app) debugImage(e *engine.Engine, name string, x spec.ExecSpec) error {
	r := container.Request{
		Image: name, Box: true, Entrypoint: &[]string{}, Cmd: x.Args, Env: x.Env, User: orElse(x.User, "0:0"), WorkingDir: x.WorkingDir,
		Tty: x.Tty, OpenStdin: x.Stdin, StdinOnce: x.Stdin, AttachIn: x.Stdin, AttachOut: true, AttachErr: true,
		Healthcheck: &spec.Healthcheck{Test: []string{"NONE"}}, // the image's is about its own program
		Host:        spec.HostConfig{AutoRemove: true, Privileged: x.Privileged},
	}
	e.Containers.Warm()
	c, warnings, err := e.Create(a.ctx, r, engine.Pulling{Policy: engine.PullNever})
	if errs.Is(err, errs.NotFound) {
		return errs.New(errs.NotFound, "there is neither a container nor an image %s", name).WithHint("see: tug ps, tug images")
	}
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.warn(w)
	}
	t := &attachment{app: a, tty: x.Tty, stdin: x.Stdin}
	err = a.startAttached(e, c, t)
	var code *exitError
	if err != nil && !errors.As(err, &code) {
		err = execError(err)
	}
	return err
}
