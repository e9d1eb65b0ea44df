package supervisor

import (
	"errors"
	"fmt"
	"os"
	"time"

	"tug/errs"
	"tug/runtime"
	"tug/supervisor/keeper"
	"tug/sys"
)

// Containers of other OCI runtimes. Such a runtime is a program that is called
// for a moment: nothing of it stays, and what it starts becomes the keeper's
// child. So from then on they are processes like all others.

// beginForeign is begin with another runtime. In this order: the runtime
// creates the container; the keeper holds process and streams, so that from now
// on a new supervisor can finish the start; it is recorded; the program is
// executed.
func (s *Supervisor) beginForeign(l *Launch, req *request) (p *procIO, warnings []string, err error) {
	f, err := s.rt.NewForeign(l.Plan.Foreign, l.Namespaces)
	if err != nil {
		return nil, nil, err
	}
	p = newProcIO(fmt.Sprintf("c:%s#%d", l.ID, l.Number), noteOf(l, req, f.Cgroup))
	p.note.Foreign, p.rootfs = f, l.Files.RootFS
	warnings, err = s.createForeign(p, l, req)
	if err == nil {
		err = p.openLog()
	}
	req.timing.Done("container created by its runtime, streams set up")
	if err == nil {
		err = s.startForeign(p, l)
	}
	req.timing.Done("recorded, program executed by the runtime")
	if err != nil {
		s.deleteForeign(p)
		p.rootfs = nil // closed by closeUnused
		s.forget(p)
		return nil, nil, err
	}
	s.watch(p, l.Check)
	return p, warnings, nil
}

// createForeign has the container created, with its standard streams.
func (s *Supervisor) createForeign(p *procIO, l *Launch, req *request) (warnings []string, err error) {
	files := l.Files
	if o := req.Attach; o != nil {
		files.Rows, files.Cols = o.Rows, o.Cols
	}
	if !l.Plan.Tty {
		ends, err := p.makePipes(l.OpenStdin)
		defer sys.CloseAll(ends)
		if err != nil {
			return nil, err
		}
		files.Stdin, files.Stdout, files.Stderr = ends[0], ends[1], ends[2]
	}
	made, console, warnings, err := s.rt.CreateForeign(p.note.Foreign, l.Plan, l.Namespaces, files)
	if err != nil {
		return nil, p.explain(err)
	}
	p.child = &keeper.Child{Pid: made.Pid, Start: made.StartTicks, Record: l.Record, Sync: l.Sync, Events: s.rt.MemoryEvents(made.Cgroup)}
	if console != nil {
		err = p.takeConsole(console, req.Attach)
	}
	p.expect(req.Attach)
	return warnings, err
}

// explain adds to the error of a runtime what it has said on the standard error
// that was to be the container's.
func (p *procIO) explain(err error) error {
	failed, st := runtime.AsStartError(err), p.streams[1]
	if failed == nil || st == nil {
		return err
	}
	said := make([]byte, 4096)
	_ = st.src.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	n, _ := st.src.Read(said)
	failed.Explain(string(said[:n]))
	return err
}

func (s *Supervisor) startForeign(p *procIO, l *Launch) error {
	s.add(p)
	if err := p.hold(s.ctl); err != nil {
		return err
	}
	made := runtime.Process{Pid: p.child.Pid, StartTicks: p.child.Start, Cgroup: p.note.Cgroup}
	if err := s.cfg.Starter.Began(l.Run, made); err != nil {
		return err
	}
	if err := p.note.Foreign.Start(p.child.Pid); err != nil {
		return err
	}
	p.note.Begun = true
	return p.hold(s.ctl)
}

// resumeForeign finishes the start that a dead supervisor had begun.
func (s *Supervisor) resumeForeign(p *procIO) error {
	if err := p.note.Foreign.Resume(p.child.Pid); err != nil {
		return err
	}
	p.note.Begun = true
	return p.hold(s.ctl)
}

// deleteForeign removes what another runtime has of a run, if one has.
func (s *Supervisor) deleteForeign(p *procIO) {
	if p.note.Foreign == nil || p.note.Exec {
		return
	}
	if err := s.rt.DeleteForeign(p.note.Foreign); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
	}
}

// foreignOf returns the other runtime that the container runs by, nil for tug's
// own.
func (s *Supervisor) foreignOf(id string) *runtime.Foreign {
	if p := s.current(id); p != nil {
		return p.note.Foreign
	}
	return nil
}

func (s *Supervisor) execForeign(c conn, req *request, l *ExecLaunch, f *runtime.Foreign) (*session, error) {
	if l.Plan.Box {
		return nil, errs.New(errs.Unsupported, "tug debug works with containers of tug's own runtime only, this one has %s", f.Path)
	}
	key := s.execKey("e", req.ID)
	p := newProcIO(key, note{ID: req.ID, Token: req.Token, Exec: true, Tty: l.Plan.Tty, StdinOnce: true, Detached: req.Attach == nil})
	if err := s.makeExec(p, l, f, req); err != nil {
		s.forget(p)
		return nil, err
	}
	s.cfg.Starter.ExecBegan(req.ID, key, req.Exec.Args, req.Cause)
	return s.answer(c, p, req, nil)
}

// makeExec has a further process made. It runs before it is held: there are no
// two steps to it.
func (s *Supervisor) makeExec(p *procIO, l *ExecLaunch, f *runtime.Foreign, req *request) error {
	var files runtime.Files
	if o := req.Attach; o != nil {
		files.Rows, files.Cols = o.Rows, o.Cols
	}
	if !l.Plan.Tty {
		ends, err := p.makePipes(req.Exec.Stdin)
		defer sys.CloseAll(ends)
		if err != nil {
			return err
		}
		files.Stdin, files.Stdout, files.Stderr = ends[0], ends[1], ends[2]
	}
	made, console, err := s.rt.ExecForeign(f, l.Target, l.Plan, files)
	if err != nil {
		return p.explain(err)
	}
	p.child = &keeper.Child{Pid: made.Pid, Start: made.StartTicks}
	if console != nil {
		if err := p.takeConsole(console, req.Attach); err != nil {
			return err
		}
	}
	p.expect(req.Attach)
	s.add(p)
	return p.hold(s.ctl)
}

// probeForeign is runProbe with another runtime. There is no cgroup of the
// probe's own: of one that takes too long, the process itself is killed.
func (s *Supervisor) probeForeign(id string, l *ExecLaunch, f *runtime.Foreign) (*probeIO, error) {
	x := &probeIO{procIO: newProcIO(s.execKey("h", id), note{ID: id, Exec: true, Probe: l.Target.Cgroup})}
	out, w, err := sys.Pipe(true, false)
	if err != nil {
		return nil, err
	}
	x.out = out
	made, _, err := s.rt.ExecForeign(f, l.Target, l.Plan, runtime.Files{Stdout: w, Stderr: w})
	w.Close()
	if errors.Is(err, runtime.ErrNotRunning) {
		err = errNotNow
	}
	if err == nil {
		x.child = &keeper.Child{Pid: made.Pid, Start: made.StartTicks}
		s.add(x.procIO)
		err = x.hold(s.ctl)
	}
	if err != nil {
		s.forget(x.procIO)
		return nil, err
	}
	x.said = hear(out)
	return x, nil
}
