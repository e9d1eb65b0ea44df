//go:build root

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"tug/test/fixture"
)

// Tests whose names begin with TestCore run in the virtual machines too: they
// use no program of the host's but tug, and no file but fixture.CoreImages.

func TestCoreLoad(t *testing.T) {
	g := newTug(t)
	same(t, "load", g.ok("load", "-i", coreFile(t, "busybox.tar")), "Loaded image: busybox:test")
	same(t, "load again", g.ok("load", "-i", coreFile(t, "busybox.tar")), "Loaded image: busybox:test")
	same(t, "load an OCI layout", g.ok("load", "-i", coreFile(t, "zoo.tar")), "Loaded image: zoo:test")

	b, err := os.Open(coreFile(t, "busybox.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r := g.do(b, "load")
	if r.code != 0 || !strings.Contains(r.stdout, "Loaded image: busybox:test") {
		t.Errorf("load from standard input: %v", r)
	}

	rows := strings.Fields(g.ok("images", "--format", "{{.Repository}}:{{.Tag}}"))
	slices.Sort(rows)
	same(t, "images", strings.Join(rows, " "), "busybox:test zoo:test")
	var image struct {
		ID           string `json:"Id"`
		Architecture string
		Config       struct{ Env, Cmd []string }
		RootFS       struct{ Layers []string }
	}
	g.inspect(&image, "busybox:test", "image")
	if len(image.RootFS.Layers) != 2 || image.Architecture != "amd64" || fmt.Sprint(image.Config.Env) != "[PATH=/bin:/usr/bin GREETING=hello]" {
		t.Errorf("image inspect: %+v", image)
	}
	same(t, "images -q", g.ok("images", "-q", "--no-trunc", "busybox"), image.ID)

	g.ok("tag", "busybox:test", "other:1")
	same(t, "rmi of one of two names", g.ok("rmi", "other:1"), "Untagged: other:1")
	out := g.ok("rmi", "zoo:test")
	if !strings.HasPrefix(out, "Untagged: zoo:test\n") || !strings.Contains(out, "Deleted: sha256:") {
		t.Errorf("rmi: %q", out)
	}
	same(t, "images after rmi", g.ok("images", "--format", "{{.Repository}}:{{.Tag}}"), "busybox:test")
	layers, err := os.ReadDir(g.root() + "/layers")
	if err != nil || len(layers) != 2 {
		t.Errorf("layers after rmi: %v %v, want busybox's two", layers, err)
	}
}

// The tree that a container sees is what GNU tar makes of the same layers.
func TestCoreTree(t *testing.T) {
	g := newTug(t)
	g.ok("load", "-q", "-i", coreFile(t, "zoo.tar"))
	want, err := os.ReadFile(coreFile(t, "zoo.tree"))
	if err != nil {
		t.Fatal(err)
	}
	g.sameTree("zoo:test", strings.Split(strings.TrimSpace(string(want)), "\n"))
}

// sameTree compares the tree in a container of the image with want.
func (g *tug) sameTree(image string, want []string) {
	g.t.Helper()
	id := g.ok("run", "-d", image, "sleep", "1000")
	got, err := fixture.Tree(fmt.Sprintf("/proc/%d/root", g.state(id).State.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	g.ok("rm", "-f", id)
	differ := 0
	report := func(sign string, lines, others []string) {
		for _, l := range lines {
			if _, found := slices.BinarySearch(others, l); !found {
				if differ++; differ <= 20 {
					g.t.Errorf("%s %s", sign, clip(l))
				}
			}
		}
	}
	report("only in GNU tar's tree:", want, got)
	report("only in the container: ", got, want)
	if differ > 20 {
		g.t.Errorf("and %d more lines", differ-20)
	}
	if len(want) < 100 {
		g.t.Errorf("the tree has only %d files", len(want))
	}
}
