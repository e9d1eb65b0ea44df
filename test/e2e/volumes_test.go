//go:build root

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"tug/test/fixture"
)

func (g *tug) volumes() []string { return strings.Fields(g.ok("volume", "ls", "-q")) }

func (g *tug) data(volume string) string { return filepath.Join(g.root(), "volumes", volume, "_data") }

// withVolumes loads an image of busybox and one more layer.
func (g *tug) withVolumes(l *fixture.Layer, volumes ...string) {
	g.t.Helper()
	i, err := fixture.Busybox()
	if err != nil {
		g.t.Fatal(err)
	}
	all := map[string]struct{}{}
	for _, v := range volumes {
		all[v] = struct{}{}
	}
	i.Name = "volumes:test"
	i.Layers = append(i.Layers, l.Bytes())
	i.Config["Volumes"] = all
	if r := g.do(bytes.NewReader(fixture.DockerArchive(i).Bytes()), "load", "-q"); r.code != 0 {
		g.t.Fatal(r)
	}
}

func TestVolumesOfContainers(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	l := fixture.NewLayer().Dirs("var", "var/lib")
	l.Entry(tar.Header{Typeflag: tar.TypeDir, Name: "var/lib/db/", Mode: 0o2750, Uid: 1000, Gid: 50}, nil)
	l.File("var/lib/db/first", 0o640, "from the image\n")
	l.Dir("empty", 0o1777)
	g.withVolumes(l, "/var/lib/db", "/empty", "/new/dir")
	const img = "volumes:test"

	show := "stat -c '%n %a %u:%g' /var/lib/db /empty /new/dir; cat /var/lib/db/first"
	want := "/var/lib/db 2750 1000:50\n/empty 1777 0:0\n/new/dir 755 0:0\nfrom the image"
	same(t, "the image's volumes", g.ok("run", "--rm", img, "sh", "-c", show), want)
	same(t, "--rm takes anonymous ones along", g.ok("volume", "ls", "-q"), "")

	g.ok("run", "--name", "first", "-v", "named:/empty", "-v", "/mine", img, "sh", "-c", "echo kept > /empty/x; echo anonymous > /mine/y")
	if v := g.volumes(); len(v) != 4 {
		t.Errorf("volumes: %q", v)
	}
	var m mounted
	g.inspect(&m, "first")
	var places []string
	for _, x := range m.Mounts {
		places = append(places, fmt.Sprintf("%s %s %v", x.Destination, x.Type, x.RW))
		if x.Source != g.data(x.Name) || x.Driver != "local" || (x.Destination == "/empty") != (x.Name == "named") {
			t.Errorf("%+v", x)
		}
	}
	if diff := cmp.Diff([]string{"/empty volume true", "/mine volume true", "/new/dir volume true", "/var/lib/db volume true"}, places); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]struct{}{"/empty": {}, "/new/dir": {}, "/var/lib/db": {}, "/mine": {}}, m.Config.Volumes); diff != "" {
		t.Error(diff)
	}

	same(t, "--volumes-from", g.ok("run", "--name", "second", "--volumes-from", "first:ro", image, "sh", "-c",
		"cat /mine/y /empty/x /var/lib/db/first; touch /mine/z 2>/dev/null || echo read-only"), "anonymous\nkept\nfrom the image\nread-only")
	g.fails(1, args("volume", "rm", "named"), "volume is in use")
	g.ok("rm", "-v", "first")
	same(t, "of a container that went away", g.ok("run", "--rm", "--volumes-from", "second", image, "cat", "/mine/y"), "anonymous")
	g.ok("start", "-a", "second")
	g.ok("rm", "-v", "second")
	same(t, "volumes left", g.ok("volume", "ls", "-q"), "named")
	g.fails(125, args("run", "--rm", "--volumes-from", "first", image, "true"), "No such container: first")

	g.ok("run", "--name", "third", "-v", "/mine", image, "true")
	g.ok("rm", "third")
	if v := g.volumes(); len(v) != 2 {
		t.Errorf("rm without -v: %q", v)
	}
	same(t, "data stays", g.ok("run", "--rm", "-v", "named:/e:ro", image, "cat", "/e/x"), "kept")
	same(t, "nocopy", g.ok("run", "--rm", "-v", "bare:/etc/x/..:nocopy", image, "sh", "-c", "cat /etc/motd 2>&1 | head -c 3; ls /etc"), "cathostname\nhosts\nresolv.conf")
	g.fails(125, args("run", "--rm", "-v", "onto:/etc/motd", image, "true"), "cannot mount volume over existing file, file exists /etc/motd")
	g.fails(125, args("run", "--rm", "-v", "a/b:/x", image, "true"), `"a/b" includes invalid characters for a local volume name`)
	g.fails(125, args("run", "--rm", "--volume-driver", "nfs4", "-v", "other:/x", image, "true"), "nfs4")
}

// A volume that is empty gets what the image has in its place, whatever it is:
// the same as a container without the volume sees.
func TestVolumeCopy(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	g.ok("load", "-q", "-i", coreFile(t, "zoo.tar"))
	g.ok("run", "-d", "--name", "plain", "zoo:test", "sleep", "1000")
	var c struct{ State struct{ Pid int } }
	g.inspect(&c, "plain")
	want, err := fixture.Tree(fmt.Sprintf("/proc/%d/root/zoo", c.State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	g.ok("create", "--name", "copied", "-v", "animals:/zoo", "zoo:test", "true")
	got, err := fixture.Tree(g.data("animals"))
	if err != nil {
		t.Fatal(err)
	}
	// The kernel refuses attributes of these names to nobody but root.
	strip := func(lines []string) []string {
		for i, l := range lines {
			fields := slices.DeleteFunc(strings.Split(l, " "), func(f string) bool { return strings.HasPrefix(f, "trusted.") })
			lines[i] = strings.Join(fields, " ")
		}
		return lines
	}
	if diff := cmp.Diff(strip(want), strip(got)); diff != "" {
		t.Error(diff)
	}
	var a, b syscall.Stat_t
	if err := syscall.Stat(g.data("animals")+"/links/hard", &a); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Stat(g.data("animals")+"/one-byte", &b); err != nil || a.Ino != b.Ino {
		t.Errorf("hard links are %d and %d (%v)", a.Ino, b.Ino, err)
	}
	// Once there is something in it, nothing is copied any more.
	if err := os.Remove(g.data("animals") + "/one-byte"); err != nil {
		t.Fatal(err)
	}
	g.ok("run", "--rm", "-v", "animals:/zoo", "zoo:test", "test", "!", "-e", "/zoo/one-byte")
	// At the same time, one copies.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { g.do(nil, "run", "--rm", "-v", "crowd:/zoo", "zoo:test", "true") })
	}
	all.Wait()
	if got, err = fixture.Tree(g.data("crowd")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, strip(got)); diff != "" {
		t.Error(diff)
	}
}

// Places and sources that lead elsewhere. What may never happen is that a file
// of the host that was not given to the container is reached.
func TestMountAttacks(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	secret := hostDir(t, map[string]string{"secret": "SECRET"})
	dir := hostDir(t, map[string]string{"file": "given\n"})
	l := fixture.NewLayer().Dirs("real").Symlink("abs", secret).Symlink("up", "../../../../../.."+secret).Symlink("inside", "/real")
	l.File("real/of", 0o644, "the image\n").Symlink("toproc", "/proc").Symlink("tosys", "/proc/sys/kernel").Symlink("loop", "loop")
	g.withVolumes(l, "/inside", "/abs")
	const img = "volumes:test"

	// Targets that are symlinks lead to places in the container.
	same(t, "a VOLUME at a symlink", g.ok("run", "--rm", img, "cat", "/real/of"), "the image")
	for _, target := range []string{"/abs", "/up", "/abs/deeper", "/up/deeper"} {
		g.ok("run", "--rm", "-v", dir+":"+target, img, "cat", target+"/file")
		g.ok("run", "--rm", "-v", dir+"/file:"+target+"/file", img, "cat", target+"/file")
	}
	if entries, err := os.ReadDir(secret); err != nil || len(entries) != 1 {
		t.Errorf("%s: %v, %v", secret, entries, err)
	}
	g.fails(125, args("run", "--rm", "-v", dir+":/loop/x", img, "true"), "mount /loop/x")
	// Into /proc: only what is known to be harmless.
	for _, target := range []string{"/proc", "/proc/1", "/proc/sys", "/proc/self/attr", "/toproc", "/toproc/sys", "/tosys", "/proc/../proc"} {
		g.fails(125, args("run", "--rm", "-v", dir+":"+target, img, "true"), "mount ", "proc")
	}
	g.fails(125, args("run", "--rm", "-v", dir+"/file:/proc/self/attr/exec", img, "true"), "inside /proc")
	g.fails(125, args("run", "--rm", "-v", dir+"/file:/toproc/sys/kernel/hostname", img, "true"), "inside /proc")
	same(t, "/proc/uptime", g.ok("run", "--rm", "-v", dir+"/file:/proc/uptime", img, "cat", "/proc/uptime"), "given")
	// With the host's /proc or /sys over its own a container gets no further.
	attack := "(: >> /proc/sys/kernel/core_pattern) && echo ESCAPED; (: >> /proc/sysrq-trigger) && echo ESCAPED; ls /sys/firmware | grep . && echo ESCAPED; true"
	for _, from := range []string{"/proc", "/sys"} {
		if out := g.ok("run", "--rm", "-v", from+":"+from, img, "sh", "-c", attack); strings.Contains(out, "ESCAPED") {
			t.Errorf("%s: %s", from, out)
		}
	}

	// Below a volume nothing leads out of it (CVE-2024-... class of subpaths).
	g.ok("run", "--rm", "-v", "mine:/m", image, "sh", "-c", "mkdir /m/sub; echo in > /m/sub/f; ln -s "+secret+" /m/abs; ln -s ../../../../../../../.."+secret+" /m/up; ln -s sub /m/ok; ln -s /proc/self/root /m/magic")
	for _, sub := range []string{"abs", "abs/secret", "up", "up/secret", "..", "sub/../..", "magic", "magic/etc"} {
		r := g.fails(125, args("run", "--rm", "--mount", "src=mine,dst=/x,volume-subpath="+sub, image, "sh", "-c", "cat /x/* /x"), "leads out of volume mine")
		if strings.Contains(r.stdout, "SECRET") {
			t.Errorf("%v\nit leads out", r)
		}
	}
	for _, sub := range []string{"sub", "ok", "sub/../sub/."} {
		same(t, sub, g.ok("run", "--rm", "--mount", "src=mine,dst=/x,volume-subpath="+sub, image, "cat", "/x/f"), "in")
	}
	g.fails(125, args("run", "--rm", "--mount", "src=mine,dst=/x,volume-subpath=nope", image, "true"), "no such file")
	// Copying out of containers that do not run goes through volumes as well.
	g.ok("create", "--name", "stopped", "-v", "mine:/m", image, "true")
	for _, path := range []string{"/m/abs/secret", "/m/up/secret"} {
		g.fails(1, args("cp", "stopped:"+path, "-"), "Could not find the file")
	}
	g.ok("cp", dir+"/file", "stopped:/m/sub/copied")
	g.ok("create", "--name", "cannot", "-v", "mine:/m:ro", image, "true")
	g.fails(1, args("cp", dir+"/file", "cannot:/m/sub/copied"), "mounted volume is marked read-only")
	same(t, "copied into a volume", content(t, g.data("mine")+"/sub/copied"), "given\n")
}

// TestMountRaces exchanges names on the way while containers are started.
func TestMountRaces(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	secret := hostDir(t, map[string]string{"secret": "SECRET", "deep/secret": "SECRET"})
	// A source that is a directory at one moment and a symlink at the next: what is
	// mounted is one of them as a whole, with its attributes.
	dir := hostDir(t, map[string]string{"a/file": "given", "b/file": "other"})
	stop := make(chan struct{})
	var exchanging sync.WaitGroup
	exchanging.Go(func() {
		if err := os.Symlink("b", dir+"/link"); err != nil {
			t.Error(err)
		}
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/link", unix.RENAME_EXCHANGE)
			}
		}
	})
	for range rounds(10, 3) {
		out := g.ok("run", "--rm", "-v", dir+"/a:/d:ro", image, "sh", "-c", "cat /d/file; touch /d/x 2>/dev/null && echo WRITABLE; true")
		if out != "given" && out != "other" {
			t.Errorf("%q", out)
		}
	}
	close(stop)
	exchanging.Wait()

	// A container that shares a volume exchanges, in the place where another's
	// mount goes, a directory and a symlink out.
	g.ok("run", "-d", "--name", "racer", "-v", "shared:/s", image, "sh", "-c",
		"mkdir -p /s/p/deep; ln -s "+secret+" /s/q; while :; do mv -T /s/p /s/r; mv -T /s/q /s/p; mv -T /s/p /s/q; mv -T /s/r /s/p; done")
	given := hostDir(t, map[string]string{"file": "given"})
	for range rounds(30, 5) {
		r := g.do(nil, "run", "--rm", "-v", "shared:/s", "-v", given+":/s/p/deep", image, "sh", "-c", "cat /s/p/secret /s/p/deep/secret /s/q/secret 2>/dev/null; true")
		if strings.Contains(r.stdout, "SECRET") {
			t.Fatalf("%v\nit was led out", r)
		}
		r = g.do(nil, "run", "--rm", "--mount", "src=shared,dst=/x,volume-subpath=p", image, "sh", "-c", "cat /x/secret 2>/dev/null; true")
		if strings.Contains(r.stdout, "SECRET") {
			t.Fatalf("%v\nit was led out", r)
		}
	}
	g.ok("rm", "-f", "racer")
	if entries, err := os.ReadDir(secret); err != nil || len(entries) != 2 {
		t.Errorf("%s: %v, %v", secret, entries, err)
	}
}

// A create that is killed while it fills a volume leaves it whole or not at all.
func TestVolumeCopyKilled(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	g.ok("load", "-q", "-i", coreFile(t, "zoo.tar"))
	start := time.Now()
	g.ok("create", "-v", "whole:/zoo", "zoo:test", "true")
	took := time.Since(start)
	want, err := fixture.Tree(g.data("whole"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[bool]int{}
	for n := range rounds(6, 3) {
		name := fmt.Sprint("killed", n)
		cmd := g.command(t.Context(), "create", "--name", name, "-v", name+":/zoo", "zoo:test", "true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(took * time.Duration(n+1) / 6)
		cmd.Process.Kill()
		cmd.Wait()
		got, err := fixture.Tree(g.data(name))
		seen[err == nil]++
		if err == nil {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("killed at moment %d: %s", n, diff)
			}
		} else if !os.IsNotExist(err) {
			t.Error(err)
		}
	}
	t.Logf("volumes that were not there %d times, and whole %d times", seen[false], seen[true])
	g.ok("create", "-v", "killed0:/zoo", "zoo:test", "true")
	got, err := fixture.Tree(g.data("killed0"))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("afterwards: %v %s", err, diff)
	}
}
