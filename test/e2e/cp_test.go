//go:build root

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// write makes files of the host, directories where the name ends with a slash.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Docker's rules for where a source goes, both ways, running and stopped.
func TestCopyRules(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const files = "mkdir -p /s/dir/sub /s/into; echo 1 > /s/file; echo 2 > /s/dir/sub/x; echo 3 > /s/old; ln -s into /s/lnk; ln -s old /s/flnk; ln -s nowhere /s/dangling"
	g.ok("run", "-d", "--name", "run", "busybox:test", "sh", "-c", files+"; echo ready; exec sleep 1000")
	g.ok("run", "--name", "end", "busybox:test", "sh", "-c", files)
	eventually(t, patience, func() string {
		if g.ok("logs", "run") != "ready" {
			return "not ready"
		}
		return ""
	})
	source := func() string {
		host := t.TempDir()
		write(t, host, map[string]string{"s/dir/sub/x": "2\n", "s/into/": "", "s/file": "1\n", "s/old": "3\n"})
		for link, to := range map[string]string{"lnk": "into", "flnk": "old"} {
			if err := os.Symlink(to, filepath.Join(host, "s", link)); err != nil {
				t.Fatal(err)
			}
		}
		return host
	}
	rules := []struct{ src, dst, file, fails string }{
		{"file", "into", "into/file", ""},
		{"file", "into/", "into/file", ""},
		{"file", "lnk", "into/file", ""},
		{"file", "new", "new", ""},
		{"file", "new/", "", "no such directory"},
		{"file", "old", "old", ""},
		{"file", "flnk", "old", ""},
		{"file", "no/dir/x", "", "!"},
		{"dir", "into", "into/dir/sub/x", ""},
		{"dir", "newdir", "newdir/sub/x", ""},
		{"dir", "newdir/", "newdir/sub/x", ""},
		{"dir/.", "into", "into/sub/x", ""},
		{"dir/.", "newdir", "newdir/sub/x", ""},
		{"dir", "old", "", "cannot copy directory"},
		{"missing", "into", "", "!"},
		{"file/", "into", "", "!"},
		{"lnk/.", "newdir", "newdir", ""},
	}
	for _, r := range rules {
		for _, name := range []string{"run", "end"} {
			host, inside := source(), source()
			want := map[bool]string{true: "2\n", false: "1\n"}[strings.HasPrefix(r.src, "dir")]
			check := func(way string, res result, read func() (string, error)) {
				t.Helper()
				what := fmt.Sprintf("%s %s: %s to %s", name, way, r.src, r.dst)
				if r.fails != "" {
					if res.code != 1 || r.fails != "!" && !strings.Contains(res.stderr, r.fails) {
						t.Errorf("%s: %v", what, res)
					}
					return
				}
				got, err := read()
				if res.code != 0 || r.file != "newdir" && (err != nil || got != want) || res.stderr != "" {
					t.Errorf("%s: %v: %q, %v", what, res, got, err)
				}
			}
			out := g.do(nil, "cp", name+":/s/"+r.src, host+"/s/"+r.dst)
			check("out", out, func() (string, error) {
				b, err := os.ReadFile(filepath.Join(host, "s", r.file))
				return string(b), err
			})
			own := "/w" + filepath.Base(filepath.Dir(host)) + filepath.Base(host)
			if res := g.do(nil, "cp", filepath.Join(inside, "s")+"/.", name+":"+own); res.code != 0 {
				t.Fatal(res)
			}
			in := g.do(nil, "cp", filepath.Join(inside, "s")+"/"+r.src, name+":"+own+"/"+r.dst)
			check("in", in, func() (string, error) {
				h := tar.NewReader(strings.NewReader(g.do(nil, "cp", name+":"+own+"/"+r.file, "-").stdout))
				if _, err := h.Next(); err != nil {
					return "", err
				}
				b, err := io.ReadAll(h)
				return string(b), err
			})
		}
	}
	for _, tt := range []struct {
		args []string
		says string
	}{
		{args("cp", "a", "b"), "must specify at least one container source"},
		{args("cp", "run:a", "end:b"), "copying between containers is not supported"},
		{args("cp", "", "end:b"), "source can not be empty"},
		{args("cp", "end:b", ""), "destination can not be empty"},
		{args("cp", "nobody:/x", "."), "No such container: nobody"},
		{args("cp", "run:/nothing", "."), "Could not find the file /nothing in container"},
		{args("cp", "run:/s/file", "/nothing/there"), `invalid output path: directory "/nothing" does not exist`},
		{args("cp", "-", "run:/s/file"), `destination "run:/s/file" must be a directory`},
		{args("cp", "/etc/passwd", "run:/dev/null"), "must be a directory or a regular file"},
	} {
		g.fails(1, tt.args, tt.says)
	}
	r := g.do(nil, "cp", "-q=false", "run:/s/file", filepath.Join(t.TempDir(), "x"))
	if !strings.HasPrefix(r.stderr, "Successfully copied 2.05kB to /") {
		t.Error(r)
	}
	g.ok("run", "-d", "--name", "ro", "--read-only", "--tmpfs", "/t", "busybox:test", "sleep", "1000")
	g.ok("create", "--name", "ro2", "--read-only", "busybox:test", "true")
	g.fails(1, args("cp", "/etc/passwd", "ro:/x"), "container rootfs is marked read-only")
	g.fails(1, args("cp", "/etc/passwd", "ro2:/x"), "container rootfs is marked read-only")
	g.ok("cp", "/etc/passwd", "ro:/t/x")
	same(t, "into a tmpfs", g.ok("exec", "ro", "head", "-c4", "/t/x"), "root")
	same(t, "events", g.ok("events", "--since", "1h", "--until", "0s", "--filter", "container=ro", "--filter", "event=extract-to-dir", "--format", "{{.Action}}"), "extract-to-dir")
}

// What goes in and comes out again is the same: kinds, modes, times, owners;
// the host's tar makes one end and reads the other.
func TestCopyRoundTrip(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	dir := t.TempDir()
	script := `mkdir -p d/deep; cd d; head -c 3000000 /dev/urandom > big; echo x > a; ln a b; ln -s ../../etc/passwd l; mkfifo f; mknod c c 1 3; mknod blk b 7 9
		chmod 4755 a; chown 12:34 big deep; chmod 1777 deep; touch -d @1234567890 a deep; touch -h -d @1000000000 l; truncate -s 10M sparse; : > empty; touch "odd
name"`
	if out, err := exec.Command("sh", "-c", "cd "+dir+" && "+script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	list := func(b []byte) map[string]string { t.Helper(); return tarLines(t, b) }
	hostTar := func(d string) []byte {
		t.Helper()
		b, err := exec.Command("tar", "-C", d, "--sort=name", "-c", "d").Output()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := hostTar(dir)
	g.ok("create", "--name", "box", "busybox:test", "sleep", "1000")
	for _, state := range []string{"stopped", "running"} {
		for _, way := range []string{"-a", "-"} {
			to := "/" + state + way
			if res := g.do(tarOf(t, "x/"), "cp", "-", "box:/"); res.code != 0 {
				t.Fatal(res)
			}
			mk := g.do(tarOf(t, to[1:]+"/"), "cp", "-", "box:/")
			if mk.code != 0 {
				t.Fatal(mk)
			}
			if way == "-a" {
				g.ok("cp", "-a", filepath.Join(dir, "d"), "box:"+to)
			} else if res := g.do(bytes.NewReader(want), "cp", "-", "box:"+to); res.code != 0 {
				t.Fatal(res)
			}
			got := g.do(nil, "cp", "box:"+to+"/d", "-")
			if diff := cmp.Diff(list(want), list([]byte(got.stdout))); diff != "" || got.code != 0 {
				t.Errorf("%s, %s (-host +container): %s\n%s", state, way, diff, got.stderr)
			}
			back := t.TempDir()
			g.ok("cp", "-a", "box:"+to+"/d", back)
			if diff := cmp.Diff(list(want), list(hostTar(back))); diff != "" {
				t.Errorf("%s, %s, and back (-before +after): %s", state, way, diff)
			}
			g.ok("cp", filepath.Join(dir, "d/big"), "box:"+to+"/roots")
			one := list([]byte(g.do(nil, "cp", "box:"+to+"/roots", "-").stdout))
			if !strings.HasPrefix(one["roots"], "0 644 0:0 ") {
				t.Errorf("without -a: %q", one)
			}
		}
		g.ok("start", "box")
	}
	same(t, "hard link", g.ok("exec", "box", "stat", "-c", "%h", "/stopped-a/d/a"), "2")
}

// tarOf is a tar of empty directories.
func tarOf(t *testing.T, dirs ...string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, d := range dirs {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// Links of a container lead nowhere on the host, and neither do tars.
func TestCopyEscapes(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	host := t.TempDir()
	write(t, host, map[string]string{"secret": "host\n", "etc/": ""})
	up := strings.Repeat("../", 40)
	g.ok("run", "-d", "--name", "box", "busybox:test", "sh", "-c", "ln -s "+host+" /abs; ln -s "+up+host[1:]+" /rel; ln -s /proc/1/root/../../.. /proc1; ln -s /proc/self/cwd /cwd; mkdir /tree; ln -s "+host+" /tree/a; echo ready; exec sleep 1000")
	eventually(t, patience, func() string {
		if g.ok("logs", "box") != "ready" {
			return "not ready"
		}
		return ""
	})
	for _, link := range []string{"/abs", "/rel", "/proc1" + host, "/cwd" + host, up + host[1:]} {
		for _, state := range []string{"running", "stopped"} {
			if r := g.do(nil, "cp", "-L", "box:"+link+"/secret", "-"); r.code != 1 || strings.Contains(r.stdout, "host") {
				t.Errorf("%s, %s: %v", state, link, r)
			}
			if r := g.do(nil, "cp", "/etc/passwd", "box:"+link+"/planted"); r.code != 1 {
				t.Errorf("%s, %s: %v", state, link, r)
			}
			if state == "running" {
				g.ok("kill", "box")
				g.ok("wait", "box")
			}
		}
		g.ok("start", "box")
	}
	entry := func(name, link string, typ byte) *tar.Header {
		h := &tar.Header{Typeflag: typ, Name: name, Linkname: link, Mode: 0o644}
		if typ == tar.TypeReg {
			h.Size = 5
		}
		return h
	}
	for what, members := range map[string][]*tar.Header{
		"dots":           {entry(up+host[1:]+"/planted", "", tar.TypeReg)},
		"inner dots":     {entry("a/../../../"+up+host[1:]+"/planted", "", tar.TypeReg)},
		"hard link":      {entry("hl", up+host[1:]+"/secret", tar.TypeLink)},
		"link and file":  {entry("sl", host, tar.TypeSymlink), entry("sl/planted", "", tar.TypeReg)},
		"dots and link":  {entry("sl", up+host[1:], tar.TypeSymlink), entry("sl/planted", "", tar.TypeReg)},
		"absolute":       {entry(host+"/planted", "", tar.TypeReg)},
		"whiteout":       {entry("white", "", tar.TypeChar)},
		"over a link":    {entry("abs", "", tar.TypeReg)},
		"through a link": {entry("hl2", "abs/secret", tar.TypeLink)},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range members {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				_, _ = w.Write([]byte("evil\n"))
			}
		}
		_ = w.Close()
		r := g.do(&b, "cp", "-", "box:/")
		if what != "absolute" && what != "over a link" && !strings.Contains(what, "link and") && !strings.Contains(what, "and link") && r.code != 1 {
			t.Errorf("%s: %v", what, r)
		}
	}
	// A directory with a link, then one with a directory in its place.
	out := t.TempDir()
	g.ok("cp", "box:/tree", out)
	g.ok("exec", "box", "sh", "-c", "rm /tree/a; mkdir /tree/a; echo evil > /tree/a/planted")
	g.fails(1, args("cp", "box:/tree", out), "cannot overwrite non-directory")
	untouched(t, host)
}

// untouched fails the test when anything was planted on the host.
func untouched(t *testing.T, host string) {
	t.Helper()
	_ = filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() != "secret" && !d.IsDir() {
			t.Errorf("%s was made on the host", p)
		}
		return nil
	})
	if b, _ := os.ReadFile(filepath.Join(host, "secret")); string(b) != "host\n" {
		t.Errorf("the host's file is now %q", b)
	}
}

// A program inside exchanges a directory and a link to the host's directory
// as fast as it can, while files are copied both ways.
func TestCopyExchange(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	host := t.TempDir()
	write(t, host, map[string]string{"secret": "host\n"})
	g.ok("run", "-d", "--name", "box", "busybox:test", "sh", "-c", "mkdir -p /x/real; echo box > /x/real/secret; ln -s "+host+" /x/link; cd /x; while :; do mv real d; mv d real; mv link d; mv d link; done 2>/dev/null")
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	copied := 0
	for ctx.Err() == nil {
		out := t.TempDir()
		r := g.do(nil, "cp", "-L", "box:/x/d/secret", "-")
		if strings.Contains(r.stdout, "host") {
			t.Fatalf("a host's file came out: %v", r)
		}
		g.do(nil, "cp", "-L", "box:/x/d", out)
		g.do(nil, "cp", "box:/x", out)
		_ = filepath.WalkDir(out, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if b, _ := os.ReadFile(p); string(b) == "host\n" {
					t.Fatalf("%s is the host's", p)
				}
			}
			return nil
		})
		if g.do(nil, "cp", "/etc/passwd", "box:/x/d/planted").code == 0 {
			copied++
		}
		untouched(t, host)
	}
	t.Logf("%d copies went in", copied)
}

// A copy that is killed leaves the container as usable as it was, and no mount.
func TestCopyKilled(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("create", "--name", "box", "busybox:test", "sh", "-c", "echo up; exec sleep 1000")
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for try := range 6 {
		cmd := g.command(t.Context(), "cp", big, "box:/big")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+20*try) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	g.ok("cp", big, "box:/big")
	g.ok("start", "box")
	same(t, "size", g.ok("exec", "box", "stat", "-c", "%s", "/big"), fmt.Sprint(64<<20))
	sum := g.ok("exec", "box", "md5sum", "/big")
	g.ok("cp", "box:/big", big+".out")
	out, err := exec.Command("md5sum", big+".out").Output()
	if err != nil || !strings.HasPrefix(sum, string(out[:32])) {
		t.Errorf("%s, %s, %v", sum, out, err)
	}
}
