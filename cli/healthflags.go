package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"tug/spec"
)

// healthFlags are the flags of health checks. What is not given is the image's.
type healthFlags struct {
	cmd, onFailure                                string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	none                                          bool
}

func (f *healthFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.cmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&f.interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.StringVar(&f.onFailure, "health-on-failure", "none", `What to do when the container becomes unhealthy ("none", "restart", "stop", "kill")`)
	fs.IntVar(&f.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&f.startInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.startPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.BoolVar(&f.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

// check returns what the flags say, nil for nothing.
func (f *healthFlags) check() (*spec.Healthcheck, error) {
	h := &spec.Healthcheck{
		Interval: f.interval, Timeout: f.timeout, StartPeriod: f.startPeriod, StartInterval: f.startInterval, Retries: f.retries,
	}
	given := f.cmd != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0
	switch {
	case f.none && (given || f.onFailure != onFailureNone):
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case f.none:
		return &spec.Healthcheck{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil
	case f.interval < 0:
		return nil, errors.New("--health-interval cannot be negative")
	case f.timeout < 0:
		return nil, errors.New("--health-timeout cannot be negative")
	case f.retries < 0:
		return nil, errors.New("--health-retries cannot be negative")
	case f.startPeriod < 0:
		return nil, errors.New("--health-start-period cannot be negative")
	case f.startInterval < 0:
		return nil, errors.New("--health-start-interval cannot be negative")
	}
	if f.cmd != "" {
		h.Test = []string{"CMD-SHELL", f.cmd}
	}
	return h, h.Valid()
}

const onFailureNone = "none"

// failure returns what is to be done with an unhealthy container, "" for
// nothing.
func (f *healthFlags) failure(h *spec.HostConfig) (string, error) {
	switch f.onFailure {
	case onFailureNone:
		return "", nil
	case spec.OnFailureRestart:
		if h.AutoRemove {
			return "", errors.New("conflicting options: cannot specify both --health-on-failure=restart and --rm")
		}
	case spec.OnFailureStop, spec.OnFailureKill:
	default:
		return "", fmt.Errorf(`invalid --health-on-failure '%s': must be one of "none", "restart", "stop" or "kill"`, oneLine(f.onFailure))
	}
	return f.onFailure, nil
}
