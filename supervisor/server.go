package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"tug/errs"
	"tug/runtime"
	"tug/supervisor/keeper"
	"tug/sys"
)

func (s *Supervisor) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		if !s.enter() {
			c.Close() // ending: the command finds no answer and starts the next one
			continue
		}
		go func() {
			defer s.leave()
			s.serve(conn{c})
		}()
	}
}

// serve handles one connection: one request.
func (s *Supervisor) serve(c conn) {
	defer c.Close()
	var req request
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	kind, body, files, err := c.receive(make([]byte, maxRequest), make([]byte, 256))
	sys.CloseAll(files)
	if err == nil {
		err = decode(kind, frameRequest, body, &req)
	}
	if err != nil {
		return
	}
	c.SetReadDeadline(time.Time{})
	if s.self.replaced() {
		s.makeWay()
		select {} // the command asks the next one when this process, and with it the connection, ends
	}
	if req.Timing {
		req.timing = &Timing{}
		req.timing.Done("request with the supervisor")
	}
	sess, err := s.dispatch(c, &req)
	if err != nil {
		c.send(frameAnswer, answer{Error: toFailure(err)})
	}
	if sess != nil {
		sess.run()
	}
}

// maxRequest bounds a request; an exec's environment is the largest part.
const maxRequest = 160 << 10

// dispatch does what is asked and answers, except errors. It returns a session
// where the client stays attached.
func (s *Supervisor) dispatch(c conn, req *request) (*session, error) {
	switch req.Op {
	case opStart:
		return s.start(c, req)
	case opExec:
		sess, err := s.exec(c, req)
		if errors.Is(err, runtime.ErrNotRunning) { // it ended just now
			err = errs.New(errs.Conflict, "container %s is not running", req.ID)
		}
		return sess, err
	case opAttach:
		return s.attach(c, req)
	case opWait:
		return nil, s.wait(c, req)
	case opGuard:
		s.cfg.Starter.Guard(req.ID)
		return nil, c.send(frameAnswer, answer{})
	case opSettle:
		s.settle(req.ID)
		return nil, c.send(frameAnswer, answer{})
	case opMount:
		f, err := s.cfg.Starter.RootFS(req.ID)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return nil, c.send(frameAnswer, answer{}, f)
	case opClear:
		if err := s.clear(req.ID); err != nil {
			return nil, err
		}
		return nil, c.send(frameAnswer, answer{})
	case opPing:
		s.mu.Lock()
		n := len(s.main)
		s.mu.Unlock()
		return nil, c.send(frameAnswer, answer{Pid: os.Getpid(), Running: n, Backend: s.cfg.Backend()})
	}
	return nil, errs.New(errs.Unsupported, "the running supervisor does not know %q", req.Op).
		WithHint("it is of another version; it ends when no container runs")
}

// start begins a run of a container. In this order: the keeper knows process
// and pipes before anything can be lost; attached clients are registered
// before there is output; start.json is written before the program runs.
func (s *Supervisor) start(c conn, req *request) (*session, error) {
	if p := s.startedBy(req); p != nil {
		return s.rejoin(c, p, req)
	}
	// A run that has ended may still be cleaning up after itself.
	if p := s.current(req.ID); p != nil && !p.running() {
		<-p.done
	}
	l, err := s.cfg.Starter.Launch(context.Background(), req.ID, req.Token)
	if errors.Is(err, ErrBegun) && req.Attach == nil {
		return nil, c.send(frameAnswer, answer{})
	}
	if err != nil {
		return nil, err
	}
	req.timing.Done("planned, root file system mounted")
	defer l.Release()
	defer s.settle(req.ID) // the user was faster than the restart policy
	l.Cause, l.Attached = req.Cause, req.Attach != nil
	p, warnings, err := s.begin(l, req)
	if err != nil {
		s.cfg.Starter.Failed(l.Run, err)
		return nil, err
	}
	s.pool.refillLater()
	return s.answer(c, p, req, append(l.Warnings, warnings...))
}

func (s *Supervisor) begin(l *Launch, req *request) (p *procIO, warnings []string, err error) {
	defer closeUnused(l, &err)
	if l.Plan.Foreign != nil {
		return s.beginForeign(l, req)
	}
	parked, err := s.pool.get(l.Namespaces)
	if err != nil {
		return nil, nil, err
	}
	req.timing.Done("parked process taken")
	p = newProcIO(fmt.Sprintf("c:%s#%d", l.ID, l.Number), noteOf(l, req, parked.Cgroup))
	p.child = &keeper.Child{Pid: parked.Pid, Start: parked.StartTicks, Record: l.Record, Sync: l.Sync, Events: s.rt.MemoryEvents(parked.Cgroup)}
	p.rootfs = l.Files.RootFS
	warnings, err = s.prepare(p, parked, l.Plan, l.Files, l.OpenStdin, req.Attach)
	if err == nil {
		err = p.openLog()
	}
	req.timing.Done("root, mounts, user and streams set up")
	if err == nil {
		err = s.run(p, parked, func() error { return s.cfg.Starter.Began(l.Run, parked.Process) })
	}
	req.timing.Done("recorded, privileges dropped, program executed")
	if err != nil {
		s.abandon(p, parked)
		return nil, nil, err
	}
	s.watch(p, l.Check)
	return p, warnings, nil
}

// noteOf is what there is to remember of a run.
func noteOf(l *Launch, req *request, cgroup string) note {
	return note{
		ID: l.ID, Token: req.Token, Run: l.Number, Tty: l.Plan.Tty, StdinOnce: l.StdinOnce,
		LogDir: l.LogDir, LogLimits: l.LogLimits, Journal: l.Journal, Cgroup: cgroup, Outlive: l.Namespaces.Outlive(), Sync: l.Sync, Detached: req.Attach == nil || !req.Attach.Stdin,
		Restarts: l.Restarts, Delay: l.Delay, Hangup: l.Hangup,
	}
}

// run lets a prepared process go. In this order: it leaves the pool's entry
// and gets its own, so that from now on a new supervisor can finish the start;
// it is known here, so that its end is heard; it is recorded; it runs.
func (s *Supervisor) run(p *procIO, parked *runtime.Parked, record func() error) error {
	s.add(p)
	p.sock = parked.Socket()
	s.ctl.send(&keeper.Message{Op: keeper.OpDrop, Key: parkedKey(parked)})
	err := p.hold(s.ctl)
	p.sock = nil // closed by Go
	if err == nil {
		err = record()
	}
	if err == nil {
		err = parked.Go()
	}
	if err == nil {
		parked.Pidfd.Close() // the keeper sees its end
	}
	return err
}

// closeUnused closes the launch's descriptors after the start: the process has
// its own, only the root file system's is kept by the procIO.
func closeUnused(l *Launch, err *error) {
	sys.CloseAll(append(l.Files.Trees, l.Namespaces.User))
	if *err != nil && l.Files.RootFS != nil {
		l.Files.RootFS.Close()
	}
}

// prepare gives the process its standard streams and everything else up to its
// program.
func (s *Supervisor) prepare(p *procIO, parked *runtime.Parked, plan *runtime.Plan, files runtime.Files, stdin bool, o *AttachOptions) ([]string, error) {
	if !plan.Tty {
		ends, err := p.makePipes(stdin)
		defer sys.CloseAll(ends)
		if err != nil {
			return nil, err
		}
		files.Stdin, files.Stdout, files.Stderr = ends[0], ends[1], ends[2]
	}
	if plan.Box {
		box, err := s.rt.Box()
		if err != nil {
			return nil, err
		}
		defer box.Close()
		files.Box = box
	}
	console, warnings, err := parked.Prepare(plan, files)
	if err == nil && console != nil {
		err = p.takeConsole(console, o)
	}
	if err == nil {
		p.expect(o)
	}
	return warnings, err
}

// takeConsole makes a terminal's master the stream and the input.
func (p *procIO) takeConsole(console *os.File, o *AttachOptions) (err error) {
	if p.stdin, err = sys.NonBlocking(console); err != nil {
		return err
	}
	if o != nil && o.Rows > 0 {
		sys.SetWinsize(p.stdin, o.Rows, o.Cols)
	}
	p.streams[0], err = makeSpool("stdout", p.stdin, true)
	return err
}

// expect prepares the streams for the client that asked for the start.
func (p *procIO) expect(o *AttachOptions) {
	for i, st := range p.streams {
		if st != nil && o != nil && o.wants(i, p.note.Tty) {
			st.expect()
		}
	}
}

// wants tells whether a client takes stream i, 0 for standard output.
func (o *AttachOptions) wants(i int, tty bool) bool {
	return i == 0 && (o.Stdout || tty) || i == 1 && o.Stderr
}

// makePipes makes the streams and returns the process's ends. Without input
// the first is nil: the process gets the container's own /dev/null.
func (p *procIO) makePipes(stdin bool) (ends []*os.File, err error) {
	ends = make([]*os.File, 3)
	if stdin {
		ends[0], p.stdin, err = sys.Pipe(false, false)
	}
	for i, name := range []string{"stdout", "stderr"} {
		var r *os.File
		if err == nil {
			r, ends[1+i], err = sys.Pipe(true, false)
		}
		if err == nil {
			p.streams[i], err = makeSpool(name, r, false)
		}
	}
	return ends, err
}

// abandon undoes a start that failed: the process is ended if it has not done
// so itself, and nothing of it is left.
func (s *Supervisor) abandon(p *procIO, parked *runtime.Parked) {
	parked.Discard()
	s.ctl.send(&keeper.Message{Op: keeper.OpDrop, Key: parkedKey(parked)})
	p.rootfs = nil // closed by closeUnused
	s.forget(p)
}

// answer describes the process to its client.
func (p *procIO) answer() answer {
	return answer{Key: p.key, Tty: p.note.Tty, Pid: p.child.Pid, Start: p.child.Start}
}

// startedBy finds the process that an earlier asking of the same request
// started.
func (s *Supervisor) startedBy(req *request) *procIO {
	if !req.Again || req.Token == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		if p.note.Token == req.Token {
			return p
		}
	}
	return nil
}

// rejoin answers a start that was done for the client already.
func (s *Supervisor) rejoin(c conn, p *procIO, req *request) (*session, error) {
	if p.startErr != nil {
		return nil, p.startErr
	}
	a := p.answer()
	if req.Attach == nil {
		return nil, c.send(frameAnswer, a)
	}
	sess := newSession(c, p)
	sess.join(req.Attach, &[2]int64{})
	return s.welcome(sess, req.Attach, a), nil
}

// answer tells the client that the program runs and, if it wants to be
// attached, makes its session.
func (s *Supervisor) answer(c conn, p *procIO, req *request, warnings []string) (*session, error) {
	a, o := p.answer(), req.Attach
	a.Warnings = warnings
	if req.timing != nil {
		a.Phases = req.timing.Phases
	}
	var sess *session
	if o != nil {
		sess = newSession(c, p)
		sess.join(o, &[2]int64{})
	}
	p.pump()
	go s.finish(p)
	if sess == nil {
		return nil, c.send(frameAnswer, a)
	}
	return s.welcome(sess, o, a), nil
}

// welcome sends the answer with the input descriptor. A client that has left
// already is seen by the session itself.
func (s *Supervisor) welcome(sess *session, o *AttachOptions, a answer) *session {
	var files []*os.File
	p := sess.io
	if p.note.Tty || o.Stdin {
		f, last := p.input()
		if f != nil {
			a.Stdin, files = true, append(files, f)
		}
		if last {
			defer p.hold(s.ctl)
			defer f.Close()
		}
	}
	sess.conn.send(frameAnswer, a, files...)
	return sess
}

func (s *Supervisor) attach(c conn, req *request) (*session, error) {
	p := s.current(req.ID)
	if req.Resume != nil {
		s.mu.Lock()
		p = s.procs[req.Key]
		s.mu.Unlock()
	} else if p == nil || !p.running() {
		return nil, errs.New(errs.Conflict, "cannot attach to a stopped container, start it first")
	}
	if p == nil {
		return nil, errs.New(errs.NotFound, "the session is over")
	}
	if req.Attach == nil {
		req.Attach = &AttachOptions{}
	}
	if req.Resume == nil {
		s.cfg.Starter.Attached(req.ID, req.Cause)
	}
	sess := newSession(c, p)
	a := p.answer()
	a.From = sess.join(req.Attach, req.Resume)
	return s.welcome(sess, req.Attach, a), nil
}

func (s *Supervisor) exec(c conn, req *request) (*session, error) {
	if req.Exec == nil {
		return nil, errs.New(errs.Invalid, "exec: nothing to run")
	}
	if p := s.startedBy(req); p != nil {
		return s.rejoin(c, p, req)
	}
	l, err := s.cfg.Starter.LaunchExec(req.ID, req.Exec)
	if err != nil {
		return nil, err
	}
	defer l.Release()
	if f := s.foreignOf(req.ID); f != nil {
		return s.execForeign(c, req, l, f)
	}
	plan := l.Plan
	parked, err := s.rt.Exec(l.Target, plan)
	if err != nil {
		return nil, err
	}
	key := s.execKey("e", req.ID)
	p := newProcIO(key, note{ID: req.ID, Token: req.Token, Exec: true, Tty: plan.Tty, StdinOnce: true, Detached: req.Attach == nil, Hangup: plan.Box})
	p.child = &keeper.Child{Pid: parked.Pid, Start: parked.StartTicks}
	warnings, err := s.prepare(p, parked, plan, runtime.Files{}, req.Exec.Stdin, req.Attach)
	if err == nil {
		err = s.run(p, parked, func() error { return nil })
	}
	if err != nil {
		s.abandon(p, parked)
		return nil, err
	}
	s.cfg.Starter.ExecBegan(req.ID, key, req.Exec.Args, req.Cause)
	return s.answer(c, p, req, warnings)
}

// clear empties the log of a run that is not wholly over. The client holds the
// container's lock, so none begins meanwhile.
func (s *Supervisor) clear(id string) error {
	p := s.current(id)
	if p == nil {
		return errs.New(errs.NotFound, "container %s is not running", id)
	}
	return p.clearLog()
}

// execKey makes the key of a further process in a container.
func (s *Supervisor) execKey(kind, id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.execs++
	return fmt.Sprintf("%s:%s#%d.%d", kind, id, os.Getpid(), s.execs)
}

// wait answers when the container is not running and its last run is wholly
// over, or when the client leaves. Where a restart is due, that is the next run.
func (s *Supervisor) wait(c conn, req *request) error {
	p, next := s.currentOrNext(req.ID)
	if p == nil && next == nil {
		return errs.New(errs.NotFound, "container %s is not running", req.ID)
	}
	left := make(chan struct{})
	go func() {
		c.receive(make([]byte, 1), nil)
		close(left)
	}()
	if err := c.send(frameAnswer, answer{}); err != nil {
		return nil
	}
	for p == nil {
		select {
		case <-next.over:
		case <-left:
			return nil
		}
		if p, next = s.currentOrNext(req.ID); p == nil && next == nil {
			return nil // the client looks for itself
		}
	}
	select {
	case <-p.done:
		c.send(frameExit, p.exitFrame())
	case <-left:
	}
	return nil
}
