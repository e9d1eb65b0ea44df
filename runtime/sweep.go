package runtime

import "os"

// Sweep removes the cgroups in tug's own one that a dead supervisor left,
// except those keep wants. Their parked processes end by themselves, so some
// are removed in the background, a moment later.
func (r *Runtime) Sweep(keep func(cgroup string) bool) {
	c := r.cgroups
	for _, root := range c.roots() {
		entries, err := os.ReadDir(root + c.parent)
		if err != nil {
			continue
		}
		for _, e := range entries {
			slot := c.parent + "/" + e.Name()
			if e.IsDir() && c.check(slot) == nil && !keep(slot) {
				c.removeLater(slot)
			}
		}
	}
}
