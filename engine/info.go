package engine

import (
	"context"
	"os"
	goruntime "runtime"
	"strings"
	"syscall"

	"tug/runtime"
	"tug/spec"
	"tug/sys"
)

// VersionInfo is what `tug version` shows.
type VersionInfo struct {
	Version       string
	GoVersion     string
	Os, Arch      string
	KernelVersion string
}

// Version describes this build.
func Version() VersionInfo {
	return VersionInfo{Version: spec.Version, GoVersion: goruntime.Version(), Os: goruntime.GOOS, Arch: goruntime.GOARCH, KernelVersion: kernelVersion()}
}

// Info is what `tug info` shows: the store and the machine.
type Info struct {
	Containers, Running, Paused, Stopped int
	Images                               int
	Backend                              string   // storage backend in use or to be used
	BackendsRefused                      []string // why better ones are not used
	Root, RunRoot                        string
	CgroupVersion                        string // "1", "2", "hybrid"
	CgroupName                           string
	Controllers                          []string // of cgroups, that limits can be set with
	KernelVersion, OS, OSVersion         string
	Architecture                         string
	CPUs                                 int
	IPv4Forwarding                       bool
	Memory                               int64 // bytes
	Name                                 string
	ServerVersion                        string
	SupervisorPid                        int               // 0 when none runs
	Runtimes                             map[string]string // other OCI runtimes on this machine, with their paths
}

// Info gathers what there is to say about the store and the machine.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	in := Info{
		Root: e.Store.Root, RunRoot: e.Store.Run, CgroupName: e.cgroupName(), CPUs: goruntime.NumCPU(),
		Architecture: goruntime.GOARCH, ServerVersion: spec.Version, CgroupVersion: cgroupVersion(), Controllers: controllers(),
		OS: osRelease("PRETTY_NAME"), OSVersion: osRelease("VERSION_ID"), KernelVersion: kernelVersion(),
		Runtimes: runtime.Foreigns(),
	}
	list, err := e.Containers.List()
	if err != nil {
		return in, err
	}
	in.Containers = len(list)
	for _, c := range list {
		switch c.State.Word() {
		case spec.StatusRunning:
			in.Running++
		case spec.StatusPaused:
			in.Paused++
		}
	}
	in.Stopped = in.Containers - in.Running - in.Paused
	images, err := e.Images.List()
	if err != nil {
		return in, err
	}
	in.Images = len(images)
	in.Name, _ = os.Hostname()
	if in.OS == "" {
		in.OS = goruntime.GOOS
	}
	in.IPv4Forwarding = strings.TrimSpace(read("/proc/sys/net/ipv4/ip_forward")) == "1"
	var si syscall.Sysinfo_t
	if syscall.Sysinfo(&si) == nil {
		in.Memory = int64(si.Totalram) * int64(si.Unit)
	}
	in.SupervisorPid, _, in.Backend, _ = e.client.Ping(ctx)
	storage, err := e.Layers.Storage()
	if in.Backend == "" {
		in.Backend = storage.Backend
	}
	in.BackendsRefused = storage.Refused
	return in, err
}

func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func kernelVersion() string { return strings.TrimSpace(read("/proc/sys/kernel/osrelease")) }

// osRelease is a value of os-release(5), or "".
func osRelease(name string) string {
	for line := range strings.Lines(read("/etc/os-release")) {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}

// controllers are those of the v2 hierarchy's root, or those of v1 that this
// process is in.
func controllers() []string {
	if sys.IsCgroup2("/sys/fs/cgroup") {
		return strings.Fields(read("/sys/fs/cgroup/cgroup.controllers"))
	}
	var all []string
	for line := range strings.Lines(read("/proc/self/cgroup")) {
		// 4:cpu,cpuacct:/path
		if parts := strings.SplitN(line, ":", 3); len(parts) == 3 && parts[1] != "" {
			all = append(all, strings.Split(parts[1], ",")...)
		}
	}
	return all
}

// cgroupVersion tells the layout by what is mounted where systemd puts it.
func cgroupVersion() string {
	switch {
	case sys.IsCgroup2("/sys/fs/cgroup"):
		return "2"
	case sys.IsCgroup2("/sys/fs/cgroup/unified"):
		return "hybrid"
	}
	return "1"
}
