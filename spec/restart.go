package spec

import (
	"strconv"
	"strings"

	"tug/errs"
)

// Names of restart policies. Without one a container stays down.
const (
	RestartNo            = "no"
	RestartAlways        = "always"
	RestartOnFailure     = "on-failure"
	RestartUnlessStopped = "unless-stopped"
)

// RestartPolicy says whether a container that has ended is started again. The
// zero value is "no".
type RestartPolicy struct {
	Name              string `json:",omitempty"` // never RestartNo
	MaximumRetryCount int    `json:",omitempty"` // of on-failure; 0 is no limit
}

// On reports whether the policy ever starts anything.
func (p RestartPolicy) On() bool { return p.Name != "" }

func (p RestartPolicy) String() string {
	switch {
	case p.Name == "":
		return RestartNo
	case p.MaximumRetryCount > 0:
		return p.Name + ":" + strconv.Itoa(p.MaximumRetryCount)
	}
	return p.Name
}

// ParseRestartPolicy reads no, always, unless-stopped or on-failure[:n].
func ParseRestartPolicy(s string) (p RestartPolicy, err error) {
	name, count, colon := strings.Cut(s, ":")
	if colon && name == "" {
		return p, errs.New(errs.Invalid, "invalid restart policy format: no policy provided before colon")
	}
	if count != "" {
		if p.MaximumRetryCount, err = strconv.Atoi(count); err != nil {
			return p, errs.New(errs.Invalid, "invalid restart policy format: maximum retry count must be an integer")
		}
	}
	n := p.MaximumRetryCount
	switch name {
	case RestartOnFailure:
		if n < 0 {
			return p, errs.New(errs.Invalid, "invalid restart policy: maximum retry count cannot be negative")
		}
	case RestartNo, RestartAlways, RestartUnlessStopped, "":
		if n < 0 {
			return p, errs.New(errs.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative")
		}
		if n > 0 {
			return p, errs.New(errs.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	default:
		return p, errs.New(errs.Invalid, "invalid restart policy: unknown policy '%s'; use one of '%s', '%s', '%s', or '%s'",
			name, RestartNo, RestartAlways, RestartOnFailure, RestartUnlessStopped)
	}
	if name == RestartNo {
		name = ""
	}
	p.Name = name
	return p, nil
}
