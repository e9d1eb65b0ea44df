package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime"
	"tug/runtime/plan"
	"tug/sys"
)

// ExecOptions are what `exec` is told.
type ExecOptions struct {
	ID            string
	Process       *specs.Process
	PidFile       string
	ConsoleSocket string
	Preserve      int
	Stdio         [3]*os.File
	Terminal      bool // the caller takes the terminal itself
	Paused        bool // even if the container is
}

// Process returns the process of a container's configuration, to base another
// on.
func (r *Runtime) Process(id string) (*specs.Process, error) {
	c, err := r.load(id)
	if err != nil {
		return nil, err
	}
	s, err := c.config()
	if err != nil {
		return nil, err
	}
	return s.Process, nil
}

// ReadProcess reads a process from a file, "-" being in.
func ReadProcess(path string, in io.Reader) (*specs.Process, error) {
	p := new(specs.Process)
	return p, readJSON(path, in, p)
}

// Exec executes one more program in a container. The process is a child of
// this one.
func (r *Runtime) Exec(o ExecOptions) (pid int, master *os.File, err error) {
	c, err := r.load(o.ID)
	if err != nil {
		return 0, nil, err
	}
	switch s := c.status(); {
	case s == specs.StateStopped || s == specs.StateCreating:
		return 0, nil, errs.New(errs.Conflict, "cannot exec in container %q: it is %s", o.ID, s)
	case s == paused && !o.Paused:
		return 0, nil, errs.New(errs.Conflict, "cannot exec in a paused container").WithHint("use --ignore-paused")
	}
	if err := validateProcess(o.Process); err != nil {
		return 0, nil, err
	}
	if o.Process.Terminal && o.ConsoleSocket == "" && !o.Terminal {
		return 0, nil, errs.New(errs.Invalid, "the process has a terminal, and nobody takes it").WithHint("give --console-socket")
	}
	spec, err := c.config()
	if err != nil {
		return 0, nil, err
	}
	e := &execer{container: c, o: o, linux: spec.Linux}
	defer func() { sys.CloseAll([]*os.File{e.sock, e.pidfd}) }()
	master, err = e.run()
	if err != nil && e.pid != 0 {
		_ = sys.PidfdSignal(e.pidfd, syscall.SIGKILL)
		_, _ = sys.Reap(e.pid)
	}
	return e.pid, master, err
}

// execer executes one program.
type execer struct {
	*container
	o     ExecOptions
	linux *specs.Linux // of the container's configuration
	sock  *os.File
	pid   int
	pidfd *os.File
}

func (e *execer) run() (master *os.File, err error) {
	p, err := processPlan(e.o.Process, e.linux, e.r.Warn)
	if err != nil {
		return nil, err
	}
	p.Preserve = e.o.Preserve
	if err := e.affinity(p); err != nil {
		return nil, err
	}
	if err := e.launch(); err != nil {
		return nil, err
	}
	if err := raiseLimits(e.pid, p.Rlimits); err != nil {
		return nil, err
	}
	if err := setOOMScore(e.pid, e.o.Process.OOMScoreAdj); err != nil {
		return nil, err
	}
	var passed []*os.File
	if !p.Tty {
		for i, f := range e.o.Stdio {
			if f != nil {
				p.Stdio |= 1 << i
				passed = append(passed, f)
			}
		}
	}
	if err := plan.SendPlan(e.sock, p, passed...); err != nil {
		return nil, e.lost(err)
	}
	reply, files, err := plan.ReceiveReply(e.sock)
	if err != nil {
		return nil, e.lost(err)
	}
	if reply.Code != 0 {
		sys.CloseAll(files)
		return nil, &runtime.StartError{Code: reply.Code, Msg: reply.Msg}
	}
	for _, w := range reply.Warnings {
		e.r.Warn(w)
	}
	if len(files) > 0 {
		master = files[0]
	}
	if err = e.finish(master, p.Listen); err != nil || !e.o.Terminal {
		sys.CloseAll(files)
		master = nil
	}
	return master, err
}

func (e *execer) finish(master *os.File, listen bool) error {
	if master != nil {
		if err := sys.SetBlocking(master); err != nil {
			return err
		}
		if size := e.o.Process.ConsoleSize; size != nil && size.Height > 0 {
			if err := sys.SetWinsize(master, uint16(size.Height), uint16(size.Width)); err != nil {
				return err
			}
		}
	}
	if err := sendConsole(e.o.ConsoleSocket, master); err != nil {
		return err
	}
	if err := plan.SendGo(e.sock); err != nil {
		return e.lost(err)
	}
	if listen {
		if err := e.passListener(e.linux.Seccomp, e.pid, e.sock, e.hookState(specs.StateRunning)); err != nil {
			return err
		}
	}
	if err := executed(e.sock); err != nil {
		return err
	}
	return writePidFile(e.o.PidFile, e.pid)
}

func (e *execer) lost(err error) error {
	return fmt.Errorf("tug-init (pid %d) died before it executed the program: %w", e.pid, err)
}

// affinity binds the process to processors: from the start, as this thread
// becomes the one that makes it, and for the program alone.
func (e *execer) affinity(p *plan.Plan) error {
	a := e.o.Process.ExecCPUAffinity
	if a == nil {
		return nil
	}
	_, err := cpuList(a.Initial)
	if err == nil {
		p.FinalCPUs, err = cpuList(a.Final)
	}
	if err != nil {
		return invalid("process.execCPUAffinity: %w", err)
	}
	return nil
}

// cpuList parses "0-3,7".
func cpuList(s string) (all []int, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := first, error(nil)
		if isRange {
			last, err2 = strconv.ParseUint(to, 10, 16)
		}
		if err1 != nil || err2 != nil || last < first {
			return nil, fmt.Errorf("%q is no list of processors", s)
		}
		for n := first; n <= last; n++ {
			all = append(all, int(n))
		}
	}
	return all, nil
}

// launch has `tug-init enter` make the process, out of sight of the container.
func (e *execer) launch() error {
	self, err := openSelf(e.r.InitPath, e.o.Preserve)
	if err != nil {
		return err
	}
	defer self.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	ours, theirs, err := sys.SocketPair()
	if err != nil {
		return err
	}
	e.sock = ours
	defer theirs.Close()
	target, err := sys.PidfdOpen(e.rec.Pid)
	if err != nil || !sys.Alive(e.rec.Pid, e.rec.StartTicks) {
		sys.CloseAll([]*os.File{target})
		return errs.New(errs.Conflict, "container %q is not running", e.rec.ID)
	}
	defer target.Close()
	userns, err := e.userNS()
	if err != nil {
		return err
	}
	args := []string{"tug-init", "enter", strconv.Itoa(sys.CloneParent), plan.AsItIs, "exec", strconv.Itoa(e.o.Preserve)}
	files := append([]*os.File{null, null, null, theirs, self, target}, preserved(e.o.Preserve)...)
	if userns != nil {
		defer userns.Close()
		args, files = append(args, plan.JoinUser), append(files, userns)
	}
	pid, pidfd, err := e.startIn(sys.Clone{Path: sys.FdPath(self), Args: args, Env: runtime.InitEnv(), Files: files})
	if err != nil {
		return fmt.Errorf("start tug-init: %w", err)
	}
	pidfd.Close()
	theirs.Close() // so that its end is seen
	err = e.entered()
	if _, rerr := sys.Reap(pid); err == nil {
		err = rerr
	}
	return err
}

// startIn makes a process in the container's cgroup.
func (e *execer) startIn(clone sys.Clone) (pid int, pidfd *os.File, err error) {
	g, err := e.group()
	if err != nil {
		return 0, nil, err
	}
	err = sys.OnThread(func() error {
		if a := e.o.Process.ExecCPUAffinity; a != nil && a.Initial != "" {
			cpus, _ := cpuList(a.Initial)
			if err := sys.SetAffinity(0, cpus); err != nil {
				return err
			}
		}
		pid, pidfd, err = g.Start(clone)
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		// On version 2 a container that manages cgroups itself has moved its
		// processes further down, and none can be in the parent.
		if g, err = runtime.GroupOf(e.rec.Pid); err == nil {
			pid, pidfd, err = g.Start(clone)
		}
		return err
	})
	return pid, pidfd, err
}

// entered takes the process that `tug-init enter` made.
func (e *execer) entered() error {
	reply, files, err := plan.ReceiveReply(e.sock)
	switch {
	case err != nil:
		return e.lost(err)
	case reply.Code != 0:
		err = &runtime.StartError{Code: reply.Code, Msg: reply.Msg}
	case reply.Pid == 0 || len(files) != 1:
		err = errs.New(errs.Internal, "tug-init made no process")
	}
	if err != nil {
		sys.CloseAll(files)
		return err
	}
	e.pid, e.pidfd = reply.Pid, files[0]
	return nil
}

// userNS opens the container's user namespace; nil when it is this process's.
func (e *execer) userNS() (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", e.rec.Pid))
	if err != nil {
		return nil, err
	}
	// By the file and not by its path: the number may be another's by now.
	fi, err := f.Stat()
	if err == nil {
		own, oerr := os.Stat("/proc/self/ns/user")
		if oerr == nil && !os.SameFile(fi, own) {
			return f, nil
		}
		err = oerr
	}
	f.Close()
	return nil, err
}

// Pause stops all processes of a container.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	c, err := r.locked(id)
	if err != nil {
		return err
	}
	defer c.unlock()
	if s := c.status(); s != specs.StateRunning && s != specs.StateCreated {
		return errs.New(errs.Conflict, "container %q is %s and cannot be paused", id, s)
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	return g.Freeze(ctx)
}

// Resume lets them go on.
func (r *Runtime) Resume(id string) error {
	c, err := r.locked(id)
	if err != nil {
		return err
	}
	defer c.unlock()
	if s := c.status(); s != paused {
		return errs.New(errs.Conflict, "container %q is %s and not paused", id, s)
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	return g.Thaw()
}

// Pids are the processes of a container, as the caller sees them.
func (r *Runtime) Pids(id string) ([]int, error) {
	c, err := r.load(id)
	if err != nil {
		return nil, err
	}
	g, err := c.group()
	if err != nil {
		return nil, err
	}
	return g.Pids()
}

// Update changes the resources of a container to those in a file, "-" being in.
// Devices stay as they are: on version 1 of cgroups the list could only be made
// anew, with all denied in between, and on version 2 a further filter could only
// deny more.
func (r *Runtime) Update(id, path string, in io.Reader) error {
	res := new(specs.LinuxResources)
	if err := readJSON(path, in, res); err != nil {
		return err
	}
	c, err := r.locked(id)
	if err != nil {
		return err
	}
	defer c.unlock()
	if s := c.status(); s == specs.StateStopped {
		return errs.New(errs.Conflict, "container %q is %s and cannot be updated", id, s)
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	return g.Apply(res)
}
