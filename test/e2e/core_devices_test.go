//go:build root

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// openable returns a character device of this machine that every container
// lacks and root may open.
func openable(t *testing.T) string {
	t.Helper()
	for _, dev := range []string{"/dev/fuse", "/dev/net/tun", "/dev/loop-control", "/dev/kmsg"} {
		if f, err := os.OpenFile(dev, os.O_RDWR, 0); err == nil {
			f.Close()
			return dev
		}
	}
	t.Skip("no device to open here")
	return ""
}

func TestCoreDevices(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	dev := openable(t)
	sh := func(want int, script string, flags ...string) {
		t.Helper()
		r := g.do(nil, append(append(args("run", "--rm"), flags...), image, "sh", "-c", script)...)
		if r.code != want {
			t.Errorf("%s: %v\nwant exit code %d", flags, r, want)
		}
	}
	const read, write = ": < /dev/x", ": 1<> /dev/x" // opened, no more
	map1 := dev + ":/dev/x"
	sh(0, read+" && "+write, "--device", map1)
	sh(0, read, "--device", map1+":r")
	sh(1, "( "+write+" ) 2>/dev/null", "--device", map1+":r")
	sh(0, "test -c "+dev, "--device", dev)
	sh(1, "test -e "+dev)
	sh(0, ": < /sub/x", "--device", dev+":/sub/x")
	sh(0, "echo z > /dev/full && test $(stat -c %t:%T /dev/full) = 1:3", "--device", "/dev/null:/dev/full") // in place of a standard one

	// A directory has all devices below it.
	dir := filepath.Join(g.dir, "devs")
	if err := os.MkdirAll(dir+"/deep", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/a", "/deep/b"} {
		if err := syscall.Mknod(dir+name, syscall.S_IFCHR|0o666, 1<<8|5); err != nil { // as /dev/zero
			t.Fatal(err)
		}
	}
	sh(0, "test -c /dev/all/a && test $(head -c 3 /dev/all/deep/b | wc -c) = 3", "--device", dir+":/dev/all")

	// A rule alone makes no node, but lets one be made and used.
	var st syscall.Stat_t
	if err := syscall.Stat(dev, &st); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprintf("%d %d", st.Rdev>>8&0xfff, st.Rdev&0xff)
	node := "mknod /tmp/n c " + number + " || exit 9; : 1<> /tmp/n"
	rule := "c " + strings.Replace(number, " ", ":", 1) + " "
	sh(1, node)
	sh(1, node, "--device-cgroup-rule", rule+"w")
	sh(0, node, "--device-cgroup-rule", rule+"r", "--device-cgroup-rule", rule+"w")
	g.fails(125, args("run", "--rm", "--device", "/dev/no-such", image, "true"), `custom device "/dev/no-such"`, "no such file")
	g.fails(125, args("run", "--rm", "--device", "/etc/passwd", image, "true"), "not a device node")

	// The node made outside of /dev is found again by the next start.
	g.ok("run", "--name", "again", "--device", dev+":/sub/x", image, "test", "-c", "/sub/x")
	same(t, "started again", g.ok("start", "again"), "again")
	same(t, "exit code", g.ok("wait", "again"), "0")
	same(t, "inspect", g.ok("inspect", "-f", "{{json .HostConfig.Devices}}", "again"),
		`[{"PathOnHost":"`+dev+`","PathInContainer":"/sub/x","CgroupPermissions":"rwm"}]`)
	if out := g.ok("run", "--rm", image, "ls", "/dev"); strings.Contains(out, "\nx\n") {
		t.Errorf("another container has it, too:\n%s", out)
	}
}

// The image decides where a device outside of /dev goes, but not outside of
// the container, and what it has there is not replaced.
func TestCoreDeviceTargets(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	dev := openable(t)
	g.fails(125, args("run", "--rm", "--device", dev+":/bin/busybox", image, "true"), "/bin/busybox")
	g.fails(125, args("run", "--rm", "--device", dev+":/proc/x", image, "true"), "/proc/x")
}
