package container

import (
	"cmp"
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tug/layer"
	"tug/runtime"
	"tug/spec"
	"tug/sys"
)

// Explained is a container looked at as a whole.
type Explained struct {
	*Summary
	Written    Written
	Places     []Place
	Namespaces []Namespace
	Processes  []Task // of the running one, oldest first; the first maxTasks
	Count      int    // of all processes
	Usage      runtime.Usage
	Caps       uint64 // bit n is capability n
	Filtered   bool   // system calls pass a filter
	NoNewPrivs bool
}

// Written is what a container has on top of its image.
type Written struct {
	Size    int64 // of all files in the writable layer
	Added   Tally
	Changed Tally // copied up
	Removed Tally
}

// Tally is the changes of one kind.
type Tally struct {
	Files   int // names that are no directories
	Dirs    int
	Bytes   int64    // of the files; of Changed, as they are now
	Was     int64    // of Changed, bytes in the image
	Largest []Change // files that have most bytes, and removed directories
	Listed  int      // of how many they are the largest
	More    bool     // of Removed: there is more than was counted
}

// None reports that nothing was changed in this way.
func (t *Tally) None() bool { return t.Files+t.Dirs == 0 }

// Place is a mount in a container.
type Place struct {
	Target   string
	Type     string
	Source   string // of binds, the host's path
	Options  string
	ReadOnly bool
}

// Task is one process.
type Task struct {
	Pid     int // on the host
	Inside  int // in the container
	Command string
}

// Namespace is one of a container's.
type Namespace struct {
	Kind   string // as in /proc/PID/ns: mnt, pid, net, ipc, uts, cgroup, user
	ID     string // the kernel's number while it runs
	Host   bool   // it is the host's
	Shared []Peer // containers that have the same
}

// Peer is another container.
type Peer struct{ ID, Name string }

const (
	// maxCounted is how many names in removed directories are counted.
	maxCounted = 200_000
	maxTasks   = 20
	// maxPlaces is how many mounts are told: a container can have many.
	maxPlaces = 1000
)

// Explain looks at a container: what it has written, with the top largest
// changes of each kind, what it runs and what it shares.
func (c *Containers) Explain(ctx context.Context, name string, top int) (*Explained, error) {
	s, err := c.Find(name)
	if err != nil {
		return nil, err
	}
	x := &Explained{Summary: s}
	if x.Written.Size, err = c.SizeRw(s); err != nil {
		return nil, err
	}
	err = c.diff(ctx, s, func(d *differ) error { return x.Written.count(ctx, d.all, top) })
	if err != nil {
		return nil, err
	}
	plan, _, err := runtime.MakePlan(&s.Container)
	if err == nil { // else it could not be started, which is no reason not to look at it
		x.Caps, x.Filtered, x.NoNewPrivs = plan.Caps, len(plan.Seccomp) > 0, plan.NoNewPrivs
	}
	if s.State.Status == spec.StatusRunning {
		x.look()
	}
	if x.Places == nil {
		x.Places = c.configured(&s.Container)
	}
	for i := range x.Places {
		x.Places[i].Source = cmp.Or(x.Places[i].Source, c.mountedFrom(&s.Container, x.Places[i].Target))
	}
	return x, c.compareNamespaces(x)
}

// count adds up changes.
func (w *Written) count(ctx context.Context, all []Change, top int) error {
	left := maxCounted
	for _, ch := range all {
		t := &w.Added
		switch ch.Kind {
		case layer.Changed:
			t = &w.Changed
		case layer.Removed:
			t = &w.Removed
		}
		if ch.IsDir() {
			t.Dirs++
		} else {
			t.Files++
			t.Bytes += ch.Size
			t.Was += ch.Was
		}
		if ch.Kind == layer.Removed && ch.IsDir() {
			before := t.Bytes
			if err := t.below(ctx, ch.gone, &left); err != nil {
				return err
			}
			ch.Size = t.Bytes - before
		} else if ch.IsDir() {
			continue
		}
		ch.gone = nil
		t.Largest = append(t.Largest, ch)
	}
	for _, t := range []*Tally{&w.Added, &w.Changed, &w.Removed} {
		slices.SortStableFunc(t.Largest, func(a, b Change) int { return cmp.Compare(b.Size, a.Size) })
		t.Listed = len(t.Largest)
		t.Largest = t.Largest[:min(top, t.Listed)]
	}
	return nil
}

// below counts what is in a removed directory.
func (t *Tally) below(ctx context.Context, dir *layer.Entry, left *int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if *left--; *left < 0 {
			t.More = true
			return nil
		}
		e, err := dir.Child(n)
		if err != nil {
			return err
		}
		if !e.IsDir() {
			t.Files++
			t.Bytes += e.Size
			continue
		}
		t.Dirs++
		if err := t.below(ctx, e, left); err != nil {
			return err
		}
	}
	return nil
}

// look finds out about the running container what only the kernel knows. What
// has ended meanwhile is left out.
func (x *Explained) look() {
	x.Usage, _ = runtime.UsageOf(x.State.Cgroup)
	pids, _ := runtime.Pids(x.State.Cgroup)
	x.Count = len(pids)
	first := x.State.Pid
	if i := slices.Index(pids, first); i > 0 {
		pids = slices.Insert(slices.Delete(pids, i, i+1), 0, first)
	}
	for _, pid := range pids[:min(len(pids), maxTasks)] {
		dir := "/proc/" + strconv.Itoa(pid)
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		f := statusFields(string(status))
		t := Task{Pid: pid, Command: command(dir, f["Name"], strings.ToUpper(f["State"] + " ")[:1])}
		if ids := strings.Fields(f["NSpid"]); len(ids) > 0 {
			t.Inside, _ = strconv.Atoi(ids[len(ids)-1])
		}
		x.Processes = append(x.Processes, t)
	}
	x.Places = mountsOf(first)
}

func statusFields(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

// mountsOf reads the mounts of a process (proc_pid_mountinfo(5)); nil when it
// has ended.
func mountsOf(pid int) []Place {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil
	}
	var out []Place
	for line := range strings.Lines(string(b)) {
		if p, ok := parseMount(line); ok && len(out) < maxPlaces {
			out = append(out, p)
		}
	}
	return out
}

func parseMount(line string) (p Place, ok bool) {
	before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 6 || len(right) < 3 {
		return p, false
	}
	p.Target, p.Type = sys.UnescapeMount(left[4]), right[0]
	p.ReadOnly = strings.HasPrefix(left[5]+",", "ro,") || strings.HasPrefix(right[2]+",", "ro,")
	for o := range strings.SplitSeq(right[2], ",") {
		if k, _, _ := strings.Cut(o, "="); p.Type == "tmpfs" && (k == "size" || k == "mode" || k == "nr_inodes") {
			p.Options = strings.TrimPrefix(p.Options+","+o, ",")
		}
	}
	return p, true
}

// configured are the mounts that a start will make.
func (c *Containers) configured(ctr *spec.Container) []Place {
	all := []Place{{Target: "/", Type: "overlay", ReadOnly: ctr.Host.ReadonlyRootfs}, {Target: "/proc", Type: "proc"}, {Target: "/dev", Type: "tmpfs"}, {Target: "/sys", Type: "sysfs", ReadOnly: !ctr.Host.Privileged}}
	if ctr.Host.IpcMode != "none" {
		shm := Place{Target: "/dev/shm", Type: "tmpfs", Options: "size=" + strconv.FormatInt(cmp.Or(ctr.Host.ShmSize, spec.DefaultShmSize)>>10, 10) + "k"}
		if mode := ctr.Host.IpcMode; mode == "host" || strings.HasPrefix(mode, spec.JoinPrefix) {
			shm.Options = ""
		}
		all = append(all, shm)
	}
	for _, name := range bound {
		all = append(all, Place{Target: "/etc/" + name, Type: "bind"})
	}
	for i := range ctr.Mounts {
		m := &ctr.Mounts[i]
		p := Place{Target: m.Target, Type: m.Type, ReadOnly: m.ReadOnly, Options: m.Options}
		if j := slices.IndexFunc(all, func(p Place) bool { return p.Target == m.Target }); j >= 0 {
			all[j] = p
		} else {
			all = append(all, p)
		}
	}
	var tmpfs []Place
	for target, options := range ctr.Host.Tmpfs {
		tmpfs = append(tmpfs, Place{Target: filepath.Clean(target), Type: "tmpfs", Options: options, ReadOnly: slices.Contains(strings.Split(options, ","), "ro")})
	}
	slices.SortFunc(tmpfs, func(a, b Place) int { return cmp.Compare(a.Target, b.Target) })
	return append(all, tmpfs...)
}

// mountedFrom is what on the host, or which image, is seen at target.
func (c *Containers) mountedFrom(ctr *spec.Container, target string) string {
	for i := range ctr.Mounts {
		if m := &ctr.Mounts[i]; m.Target == target {
			if m.Type == spec.MountImage {
				return path.Join(m.Source, m.Subpath)
			}
			return path.Join(c.Mountpoint(m), m.Subpath)
		}
	}
	name, ok := strings.CutPrefix(target, "/etc/")
	if ok && slices.Contains(bound, name) {
		return c.path(ctr.ID, name)
	}
	return ""
}

// namespaceKinds are told in this order.
func namespaceKinds() []string {
	return []string{"mnt", "pid", "net", "ipc", "uts", "cgroup", "user"}
}

// namespaceIDs reads the kernel's names of a process's namespaces.
func namespaceIDs(pid string) map[string]string {
	out := map[string]string{}
	for _, kind := range namespaceKinds() {
		link, err := os.Readlink("/proc/" + pid + "/ns/" + kind)
		if err == nil {
			out[kind] = strings.TrimSuffix(strings.TrimPrefix(link, kind+":["), "]")
		}
	}
	return out
}

// compareNamespaces finds out which namespaces are the host's or another
// container's: of a running container from the kernel, of another by what its
// description asks for.
func (c *Containers) compareNamespaces(x *Explained) error {
	var own, host map[string]string
	if x.State.Status == spec.StatusRunning {
		own, host = namespaceIDs(strconv.Itoa(x.State.Pid)), namespaceIDs("self")
	}
	for _, kind := range namespaceKinds() {
		n := Namespace{Kind: kind, ID: own[kind], Host: asksHost(&x.Host, kind)}
		if n.ID != "" && host[kind] != "" {
			n.Host = n.ID == host[kind]
		}
		x.Namespaces = append(x.Namespaces, n)
	}
	list, err := c.List()
	if err != nil {
		return err
	}
	for _, other := range list {
		if other.ID == x.ID {
			continue
		}
		var theirs map[string]string
		if own != nil && other.State.Status == spec.StatusRunning {
			theirs = namespaceIDs(strconv.Itoa(other.State.Pid))
		}
		for i := range x.Namespaces {
			n := &x.Namespaces[i]
			shared := asksOther(&x.Host, n.Kind, other.ID) || asksOther(&other.Host, n.Kind, x.ID)
			if n.ID != "" {
				shared = n.ID == theirs[n.Kind]
			}
			if shared && !n.Host {
				n.Shared = append(n.Shared, Peer{other.ID, other.Name})
			}
		}
	}
	return nil
}

func asksHost(h *spec.HostConfig, kind string) bool {
	switch kind {
	case "pid":
		return h.PidMode == "host"
	case "net":
		return h.NetworkMode == "host"
	case "ipc":
		return h.IpcMode == "host"
	case "uts":
		return h.UTSMode == "host"
	case "cgroup":
		return h.CgroupnsMode == "host"
	}
	return kind == "user" && h.IDs == nil
}

func asksOther(h *spec.HostConfig, kind, id string) bool {
	switch kind {
	case "pid":
		return h.PidMode == spec.JoinPrefix+id
	case "ipc":
		return h.IpcMode == spec.JoinPrefix+id
	}
	return false
}
