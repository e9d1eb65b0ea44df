package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"tug/errs"
	"tug/runtime"
	"tug/spec"
	"tug/supervisor/keeper"
	"tug/sys"
)

// Check is how the health of a run is checked, and what is known of it.
type Check struct {
	spec.Healthcheck          // complete
	Args             []string // what a probe runs
	Started          time.Time
	Health           spec.Health

	// Act says that Starter.Unhealthy has something to do when the run becomes
	// unhealthy; Acting, that it has begun to.
	Act, Acting bool
}

const (
	// probesAtOnce bounds how many probes are being started. Those that run are
	// not counted: one that hangs must not keep others from being checked.
	probesAtOnce = 8
	// probeStart is how long a probe may take until its program runs. It is no
	// part of the check's own timeout: on a busy machine that is not the
	// container's fault.
	probeStart = 30 * time.Second
	// probeGone bounds the wait for the end of a probe that was killed.
	probeGone = 10 * time.Second
	// actAgain is when an action that failed is tried again.
	actAgain = 10 * time.Second
)

// errNotNow says that a probe cannot be made, for no reason of the container's
// health: it is paused, or is just ending.
var errNotNow = errors.New("no probe now")

// checker checks the health of one run, a probe at a time. Between two it is a
// timer and nothing else.
type checker struct {
	s *Supervisor
	p *procIO

	mu    sync.Mutex
	c     *Check
	timer *time.Timer
	over  bool // the run has ended; nothing is recorded any more
}

// watch begins to check the health of a run, or goes on with it after a dead
// supervisor. No check is nil.
func (s *Supervisor) watch(p *procIO, c *Check) {
	if c == nil {
		return
	}
	k := &checker{s: s, p: p, c: c}
	p.checker = k
	if c.Acting {
		go k.act()
		return
	}
	last := c.Started
	if n := len(c.Health.Log); n > 0 && c.Health.Log[n-1].End.After(last) {
		last = c.Health.Log[n-1].End
	}
	k.next(last)
}

// next has the next probe begin when it is due, counted from after.
func (k *checker) next(after time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		wait := time.Until(k.c.Health.Next(&k.c.Healthcheck, k.c.Started, after))
		k.timer = time.AfterFunc(min(wait, k.longest()), k.check)
	}
}

// longest bounds the wait also when the clock was set back.
func (k *checker) longest() time.Duration { return max(k.c.Interval, k.c.StartInterval) }

// end ends the checks of a run. When it returns, nothing more is written.
func (k *checker) end() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over = true; k.timer != nil {
		k.timer.Stop()
	}
}

// check runs one probe and counts its result.
func (k *checker) check() {
	r, gone, err := k.probe()
	act := err == nil && k.add(r)
	if gone != nil {
		gone() // probes must not pile up
	}
	switch {
	case act:
		k.act()
	case k.p.running():
		k.next(time.Now())
	}
}

// add counts a result. It reports whether the run has become unhealthy and
// something is to be done about it.
func (k *checker) add(r spec.HealthResult) (act bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return false
	}
	before := k.c.Health.Status
	k.c.Health.Add(&k.c.Healthcheck, k.c.Started, r)
	changed := before != k.c.Health.Status
	act = changed && k.c.Act && k.c.Health.Status == spec.HealthFailing
	k.c.Acting = act
	k.s.cfg.Starter.Checked(k.p.run(), k.c, changed)
	return act
}

// act does what is to be done with a container that is unhealthy. It is not
// checked any more meanwhile.
func (k *checker) act() {
	for k.p.running() {
		err := k.s.cfg.Starter.Unhealthy(k.p.run())
		if err == nil {
			return
		}
		fmt.Fprintf(os.Stderr, "supervisor: container %s is unhealthy: %v\n", k.p.note.ID, err)
		select {
		case <-k.p.exited:
		case <-time.After(actAgain):
		}
	}
}

// probe runs the check once. gone waits until its processes have ended, where
// that may take a while. errNotNow is no result.
func (k *checker) probe() (r spec.HealthResult, gone func(), err error) {
	r = spec.HealthResult{Start: time.Now(), ExitCode: -1}
	x, err := k.s.startProbe(k.p.note.ID, k.c.Args)
	if errors.Is(err, errNotNow) {
		return r, nil, err
	}
	if err != nil {
		r.Output, r.End = err.Error(), time.Now()
		return r, nil, nil
	}
	timeout := time.NewTimer(k.c.Timeout)
	defer timeout.Stop()
	select {
	case <-x.exited:
		r.ExitCode = x.exitCode()
		r.Output = x.output(drainTime)
		k.s.rt.EndProbe(x.note.Probe)
		r.End = time.Now()
		k.s.forget(x.procIO)
		if r.ExitCode != 0 && !sys.Alive(k.p.child.Pid, k.p.child.Start) {
			err = errNotNow // the container's end took it along
		}
		return r, nil, err
	case <-timeout.C:
		if runtime.Frozen(x.note.Probe) {
			err = errNotNow
		}
	case <-k.p.exited:
		err = errNotNow
	}
	r.Output = fmt.Sprintf("Health check exceeded timeout (%v)", k.c.Timeout)
	if out := x.output(0); out != "" {
		r.Output += ": " + out
	}
	r.End = time.Now()
	return r, func() { k.s.killProbe(x) }, err
}

// probeIO is a probe that runs, and what it says.
type probeIO struct {
	*procIO
	said *said
}

// startProbe starts a probe in a running container.
func (s *Supervisor) startProbe(id string, args []string) (*probeIO, error) {
	l, err := s.cfg.Starter.LaunchExec(id, &spec.ExecSpec{Args: args})
	if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
		return nil, errNotNow
	}
	if err != nil {
		return nil, err
	}
	defer l.Release()
	l.Plan.Probe = true
	s.probing <- struct{}{}
	defer func() { <-s.probing }()
	if f := s.foreignOf(id); f != nil {
		return s.probeForeign(id, l, f)
	}
	parked, err := s.rt.Exec(l.Target, l.Plan)
	if errs.Is(err, errs.Conflict) {
		return nil, errNotNow
	}
	if err != nil {
		return nil, err
	}
	x, err := s.runProbe(id, l, parked)
	if errors.Is(err, runtime.ErrNotRunning) {
		return nil, errNotNow
	}
	return x, err
}

// runProbe lets a probe go. The keeper holds it by a key of its own kind: the
// next supervisor does not go on with it, but ends it.
func (s *Supervisor) runProbe(id string, l *ExecLaunch, parked *runtime.Parked) (*probeIO, error) {
	x := &probeIO{procIO: newProcIO(s.execKey("h", id), note{ID: id, Exec: true, Probe: l.Target.Cgroup})}
	x.child = &keeper.Child{Pid: parked.Pid, Start: parked.StartTicks}
	late := time.AfterFunc(probeStart, func() { _ = sys.PidfdSignal(parked.Pidfd, syscall.SIGKILL) })
	out, w, err := sys.Pipe(true, false)
	if err == nil {
		x.out = out
		_, _, err = parked.Prepare(l.Plan, runtime.Files{Stdout: w, Stderr: w})
		w.Close()
	}
	if err == nil {
		err = s.run(x.procIO, parked, func() error { return nil })
	}
	if !late.Stop() && err != nil {
		err = fmt.Errorf("timed out starting health check for container %s", id)
	}
	if err != nil {
		s.abandon(x.procIO, parked)
		return nil, err
	}
	x.said = hear(out)
	return x, nil
}

// killProbe kills a probe with all that it has started, and forgets it when it
// is gone.
func (s *Supervisor) killProbe(x *probeIO) {
	s.rt.KillProbe(x.note.Probe)
	_ = sys.SignalProcess(x.child.Pid, x.child.Start, syscall.SIGKILL)
	for x.running() && runtime.Frozen(x.note.Probe) {
		time.Sleep(time.Second) // it ends when the container goes on
	}
	select {
	case <-x.exited:
	case <-time.After(probeGone):
	}
	s.forget(x.procIO)
}

// dropProbe ends a probe of a dead supervisor: nobody knows how long it has
// been running.
func (s *Supervisor) dropProbe(m *keeper.Message) {
	s.rt.KillProbe(probeOf(m))
	if m.Child != nil {
		_ = sys.SignalProcess(m.Child.Pid, m.Child.Start, syscall.SIGKILL)
	}
	s.ctl.send(&keeper.Message{Op: keeper.OpDrop, Key: m.Key})
}

const (
	// saidMax is how much of a probe's output is kept, as with Docker.
	saidMax = 4096
	// saidFast is how much is read as fast as it comes, saidSlow how much then
	// in 10 ms: what floods its output must not keep this process busy.
	saidFast = 1 << 20
	saidSlow = 32 << 10
	// drainTime is how long what a probe has left behind may hold its output
	// open.
	drainTime = 100 * time.Millisecond
)

// said is the beginning of what comes out of a pipe. The rest is read and
// dropped, so that nobody waits for it.
type said struct {
	from *os.File
	done chan struct{} // closed at the end of reading

	mu   sync.Mutex
	text []byte
	more bool // than text
}

func hear(from *os.File) *said {
	s := &said{from: from, done: make(chan struct{})}
	go s.read()
	return s
}

func (s *said) read() {
	defer close(s.done)
	buf := make([]byte, 8<<10)
	for fast := saidFast; ; {
		n, err := s.from.Read(buf)
		s.add(buf[:n])
		if err != nil {
			return // io.EOF, or the deadline
		}
		if fast -= n; fast <= 0 {
			time.Sleep(10 * time.Millisecond)
			fast = saidSlow
		}
	}
}

func (s *said) add(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(b), saidMax-len(s.text))
	s.text = append(s.text, b[:n]...)
	s.more = s.more || n < len(b)
}

// output returns what was said, after waiting so long for the end.
func (x *probeIO) output(wait time.Duration) string {
	if wait > 0 {
		_ = x.out.SetReadDeadline(time.Now().Add(wait))
		<-x.said.done
	}
	s := x.said
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.ToValidUTF8(string(s.text), "\ufffd")
	if s.more {
		text += "..."
	}
	return text
}
