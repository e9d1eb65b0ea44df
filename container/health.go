package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"tug/errs"
	"tug/event"
	"tug/spec"
	"tug/state"
	"tug/supervisor"
)

const fileHealth = "health.json"

// healthRecord is health.json: what the health checks of a run have found. Of
// another run than the present one only the log counts, so a start needs to
// write nothing.
type healthRecord struct {
	Run int
	spec.Health
	// Acting says that the run is unhealthy and --health-on-failure is ending
	// it. A new supervisor goes on with that; with "restart" a further run
	// follows.
	Acting bool `json:",omitempty"`
}

// healthRecord returns what is known of a run's health. A record that nobody
// can read is none: the next check writes another.
func (c *Containers) healthRecord(id string, run int) *healthRecord {
	rec := &healthRecord{}
	if state.ReadJSON(c.path(id, fileHealth), rec) != nil {
		rec = &healthRecord{}
	}
	if rec.Run != run {
		rec = &healthRecord{Run: run, Health: spec.Health{Status: spec.HealthStarting, Log: rec.Log}}
	}
	return rec
}

// seeHealth fills in a container's health. As with Docker, one that does not
// run is not healthy.
func (c *Containers) seeHealth(s *Summary, r *startRecord) {
	if !s.Config.Healthcheck.On() || r == nil || r.Error != "" {
		return
	}
	s.State.Health = &c.healthRecord(s.ID, r.Run).Health
	if s.State.Status != spec.StatusRunning {
		s.State.Health.Status = spec.HealthFailing
	}
}

// endedUnhealthy reports whether a run was ended to be followed by another,
// because it was unhealthy.
func (c *Containers) endedUnhealthy(id string, h *spec.HostConfig, run int) bool {
	return h.HealthOnFailure == spec.OnFailureRestart && c.healthRecord(id, run).Acting
}

// check is how a run's health is checked, nil for not at all.
func (c *Containers) check(ctr *spec.Container, run int, started time.Time) *supervisor.Check {
	h := ctr.Config.Healthcheck
	if !h.On() {
		return nil
	}
	rec := c.healthRecord(ctr.ID, run)
	return &supervisor.Check{
		Healthcheck: h.WithDefaults(), Args: h.Command(ctr.Config.Shell), Started: started,
		Health: rec.Health, Acting: rec.Acting, Act: ctr.Host.HealthOnFailure != "",
	}
}

// Check tells how to go on with the checks of a run.
func (s *Starter) Check(run supervisor.Run) *supervisor.Check {
	ctr, err := s.config(run.ID)
	if err != nil {
		return nil
	}
	r, err := s.startRecord(run.ID)
	if err != nil {
		return nil
	}
	return s.check(ctr, run.Number, r.At)
}

// Checked records the result of a check, and tells when it has changed the
// container's health. The probes themselves are no events: those of a few
// containers would push out all else of the 90 days that events are kept.
func (s *Starter) Checked(run supervisor.Run, k *supervisor.Check, changed bool) {
	err := s.st.WriteJSON(s.path(run.ID, fileHealth), healthRecord{run.Number, k.Health, k.Acting}, false)
	if err != nil && changed && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "supervisor: record the health of %s: %v\n", run.ID, err)
	}
	if !changed {
		return
	}
	ctr, err := s.config(run.ID)
	if err != nil {
		return
	}
	why := "its health check succeeded"
	if k.Health.Status == spec.HealthFailing {
		why = fmt.Sprintf("its health check failed %d times in a row", k.Health.FailingStreak)
	}
	s.tell(ctr, event.Event{Action: "health_status: " + k.Health.Status, Cause: event.Cause{By: why}})
}

// Unhealthy does what --health-on-failure says. With "restart" the record says
// already that another run is to follow; with "kill" that is up to the restart
// policy.
func (s *Starter) Unhealthy(run supervisor.Run) error {
	ctr, err := s.load(run.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	r, err := s.startRecord(run.ID)
	if err != nil {
		return err
	}
	if r.Run != run.Number || !r.alive() {
		return nil
	}
	c := *s.Containers
	c.by = event.Cause{By: "unhealthy"}
	ctx := context.Background()
	switch ctr.Host.HealthOnFailure {
	case spec.OnFailureKill:
		err = ignoreNotRunning(c.signal(run.ID, syscall.SIGKILL))
	case spec.OnFailureStop:
		err = c.Stop(ctx, run.ID, 0, nil)
	case spec.OnFailureRestart:
		err = c.end(ctx, &ctr.Container, 0, nil)
	}
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}
