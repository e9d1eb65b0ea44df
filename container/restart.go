package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"tug/errs"
	"tug/event"
	"tug/spec"
	"tug/state"
	"tug/supervisor"
)

const fileStopped = "stopped.json"

// stoppedRecord is stopped.json: the run that a user ended. None follows it by
// itself.
type stoppedRecord struct{ Run int }

// The waits between an end and the next start are Docker's: each twice as long
// as the one before, until a run has lasted.
const (
	firstWait = 100 * time.Millisecond
	maxWait   = time.Minute
	lasting   = 10 * time.Second
)

// nextWait is how long the restart waits that follows a run which began after
// waiting for last and took ran.
func nextWait(last, ran time.Duration) time.Duration {
	if last <= 0 || ran >= lasting {
		return firstWait
	}
	return min(2*last, maxWait)
}

// wants reports whether policy p starts a container again that ended with code
// after so many restarts, and that no user has stopped.
func wants(p spec.RestartPolicy, restarts, code int) bool {
	switch p.Name {
	case spec.RestartAlways, spec.RestartUnlessStopped:
		return true
	case spec.RestartOnFailure:
		return code != 0 && (p.MaximumRetryCount == 0 || restarts < p.MaximumRetryCount)
	}
	return false
}

// foresee fills in what the restart policy is about to do, or what is to be done
// for bad health. A machine that went
// down takes the restarts along that were due: `tug system start` brings back
// what is to come back.
func (c *Containers) foresee(s *Summary, r *startRecord) {
	st := &s.State
	st.Restarts = r.Restarts
	if st.Status != spec.StatusExited || r.Boot != bootID() || c.wasStopped(s.ID, r.Run) {
		return
	}
	if !wants(s.Host.Restart, r.Restarts, st.ExitCode) && !c.endedUnhealthy(s.ID, &s.Host, r.Run) {
		return
	}
	st.Status = spec.StatusRestarting
	st.Restarts++
	st.RestartAt = st.FinishedAt.Add(nextWait(r.Wait, st.FinishedAt.Sub(st.StartedAt)))
}

// wasStopped reports whether a user ended this run.
func (c *Containers) wasStopped(id string, run int) bool {
	var stopped stoppedRecord
	return state.ReadJSON(c.path(id, fileStopped), &stopped) == nil && stopped.Run == run
}

// noMore records that no restart follows the present run of a container, or the
// last. Under its lock no other begins meanwhile.
func (c *Containers) noMore(ctx context.Context, s *Summary) error {
	if !s.Host.MayRestart() {
		return nil
	}
	lock, err := c.lock(s.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(s.ID)
	}
	if err != nil {
		return err
	}
	r, err := c.startRecord(s.ID)
	if err == nil {
		err = c.keepDown(s.ID, r.Run)
	}
	lock.Close()
	if err != nil {
		return fmt.Errorf("record that container %s is to stop: %w", s.Name, noSpace(err))
	}
	return c.client.Settle(ctx, s.ID)
}

// keepDown records that no restart follows that run.
func (c *Containers) keepDown(id string, run int) error {
	return c.st.WriteJSON(c.path(id, fileStopped), stoppedRecord{run}, true)
}

// mark makes the file by which a container that may be restarted is found
// without looking at all the others. It comes before the container and goes
// after it; one without a container means nothing.
func (c *Containers) mark(id string) error {
	if err := os.MkdirAll(c.st.Restarts(), 0o700); err != nil {
		return noSpace(err)
	}
	return noSpace(c.st.WriteFile(c.st.Restart(id), nil, true))
}

// Restarting lists the containers that may be restarted.
func (c *Containers) Restarting() []string {
	d, err := os.Open(c.st.Restarts())
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return slices.DeleteFunc(names, func(n string) bool { return !spec.IsHex64(n) })
}

// Due tells whether and when the restart policy starts a container again.
func (s *Starter) Due(id string) (at time.Time, again bool) {
	c, err := s.load(id)
	if err != nil {
		return time.Time{}, false
	}
	return c.State.RestartAt, c.State.Status == spec.StatusRestarting
}

// Relaunch readies the run that the restart policy begins. That it is to be is
// decided here, under the container's lock.
func (s *Starter) Relaunch(id string) (*supervisor.Launch, error) {
	l, err := s.launch(id, func(ctr *Summary, last *startRecord) (supervisor.Run, error) {
		if ctr.State.Status != spec.StatusRestarting {
			return supervisor.Run{}, supervisor.ErrSettled
		}
		return s.nextRun(ctr, last), nil
	})
	if errs.Is(err, errs.NotFound) {
		if _, err := os.Stat(s.path(id)); errors.Is(err, fs.ErrNotExist) {
			return nil, supervisor.ErrSettled // it was removed
		}
	}
	return l, err
}

// GiveUp records that the run that the restart policy was about to begin could
// not even be made ready, which ends the restarts.
func (s *Starter) GiveUp(id string, why error) {
	lock, err := s.lock(id)
	if err != nil {
		return // it was removed
	}
	defer lock.Close()
	ctr, err := s.load(id)
	if err != nil || ctr.State.Status != spec.StatusRestarting {
		return
	}
	if last, err := s.startRecord(id); err == nil {
		s.Failed(s.nextRun(ctr, last), why)
	}
}

func (s *Starter) nextRun(ctr *Summary, last *startRecord) supervisor.Run {
	st := &ctr.State
	why := "restart policy " + ctr.Host.Restart.String()
	if s.endedUnhealthy(ctr.ID, &ctr.Host, last.Run) {
		why = "unhealthy"
	}
	return supervisor.Run{
		Token: fmt.Sprintf("restart-%d", last.Run), Number: last.Run + 1,
		ID: ctr.ID, Sync: !ctr.Host.AutoRemove,
		Restarts: st.Restarts, Delay: nextWait(last.Wait, st.FinishedAt.Sub(st.StartedAt)),
		Cause: event.Cause{By: why},
	}
}

// Absent lists the containers that do not run though their restart policy wants
// it, after the machine went down or the keeper was killed, by name. As when
// Docker's daemon starts, those of policy always are among them that a user
// stopped. What a living supervisor is about to start is left to it.
func (c *Containers) Absent(ctx context.Context) ([]*Summary, error) {
	_, _, _, supervised := c.client.Ping(ctx)
	var list []*Summary
	for _, id := range c.Restarting() {
		s, err := c.load(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := c.startRecord(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was never started
		}
		if err != nil {
			return nil, err
		}
		switch {
		case s.State.Status == spec.StatusRunning, s.State.Status == spec.StatusRestarting && supervised:
		case r.Run == 1 && r.Error != "": // it has never run
		case s.Host.Restart.Name == spec.RestartAlways, wants(s.Host.Restart, r.Restarts, s.State.ExitCode) && !c.wasStopped(id, r.Run):
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *Summary) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}
