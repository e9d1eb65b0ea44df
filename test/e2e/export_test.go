//go:build root

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tarLines describes the members of a tar by name, without what a container's
// mounts hide.
func tarLines(t *testing.T, b []byte) map[string]string {
	t.Helper()
	lines := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
		top, _, below := strings.Cut(name, "/")
		if name == "" || name == "." || below && (top == "dev" || top == "proc" || top == "sys") {
			continue
		}
		if name == "dev" || name == "proc" || name == "sys" || name == "etc/hosts" || name == "etc/hostname" || name == "etc/resolv.conf" {
			lines[name] = string(h.Typeflag)
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, strings.TrimPrefix(h.Linkname, "./"))
		switch h.Typeflag {
		case tar.TypeReg:
			line += fmt.Sprintf(" %d %x %d", h.Size, sum.Sum(nil), h.ModTime.Unix())
		case tar.TypeLink:
			line = "link" // which name is the first depends on who lists them
		case tar.TypeChar, tar.TypeBlock:
			line += fmt.Sprintf(" %d:%d", h.Devmajor, h.Devminor)
		}
		if lines[name] != "" {
			t.Errorf("%s is there twice", name)
		}
		lines[name] = line
	}
}

// An export is what the container sees: compared with the tar that a program
// inside makes of it, running and stopped.
func TestExport(t *testing.T) {
	g := newBusybox(t)
	id := g.ok("run", "-d", "--name", "box", "busybox:test", "sh", "-c", `
		set -e
		echo changed >> /etc/passwd; rm /bin/vi; rm -r /var; mkdir /var; echo new > /var/new
		mkdir -p /data/deep/er; echo one > /data/a; ln /data/a /data/b; ln -s ../../etc/passwd /data/link; mkfifo /data/fifo
		chmod 4755 /data/a; chown 1234:65537 /data/deep; mv /home /house; rm -r /root; echo file > /root
		dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=5000000; touch -d @1234567890 /data/old
		ln -s / "/data/up"; touch "/data/$(printf 'odd\nname\033\377')" ; mkdir /data/sub; rm -r /data/sub; mkdir /data/sub
		echo ready; sleep 1000`)
	eventually(t, patience, func() string {
		if !strings.Contains(g.ok("logs", id), "ready") {
			return "not ready"
		}
		return ""
	})
	truth := g.do(nil, "exec", "box", "sh", "-c", `cd / && tar -c -f - $(ls -A | grep -v -x -e proc -e sys -e dev)`)
	running := g.do(nil, "export", "box")
	if running.code != 0 || truth.code != 0 {
		t.Fatal(running.stderr, truth.stderr)
	}
	want, got := tarLines(t, []byte(truth.stdout)), tarLines(t, []byte(running.stdout))
	// busybox's list is a line per name.
	maps.DeleteFunc(want, func(n, _ string) bool { return strings.HasPrefix(n, "data/odd") })
	for _, dir := range []string{"dev", "proc", "sys"} {
		if got[dir] != "5" {
			t.Errorf("%s is %q, want an empty directory", dir, got[dir])
		}
		delete(got, dir)
	}
	odd := 0
	maps.DeleteFunc(got, func(n, _ string) bool {
		if strings.HasPrefix(n, "data/odd") {
			odd++
			return true
		}
		return false
	})
	if odd != 1 {
		t.Errorf("%d files of the odd name", odd)
	}
	links := func(m map[string]string, names ...string) (n int) {
		for _, name := range names {
			if m[name] == "link" {
				n++
			}
			delete(m, name)
		}
		return n
	}
	if links(want, "data/a", "data/b") != 1 || links(got, "data/a", "data/b") != 1 {
		t.Error("the hard link is none")
	}
	// So are the links among busybox's own names; every name must be there.
	for _, m := range []map[string]string{want, got} {
		for n := range m {
			if strings.HasPrefix(n, "bin/") {
				m[n] = "busybox"
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-inside +export:\n%s", clip(diff))
	}
	g.ok("kill", "box")
	g.ok("wait", "box")
	file := filepath.Join(g.dir, "out.tar")
	g.ok("container", "export", "-o", file, id[:12])
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, []byte(running.stdout)) {
		t.Error("the stopped container's export is another")
	}
	names := slices.Collect(maps.Keys(tarLines(t, b)))
	if slices.Contains(names, "bin/vi") || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "root/") }) {
		t.Error("what was removed is there")
	}
	g.fails(1, args("export", "nope"), "No such container: nope")
	g.fails(1, args("export", "-o", g.dir, id), "is a directory")
}

// A container that changes its files all the time, with links to the host and
// fifos among them, can make neither its export fail nor lead it out.
func TestExportWhileChanging(t *testing.T) {
	g := newBusybox(t)
	secret := filepath.Join(g.dir, "secret")
	if err := os.WriteFile(secret, []byte("the host's secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.ok("run", "-d", "--name", "busy", "busybox:test", "sh", "-c", `
		mkdir -p /w`+g.dir+`; cd /w
		while :; do
			mkdir x; echo a > x/secret; rm -r x; ln -s `+g.dir+` x; rm x
			mkfifo x; rm x; echo b > x; rm x; ln -s `+secret+` y; rm y; echo c > y; rm y
		done`)
	for range 20 {
		r := g.do(nil, "export", "busy")
		if r.code != 0 {
			t.Fatal(r)
		}
		if strings.Contains(r.stdout, "the host's secret") {
			t.Fatal("the export followed a link to the host")
		}
		tarLines(t, []byte(r.stdout))
	}
}
