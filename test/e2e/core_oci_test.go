//go:build root

package e2e

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// newCoreBundle is newBundle without any program but tug.
func newCoreBundle(t *testing.T, script string) *bundle {
	t.Helper()
	g := newBusybox(t)
	b := &bundle{t: t, g: g, dir: filepath.Join(g.dir, "bundle"), states: filepath.Join(g.dir, "oci")}
	g.ok("create", "--name", "source", "busybox:test")
	file := filepath.Join(g.dir, "x.tar")
	g.ok("export", "-o", file, "source")
	g.ok("rm", "source")
	if err := firstOf(os.MkdirAll(b.dir+"/rootfs", 0o755), os.Chmod(g.dir, 0o755), untar(file, b.dir+"/rootfs")); err != nil {
		t.Fatal(err)
	}
	b.begin(script)
	return b
}

// untar unpacks what tug exports of the busybox image.
func untar(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(at, os.FileMode(h.Mode)|0o700)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, at)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, h.Linkname), at)
		case tar.TypeReg:
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(at, b, os.FileMode(h.Mode)&0o777)
			}
		}
		if err != nil {
			return err
		}
	}
}

// What a kernel decides about OCI containers: limits, devices, namespaces and
// the freezer, on cgroups of version 1 and 2.
func TestCoreOCI(t *testing.T) {
	b := newCoreBundle(t, "")
	limit, pids, quota, period, shares := int64(64<<20), int64(40), int64(50000), uint64(100000), uint64(512)
	major, minor := int64(241), int64(7) // of no driver
	b.spec.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids},
		CPU: &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
	}
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: major, Minor: minor}}
	b.script(`cd /sys/fs/cgroup
cat memory.max pids.max cpu.max 2>/dev/null || cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us | xargs | sed 's/ /\n/;s/ /\n/'
: <>/dev/null && echo null; (: </dev/mine) 2>&1 | grep -c 'not permitted'`)
	if r := b.run(); r.stdout != "67108864\n40\n50000 100000\nnull\n1\n" {
		t.Error(r)
	}
	b.gone()
	// Whoever may open it hears that there is no such device.
	b.script(`(: </dev/mine) 2>&1 | grep -c 'not permitted'; (: >/dev/mine) 2>&1 | grep -c 'not permitted'; (: <>/dev/mine) 2>&1 | grep -c 'not permitted'; exit 0`)
	b.spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "r"}}
	b.says("0\n1\n1\n")
	b.spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Allow: false, Type: "c", Major: &major, Minor: &minor, Access: "w"}}
	b.says("0\n1\n1\n")

	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
	b.spec.Linux.Devices, b.spec.Linux.Resources.Devices = nil, nil
	b.spec.Process.NoNewPrivileges = false
	b.spec.Linux.Seccomp = filtered()
	b.script("sleep 1000")
	b.create()
	b.status(specs.StateCreated)
	b.ok("start", "c")
	b.status(specs.StateRunning)
	same(t, "exec", b.ok("exec", "c", "sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map; grep Seccomp: /proc/self/status | tr -s '\t' ' '; cat /proc/1/comm"), "0\n 0 100000 65536\nSeccomp: 2\nsleep")
	b.ok("pause", "c")
	b.status("paused")
	b.ok("resume", "c")
	b.status(specs.StateRunning)
	if ps := b.ok("ps", "c"); !strings.Contains(ps, "sleep 1000") {
		t.Errorf("ps: %s", ps)
	}
	b.ok("kill", "c", "KILL")
	b.status(specs.StateStopped)
	b.ok("delete", "c")
	b.gone()
}
