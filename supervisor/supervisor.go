// Package supervisor owns running processes: it starts containers and execs,
// moves their output into logs and to attached commands, and tells who waits
// how they ended. There is one per store, started by the first command that
// needs a running process; it ends itself after a quiet while.
//
// It knows processes, not images: what a start needs comes through Starter,
// its only call upward. It is not the parent of what it starts: the keeper is
// (package keeper), which also holds every descriptor that must outlive a
// supervisor. So a supervisor may be killed at any instant; the next one goes
// on where it was.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tug/event"
	"tug/runtime"
	"tug/spec"
	"tug/supervisor/keeper"
	"tug/sys"
)

// Starter turns a container id into something to run, and hears how it went.
// Package container implements it. Methods are called from many goroutines.
type Starter interface {
	// Launch readies the next run of container id: it takes the container's
	// lock, checks that it may start, mounts its root. The caller calls
	// Release when the run has begun or failed. token names the request: when
	// the last run was begun for the same one, the error is ErrBegun.
	Launch(ctx context.Context, id, token string) (*Launch, error)
	// LaunchExec describes a further process in the running container id. The
	// caller calls Release when it runs or could not be run.
	LaunchExec(id string, e *spec.ExecSpec) (*ExecLaunch, error)
	// ExecBegan and ExecEnded are told of execs, Attached of a client that
	// attached to a running container: for events.
	ExecBegan(id, exec string, args []string, by event.Cause)
	ExecEnded(id, exec string, code int)
	Attached(id string, by event.Cause)
	// RootFS makes the root file system of the container id, which does not
	// run and whose lock the client holds.
	RootFS(id string) (*os.File, error)
	// Guard lets the container id go on when the command that has paused it for
	// a while, with the container's lock held, is killed. It does not wait for
	// that.
	Guard(id string)
	// Began records, before the program runs, which process it is. Recording
	// the same run again changes nothing.
	Began(r Run, p runtime.Process) error
	// Failed records that the run's program could not be run.
	Failed(r Run, err error)
	// Cut is called instead when another run is to follow: this one may have
	// begun, and its process been killed before it was the program.
	Cut(r Run)
	// Ended is called when a run is over, its output complete and its cgroup
	// gone. It removes containers that want it, and tells, as Due, whether and
	// when there is to be a further run.
	Ended(r Run) (at time.Time, again bool)
	// Restarting lists the containers that may be waiting to be started again.
	Restarting() []string
	// Due tells whether and when the restart policy starts container id again.
	Due(id string) (at time.Time, again bool)
	// GiveUp records that Relaunch failed for good.
	GiveUp(id string, why error)
	// Relaunch is Launch by the restart policy. ErrSettled: nothing is due.
	Relaunch(id string) (*Launch, error)
	// Check tells how to go on checking the health of a run that a dead
	// supervisor has started, nil for not at all. New runs have it in Launch.
	Check(r Run) *Check
	// Checked records a result; changed says that it changed the status. It is
	// not called for a run any more when Ended is.
	Checked(r Run, c *Check, changed bool)
	// Unhealthy ends a run as the container's settings want it for one that
	// has become unhealthy. It may be called again for the same run.
	Unhealthy(r Run) error
}

// ErrBegun says that the run that is asked for was begun already.
var ErrBegun = errors.New("this start was done already")

// ErrSettled says that a container is not to be started again.
var ErrSettled = errors.New("no restart is due")

// Run names one start of a container.
type Run struct {
	ID     string
	Token  string // of the request
	Number int    // counts the container's starts, from 1
	Sync   bool   // its records must survive power loss

	Restarts int           // which start by the restart policy this is; 0 is a user's
	Delay    time.Duration // how long it had to wait for it

	// For events; absent when a supervisor goes on with a dead one's run.
	Cause    event.Cause
	Attached bool
	About    map[string]string // attributes of the container
}

// Launch is one run of a container, ready to begin.
type Launch struct {
	Run
	Plan       *runtime.Plan
	Files      runtime.Files // root file system and trees; stdio is the supervisor's
	Namespaces runtime.Namespaces
	OpenStdin  bool
	StdinOnce  bool
	Hangup     bool   // it ends with its client
	LogDir     string // empty for no log
	LogLimits  LogLimits
	Journal    *Journal // where the log goes as well, or nil
	Record     string   // where the keeper writes the exit
	Warnings   []string
	Check      *Check // of its health; nil for none
	Release    func() // frees the container's lock
}

// ExecLaunch is a further process of a container, ready to be made.
type ExecLaunch struct {
	Plan    *runtime.ExecPlan
	Target  runtime.Process // the container's first process
	Release func()          // frees the container's lock
}

// Config says whose supervisor this is.
type Config struct {
	Runtime *runtime.Runtime
	Starter Starter
	Backend func() string // name of the storage backend, for info
	Quiet   time.Duration // end after so long without anything to do
	Pool    int           // parked processes to keep ready
}

// Supervisor is the running thing.
type Supervisor struct {
	cfg  Config
	rt   *runtime.Runtime
	ctl  *control
	pool *pool
	self program
	way  chan struct{} // takes one word when another program is to go on

	mu     sync.Mutex
	procs  map[string]*procIO  // by key
	main   map[string]*procIO  // present run by container id
	busy   int                 // requests being served
	due    map[string]*waiting // restarts to come, by container id
	ending bool
	quiet  *time.Timer
	execs  int // numbers exec keys

	slots   chan struct{} // taken by restarts in progress
	probing chan struct{} // taken by probes that are being started
}

// makeWay ends this supervisor for the program that has replaced it, without a
// word to the keeper: as if it were killed.
func (s *Supervisor) makeWay() {
	select {
	case s.way <- struct{}{}:
	default: // another request did
	}
}

// control is the supervisor's end of the keeper's socket.
type control struct {
	mu   sync.Mutex
	sock *os.File
}

func (c *control) send(m *keeper.Message, files ...*os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return keeper.Send(c.sock, m, files...)
}

// Serve serves until nothing has run for Config.Quiet, or ctx is done, or the
// keeper is gone. SIGTERM makes the quiet time nothing. It expects the keeper's
// descriptors at keeper.ControlFd and keeper.ListenFd.
func Serve(ctx context.Context, cfg Config) error {
	lf := os.NewFile(keeper.ListenFd, "listen")
	l, err := net.FileListener(lf)
	if err != nil {
		return fmt.Errorf("supervise: not started by a keeper: %w", err)
	}
	lf.Close()
	s := &Supervisor{
		cfg: cfg, rt: cfg.Runtime, self: ownProgram(), way: make(chan struct{}, 1),
		ctl:   &control{sock: os.NewFile(keeper.ControlFd, "control")},
		procs: map[string]*procIO{}, main: map[string]*procIO{}, due: map[string]*waiting{},
		slots: make(chan struct{}, restartsAtOnce), probing: make(chan struct{}, probesAtOnce),
	}
	s.pool = newPool(s, cfg.Pool)
	if err := s.takeOver(); err != nil {
		return err
	}
	s.pool.begin()
	lost := make(chan error, 1)
	go func() { lost <- s.listenKeeper() }()
	go s.accept(l.(*net.UnixListener))
	s.ctl.send(&keeper.Message{Op: keeper.OpUp})
	s.enter() // there is something to do until all restarts are found
	go s.findRestarts()
	idle := make(chan struct{})
	s.mu.Lock()
	s.quiet = time.AfterFunc(cfg.Quiet, func() { s.endIfQuiet(idle) })
	s.mu.Unlock()
	hurry := make(chan os.Signal, 1)
	signal.Notify(hurry, syscall.SIGTERM)
	go func() {
		<-hurry
		s.mu.Lock()
		s.cfg.Quiet = 0
		s.touch()
		s.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-lost:
		l.Close() // commands start the next keeper
		s.pool.drain()
		s.endAll()
		if s.restartsLeft() {
			return ErrRestartsLeft
		}
		return err
	case <-s.way:
		fmt.Fprintf(os.Stderr, "supervisor %d: %s was replaced, its next supervisor goes on\n", os.Getpid(), s.self.path)
		return nil
	case <-idle:
	}
	l.Close()
	s.pool.drain()
	return s.ctl.send(&keeper.Message{Op: keeper.OpQuit})
}

// takeOver reads what the keeper holds and goes on with it. Parked processes
// of a dead supervisor have ended by themselves; their entries and cgroups are
// cleared away, before anything is gone on with that could make new ones.
func (s *Supervisor) takeOver() error {
	keep := map[string]bool{} // cgroups; also of those that cannot be gone on with
	var procs []*procIO
	var probes []*keeper.Message
	for {
		m, files, err := keeper.Receive(s.ctl.sock)
		if err != nil {
			return fmt.Errorf("supervise: keeper: %w", err)
		}
		if m.Op == keeper.OpReady {
			break
		}
		if strings.HasPrefix(m.Key, "p:") {
			sys.CloseAll(files)
			s.ctl.send(&keeper.Message{Op: keeper.OpDrop, Key: m.Key})
			continue
		}
		if strings.HasPrefix(m.Key, "h:") {
			sys.CloseAll(files)
			probes = append(probes, m)
			continue
		}
		keep[cgroupOf(m)] = true
		p, err := reclaim(m, files)
		if err == nil {
			err = p.openLog()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "supervisor:", err)
			continue
		}
		procs = append(procs, p)
	}
	s.rt.Sweep(func(cgroup string) bool { return keep[cgroup] })
	s.rt.SweepForeign(func(cgroup string) bool { return keep[cgroup] })
	for _, m := range probes {
		s.dropProbe(m)
	}
	for _, p := range procs {
		s.goOn(p)
	}
	return nil
}

// goOn continues a process of a dead supervisor. That one may have died before
// the program was run: then it is run now. Saying so twice does no harm.
func (s *Supervisor) goOn(p *procIO) {
	s.add(p)
	var err error
	if !p.note.Exec {
		err = s.cfg.Starter.Began(p.run(), runtime.Process{Pid: p.child.Pid, StartTicks: p.child.Start, Cgroup: p.note.Cgroup})
	}
	if p.sock != nil && err == nil {
		err = runtime.Resume(p.sock)
		p.sock.Close()
		p.sock = nil
	}
	if p.note.Foreign != nil && !p.note.Begun && err == nil {
		err = s.resumeForeign(p)
	}
	if p.startErr = err; err == nil {
		p.pump()
		s.orphanInput(p)
		s.orphan(p)
		if !p.note.Exec {
			s.cfg.Starter.Guard(p.note.ID)
			s.watch(p, s.cfg.Starter.Check(p.run()))
		}
		go s.finish(p)
		return
	}
	if !p.note.Exec {
		s.notRun(p.run(), err, p.note.Restarts > 0)
	}
	go func() {
		s.deleteForeign(p)
		time.Sleep(resumeWindow) // whoever asked for it asks again
		s.forget(p)
		s.consider(p.note.ID)
	}()
}

// orphanInput ends the input of a process whose client asked a dead supervisor
// for the start and did not come back for the descriptor: else the process
// would wait for it for ever.
func (s *Supervisor) orphanInput(p *procIO) {
	if p.note.Detached || !p.note.StdinOnce || p.note.Tty {
		return
	}
	time.AfterFunc(resumeWindow, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.procs[p.key] == p && p.closeInput() {
			p.hold(s.ctl)
		}
	})
}

// orphan ends a process that is to end with its client, when that did not come
// back after a supervisor's death.
func (s *Supervisor) orphan(p *procIO) {
	if !p.note.Hangup {
		return
	}
	time.AfterFunc(resumeWindow, func() {
		p.mu.Lock()
		alone := p.attached == 0
		p.mu.Unlock()
		if alone {
			p.hangUp()
		}
	})
}

// endAll ends everything after the keeper's death: nobody would record how it
// ends, and a further supervisor would not get its streams. Containers count as
// exited with code 255, as after a power failure.
func (s *Supervisor) endAll() {
	s.mu.Lock()
	s.ending = true
	procs := slices.Collect(maps.Values(s.procs))
	s.mu.Unlock()
	for _, p := range procs {
		if p.note.Cgroup != "" {
			s.rt.KillAll(p.note.Cgroup)
		}
	}
	for _, p := range procs {
		for end := time.Now().Add(5 * time.Second); sys.Alive(p.child.Pid, p.child.Start) && time.Now().Before(end); {
			time.Sleep(2 * time.Millisecond)
		}
		p.ended(&keeper.Exit{Pid: p.child.Pid, Start: p.child.Start, Code: lostCode})
	}
	// Their clients are told, and they are forgotten.
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		s.mu.Lock()
		left := len(s.procs)
		s.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// lostCode is the exit code of a process nobody saw ending.
const lostCode = 255

// forget drops a process from here and from the keeper.
func (s *Supervisor) forget(p *procIO) {
	s.mu.Lock()
	delete(s.procs, p.key) // from now on nobody holds it again
	if s.main[p.note.ID] == p {
		delete(s.main, p.note.ID)
	}
	s.touch()
	s.mu.Unlock()
	s.ctl.send(&keeper.Message{Op: keeper.OpDrop, Key: p.key})
	p.close()
}

// listenKeeper passes exits on. It returns when the keeper is gone.
func (s *Supervisor) listenKeeper() error {
	for {
		m, files, err := keeper.Receive(s.ctl.sock)
		if err != nil {
			return errors.New("supervise: the keeper is gone")
		}
		sys.CloseAll(files)
		if m.Op != keeper.OpExit {
			continue
		}
		s.mu.Lock()
		p := s.procs[m.Key]
		s.mu.Unlock()
		if p != nil {
			p.ended(m.Exit)
		}
	}
}

func (s *Supervisor) add(p *procIO) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs[p.key] = p
	if !p.note.Exec {
		s.main[p.note.ID] = p
	}
}

// current returns the present run of a container, also one that has ended but
// is not cleaned up yet.
func (s *Supervisor) current(id string) *procIO {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main[id]
}

// finish waits for a process to end and does what follows, in this order: what
// would outlive it is killed; its output is complete in the log; its cgroup and mounts are gone; the container
// is removed if it wants that; waiting and attached commands hear of it.
func (s *Supervisor) finish(p *procIO) {
	<-p.exited
	if p.note.Outlive {
		s.rt.End(p.note.Cgroup)
	}
	p.pumps.Wait()
	if p.note.Exec {
		s.cfg.Starter.ExecEnded(p.note.ID, p.key, p.exitCode())
	} else {
		s.cleanUp(p)
	}
	s.mu.Lock()
	if s.main[p.note.ID] == p {
		delete(s.main, p.note.ID)
	}
	s.mu.Unlock()
	close(p.done)
	if !p.note.Exec {
		time.AfterFunc(time.Millisecond, s.pool.refill)
	}
	for _, st := range p.streams {
		if st != nil {
			st.settled()
		}
	}
	if p.reclaimed && p.note.Exec && p.note.Detached {
		time.Sleep(resumeWindow) // its client may ask again
	}
	s.forget(p)
}

func (s *Supervisor) cleanUp(p *procIO) {
	p.checker.end()
	p.mu.Lock()
	if p.rootfs != nil {
		rootfs := p.rootfs
		p.rootfs = nil
		go rootfs.Close() // unmounting may write the upper layer's data
	}
	p.mu.Unlock()
	if p.note.Cgroup != "" && p.note.Foreign == nil {
		if err := s.rt.Remove(p.note.Cgroup); err != nil {
			fmt.Fprintln(os.Stderr, "supervisor:", err)
		}
	}
	s.deleteForeign(p)
	if at, again := s.cfg.Starter.Ended(p.run()); again {
		s.await(p.note.ID, at)
	}
}

// enter and leave bracket a request; enter reports whether there is still time
// for one. touch restarts the quiet time; s.mu is held in it.
func (s *Supervisor) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return false
	}
	s.busy++
	return true
}

func (s *Supervisor) leave() {
	s.mu.Lock()
	s.busy--
	s.touch()
	s.mu.Unlock()
}

func (s *Supervisor) touch() {
	if s.quiet != nil {
		s.quiet.Reset(s.cfg.Quiet)
	}
}

func (s *Supervisor) endIfQuiet(idle chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == 0 && len(s.procs) == 0 && len(s.due) == 0 {
		s.ending = true
		close(idle)
	}
}
