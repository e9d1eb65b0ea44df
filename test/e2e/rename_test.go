//go:build root

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestRename(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--init", "--name", "one", image, "sh", "-c", "echo said; exec sleep 1000")
	g.ok("create", "--name", "two", image, "true")
	id := g.state("one").ID
	eventually(t, patience, func() string {
		if g.ok("logs", "one") != "said" {
			return "it said nothing"
		}
		return ""
	})
	same(t, "rename", g.ok("rename", "one", "first"), "")
	g.fails(1, args("rename", "one", "x1"), "failed to rename container named one: No such container: one")
	g.fails(1, args("rename", "two", "first"), "Error when allocating new name: Conflict.", `"/first" is already in use by container "`+id+`"`)
	g.fails(1, args("rename", "first", "first"), "Renaming a container with the same name as its current name")
	g.fails(1, args("rename", "first", "a b"), "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
	g.fails(1, args("container", "rename", "first", " "), "Neither old nor new names may be empty")
	g.fails(1, args("rename", "first"), "requires 2 arguments")
	if _, supervisor := g.resident(); supervisor != 0 {
		_ = syscall.Kill(supervisor, syscall.SIGKILL)
	}
	same(t, "rename by id", g.ok("rename", id[:12], "/again"), "")
	if s := g.state("again"); s.ID != id || s.Name != "/again" || !s.State.Running {
		t.Errorf("%+v", s)
	}
	same(t, "ps", g.ok("ps", "-a", "--format", "{{.Names}}"), "two\nagain")
	same(t, "ps -f", g.ok("ps", "-q", "--no-trunc", "-f", "name=again"), id)
	same(t, "logs", g.ok("logs", "again"), "said")
	same(t, "exec", g.ok("exec", "again", "echo", "in"), "in")
	same(t, "name of the machine", g.ok("exec", "again", "hostname"), id[:12])
	same(t, "stop", g.ok("stop", "-t", "5", "again"), "again")
	g.ok("start", "again")
	g.ok("run", "--name", "first", image, "true") // the names it had are free
	g.ok("run", "--name", "one", image, "true")
	same(t, "rm", g.ok("rm", "-f", "again"), "again")
	g.ok("system", "check")
}

// Of several that want a name one gets it, and the others keep theirs.
func TestRenameTogether(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const n = 6
	var wg sync.WaitGroup
	codes := make([]int, n)
	for i := range n {
		g.ok("create", "--name", fmt.Sprintf("c%d", i), image, "true")
	}
	for i := range n {
		wg.Go(func() { codes[i] = g.do(nil, "rename", fmt.Sprintf("c%d", i), "wanted").code })
	}
	wg.Wait()
	won := 0
	for _, c := range codes {
		if c == 0 {
			won++
		}
	}
	out := g.ok("ps", "-a", "--format", "{{.Names}}")
	if won != 1 || strings.Count(out, "wanted") != 1 || strings.Count(out, "c") != n-1 {
		t.Errorf("%v: %s", codes, out)
	}
}
