package spec

import (
	"cmp"
	"slices"
	"time"

	"tug/errs"
)

// Words for the health of a container. HealthNone is that of one without a
// check.
const (
	HealthNone     = "none"
	HealthStarting = "starting"
	HealthHealthy  = "healthy"
	HealthFailing  = "unhealthy"
)

// What HostConfig.HealthOnFailure has done to a container that becomes
// unhealthy; empty is nothing.
const (
	OnFailureRestart = "restart"
	OnFailureStop    = "stop"
	OnFailureKill    = "kill"
)

// Healthcheck is Docker's HEALTHCHECK; durations are nanoseconds. A value that
// is 0 or empty is the image's, and if that has none, the default.
type Healthcheck struct {
	Test          []string      `json:",omitempty"` // NONE | CMD program args... | CMD-SHELL line
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// Health is what the checks of a container have found.
type Health struct {
	Status        string
	FailingStreak int
	Log           []HealthResult // the last healthLog, oldest first
}

// HealthResult is one check. ExitCode is 0 for a healthy container, -1 when
// the check could not be run or took too long.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int
	Output     string
}

const (
	healthLog = 5
	// minHealthTime is the shortest time that there can be between two checks.
	minHealthTime = time.Millisecond
)

// Over is what h and the image's check make together: each value is h's, and
// the image's where h has none. Both may be nil.
func (h *Healthcheck) Over(image *Healthcheck) *Healthcheck {
	if h == nil || image == nil {
		return cmp.Or(h, image)
	}
	both := *h
	if len(both.Test) == 0 {
		both.Test = image.Test
	}
	both.Interval = cmp.Or(h.Interval, image.Interval)
	both.Timeout = cmp.Or(h.Timeout, image.Timeout)
	both.StartPeriod = cmp.Or(h.StartPeriod, image.StartPeriod)
	both.StartInterval = cmp.Or(h.StartInterval, image.StartInterval)
	both.Retries = cmp.Or(h.Retries, image.Retries)
	return &both
}

// Valid refuses what no check can have.
func (h *Healthcheck) Valid() error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name string
		of   time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.of != 0 && d.of < minHealthTime {
			return errs.New(errs.Invalid, "%s in Healthcheck cannot be less than %s", d.name, minHealthTime)
		}
	}
	if h.Retries < 0 {
		return errs.New(errs.Invalid, "Retries in Healthcheck cannot be negative")
	}
	return nil
}

// On reports whether there is anything to check. A kind that nobody knows is
// none, as with Docker.
func (h *Healthcheck) On() bool {
	return h != nil && len(h.Test) > 0 && (h.Test[0] == "CMD" || h.Test[0] == "CMD-SHELL")
}

// Command is what a check that is on runs. CMD-SHELL runs in shell, if the
// image names one.
func (h *Healthcheck) Command(shell []string) []string {
	if h.Test[0] == "CMD" {
		return h.Test[1:]
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return slices.Concat(shell, h.Test[1:])
}

// WithDefaults has Docker's defaults for what is not set.
func (h Healthcheck) WithDefaults() Healthcheck {
	h.Interval = cmp.Or(h.Interval, 30*time.Second)
	h.Timeout = cmp.Or(h.Timeout, 30*time.Second)
	h.StartInterval = cmp.Or(h.StartInterval, 5*time.Second)
	h.Retries = cmp.Or(h.Retries, 3)
	return h
}

// Add counts the result of a check, of a container that was started then. The
// first success makes it healthy, and so does any other; failures count only
// after the start period, or once it was healthy.
func (h *Health) Add(c *Healthcheck, started time.Time, r HealthResult) {
	if n := len(h.Log) - healthLog + 1; n > 0 {
		h.Log = slices.Clone(h.Log[n:])
	}
	h.Log = append(h.Log, r)
	switch {
	case r.ExitCode == 0:
		h.Status, h.FailingStreak = HealthHealthy, 0
	case h.Status == HealthStarting && r.Start.Sub(started) < c.StartPeriod:
	default:
		if h.FailingStreak++; h.FailingStreak >= c.Retries {
			h.Status = HealthFailing
		}
	}
}

// Next is when the next check is to begin, after the start of the container or
// the end of the last check.
func (h *Health) Next(c *Healthcheck, started, after time.Time) time.Time {
	if h.Status == HealthStarting && after.Sub(started) < c.StartPeriod {
		return after.Add(c.StartInterval)
	}
	return after.Add(c.Interval)
}
