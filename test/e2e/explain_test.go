//go:build root

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

type explained struct {
	Type, Name, Status string
	Writable           struct {
		Size                    int64
		ReadOnly                bool
		Added, Changed, Removed struct {
			Files, Directories int
			Bytes              int64
			Largest            []struct {
				Path, Type string
				Size       int64
			}
		}
	}
	Layers []struct {
		Layer      int
		DiffID     string
		CreatedBy  string
		Images     []struct{ Name string }
		Containers []struct{ Name string }
	}
	Process struct{ Pid, Count int }
	Mounts  []struct {
		Target, Type, Options string
		ReadOnly              bool
	}
	Limits     struct{ Memory, PidsLimit int64 }
	Namespaces []struct {
		Kind, ID   string
		Host       bool
		SharedWith []struct{ Name string }
	}
	Containers []struct{ Name string }
}

func (g *tug) explain(name string) (x explained) {
	g.t.Helper()
	out := g.ok("explain", "--format", "json", name)
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		g.t.Fatalf("explain %s: %v\n%s", name, err, out)
	}
	return x
}

// explain tells what the kernel and the files say: of a running container that
// shares namespaces, has limits and has changed files of all kinds; of a stopped
// one; of images; of a container whose image is gone.
func TestCoreExplain(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "db", "--ipc", "shareable", "busybox:test", "sleep", "1000")
	g.ok("run", "-d", "--name", "web", "-m", "64m", "--pids-limit", "40", "--tmpfs", "/cache:size=1m", "--ipc", "container:db", "--pid", "host", "busybox:test", "sh", "-c", `
		dd if=/dev/zero of=/big bs=1000 count=500 2>/dev/null; echo x >> /etc/passwd; rm /bin/vi; rm -r /var; mkdir -p /a/b; echo c > /a/b/c
		sleep 1000 & echo ready; exec sleep 1001`)
	eventually(t, patience, func() string {
		if n := g.explain("web").Process.Count; n != 2 || g.ok("logs", "web") != "ready" {
			return fmt.Sprint("not ready: ", n, " processes")
		}
		return ""
	})
	x := g.explain("web")
	w := &x.Writable
	same(t, "added", fmt.Sprintf("%d %d %s %d", w.Added.Files, w.Added.Bytes, w.Added.Largest[0].Path, w.Added.Largest[0].Size), "2 500002 /big 500000")
	same(t, "changed", fmt.Sprintf("%d %s", w.Changed.Files, w.Changed.Largest[0].Path), "1 /etc/passwd")
	removed := map[string]string{}
	for _, r := range w.Removed.Largest {
		removed[r.Path] = r.Type
	}
	same(t, "removed", removed["/var"], "directory")
	if _, ok := removed["/bin/vi"]; !ok {
		t.Errorf("removed: %v", removed)
	}
	same(t, "limits", fmt.Sprint(x.Limits), "{67108864 40}")
	for _, n := range x.Namespaces {
		link, err := os.Readlink("/proc/" + strconv.Itoa(x.Process.Pid) + "/ns/" + n.Kind)
		if err != nil || link != fmt.Sprintf("%s:[%s]", n.Kind, n.ID) {
			t.Errorf("%s: %s is %s: %v", n.Kind, n.ID, link, err)
		}
		same(t, n.Kind+" is the host's", fmt.Sprint(n.Host), fmt.Sprint(n.Kind == "pid" || n.Kind == "user"))
		same(t, n.Kind+" is shared", fmt.Sprint(n.SharedWith), map[bool]string{true: "[{db}]", false: "[]"}[n.Kind == "ipc"])
	}
	found := false
	for _, m := range x.Mounts {
		found = found || m.Target == "/cache" && m.Type == "tmpfs" && strings.Contains(m.Options, "size=1024k")
	}
	if !found {
		t.Errorf("no /cache among %v", x.Mounts)
	}
	for _, l := range x.Layers {
		same(t, "who shares a layer", fmt.Sprint(l.Containers), "[{db}]")
	}
	if n := g.explain("db").Namespaces[3]; fmt.Sprint(n.SharedWith) != "[{web}]" {
		t.Errorf("db shares %v", n)
	}
	for _, word := range []string{"web", "writable layer", "500kB  /big", "shared with container db", "the host's", "64MiB", "read-only from here down", "image busybox:test"} {
		if out := g.ok("explain", "web"); !strings.Contains(out, word) {
			t.Errorf("no %q in\n%s", word, out)
		}
	}

	g.ok("create", "--name", "still", "--read-only", "--ipc", "container:db", "busybox:test", "sh")
	s := g.explain("still")
	same(t, "stopped", fmt.Sprintf("%s %v %d %d %v", s.Status, s.Writable.ReadOnly, s.Writable.Added.Files, s.Process.Pid, s.Namespaces[3].SharedWith), "created true 0 0 [{db}]")
	i := g.explain("busybox:test")
	same(t, "image", fmt.Sprintf("%s %v %d", i.Type, len(i.Layers) > 0, len(i.Containers)), "image true 3")
	if out := g.ok("explain", "busybox:test"); !strings.Contains(out, "Containers  db, still, web") {
		t.Errorf("image:\n%s", out)
	}
	g.ok("rm", "-f", "web", "db")
	g.ok("rmi", "-f", "busybox:test")
	if out := g.ok("explain", "still"); !strings.Contains(out, "which has been removed") {
		t.Errorf("without its image:\n%s", out)
	}
	g.fails(1, args("explain", "nobody"), "no such object: nobody")
	g.fails(1, args("explain", "--type", "image", "still"), "No such image")
}

// Names that a container made cannot draw on the terminal of who looks at it.
func TestCoreExplainHostile(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "--name", "evil", "--privileged", "busybox:test", "sh", "-c", `touch "$(printf '/\033[2Jx\nroot: yes')"; mkdir "$(printf '/\033]0;t\007')"; true`)
	if out := g.ok("explain", "evil"); strings.ContainsAny(out, "\x1b\x07") || strings.Contains(out, "\nroot: yes") {
		t.Errorf("%q", out)
	}
}

// diff does not read the layers' tars: it works without them being readable as
// such, and finds the same.
func TestDiffGoesByTheIndex(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "--name", "box", "busybox:test", "sh", "-c", "echo x >> /etc/passwd; rm -r /var; touch /new")
	want := g.ok("diff", "box")
	tars, err := filepath.Glob(filepath.Join(g.root(), "layers", "*", "tar"))
	if err != nil || len(tars) == 0 {
		t.Fatal("no layers", err)
	}
	for _, tar := range tars {
		index, err := os.Stat(filepath.Join(filepath.Dir(tar), "index.erofs"))
		if err != nil || index.Size() == 0 {
			t.Skip("the store has no indexes here")
		}
		f, err := os.OpenFile(tar, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte("x"), 1024), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	same(t, "diff", g.ok("diff", "box"), want)
}
