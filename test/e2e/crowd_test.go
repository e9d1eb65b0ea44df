//go:build root

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tug/test/fixture"
)

// Many commands at once on one store, for a while: nothing fails but for the
// reasons that a user would expect, and what is left is whole. Not beside other
// tests: it takes all of the machine.
func TestCrowd(t *testing.T) {
	const workers, period = 32, time.Minute
	c := newCrowd(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	end := time.Now().Add(period)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			for time.Now().Before(end) {
				c.one(random)
			}
		})
	}
	wg.Wait()
	c.judge(t)
}

// crowd is what the workers share.
type crowd struct {
	*tug
	names   []string // in the registry
	archive string
	rootfs  string // a tar

	mu    sync.Mutex
	done  map[string]int // by command
	not   map[string]int
	wrong []string
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{tug: newTug(t), done: map[string]int{}, not: map[string]int{}}
	r := startRegistry(t)
	base := busybox(t)
	for n := range 6 {
		i := *base
		i.Name = fmt.Sprintf("app%d:1", n)
		i.Layers = append(slices.Clone(base.Layers), fixture.NewLayer().File("n", 0o644, strings.Repeat(i.Name, 1+n*40_000)).Bytes())
		push(t, r, &i, fixture.Gzip)
		c.names = append(c.names, r.Addr+"/"+i.Name)
	}
	c.archive = filepath.Join(c.dir, "loaded.tar")
	loaded := *base
	loaded.Name = "loaded:1"
	if err := os.WriteFile(c.archive, fixture.DockerArchive(&loaded).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c.rootfs = filepath.Join(c.dir, "rootfs.tar")
	if err := os.WriteFile(c.rootfs, base.Layers[0], 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// one gives one command.
func (c *crowd) one(random *rand.Rand) {
	name := c.names[random.IntN(len(c.names))]
	tag := fmt.Sprintf("tag%d:1", random.IntN(4))
	gone := []string{"No such image", "no such image"}
	commands := []struct {
		args     []string
		expected []string
	}{
		{args("pull", "-q", name), nil},
		{args("pull", "-q", name), nil},
		{args("run", "--rm", name, "cat", "/n"), nil},
		{args("tag", name, tag), gone},
		{args("tag", tag, "other:1"), gone},
		{args("rmi", name), append(gone, "container")}, // used by a run that is just going on
		{args("rmi", "-f", tag), append(gone, "container")},
		{args("load", "-q", "-i", c.archive), nil},
		{args("images"), nil},
		{args("image", "inspect", name), gone},
		{args("ps", "-a"), nil},
		{args("image", "prune", "-f"), nil},
		{args("image", "prune", "-a", "-f"), nil},
		{args("save", "-o", filepath.Join(c.dir, fmt.Sprintf("saved-%d", random.IntN(3))), name), append(gone, "is not in the store")},
		{args("import", c.rootfs, tag), nil},
		{args("push", "-q", name), append(gone, "does not exist", "is not in the store")},
		{args("history", "-q", name), gone},
		{args("system", "df"), nil},
		{args("system", "check", "--quick"), nil},
	}
	k := commands[random.IntN(len(commands))]
	r := c.do(nil, k.args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	what := k.args[0]
	if r.code == 0 {
		c.done[what]++
		return
	}
	c.not[what]++
	if !slices.ContainsFunc(k.expected, func(e string) bool { return strings.Contains(r.stderr, e) }) && len(c.wrong) < 10 {
		c.wrong = append(c.wrong, r.String())
	}
}

func (c *crowd) judge(t *testing.T) {
	t.Logf("went well: %v", c.done)
	t.Logf("did not: %v", c.not)
	for _, w := range c.wrong {
		t.Error(w)
	}
	for _, f := range storeFaults(c.root()) {
		t.Error(f)
	}
	for _, what := range []string{"pull", "run", "tag", "rmi", "load", "image", "save", "import", "push", "system"} {
		if c.done[what] < 10 {
			t.Errorf("%s went well %d times only", what, c.done[what])
		}
	}
	if out := c.tug.do(nil, "system", "check"); out.code != 0 {
		t.Error(out)
	}
	if ids := strings.Fields(c.tug.ok("images", "-q")); len(ids) > 0 {
		slices.Sort(ids)
		c.tug.ok(append([]string{"rmi", "-f"}, slices.Compact(ids)...)...)
	}
	c.tug.ok("image", "prune", "-a", "-f") // what a command held until just now
	for _, dir := range []string{"layers", "blobs/sha256", "images/ids", "images/names", "tmp"} {
		left, err := os.ReadDir(filepath.Join(c.root(), dir))
		if err != nil || len(left) > 0 {
			t.Errorf("after all images are removed, %s holds %v (%v)", dir, left, err)
		}
	}
}
