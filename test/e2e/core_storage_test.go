//go:build root

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// storages returns the backends that work here, the others with what tug says
// about them. The suite of package layer knows which kernel must have which.
func storages(g *tug) (work []string, refused map[string]result) {
	refused = map[string]result{}
	for _, name := range []string{"erofs", "erofs-loop", "dir"} {
		if r := g.do(nil, "--storage", name, "info"); r.code == 0 {
			work = append(work, name)
		} else {
			refused[name] = r
		}
	}
	return work, refused
}

// The same image runs under every backend, and in a store that was filled
// under another one.
func TestCoreStorage(t *testing.T) {
	g := newBusybox(t)
	work, refused := storages(g)
	if len(work) == 0 || work[len(work)-1] != "dir" {
		t.Fatalf("these backends work: %q, dir always does", work)
	}
	if info := g.ok("info"); !strings.Contains(info, "Layers: "+work[0]+"\n") {
		t.Errorf("%s should be chosen:\n%s", work[0], info)
	}
	for name, r := range refused {
		if r.code != 1 || !strings.Contains(r.stderr, "storage "+name) || strings.Count(r.stderr, "\n") > 2 {
			t.Errorf("storage that is not available: %v", r)
		}
		g.fails(125, args("--storage", name, "run", "--rm", "busybox:test", "true"), "storage "+name)
	}
	g.fails(1, args("--storage", "zfs", "info"), "zfs", "erofs")

	// Each fills its store; then it and another one use it.
	for n, name := range work {
		g := newTug(t)
		g.ok("--storage", name, "load", "-q", "-i", coreFile(t, "busybox.tar"))
		other := work[(n+1)%len(work)]
		for _, user := range []string{name, other, name} {
			what := fmt.Sprintf("filled by %s, used by %s", name, user)
			same(t, what, g.ok("--storage", user, "run", "--rm", "busybox:test", "sh", "-c", "cat /etc/motd; ls /etc/removed 2>&1; id -u alice"),
				"second layer\nls: /etc/removed: No such file or directory\n1000")
			if info := g.ok("--storage", user, "info"); !strings.Contains(info, "Layers: "+user+"\n") {
				t.Errorf("%s: info says\n%s", what, info)
			}
			if user != other && user != work[0] { // and not while somebody runs with another
				g.fails(125, args("--storage", work[0], "run", "--rm", "busybox:test", "true"), "storage "+user+" is in use")
			}
			g.endProcesses()
		}
		g.ok("--storage", name, "rmi", "busybox:test")
		if left, err := os.ReadDir(g.root() + "/layers"); err != nil || len(left) != 0 {
			t.Errorf("layers after rmi: %v %v", left, err)
		}
	}
}
