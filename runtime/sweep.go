package runtime

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Sweep ends and removes what a dead supervisor left in tug's own cgroup,
// except what keep wants: parked processes, which end by themselves, and
// containers whose keeper was killed, which nobody could stop, log or wait for
// any more. It does not wait for that.
func (r *Runtime) Sweep(keep func(cgroup string) bool) {
	c := r.cgroups
	seen := map[string]bool{}
	for _, root := range c.roots() {
		entries, err := os.ReadDir(root + c.parent)
		if err != nil {
			continue
		}
		for _, e := range entries {
			slot := c.parent + "/" + e.Name()
			if e.IsDir() && !seen[slot] && c.check(slot) == nil && !keep(slot) {
				seen[slot] = true
				c.emptyLater(slot)
			}
		}
	}
	for _, slot := range c.noted(noteSlot) {
		if c.check(slot) == nil && !keep(slot) {
			c.emptyLater(slot)
		}
	}
	c.placing.Lock()
	c.removeMade()
	c.placing.Unlock()
}

// emptyLater kills a slot's processes until there are none, then removes it.
func (c *cgroups) emptyLater(slot string) {
	if c.tryRemove(slot) {
		return
	}
	c.removing.Go(func() {
		for wait := time.Millisecond; wait < 8*time.Second; wait *= 2 {
			c.kill(slot)
			time.Sleep(wait)
			if c.tryRemove(slot) {
				return
			}
		}
	})
}

// kill kills the processes of a slot and of the cgroups below it. Killing a
// container's first process takes the others along, so one round is nearly
// always enough.
func (c *cgroups) kill(slot string) {
	if c.v2 != "" && writeFile(c.v2+slot+"/cgroup.kill", "1") == nil { // since Linux 5.14
		return
	}
	_ = c.thaw(slot)
	for _, root := range c.roots() {
		killTree(root + slot)
	}
}

// killStill kills the processes of a slot while they cannot make others.
func (c *cgroups) killStill(slot string) {
	if c.v2 != "" && writeFile(c.v2+slot+"/cgroup.kill", "1") == nil { // since Linux 5.14
		return
	}
	if f := c.freezer(slot); f.file != "" {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = f.freeze(ctx)
		cancel()
	}
	for _, root := range c.roots() {
		killTree(root + slot)
	}
	_ = c.thaw(slot)
}

func killTree(dir string) {
	b, _ := os.ReadFile(dir + "/cgroup.procs")
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			killTree(dir + "/" + e.Name())
		}
	}
}
