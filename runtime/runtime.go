// Package runtime starts and confines processes: namespaces, cgroups, the
// two-phase start, exec. It is the supervisor's side; the other end of each
// start is package runtime/boot inside tug-init, and package runtime/plan is
// what they say to each other. It knows no images, no logs and no containers
// beyond spec.Container, which MakePlan turns into a plan.
//
// The surprising rule: processes made here are children of this process's
// parent (CLONE_PARENT), the keeper, so that they live on when the supervisor
// dies. Nothing here waits for them; their end is the keeper's news, and a
// pidfd's.
package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"tug/errs"
	"tug/runtime/plan"
	"tug/spec"
	"tug/sys"
)

// Options say how to run.
type Options struct {
	InitPath string // the tug-init binary
	Cgroup   string // name of tug's own cgroup in each hierarchy; default "tug"
	Notes    string // directory to note cgroups in that are elsewhere; gone after a reboot
	Bundles  string // directory for the bundles of other OCI runtimes; gone after a reboot
	// BoxPath finds tug-box, which few need; may be nil.
	BoxPath func() (string, error)
}

// Runtime makes processes. Its methods may be called from many goroutines.
type Runtime struct {
	self    *os.File // tug-init in a sealed memfd
	bundles string
	boxPath func() (string, error)
	null    *os.File
	cgroups *cgroups
	spawner *spawner
}

// New copies tug-init into a sealed memfd, which every process is started
// from, and finds the machine's cgroup layout. It changes nothing on the
// machine yet.
func New(o Options) (*Runtime, error) {
	if o.Cgroup == "" {
		o.Cgroup = "tug"
	}
	if filepath.Base(o.Cgroup) != o.Cgroup || o.Cgroup == "." || o.Cgroup == ".." {
		return nil, errs.New(errs.Invalid, "invalid cgroup name %q", o.Cgroup)
	}
	src, err := os.Open(o.InitPath)
	if err != nil {
		return nil, errs.New(errs.NotFound, "open tug-init: %w", err)
	}
	defer src.Close()
	self, err := sys.SealedCopy("tug-init", src)
	if err != nil {
		return nil, fmt.Errorf("copy tug-init: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		self.Close()
		return nil, err
	}
	cg, err := findCgroups(o.Cgroup)
	if err != nil {
		self.Close()
		null.Close()
		return nil, err
	}
	cg.notes = o.Notes
	return &Runtime{self: self, bundles: o.Bundles, boxPath: o.BoxPath, null: null, cgroups: cg, spawner: newSpawner(cg)}, nil
}

// Box returns tug-box in a sealed memfd of its own, for Files.Box: a container
// can read what it runs there, and change nothing. It takes memory as long as
// somebody has it open or runs it.
func (r *Runtime) Box() (*os.File, error) {
	if r.boxPath == nil {
		return nil, errs.New(errs.Unsupported, "there is no tug-box here")
	}
	path, err := r.boxPath()
	if err != nil {
		return nil, err
	}
	src, err := os.Open(path)
	if err != nil {
		return nil, errs.New(errs.NotFound, "open tug-box: %w", err)
	}
	defer src.Close()
	f, err := sys.SealedCopy("tug-box", src)
	if err != nil {
		return nil, fmt.Errorf("copy tug-box: %w", err)
	}
	return f, nil
}

// Close ends the runtime's own thread, waits for cgroups that are being removed
// and removes tug's parent cgroup if no container has one below it. Running
// processes are not touched.
func (r *Runtime) Close() error {
	r.spawner.stop()
	r.cgroups.removing.Wait()
	r.cgroups.removeParent()
	r.removeForeignParents()
	r.self.Close()
	return r.null.Close()
}

// Process is a started process: a container's first one or that of an exec.
type Process struct {
	Pid        int
	Pidfd      *os.File
	StartTicks uint64 // /proc/PID/stat field 22: with Pid it names one process for ever
	Cgroup     string // path of its cgroup below each hierarchy's mount
}

// Namespaces says in what a process is parked; the zero value is what nearly
// all containers want.
type Namespaces struct {
	HostNet     bool // the host's network
	HostCgroup  bool // the host's view of the cgroups
	HostIPC     bool
	HostUTS     bool
	HostPID     bool
	PID, IPC    Process // first process of the container to share the namespace with; zero for none
	Parent      string  // cgroup to be in, see spec.HostConfig.CgroupParent
	Controllers string  // cgroup controllers that only few containers need, with commas between

	// User is the user namespace to be in, that of PID and IPC if they are
	// given; nil is the host's. It is open until the process is parked.
	User *os.File
}

// Outlive reports whether processes of the container can outlive its first
// one: the kernel ends them with it only in a pid namespace of their own.
func (ns Namespaces) Outlive() bool { return ns.HostPID || ns.PID.Pid != 0 }

// NamespacesOf returns what a container needs, without the containers that it
// shares namespaces with.
func NamespacesOf(c *spec.Container) Namespaces {
	return Namespaces{
		HostNet: c.Host.NetworkMode == "host", HostCgroup: c.Host.CgroupnsMode == "host",
		HostIPC: c.Host.IpcMode == "host", HostUTS: c.Host.UTSMode == "host", HostPID: c.Host.PidMode == "host",
		Controllers: spareControllers(&c.Host), Parent: c.Host.CgroupParent,
	}
}

// Needs takes out of ns what every parked process has on this machine.
func (r *Runtime) Needs(ns Namespaces) Namespaces {
	if len(r.cgroups.asked(ns.Controllers)) == 0 {
		ns.Controllers = ""
	}
	return ns
}

// Files are the descriptors that go with a plan. The caller closes its own.
type Files struct {
	RootFS                *os.File   // detached mount of the root file system
	Stdin, Stdout, Stderr *os.File   // nil is the container's own /dev/null; all ignored with a terminal
	Trees                 []*os.File // detached mounts for Plan.Bind, in its order
	Box                   *os.File   // tug-box, for a plan with Box
	Rows, Cols            uint16     // of the terminal, for another runtime; 0 unknown
}

// StartError is a start that failed for a reason in the container: Code is
// what Docker's command exits with, 127 when the program is not found, 126 when
// it cannot be executed, 125 for all else.
type StartError struct {
	Code int
	Msg  string

	silent string // of another runtime that has not said why in its log: what Msg begins with
}

func (e *StartError) Error() string { return e.Msg }

// AsStartError returns the StartError in err's chain, or nil.
func AsStartError(err error) *StartError {
	var s *StartError
	if errors.As(err, &s) {
		return s
	}
	return nil
}

// Park makes process 1 of a container to be: in new namespaces and a fresh
// cgroup, away from the host's mounts, with all prepared that no container
// decides. It does not wait for that work. The process holds no resources of a
// container and ends by itself when this process dies.
func (r *Runtime) Park(ns Namespaces) (*Parked, error) {
	flags := uintptr(sys.CloneParent | sys.NewNS)
	more := r.cgroups.asked(ns.Controllers)
	args := []string{"tug-init", "init", r.cgroups.makeLayout(more)}
	if ns.HostNet {
		args = append(args, plan.HostNet)
	} else {
		flags |= sys.NewNet
	}
	if !ns.HostUTS {
		flags |= sys.NewUTS
	}
	if ns.HostCgroup {
		args = append(args, plan.HostCgroup)
	}
	s := spawn{args: args, flags: flags}
	if err := s.share(ns); err != nil {
		return nil, err
	}
	defer sys.CloseAll([]*os.File{s.pidns, s.join})
	if s.user = ns.User; s.user != nil {
		s.args = append(s.args, plan.UserNS)
	}
	var err error
	if s.slot, err = r.cgroups.create(ns.Parent, more); err != nil {
		return nil, err
	}
	p, err := r.spawn(s)
	if err != nil {
		r.cgroups.removeLater(s.slot)
		if s.pidns != nil && isGone(err) && ns.PID.ends() {
			return nil, ErrNotRunning
		}
		return nil, fmt.Errorf("park a process: %w", err)
	}
	p.ownCgroup = true
	return p, nil
}

// share sets whose pid and IPC namespaces the process gets.
func (s *spawn) share(ns Namespaces) (err error) {
	switch {
	case ns.PID.Pid != 0:
		if s.pidns, err = openProcess(ns.PID); err != nil {
			return err
		}
	case !ns.HostPID:
		s.flags |= sys.NewPID
	}
	switch {
	case ns.IPC.Pid != 0:
		s.args = append(s.args, plan.JoinIPC)
		if s.join, err = openProcess(ns.IPC); err != nil {
			sys.CloseAll([]*os.File{s.pidns})
			return err
		}
	case ns.HostIPC:
		s.args = append(s.args, plan.HostIPC)
	default:
		s.flags |= sys.NewIPC
	}
	return nil
}

// Exec makes a process in the container whose first process is target, ready
// for p.Prepare with a plan of MakeExecPlan. That target is gone, even if its
// pid is used again, is errs.Conflict.
func (r *Runtime) Exec(target Process, pl *ExecPlan) (*Parked, error) {
	pidfd, err := openProcess(target)
	if err != nil {
		return nil, err
	}
	if r.cgroups.frozen(target.Cgroup) {
		// The thread that makes the process would freeze with it.
		pidfd.Close()
		return nil, errs.New(errs.Conflict, "the container is paused")
	}
	s := spawn{
		args: []string{"tug-init", "exec"}, flags: sys.CloneParent,
		slot: target.Cgroup, pidns: pidfd, target: target.Pid, score: pl.OOMScoreAdj,
	}
	if pl.Probe {
		s.apart = r.cgroups.probes(target.Cgroup)
	}
	if pl.IDs != nil {
		if s.user, err = OpenUserNS(target); err != nil {
			pidfd.Close()
			return nil, err
		}
		defer s.user.Close()
		s.args = append(s.args, "0", plan.JoinUser)
	}
	p, err := r.spawn(s)
	pidfd.Close()
	if err != nil {
		if r.cgroups.crowded(target.Cgroup) {
			return nil, &StartError{Code: 126, Msg: noRoom}
		}
		if isGone(err) && target.ends() {
			return nil, ErrNotRunning
		}
		if AsStartError(err) != nil {
			return nil, err
		}
		return nil, fmt.Errorf("start a process in the container: %w", err)
	}
	p.of = target
	return p, nil
}

// isGone reports whether err may mean that a pid namespace is ending: it takes
// in no process then, out of memory, it says, or, when it has ended, no such
// process.
func isGone(err error) bool { return errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ESRCH) }

// ends reports whether the process has ended, or does within a moment.
func (p Process) ends() bool {
	for end := time.Now().Add(time.Second); sys.Alive(p.Pid, p.StartTicks); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// ErrNotRunning is what Exec and Prepare return when the container's first
// process is gone.
var ErrNotRunning = errs.New(errs.Conflict, "the container is not running")

// openProcess opens a pidfd of target and makes sure that it is the same
// process: the pid may have been used again. Once the pidfd is open, start
// ticks that fit prove it.
func openProcess(target Process) (*os.File, error) {
	pidfd, err := sys.PidfdOpen(target.Pid)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	if !sys.Alive(target.Pid, target.StartTicks) {
		pidfd.Close()
		return nil, ErrNotRunning
	}
	return pidfd, nil
}

// Parked is a process that waits for its plan, then for the word to go. One
// goroutine at a time.
type Parked struct {
	Process
	r         *Runtime
	sock      *os.File
	ownCgroup bool     // of a container, not of an exec
	of        Process  // exec: the container's first process
	warnings  []string // of how it was made
}

// spawn starts tug-init with a socket pair to it.
func (r *Runtime) spawn(s spawn) (*Parked, error) {
	ours, theirs, err := sys.SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	s.path = sys.FdPath(r.self)
	s.files = []*os.File{r.null, r.null, r.null, theirs, r.self}
	between := s.pidns != nil || s.user != nil
	if between {
		s.args = append([]string{"tug-init", "enter", strconv.FormatUint(uint64(s.flags), 10), strconv.Itoa(s.score)}, s.args[1:]...)
		target := s.pidns
		if target == nil {
			target = r.null // there is a descriptor in this place always
		}
		s.files, s.flags = append(s.files, target), sys.CloneParent
	}
	if s.join != nil {
		s.files = append(s.files, s.join)
	}
	if s.user != nil && s.target != 0 {
		// An exec's process joins it last, when it has all else.
		s.files, s.user = append(s.files, s.user), nil
	}
	pid, pidfd, err := r.spawner.do(s)
	if err != nil {
		ours.Close()
		return nil, err
	}
	p := &Parked{Process: Process{Pid: pid, Pidfd: pidfd, Cgroup: s.slot}, r: r, sock: ours}
	if between {
		theirs.Close() // so that its end is seen
		if err := p.entered(); err != nil {
			p.Discard()
			return nil, err
		}
	}
	if p.StartTicks, err = sys.StartTicks(p.Pid); err != nil {
		p.Discard()
		return nil, fmt.Errorf("tug-init died at once: %w", err)
	}
	return p, nil
}

// entered takes the process that `tug-init enter` made for the one that made it.
func (p *Parked) entered() error {
	reply, files, err := plan.ReceiveReply(p.sock)
	switch {
	case err != nil:
		return fmt.Errorf("tug-init (pid %d) died before it made a process: %w", p.Pid, err)
	case reply.Errno != 0:
		err = &enterError{reply.Msg, reply.Errno}
	case reply.Code != 0:
		err = &StartError{Code: reply.Code, Msg: reply.Msg}
	case reply.Pid == 0 || len(files) != 1:
		err = errs.New(errs.Internal, "tug-init made no process")
	}
	if err != nil {
		sys.CloseAll(files)
		return err
	}
	p.Pidfd.Close()
	p.Pid, p.Pidfd, p.warnings = reply.Pid, files[0], reply.Warnings
	return nil
}

// enterError is what tug-init says and, in the chain, the error number.
type enterError struct {
	msg   string
	errno syscall.Errno
}

func (e *enterError) Error() string { return e.msg }
func (e *enterError) Unwrap() error { return e.errno }

// Alive reports whether the process still waits.
func (p *Parked) Alive() bool { return sys.Alive(p.Pid, p.StartTicks) }

// Prepare turns the parked process into the plan's, up to just before its
// program is executed: root, mounts, user, terminal, limits. It returns the
// master of the terminal when the plan has one, and warnings. Failures are
// *StartError; the process is of no use then, and Discard is the way out.
func (p *Parked) Prepare(pl *Plan, files Files) (console *os.File, warnings []string, err error) {
	msg := pl.Plan
	var passed []*os.File
	switch {
	case files.RootFS != nil:
		passed = append(passed, files.RootFS)
	case p.ownCgroup:
		return nil, nil, errs.New(errs.Internal, "prepare: no root file system")
	}
	if !msg.Tty {
		for i, f := range []*os.File{files.Stdin, files.Stdout, files.Stderr} {
			if f != nil {
				msg.Stdio |= 1 << i
				passed = append(passed, f)
			}
		}
	}
	passed = append(passed, files.Trees...)
	if msg.Box {
		if files.Box == nil {
			return nil, nil, errs.New(errs.Internal, "prepare: no tug-box")
		}
		passed = append(passed, files.Box)
	}
	if len(passed) >= sys.MaxPassedFds {
		return nil, nil, errs.New(errs.Invalid, "too many mounts: %d", len(files.Trees))
	}
	if pl.IDs != nil {
		if err := p.inUserNS(pl, &msg, files); err != nil {
			return nil, nil, err
		}
	}
	if err := plan.SendPlan(p.sock, &msg, passed...); err != nil {
		return nil, nil, p.lost(err)
	}
	if p.ownCgroup { // meanwhile, tug-init is busy with mounts
		warnings, err = p.r.cgroups.configure(p.Cgroup, pl.Privileged, pl.rules)
		if err != nil {
			return nil, nil, err
		}
	}
	reply, got, err := plan.ReceiveReply(p.sock)
	if err != nil {
		return nil, nil, p.lost(err)
	}
	if reply.Code != 0 {
		sys.CloseAll(got)
		return nil, nil, &StartError{Code: reply.Code, Msg: reply.Msg}
	}
	if len(got) > 0 {
		console = got[0]
		sys.CloseAll(got[1:])
	}
	warnings = slices.Concat(p.warnings, warnings, reply.Warnings)
	if !p.ownCgroup {
		return console, warnings, nil
	}
	// Not before: tug-init itself needs more threads and perhaps more memory
	// than the program may have.
	more, err := p.r.cgroups.limit(p.Cgroup, pl.Limits)
	if err != nil {
		sys.CloseAll([]*os.File{console})
		return nil, nil, err
	}
	return console, append(warnings, more...), nil
}

const noRoom = "the container's limit of processes (--pids-limit) leaves no room for one more"

// lost explains that the process did not answer.
func (p *Parked) lost(err error) error {
	if p.ownCgroup && p.r.OOMKilled(p.Cgroup) {
		return &StartError{Code: 125, Msg: "the memory limit is too low to start a process"}
	}
	if !p.ownCgroup && p.r.cgroups.crowded(p.Cgroup) {
		return &StartError{Code: 126, Msg: noRoom}
	}
	if !p.ownCgroup && p.of.ends() {
		return ErrNotRunning // it took this process along
	}
	return &StartError{Code: 125, Msg: fmt.Sprintf("tug-init (pid %d) died before the start: %v", p.Pid, err)}
}

// Go lets the program run. It returns nil once execve has succeeded, else a
// *StartError.
func (p *Parked) Go() error {
	if err := plan.SendGo(p.sock); err != nil {
		return p.lost(err)
	}
	reply, files, err := plan.ReceiveReply(p.sock)
	sys.CloseAll(files)
	if err == nil {
		return &StartError{Code: reply.Code, Msg: reply.Msg}
	}
	// End of file: the socket was closed by execve, or by death before it. If
	// it is dead already, the memory limit is the one usual reason that is not
	// the program's own; the exit code tells the rest.
	p.release()
	return nil
}

// release lets go of the descriptors only the start needed.
func (p *Parked) release() { p.sock.Close() }

// Discard kills the process and, of a container's, removes the cgroup. It is
// the end of a parked process that is not needed and of a start that failed,
// and harmless when the process is gone already.
func (p *Parked) Discard() {
	_ = sys.PidfdSignal(p.Pidfd, syscall.SIGKILL)
	p.release()
	p.Pidfd.Close()
	if p.ownCgroup {
		p.r.cgroups.removeLater(p.Cgroup)
	}
}

// Remove removes a container's cgroup, with those its processes made below,
// after its last process ended. A cgroup that is gone already is no error. One
// that is still busy, as for a moment after the end, is tried again in the
// background.
func (r *Runtime) Remove(cgroup string) error {
	if err := r.cgroups.check(cgroup); err != nil {
		return err
	}
	r.cgroups.removeLater(cgroup)
	return nil
}

// End kills what is left of a container whose first process has ended and whose
// pid namespace is not its own, and waits for it for some seconds.
func (r *Runtime) End(cgroup string) {
	if r.cgroups.check(cgroup) != nil {
		return
	}
	for wait := time.Millisecond; wait < 4*time.Second; wait *= 2 {
		if pids, err := pidsBelow(r.cgroups.roots()[0] + cgroup); err != nil || len(pids) == 0 {
			return
		}
		r.cgroups.killStill(cgroup)
		time.Sleep(wait)
	}
}

// KillAll kills what still runs in a container's cgroup, also when it is
// frozen, and removes the cgroup, all in the background.
func (r *Runtime) KillAll(cgroup string) {
	if r.cgroups.check(cgroup) == nil {
		r.cgroups.emptyLater(cgroup)
	}
}

// MemoryEvents returns the file that counts out-of-memory kills in the cgroup
// (a line "oom_kill N"), or "" without a memory controller.
func (r *Runtime) MemoryEvents(cgroup string) string { return r.cgroups.memoryEvents(cgroup) }

// OOMKilled reports whether the kernel killed a process of the cgroup for want
// of memory.
func (r *Runtime) OOMKilled(cgroup string) bool { return r.cgroups.oomKilled(cgroup) }
