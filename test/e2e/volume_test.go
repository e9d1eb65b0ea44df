//go:build root

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

type volumeJSON struct {
	CreatedAt, Driver, Mountpoint, Name, Scope string
	Labels, Options                            map[string]string
}

func (g *tug) volume(name string) (v volumeJSON) {
	g.t.Helper()
	var all []volumeJSON
	if err := json.Unmarshal([]byte(g.ok("volume", "inspect", name)), &all); err != nil || len(all) != 1 {
		g.t.Fatalf("inspect %s: %v, %v", name, all, err)
	}
	return all[0]
}

// The life of a volume, in Docker's words.
func TestVolumes(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	same(t, "create", g.ok("volume", "create", "--label", "a=b", "data"), "data")
	same(t, "create again", g.ok("volume", "create", "data"), "data")
	anonymous := strings.TrimSpace(g.ok("volume", "create"))
	if len(anonymous) != 64 {
		t.Errorf("an anonymous volume is called %q", anonymous)
	}
	g.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "mem")
	v := g.volume("data")
	if v.Driver != "local" || v.Scope != "local" || v.Labels["a"] != "b" || v.Options != nil || v.Mountpoint != filepath.Join(g.root(), "volumes/data/_data") {
		t.Errorf("%+v", v)
	}
	if at, err := time.Parse(time.RFC3339, v.CreatedAt); err != nil || time.Since(at) > time.Hour {
		t.Errorf("%s, %v", v.CreatedAt, err)
	}
	if v := g.volume("mem"); v.Options["o"] != "size=1m" {
		t.Errorf("%+v", v)
	}
	same(t, "ls", g.ok("volume", "ls", "-q", "-f", "label=a=b"), "data")
	same(t, "ls", g.ok("volume", "ls", "--format", "{{.Driver}} {{.Name}}", "-f", "name=dat", "-f", "dangling=true"), "local data")
	same(t, "ls", g.ok("volume", "ls", "-q", "-f", "dangling=false"), "")
	g.fails(1, args("volume", "ls", "-f", "nope=x"), "invalid filter 'nope'")
	g.fails(1, args("volume", "create", "x"), "volume name is too short")
	g.fails(1, args("volume", "create", "a/b"), "includes invalid characters for a local volume name")
	g.fails(1, args("volume", "create", "-d", "nope", "data2"), `plugin "nope" not found`)
	g.fails(1, args("volume", "create", "-o", "type=nfs", "data2"), `missing required option: "device"`)
	g.fails(1, args("volume", "inspect", "nope"), "get nope: no such volume")
	g.fails(1, args("volume", "rm", "nope"), "get nope: no such volume")
	g.fails(125, args("volume", "create", "--availability", "drain", "x2"), "volume create --availability drain is not there yet")
	same(t, "rm -f", g.ok("volume", "rm", "-f", "nope"), "nope")

	if err := os.WriteFile(filepath.Join(v.Mountpoint, "file"), make([]byte, 12345), 0o600); err != nil {
		t.Fatal(err)
	}
	same(t, "df", g.ok("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}"),
		"Images 0 0 0B 0B\nContainers 0 0 0B 0B\nLocal Volumes 3 0 12.35kB 12.35kB (100%)\nBuild Cache 0 0 0B 0B")
	same(t, "df -v", g.ok("system", "df", "-v", "--format", "{{range .Volumes}}{{.Name}} {{.Links}} {{.Size}}\n{{end}}"),
		strings.Join(slices.Sorted(slices.Values([]string{"data 0 12.35kB\n", "mem 0 0B\n", anonymous + " 0 0B\n"})), ""))
	same(t, "prune --dry-run", g.ok("volume", "prune", "--dry-run"), "Volumes that would be deleted:\n"+anonymous+"\n\nTotal space that would be reclaimed: 0B")
	g.volume(anonymous)
	same(t, "system prune", g.ok("system", "prune", "-f", "--volumes"), "Deleted Volumes:\n"+anonymous+"\n\nTotal reclaimed space: 0B")
	g.fails(1, args("volume", "prune", "-a", "--filter", "all=1"), "cannot specify both --all and --filter all=1")
	same(t, "prune -a", g.ok("volume", "prune", "-af"), "Deleted Volumes:\ndata\nmem\n\nTotal reclaimed space: 12.35kB")
	same(t, "ls", g.ok("volume", "ls", "-q"), "")
	events := g.ok("events", "--since", "1h", "--until", "0s", "-f", "type=volume", "--format", "{{.Action}} {{.Actor.ID}}")
	same(t, "events", events, fmt.Sprintf("create data\ncreate %s\ncreate mem\ndestroy %s\nprune \ndestroy data\ndestroy mem\nprune ", anonymous, anonymous))
	same(t, "check", g.ok("system", "check"), "No faults found")
}

// What tug's peers cannot do with volumes.
func TestVolumeCopies(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	g.ok("volume", "create", "data")
	write := func(volume, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(g.volume(volume).Mountpoint, "file"), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(volume, text string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(g.volume(volume).Mountpoint, "file"))
		if err != nil || string(b) != text {
			t.Errorf("%s: %q, %v; want %q", volume, b, err, text)
		}
	}
	write("data", "one")
	dir := g.volume("data").Mountpoint
	if err := syscall.Chmod(dir, 0o2700); err != nil {
		t.Fatal(err)
	}
	same(t, "clone", g.ok("volume", "clone", "data", "copy"), "copy")
	same(t, "snapshot", g.ok("volume", "snapshot", "create", "data", "first"), "first")
	write("data", "two")
	holds("copy", "one")
	same(t, "snapshots", g.ok("volume", "snapshot", "ls", "--format", "{{.Volume}} {{.Name}} {{.Size}}"), "data first 3B")
	same(t, "df", g.ok("system", "df", "-v", "--format", "{{range .Volumes}}{{.Name}} {{.Size}} {{end}}"), "copy 3B data 6B ")
	g.ok("volume", "clone", "data@first", "third")
	holds("third", "one")
	g.ok("volume", "snapshot", "restore", "data", "first")
	holds("data", "one")
	g.fails(1, args("volume", "rm", "data"), "volume has 1 snapshots")
	g.fails(1, args("volume", "clone", "data", "copy"), "a volume of this name exists")

	tar := filepath.Join(g.dir, "data.tar")
	g.ok("volume", "export", "-o", tar, "data")
	same(t, "import", g.ok("volume", "import", "new", tar), "new")
	holds("new", "one")
	if fi, err := os.Stat(g.volume("new").Mountpoint); err != nil || fi.Mode().Perm() != 0o700 || fi.Mode()&os.ModeSetgid == 0 {
		t.Errorf("%v, %v", fi, err)
	}
	write("new", "other")
	g.fails(1, args("volume", "import", "new", tar), "the volume has data", "--replace")
	b, err := os.ReadFile(tar)
	if err != nil {
		t.Fatal(err)
	}
	if r := g.do(strings.NewReader(string(b[:len(b)/2])), "volume", "import", "--replace", "new", "-"); r.code != 1 {
		t.Errorf("half an archive: %v", r)
	}
	holds("new", "other")
	if r := g.do(strings.NewReader(string(b)), "volume", "import", "--replace", "new", "-"); r.code != 0 {
		t.Errorf("%v", r)
	}
	holds("new", "one")
	g.ok("volume", "rename", "new", "newer")
	holds("newer", "one")
	g.fails(1, args("volume", "inspect", "new"), "no such volume")
	g.fails(1, args("volume", "rename", "newer", "data"), "exists")
	same(t, "snapshot rm", g.ok("volume", "snapshot", "rm", "data", "first"), "first")
	g.ok("volume", "rm", "data", "copy", "third", "newer")
	same(t, "check", g.ok("system", "check"), "No faults found")
}

// Many commands make and remove volumes of the same names.
func TestVolumesTogether(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 12 {
				name := fmt.Sprint("data", (w+n)%3)
				if r := g.do(nil, "volume", "create", name); r.code != 0 {
					t.Errorf("create: %v", r)
				}
				if r := g.do(nil, "volume", "rm", name); r.code != 0 && !strings.Contains(r.stderr, "no such volume") {
					t.Errorf("rm: %v", r)
				}
			}
		})
	}
	wg.Wait()
	same(t, "ls", g.ok("volume", "ls", "-q"), "")
	if left, err := os.ReadDir(filepath.Join(g.root(), "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// kill -9 at any moment of what changes volumes leaves the old state or the new
// one, and never half of one.
func TestVolumesKilled(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const files = 120
	fill := func(volume, text string) {
		t.Helper()
		dir := g.volume(volume).Mountpoint
		for n := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", n)), []byte(strings.Repeat(text, 5000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// whole says with which text a volume is filled; "" is no such volume.
	whole := func(volume string) string {
		t.Helper()
		dir := filepath.Join(g.root(), "volumes", volume, "_data")
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			return ""
		}
		texts := map[byte]int{}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil || len(b) != 5000 {
				t.Fatalf("%s/%s: %d bytes, %v", volume, e.Name(), len(b), err)
			}
			texts[b[0]]++
		}
		if len(texts) != 1 || len(entries) != files {
			t.Fatalf("%s has %d files, with %v", volume, len(entries), texts)
		}
		for c := range texts {
			return string(c)
		}
		return ""
	}
	g.ok("volume", "create", "data")
	fill("data", "a")
	g.ok("volume", "snapshot", "create", "data", "first")
	tar := filepath.Join(g.dir, "a.tar")
	g.ok("volume", "export", "-o", tar, "data")
	killed := 0
	// each runs a command that takes about so long several times, and kills it.
	each := func(prepare func(), check func(), command ...string) {
		t.Helper()
		prepare()
		start := time.Now()
		g.ok(command...)
		last := time.Since(start)
		check()
		for range 5 {
			prepare()
			if g.killAfter(t, time.Duration(random.Float64()*1.1*float64(last)), command) {
				killed++
			}
			check()
		}
	}
	none := func(volume string) func() { return func() { g.ok("volume", "rm", "-f", volume) } }
	is := func(volume, want string) func() {
		return func() {
			t.Helper()
			if got := whole(volume); !strings.Contains(want, got) {
				t.Errorf("%s is filled with %q, want one of %q", volume, got, want)
			}
		}
	}
	each(none("copy"), is("copy", "a"), "volume", "clone", "data", "copy")
	each(none("copy"), is("copy", "a"), "volume", "import", "copy", tar)
	each(func() { fill("data", "b") }, is("data", "ab"), "volume", "snapshot", "restore", "data", "first")
	each(func() { fill("data", "c") }, is("data", "ac"), "volume", "import", "--replace", "data", tar)
	each(func() { g.ok("volume", "rm", "-f", "copy"); g.ok("volume", "clone", "data@first", "copy") }, is("copy", "a"), "volume", "rm", "copy")
	each(none("fresh"), func() {}, "volume", "create", "fresh")
	each(func() {
		if strings.Contains(g.ok("volume", "snapshot", "ls", "-q", "data"), "second") {
			g.ok("volume", "snapshot", "rm", "data", "second")
		}
	}, func() {
		if strings.Contains(g.ok("volume", "snapshot", "ls", "-q", "data"), "second") {
			g.ok("volume", "rm", "-f", "copy")
			g.ok("volume", "clone", "data@second", "copy")
			is("copy", "ac")()
		}
	}, "volume", "snapshot", "create", "data", "second")
	t.Logf("%d of 35 were killed before they ended", killed)
	if killed < 7 {
		t.Errorf("only %d commands were killed before they ended", killed)
	}
	if out := g.do(nil, "system", "check", "--repair"); out.code != 0 {
		t.Errorf("check: %v", out)
	}
	same(t, "check", g.ok("system", "check"), "No faults found")
	if left, err := os.ReadDir(filepath.Join(g.root(), "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What is in a volume survives its containers and what is done to them, and
// nobody takes it from them.
func TestVolumesInUse(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "db", "-v", "data:/data", "-v", "/scratch", image, "sh", "-c", "echo one > /data/file; echo x > /scratch/y; touch /data/ready; exec sleep 1000")
	file := filepath.Join(g.volume("data").Mountpoint, "file")
	eventually(t, patience, func() string {
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), "ready")); err != nil {
			return err.Error()
		}
		return ""
	})
	id := strings.TrimSpace(g.ok("inspect", "-f", "{{.Id}}", "db"))
	used := "volume is in use - [" + id + "]"
	g.fails(1, args("volume", "rm", "-f", "data"), used)
	g.fails(1, args("volume", "rename", "data", "other"), used)
	g.ok("volume", "snapshot", "create", "data", "first")
	g.fails(1, args("volume", "snapshot", "restore", "data", "first"), used)
	same(t, "ls", g.ok("volume", "ls", "-q", "-f", "dangling=true"), "")
	same(t, "df", g.ok("system", "df", "-v", "--format", `{{range .Volumes}}{{if eq .Name "data"}}{{.Links}} {{.Size}}{{end}}{{end}}`), "1 8B")
	same(t, "prune", g.ok("volume", "prune", "-af"), "Total reclaimed space: 0B")

	// A crash of everything that belongs to the container.
	keeper, supervisor := g.resident()
	for _, pid := range []int{keeper, supervisor} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, func() string {
		if s := g.ok("inspect", "-f", "{{.State.Status}}", "db"); s != "exited" {
			return s
		}
		return ""
	})
	g.fails(1, args("volume", "rm", "data"), used)
	if err := os.WriteFile(file, []byte("two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.ok("commit", "db", "committed")
	same(t, "an image of it", g.ok("run", "--rm", "committed", "sh", "-c", "ls /data; ls /scratch"), "")
	g.ok("volume", "snapshot", "restore", "data", "first")
	g.ok("start", "db")
	same(t, "restored", g.ok("exec", "db", "cat", "/data/file"), "one")
	g.ok("rm", "-f", "db")
	g.ok("create", "--name", "last", "-v", "/own", image, "true")
	scratch := strings.Fields(g.ok("volume", "ls", "-q", "-f", "label=com.docker.volume.anonymous"))
	if len(scratch) != 2 {
		t.Fatalf("anonymous volumes: %q", scratch)
	}
	// With the container goes, in what would be, its volume.
	would := g.ok("system", "prune", "--volumes", "--dry-run")
	for _, name := range scratch {
		if !strings.Contains(would, name) {
			t.Errorf("%s is not in what a prune would remove:\n%s", name, would)
		}
	}
	if strings.Contains(would, "data\n") {
		t.Errorf("a volume with a name would be removed:\n%s", would)
	}
	if done := g.ok("system", "prune", "--volumes", "-f"); strings.Count(done, "\n") < 4 {
		t.Errorf("%s", done)
	}
	same(t, "left", g.ok("volume", "ls", "-q"), "data")
	same(t, "data", g.ok("run", "--rm", "-v", "data:/d:ro", image, "cat", "/d/file"), "one")
	same(t, "check", g.ok("system", "check"), "No faults found")
}
