package runtime

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Probes of a container's health run in a cgroup of their own below the
// container's, so that one that takes too long can be ended with all that it
// has started, whatever that does to hide. It has no limits: those of the
// container hold below it too. On version 1 it is in the freezer's hierarchy
// only, and goes with the container's.
const probeSlot = "/tug-probe"

// probes makes the cgroup of a container's probes and returns its directory, or
// "" where there can be none.
func (c *cgroups) probes(slot string) string {
	dir := c.probesDir(slot)
	if dir == "" {
		return ""
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return ""
	}
	return dir
}

func (c *cgroups) probesDir(slot string) string {
	file := c.file(slot, "freezer", "")
	if file == "" {
		return ""
	}
	return strings.TrimSuffix(file, "/") + probeSlot
}

// KillProbe kills what a probe has started in a container's cgroup and waits
// for its end. Of one that is frozen, the end comes when it goes on.
func (r *Runtime) KillProbe(cgroup string) {
	c := r.cgroups
	dir := c.probesDir(cgroup)
	if dir == "" || c.check(cgroup) != nil {
		return
	}
	for wait := time.Millisecond; wait < 2*time.Second; wait *= 2 {
		if pids, err := pidsBelow(dir); err != nil || len(pids) == 0 {
			return
		}
		c.killStill(cgroup + probeSlot)
		if c.frozen(cgroup) {
			return
		}
		time.Sleep(wait)
	}
}

// EndProbe makes ordinary processes of the container of those that a probe has
// left behind, as one that started a service: they are no part of the next
// probe.
func (r *Runtime) EndProbe(cgroup string) {
	c := r.cgroups
	dir := c.probesDir(cgroup)
	if dir == "" || c.check(cgroup) != nil {
		return
	}
	for range 3 { // they may fork meanwhile
		pids, err := pidsBelow(dir)
		if err != nil || len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			err := writeFile(strings.TrimSuffix(dir, probeSlot)+"/cgroup.procs", strconv.Itoa(pid))
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return
			}
		}
	}
}
