//go:build root

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hostDir makes a directory of the host for containers to mount.
func hostDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// mounted is what inspect says of mounts.
type mounted struct {
	HostConfig struct {
		Binds       []string
		VolumesFrom []string
	}
	Mounts []struct {
		Type, Name, Source, Destination, Driver, Mode, Propagation string
		RW                                                         bool
	}
	Config struct{ Volumes map[string]struct{} }
}

func TestCoreBinds(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	dir := hostDir(t, map[string]string{"file": "of the host\n", "sub/below": "x"})
	same(t, "bind", g.ok("run", "--rm", "-v", dir+":/data", image, "sh", "-c", "cat /data/file; echo of the container > /data/new"), "of the host")
	same(t, "what it wrote", content(t, dir+"/new"), "of the container\n")
	same(t, "file", g.ok("run", "--rm", "-v", dir+"/file:/etc/motd", image, "cat", "/etc/motd"), "of the host")
	same(t, "over /etc/hosts", g.ok("run", "--rm", "-v", dir+"/file:/etc/hosts", image, "cat", "/etc/hosts"), "of the host")
	same(t, "in each other", g.ok("run", "--rm", "-v", dir+"/file:/a/b/c", "-v", dir+"/sub:/a/b", "-v", dir+":/a", "--tmpfs", "/a/sub",
		image, "sh", "-c", "cat /a/b/c /a/b/below /a/file; ls /a/sub"), "of the host\nxof the host")
	for _, ro := range []string{"-v=" + dir + ":/data:ro", "--mount=type=bind,src=" + dir + ",dst=/data,readonly"} {
		r := g.do(nil, "run", "--rm", ro, image, "sh", "-c", "echo x > /data/file")
		if r.code == 0 || !strings.Contains(r.stderr, "Read-only") {
			t.Errorf("%v\nwas not refused", r)
		}
	}
	missing := dir + "/made/for/it"
	g.ok("run", "--rm", "-v", missing+":/data", image, "true")
	if fi, err := os.Stat(missing); err != nil || fi.Mode() != os.ModeDir|0o755 {
		t.Errorf("%s: %v, %v", missing, fi, err)
	}
	g.ok("run", "--rm", "--mount", "type=bind,bind-create-src,src="+dir+"/made2,dst=/data", image, "true")
	g.fails(125, args("run", "--rm", "--mount", "type=bind,src="+dir+"/nope,dst=/data", image, "true"),
		`invalid mount config for type "bind": bind source path does not exist: `+dir+"/nope")
	g.fails(125, args("run", "--rm", "-v", dir+"/file/x:/data", image, "true"), "error while creating mount source path '"+dir+"/file/x'")
	g.fails(125, args("run", "--rm", "-v", dir+":/etc/motd", image, "true"), "mount /etc/motd: not a directory")
	g.fails(125, args("run", "--rm", "-v", dir+"/file:/etc", image, "true"), "mount /etc: not a directory")
	g.fails(125, args("run", "--rm", "-v", dir+":/x", "--mount", "type=tmpfs,dst=/x", image, "true"), "Duplicate mount point: /x")
	g.fails(125, args("run", "--rm", "-v", dir+":/x", "--tmpfs", "/x", image, "true"), "Duplicate mount point: /x")
	g.fails(125, args("run", "--rm", "-v", dir+":/", image, "true"), "destination can't be '/'")
	g.fails(125, args("run", "--rm", "-v", dir+":/x:rshared", image, "true"), "is not a shared mount")
	if _, err := os.Stat("/dev/console"); err == nil {
		same(t, "the terminal with the host's /dev", strings.TrimSpace(g.ok("run", "--rm", "-t", "-v", "/dev:/dev", image, "tty")), "/dev/console")
	}
	if left := mountsWith(dir); len(left) > 0 {
		t.Errorf("in the host's mount table: %q", left)
	}
	same(t, "containers left", g.ok("ps", "-aq"), "")
}

// Mounts of the host below a source come along, and those made after the
// supervisor was started are seen.
func TestCoreBindsOfMounts(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "keeps-the-supervisor", image, "sleep", "1000")
	dir := hostDir(t, map[string]string{"sub/hidden": "x"})
	if err := unix.Mount("tug-test", dir+"/sub", "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir+"/sub", unix.MNT_DETACH)
	if err := os.WriteFile(dir+"/sub/mounted", []byte("m\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bind := "type=bind,src=" + dir + ",dst=/d"
	for flags, want := range map[string]string{
		bind:                                 "mounted rw",
		bind + ",ro":                         "mounted ro",
		bind + ",bind-recursive=enabled":     "mounted rw",
		bind + ",ro,bind-recursive=writable": "mounted rw",
		bind + ",ro,bind-propagation=rprivate,bind-recursive=readonly": "mounted ro",
		bind + ",bind-recursive=disabled":                              "hidden rw",
		bind + ",bind-nonrecursive":                                    "hidden rw",
	} {
		script := "n=$(ls /d/sub); if touch /d/sub/t 2>/dev/null; then rm /d/sub/t; echo $n rw; else echo $n ro; fi"
		same(t, flags, g.ok("run", "--rm", "--mount", flags, image, "sh", "-c", script), want)
	}
	// Where the host's mount is shared, what is mounted later propagates as asked for.
	if err := unix.Mount("", dir+"/sub", "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"} {
		name := "propagation-" + how
		g.ok("run", "-d", "--privileged", "--name", name, "--mount", "type=bind,src="+dir+"/sub,dst=/d,bind-propagation="+how, image, "sleep", "1000")
		from, to := dir+"/sub/from-"+how, dir+"/sub/to-"+how
		if err := os.Mkdir(from, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tug-test", from, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		seen := g.do(nil, "exec", name, "grep", "-q", " /d/from-"+how+" ", "/proc/self/mountinfo").code == 0
		if want := !strings.Contains(how, "private"); seen != want {
			t.Errorf("%s: the container sees a later mount of the host: %v", how, seen)
		}
		g.ok("exec", name, "mount", "-t", "tmpfs", "none", "/d/to-"+how)
		var here, parent syscall.Stat_t
		if err := syscall.Stat(to, &here); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Stat(dir+"/sub", &parent); err != nil {
			t.Fatal(err)
		}
		if got, want := here.Dev != parent.Dev, strings.Contains(how, "shared"); got != want {
			t.Errorf("%s: the host sees a mount of the container: %v", how, got)
		}
		g.ok("rm", "-f", name)
		unix.Unmount(from, unix.MNT_DETACH)
		unix.Unmount(to, unix.MNT_DETACH)
	}
}

func kernelBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	var a, b int
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if n, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 {
		t.Fatal(err)
	}
	return a < major || a == major && b < minor
}

// Files of a bind mount are those of the container's user, whoever owns them on
// the host, and what the user makes is the owner's there.
func TestCoreBindOwner(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	dir := hostDir(t, map[string]string{"file": "x"})
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC && kernelBefore(t, 6, 3) {
		g.fails(125, args("run", "--rm", "-v", dir+":/d:owner=5:6", image, "true"), "cannot show other owners")
		t.Skip("a tmpfs can show other owners from Linux 6.3 on")
	}
	for _, p := range []string{dir, dir + "/file"} {
		if err := os.Chown(p, 4321, 4322); err != nil {
			t.Fatal(err)
		}
	}
	g.ok("volume", "create", "owned")
	for i, c := range []struct {
		flags []string
		want  string
	}{
		{args("-v", dir+":/d:U"), "0:0"},
		{args("-v", dir+":/d:U", "-u", "alice"), "1000:1000"},
		{args("-v", dir+":/d:U", "-u", "1000"), "1000:1000"},
		{args("-v", dir+":/d:U", "-u", "alice:staff"), "1000:50"},
		{args("-v", dir+":/d:U", "-u", "77:88"), "77:88"},
		{args("-v", dir+":/d:owner=5:6", "-u", "5:6"), "5:6"},
		{args("--mount", "type=bind,src="+dir+",dst=/d,owner=4321:6", "-u", "4321:6"), "4321:6"},
		{args("--mount", "type=bind,src="+dir+",dst=/d,owner=4322:4321", "-u", "4322:4321"), "4322:4321"},
	} {
		made := fmt.Sprintf("made%d", i)
		got := g.ok(append(append(args("run", "--rm"), c.flags...), image, "sh", "-c", "touch /d/"+made+" && stat -c %u:%g /d /d/file /d/"+made)...)
		if want := c.want + "\n" + c.want + "\n" + c.want; got != want {
			t.Errorf("%q: %q, want %q", c.flags, got, want)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, made), &st); err != nil || st.Uid != 4321 || st.Gid != 4322 {
			t.Errorf("%q: made as %d:%d (%v)", c.flags, st.Uid, st.Gid, err)
		}
	}
	same(t, "a volume", g.ok("run", "--rm", "-v", "owned:/d:U", "-u", "alice", image, "sh", "-c", "touch /d/x; stat -c %u /d /d/x"), "1000\n1000")
	g.fails(125, args("run", "--rm", "-v", dir+":/d:U", "-u", "nobody-here", image, "true"), "unable to find user nobody-here")
	g.fails(125, args("run", "--rm", "--mount", "type=bind,src=/proc/self,dst=/d,owner=5:6", image, "true"), "mount /d:", "idmapped")
}

// A file system that is made for a volume is one for all who use it, and
// outlives a killed supervisor.
func TestCoreVolumeOfTmpfs(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "fast")
	g.ok("run", "-d", "--name", "one", "-v", "fast:/f", image, "sh", "-c", "echo here > /f/x; sleep 1000")
	eventually(t, patience, func() string {
		if r := g.do(nil, "run", "--rm", "-v", "fast:/f:ro", image, "cat", "/f/x"); r.stdout != "here\n" {
			return r.String()
		}
		return ""
	})
	if _, supervisor := g.resident(); supervisor != 0 {
		if err := syscall.Kill(supervisor, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "after kill -9", g.ok("run", "--rm", "-v", "fast:/f", image, "sh", "-c", "cat /f/x; df -k /f | tail -1 | grep -o 1024 | head -1"), "here\n1024")
	g.ok("rm", "-f", "one")
	same(t, "when all have ended", g.ok("run", "--rm", "-v", "fast:/f", image, "ls", "/f"), "")
	if left, err := os.ReadDir(g.runRoot() + "/volumes"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	dir := hostDir(t, map[string]string{"file": "bound\n"})
	g.ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+dir, "bound")
	same(t, "bind", g.ok("run", "--rm", "-v", "bound:/f", image, "cat", "/f/file"), "bound")
	if left := mountsWith(dir); len(left) > 0 {
		t.Errorf("in the host's mount table: %q", left)
	}
}

func TestCoreMountImage(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	same(t, "image", g.ok("run", "--rm", "--mount", "type=image,src="+image+",dst=/i", image, "cat", "/i/etc/motd"), "second layer")
	same(t, "subpath", g.ok("run", "--rm", "--mount", "type=image,src="+image+",dst=/i,image-subpath=etc", image, "cat", "/i/motd"), "second layer")
	same(t, "file", g.ok("run", "--rm", "--mount", "type=image,src="+image+",dst=/i,image-subpath=etc/motd", image, "cat", "/i"), "second layer")
	r := g.do(nil, "run", "--rm", "--mount", "type=image,src="+image+",dst=/i", image, "touch", "/i/x")
	if r.code == 0 || !strings.Contains(r.stderr, "Read-only") {
		t.Errorf("%v\nwas not refused", r)
	}
	g.fails(125, args("run", "--rm", "--mount", "type=image,src="+image+",dst=/i,image-subpath=../x", image, "true"), "leads out of image")
	g.fails(125, args("run", "--rm", "--mount", "type=image,src=nobody,dst=/i", image, "true"), "No such image: nobody")
	g.ok("tag", image, "other:test")
	g.ok("create", "--name", "holds", "--mount", "type=image,src=other:test,dst=/i", "tug.local/hello")
	g.ok("rmi", "other:test")
	g.fails(1, args("rmi", image), "is using its referenced image")
	g.ok("rm", "holds")
	g.ok("rmi", image)
}
