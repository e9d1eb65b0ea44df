//go:build root

package e2e

import (
	"os"
	"strings"
	"testing"
)

func TestCoreSmallSettings(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	run := func(want string, a ...string) {
		t.Helper()
		same(t, strings.Join(a, " "), g.ok(append(args("run", "--rm"), a...)...), want)
	}
	const shm = "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2; grep -c ' /dev/shm tmpfs rw,nosuid,nodev,noexec' /proc/mounts"
	run("65536\n1", image, "sh", "-c", shm)
	run("8192\n1", "--shm-size", "8m", image, "sh", "-c", shm)

	run("0 5 7", "--group-add", "5", "--group-add", "7", "--group-add", "root", image, "id", "-G")
	run("1000 0 5", "-u", "1000:1000", "--group-add", "root", "--group-add", "5", image, "id", "-G")
	g.fails(125, args("run", "--rm", "--group-add", "nobodies", image, "true"), "unable to find group nobodies")
	g.fails(125, args("run", "--rm", "--group-add", "4294967296", image, "true"), "range")
	g.ok("run", "-d", "--name", "member", "--group-add", "7", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "member", "id", "-G"), "0 7")

	run("7\n12345", "--sysctl", "net.ipv4.ip_default_ttl=7", "--sysctl", "kernel.shmmni=12345", image,
		"cat", "/proc/sys/net/ipv4/ip_default_ttl", "/proc/sys/kernel/shmmni")
	run("9", "--privileged", "--sysctl", "net.ipv4.ip_default_ttl=9", image, "cat", "/proc/sys/net/ipv4/ip_default_ttl")
	r := g.do(nil, "run", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=7", image, "sh", "-c", "echo 8 > /proc/sys/net/ipv4/ip_default_ttl")
	if r.code == 0 || !strings.Contains(r.stderr, "Read-only") {
		t.Errorf("/proc/sys is writable afterwards: %v", r)
	}
	g.fails(125, args("run", "--rm", "--sysctl", "net.no.such=1", image, "true"), "net.no.such=1")
	g.fails(125, args("run", "--rm", "--sysctl", "kernel.panic=1", image, "true"), "sysctl 'kernel.panic=1' is not allowed")
	g.fails(125, args("run", "--rm", "--sysctl", "net.//.kernel.panic=1", image, "true"), "is not allowed")

	same(t, "annotations", g.ok("inspect", "-f", "{{json .HostConfig.Annotations}}", g.ok("create", "--annotation", "a=b", image)), `{"a":"b"}`)
}

func TestCoreCgroupNamespace(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	ours, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	out := g.ok("run", "--rm", "--cgroupns", "host", image, "sh", "-c", "readlink /proc/self/ns/cgroup; cat /proc/self/cgroup; ls /sys/fs/cgroup/pids 2>/dev/null; true")
	if !strings.Contains(out, ours) || !strings.Contains(out, g.cgroup()+"/") {
		t.Errorf("want the host's namespace %s and its paths:\n%s", ours, out)
	}
	if !onV2() && !strings.Contains(out, "pids.max") { // the root of a hierarchy has no limit
		t.Errorf("more than the container's part of version 1 is mounted:\n%s", out)
	}
	g.ok("run", "-d", "--name", "host", "--cgroupns", "host", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "host", "readlink", "/proc/self/ns/cgroup"), ours)
	same(t, "private", g.ok("inspect", "-f", "{{.HostConfig.CgroupnsMode}}", g.ok("create", "--cgroupns", "private", image)), "private")
}
