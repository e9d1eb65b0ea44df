package supervisor

import (
	"errors"
	"fmt"
	"os"
	"time"

	"tug/errs"
	"tug/runtime"
)

// Whether and when a container is started again follows from its files, which
// package container reads; here are only the timers. So nothing is lost with a
// supervisor: the next one looks for restarts that are due.

// waiting is a restart that is to come.
type waiting struct {
	timer *time.Timer
	over  chan struct{} // closed when it was done, or is due no more
	tries int           // that failed for no reason of the container's
}

const (
	// restartsAtOnce bounds how many restarts are in progress, so that a
	// thousand that are due leave room for what users start.
	restartsAtOnce = 4
	// maxRestartWait is the longest backoff. It bounds the wait also when the
	// clock was set back.
	maxRestartWait = time.Minute
	// restartTries is how often a restart is tried that fails for no reason of
	// the container's.
	restartTries = 8
	// findDelay leaves the first moments to the command that started this
	// supervisor.
	findDelay = 50 * time.Millisecond
)

// ErrRestartsLeft is what Serve returns when the keeper was killed and
// containers are to be started again.
var ErrRestartsLeft = errors.New("supervise: the keeper is gone, with restarts to do")

// findRestarts finds the restarts that a dead supervisor, or a dead keeper,
// left to do. The caller has entered.
func (s *Supervisor) findRestarts() {
	defer s.leave()
	ids := s.cfg.Starter.Restarting()
	if len(ids) == 0 {
		return
	}
	time.Sleep(findDelay)
	for _, id := range ids {
		if s.current(id) == nil {
			s.consider(id)
		}
	}
}

// consider sees to it that container id is started again if it is to be.
func (s *Supervisor) consider(id string) {
	if at, again := s.cfg.Starter.Due(id); again {
		s.await(id, at)
	}
}

// await has container id started again at that time. What waits already stays.
func (s *Supervisor) await(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.due[id] != nil {
		return
	}
	w := &waiting{over: make(chan struct{})}
	s.due[id] = w
	w.timer = time.AfterFunc(min(time.Until(at), maxRestartWait), func() { s.again(id, w) })
}

// settle looks again at whether a restart of container id is due, and drops the
// one that is not any more.
func (s *Supervisor) settle(id string) {
	s.mu.Lock()
	w, p := s.due[id], s.main[id]
	s.mu.Unlock()
	if w == nil {
		if p == nil || !p.running() {
			s.consider(id)
		}
		return
	}
	if _, again := s.cfg.Starter.Due(id); !again {
		s.settled(id, w)
	}
}

func (s *Supervisor) settled(id string, w *waiting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.due[id] != w {
		return
	}
	delete(s.due, id)
	w.timer.Stop()
	close(w.over)
	s.touch()
}

// currentOrNext returns the present run of a container, or else the restart
// that it waits for.
func (s *Supervisor) currentOrNext(id string) (*procIO, *waiting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main[id], s.due[id]
}

// again starts a container whose time has come. What failed for no reason of
// the container's is tried again a few times, later and later.
func (s *Supervisor) again(id string, w *waiting) {
	if !s.enter() {
		return // the next supervisor does it
	}
	defer s.leave()
	if p := s.current(id); p != nil && !p.running() {
		<-p.done
	}
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	at, due := s.cfg.Starter.Due(id)
	if !due {
		s.settled(id, w)
		return
	}
	if wait := time.Until(at); wait > 0 && w.tries == 0 {
		w.timer.Reset(min(wait, maxRestartWait)) // a user started it meanwhile, and it has ended again
		return
	}
	err := s.restart(id, w.tries < restartTries)
	if err == nil || errors.Is(err, ErrSettled) {
		s.settled(id, w)
		return
	}
	fmt.Fprintf(os.Stderr, "supervisor: restart container %s: %v\n", id, err)
	if w.tries++; !retryable(err) || w.tries > restartTries {
		s.settled(id, w)
		return
	}
	w.timer.Reset(min(100*time.Millisecond<<w.tries, maxRestartWait))
}

// restart begins the next run of a container. When it fails for good, or the
// last time it may, that is recorded and ends the restarts.
func (s *Supervisor) restart(id string, more bool) error {
	l, err := s.cfg.Starter.Relaunch(id)
	if err != nil {
		if !errors.Is(err, ErrSettled) && (!retryable(err) || !more) {
			s.cfg.Starter.GiveUp(id, err)
		}
		return err
	}
	defer l.Release()
	p, _, err := s.begin(l, &request{ID: id, Token: l.Token})
	if err != nil {
		s.notRun(l.Run, err, more)
		return err
	}
	s.pool.refillLater()
	p.pump()
	go s.finish(p)
	return nil
}

// notRun records that the program of a run could not be run; more says that
// another may follow.
func (s *Supervisor) notRun(run Run, err error, more bool) {
	if more && retryable(err) {
		s.cfg.Starter.Cut(run)
	} else {
		s.cfg.Starter.Failed(run, err)
	}
}

// retryable tells errors that may have gone the next time: of the machine, or
// of a process that was killed, and not of what the container is.
func retryable(err error) bool {
	if se := runtime.AsStartError(err); se != nil {
		return se.Code == 125
	}
	switch errs.ClassOf(err) {
	case errs.Invalid, errs.NotFound, errs.Corrupt, errs.Unsupported, errs.Denied:
		return false
	}
	return true
}

// restartsLeft reports whether restarts are still to come.
func (s *Supervisor) restartsLeft() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.due) > 0
}
