package container

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"tug/runtime"
	"tug/spec"
	"tug/state"
	"tug/supervisor/keeper"
	"tug/sys"
)

// startRecord is start.json: the last start of a container.
type startRecord struct {
	Run    int    // counts starts, from 1
	Token  string // of the request, so that it is done once
	At     time.Time
	Pid    int    `json:",omitempty"`
	Start  uint64 `json:",omitempty"` // field 22 of /proc/PID/stat
	Boot   string `json:",omitempty"` // which boot of the machine Pid and Start belong to
	Cgroup string `json:",omitempty"`
	Error  string `json:",omitempty"` // why the program did not run
	Code   int    `json:",omitempty"` // 125, 126 or 127 then

	// Restarts counts the starts by the restart policy since the last one by a
	// user, which is 0; Wait is how long this one had to wait.
	Restarts int           `json:",omitempty"`
	Wait     time.Duration `json:",omitempty"`
}

func (r *startRecord) alive() bool {
	return r.Pid != 0 && r.Error == "" && r.Boot == bootID() && sys.Alive(r.Pid, r.Start)
}

// bootID is the kernel's random id of this boot (random(4)).
var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

func (c *Containers) startRecord(id string) (*startRecord, error) {
	r := &startRecord{}
	return r, state.ReadJSON(c.path(id, fileStart), r)
}

// exitRecord returns how the process of r ended, or nil when that is not (yet)
// written.
func (c *Containers) exitRecord(id string, r *startRecord) *keeper.Exit {
	var e keeper.Exit
	if state.ReadJSON(c.path(id, fileExit), &e) != nil || e.Pid != r.Pid || e.Start != r.Start {
		return nil
	}
	return &e
}

// lostCode is the exit code of a process nobody saw ending.
const lostCode = 255

// state derives a container's state, but for what its restart policy is about
// to do: that takes its description. See the package comment.
func (c *Containers) state(id string) (spec.State, error) {
	st, _, err := c.stateOf(id)
	return st, err
}

// stateOf also returns the start record that it goes by, nil if there is none.
func (c *Containers) stateOf(id string) (spec.State, *startRecord, error) {
	r, err := c.startRecord(id)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(c.path(id)); err != nil {
			return spec.State{}, nil, err
		}
		return spec.State{Status: spec.StatusCreated}, nil, nil
	}
	if err != nil {
		return spec.State{}, nil, err
	}
	if r.Error != "" {
		return spec.State{Status: spec.StatusCreated, Error: r.Error, ExitCode: r.Code}, r, nil
	}
	st := spec.State{StartedAt: r.At, Cgroup: r.Cgroup}
	if r.alive() {
		st.Status, st.Pid, st.Paused = spec.StatusRunning, r.Pid, runtime.Frozen(r.Cgroup)
		return st, r, nil
	}
	st.Status, st.Cgroup = spec.StatusExited, ""
	e := c.awaitExit(id, r)
	if e == nil {
		st.ExitCode, st.FinishedAt = lostCode, r.At
		return st, r, nil
	}
	st.ExitCode, st.OOMKilled, st.FinishedAt = e.Code, e.OOMKilled, e.At
	return st, r, nil
}

// awaitExit reads the exit record of a process that is not alive. Between
// reaping it and writing the record the keeper needs a moment; when its keeper
// is gone there is nothing to wait for. The limit is for records that could not
// be written.
func (c *Containers) awaitExit(id string, r *startRecord) *keeper.Exit {
	for i := 0; ; i++ {
		if e := c.exitRecord(id, r); e != nil {
			return e
		}
		if i >= 200 || r.Boot != bootID() || !keeper.Running(c.st.Run, r.Start) {
			return c.exitRecord(id, r)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
