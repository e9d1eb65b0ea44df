//go:build root

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// exported describes what a container's export holds.
func (g *tug) exported(name string) map[string]string {
	g.t.Helper()
	return tarLines(g.t, []byte(g.do(nil, "export", name).stdout))
}

// An image that was made of a container shows what the container does, all
// kinds of files and of changes; also when a second container goes on from it.
func TestCommit(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "box", "-e", "A=1", "-w", "/data", "--label", "l=v", "busybox:test", "sh", "-c", `
		set -e
		echo changed >> /etc/passwd; rm /bin/vi; rm -r /var; mkdir /var; echo new > /var/new
		mkdir -p /data/deep/er; echo one > /data/a; ln /data/a /data/b; ln -s ../../etc/passwd /data/link; mkfifo /data/fifo
		mknod /data/dev c 1 3; chmod 4755 /data/a; chown 1234:65537 /data/deep; mv /home /house; rm -r /root; echo file > /root
		dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=50000000 2>/dev/null; touch -d @1234567890 /data/old; chmod 711 /
		echo ready; exec sleep 1000`)
	eventually(t, patience, func() string {
		if out := g.ok("logs", "box"); out != "ready" {
			return "not ready: " + out
		}
		return ""
	})
	id := g.ok("commit", "-a", "Me <me@example.org>", "-m", "why", "-c", "ENV B=2", "-c", `CMD ["cat","/data/a"]`, "box", "made:one")
	if !strings.HasPrefix(id, "sha256:") || len(id) != 71 {
		t.Errorf("it printed %q", id)
	}
	same(t, "it runs again", g.ok("inspect", "-f", "{{.State.Status}}", "box"), "running")
	same(t, "runs", g.ok("run", "--rm", "made:one"), "one")
	g.ok("create", "--name", "copy", "made:one")
	if diff := cmp.Diff(g.exported("box"), g.exported("copy")); diff != "" {
		t.Errorf("the committed image differs (-container +image):\n%s", diff)
	}
	same(t, "names of a hard link", g.ok("run", "--rm", "made:one", "stat", "-c", "%h", "/data/a"), "2")
	tars, err := filepath.Glob(filepath.Join(g.root(), "layers", "*", "*tar*"))
	if err != nil || len(tars) == 0 {
		t.Fatalf("no layers: %v", err)
	}
	for _, tar := range tars {
		if fi, err := os.Stat(tar); err != nil || fi.Size() > 20<<20 {
			t.Errorf("%s: holes are not holes in the layer's tar: %v", tar, fi.Size())
		}
	}
	var img []struct {
		Author, Comment string
		Config          struct {
			Env, Cmd   []string
			WorkingDir string
			Labels     map[string]string
		}
		RootFS struct{ Layers []string }
	}
	if err := json.Unmarshal([]byte(g.ok("image", "inspect", "made:one")), &img); err != nil {
		t.Fatal(err)
	}
	i := img[0]
	same(t, "config", fmt.Sprint(i.Author, "|", i.Comment, "|", i.Config.Cmd, i.Config.WorkingDir, i.Config.Labels["l"], len(i.RootFS.Layers)), "Me <me@example.org>|why|[cat /data/a]/datav3")
	if env := strings.Join(i.Config.Env, " "); !strings.Contains(env, "A=1 B=2") {
		t.Errorf("env: %s", env)
	}
	history := g.ok("history", "--no-trunc", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", "made:one")
	lines := strings.Split(history, "\n")
	if !strings.HasPrefix(lines[0], id+"|sh -c") || !strings.HasSuffix(history, "why") && !strings.Contains(history, "|why") || !strings.HasPrefix(lines[len(lines)-1], "<missing>|") {
		t.Errorf("history:\n%s", history)
	}
	// From the committed image to the next, and out and in again.
	g.ok("run", "--name", "next", "made:one", "sh", "-c", "rm -r /data/deep; echo two > /data/a; rm /data/link; mkdir /data/link")
	next := g.ok("commit", "-p=false", "next")
	g.ok("create", "--name", "last", next)
	if diff := cmp.Diff(g.exported("next"), g.exported("last")); diff != "" {
		t.Errorf("the second image differs (-container +image):\n%s", diff)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	g.ok("save", "-o", saved, "made:one")
	g.ok("rm", "-f", "copy", "box", "next", "last")
	g.ok("rmi", "-f", next, "made:one")
	g.ok("load", "-i", saved)
	same(t, "loaded", g.ok("run", "--rm", "made:one"), "one")
	g.ok("system", "check")
}

// Nothing changed is a row of history, no layer; and mounts' places are none.
func TestCommitNothing(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "--name", "box", "busybox:test", "true")
	id := g.ok("commit", "box")
	same(t, "layers", g.ok("image", "inspect", "-f", "{{len .RootFS.Layers}}", id), g.ok("image", "inspect", "-f", "{{len .RootFS.Layers}}", "busybox:test"))
	same(t, "event", g.ok("events", "--since", "1h", "--until", "0s", "--filter", "event=commit", "--format", "{{.Actor.Attributes.imageID}}"), id)
	g.fails(1, args("commit", "nobody"), "No such container: nobody")
	g.fails(1, args("commit", "-c", "FROM x", "box"), "from is not a valid change command")
	g.fails(1, args("commit", "box", "Name"), "must be lowercase")
	g.ok("run", "--name", "hostile", "busybox:test", "touch", "/etc/.wh.passwd")
	g.fails(1, args("commit", "hostile"), "/etc/.wh.passwd", "no layer can hold")
	// Entrypoint without a command drops the old one.
	id = g.ok("commit", "-c", `ENTRYPOINT ["echo","in"]`, "box")
	same(t, "entrypoint", g.ok("run", "--rm", id), "in")
	// The image is gone, by force: its layers are not.
	g.ok("rmi", "-f", "busybox:test", id)
	g.ok("tag", g.ok("commit", "box"), "again")
	same(t, "without its image", g.ok("run", "--rm", "again", "echo", "here"), "here")
}

// A commit that is killed leaves the container running and no image; also when
// the supervisor is killed with it. One that was paused before stays so.
func TestCommitKilled(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "box", "busybox:test", "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=64 2>/dev/null; while :; do echo tick; sleep 0.01; done")
	g.ticks("box")
	images := g.ok("images", "-aq")
	caught := 0
	for try := range 12 {
		cmd := g.command(t.Context(), "commit", "box", "half")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if g.paused("box") {
				caught++
				break
			}
		}
		if try%3 == 2 {
			if _, supervisor := g.resident(); supervisor != 0 {
				_ = syscall.Kill(supervisor, syscall.SIGKILL)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		g.ok("ps") // not even a command is needed, but the supervisor may be a new one
		g.ticks("box")
		same(t, "status", g.ok("inspect", "-f", "{{.State.Status}}", "box"), "running")
		same(t, "images", g.ok("images", "-aq"), images)
	}
	if caught < 6 {
		t.Errorf("only %d of 12 commits were killed while the container was paused", caught)
	}
	if _, err := os.Stat(filepath.Join(g.root(), "containers", g.state("box").ID, "committing")); err == nil {
		t.Error("the mark is left")
	}
	g.ok("pause", "box")
	g.ok("commit", "box", "whole")
	same(t, "still paused", g.ok("inspect", "-f", "{{.State.Status}}", "box"), "paused")
	g.ok("unpause", "box")
	same(t, "whole", g.ok("run", "--rm", "whole", "stat", "-c", "%s", "/big"), "67108864")
}

// paused looks at the mark: inspect would take too long.
func (g *tug) paused(name string) bool {
	marks, _ := filepath.Glob(filepath.Join(g.root(), "containers", "*", "committing"))
	return len(marks) > 0
}
