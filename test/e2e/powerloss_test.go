//go:build root

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tug/test/disk"
	"tug/test/fixture"
)

// cuts is how often the power fails. TUG_CUTS sets another number, 0 is
// every moment there was.
const cuts = 60

// The power fails at any moment of pull, load, tag, push, prune and rmi: what a
// command had done when it ended is there; of the one that was running, each
// name has its old or its new image; every image is whole, bit for bit; and the
// same command, given again, goes on. Each write and each flush of one run of
// the commands is recorded below an ext4 file system. Then disks are made as
// they would be after a failure behind any of these writes, with and without
// those that no flush had made safe yet.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	p := &powerLoss{tug: newTug(t), registry: startRegistry(t)}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p.random = rand.New(rand.NewPCG(seed, 0))
	p.record(t)
	points := p.points(t)
	for _, n := range points {
		if t.Failed() {
			break // one is enough to look at
		}
		p.failAt(t, n)
	}
	t.Logf("%d power failures among %d events, %d commands", len(points), len(p.log), len(p.steps))
}

type powerLoss struct {
	*tug
	registry *fixture.Registry
	random   *rand.Rand
	mnt      string
	disk     *disk.Disk
	log      []disk.Event
	steps    []powerStep
}

// A powerStep is one command of the recorded run.
type powerStep struct {
	args          []string
	before, after map[string]string // names to IDs
}

const diskSize = 64 << 20

// record runs the commands on a recorded disk.
func (p *powerLoss) record(t *testing.T) {
	base := filepath.Join(p.dir, "base")
	mustRun(t, "truncate", "-s", strconv.Itoa(diskSize), base)
	mustRun(t, "mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", base)
	content, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	if p.disk, err = disk.Serve(p.dir, content); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.disk.Close(); err != nil {
			t.Error(err)
		}
	}()
	p.mnt = filepath.Join(p.dir, "m")
	if err := os.Mkdir(p.mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env, "TUG_ROOT="+filepath.Join(p.mnt, "root"))
	commands := p.commands(t)
	p.mount(t, p.disk.Path)
	defer p.unmount(t)
	now := p.names(t)
	mustRun(t, "sync", "-f", p.mnt)
	for _, args := range commands {
		s := powerStep{args: args, before: now}
		p.disk.Mark("begin")
		p.ok(args...)
		p.disk.Mark("end")
		now = p.names(t)
		s.after = now
		p.steps = append(p.steps, s)
	}
	p.log = p.disk.Log()
}

// commands makes images and returns the commands that use them.
func (p *powerLoss) commands(t *testing.T) [][]string {
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(p.random.Uint32())
		}
		return string(b)
	}
	shared := fixture.NewLayer().File("shared", 0o644, noise(300_000)).Bytes()
	image := func(name string) *fixture.Image {
		return &fixture.Image{Name: name, Layers: [][]byte{shared, fixture.NewLayer().File("own", 0o644, noise(60_000)).Bytes()}}
	}
	file := func(name string, images ...*fixture.Image) string {
		path := filepath.Join(p.dir, name)
		if err := os.WriteFile(path, fixture.DockerArchive(images...).Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	big := image("app:1")
	big.Layers = append(big.Layers, fixture.NewLayer().File("big", 0o644, noise(3<<20)).Bytes())
	next := image("app:2")
	next.Layers = append(next.Layers, big.Layers[2])
	push(t, p.registry, big, fixture.Gzip)
	push(t, p.registry, next, fixture.Zstd)
	root := filepath.Join(p.dir, "rootfs")
	if err := os.WriteFile(root, fixture.NewLayer().File("root", 0o644, noise(100_000)).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	app := p.registry.Addr + "/app"
	return [][]string{
		args("load", "-i", file("two.tar", image("a:1"), image("b:1"))),
		args("pull", app+":1"),
		args("tag", "a:1", "c:1"),
		args("rmi", "a:1"),
		args("load", "-i", file("again.tar", image("b:1"))), // b:1 moves, the old one has no name left
		args("pull", app+":2"),
		args("tag", app+":2", "c:1"),
		args("rmi", app+":1"),
		args("import", root, "imported:1"),
		args("push", "-q", app+":2"),
		args("tag", "imported:1", p.registry.Addr+"/imported:1"),
		args("push", "-q", p.registry.Addr+"/imported:1"),
		args("image", "prune", "-f"),
		args("image", "prune", "-a", "-f"),
	}
}

// points picks the events behind which the power fails.
func (p *powerLoss) points(t *testing.T) []int {
	first := slices.IndexFunc(p.log, func(e disk.Event) bool { return e.Mark != "" })
	var all []int
	for n := first; n <= len(p.log); n++ {
		all = append(all, n)
	}
	want := cuts
	if s := os.Getenv("TUG_CUTS"); s != "" {
		var err error
		if want, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if want == 0 || want >= len(all) {
		return all
	}
	p.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:want]
}

// failAt looks at the disk that a failure behind the first n events leaves.
func (p *powerLoss) failAt(t *testing.T, n int) {
	share := []float64{0, 0.5, 1}[p.random.IntN(3)] // of the writes that were not safe
	tear := p.random.IntN(3) * 1024
	image := p.disk.After(p.log, n, func() bool { return p.random.Float64() < share }, tear)
	// A name that was not used before: a loop device may outlive its mount for a
	// moment, and with the name the next mount would get it and what it remembers.
	f, err := os.CreateTemp(p.dir, "cut-*")
	if err != nil {
		t.Fatal(err)
	}
	path := f.Name()
	defer os.Remove(path)
	if _, err := f.Write(image); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(p.runRoot()); err != nil {
		t.Fatal(err)
	}
	done, running := p.at(n)
	what := fmt.Sprintf("power fails after event %d of %d (%.0f%% of unsafe writes lost, %d bytes torn), %d commands done",
		n, len(p.log), share*100, tear, done)
	if running != nil {
		what += fmt.Sprintf(", running: %q", running.args)
	}
	p.mount(t, path)
	defer p.unmount(t)
	problems := p.look(t, done, running)
	if len(problems) > 0 {
		t.Errorf("%s:\n\t%s", what, strings.Join(problems, "\n\t"))
		keep := filepath.Join(os.TempDir(), "powerloss.img")
		if os.WriteFile(keep, image, 0o600) == nil {
			t.Logf("the disk is in %s", keep)
		}
	}
}

// at returns how many commands were over at event n, and the one that ran.
func (p *powerLoss) at(n int) (done int, running *powerStep) {
	for _, e := range p.log[:n] {
		switch e.Mark {
		case "begin":
			running = &p.steps[done]
		case "end":
			running = nil
			done++
		}
	}
	return done, running
}

// look compares the store with what it must be, then lets the next command go
// on, and returns what is wrong.
func (p *powerLoss) look(t *testing.T, done int, running *powerStep) (problems []string) {
	bad := func(format string, a ...any) { problems = append(problems, fmt.Sprintf(format, a...)) }
	old := map[string]string{}
	if done > 0 {
		old = p.steps[done-1].after
	}
	either := []map[string]string{old}
	if running != nil {
		either = append(either, running.after)
	}
	names := func() map[string]string {
		m := p.names(t)
		if k := "imported:1"; running != nil && running.args[0] == "import" && m[k] != "" {
			m[k] = running.after[k] // has the time in it
		}
		return m
	}
	now := names()
	for _, m := range append(either, now) {
		for name := range m {
			if !slices.ContainsFunc(either, func(e map[string]string) bool { return e[name] == now[name] }) {
				bad("%s is %q, was %q", name, now[name], old[name])
			}
		}
	}
	for _, f := range storeFaults(filepath.Join(p.mnt, "root")) {
		bad("%s", f)
	}
	if running != nil {
		if r := p.do(nil, running.args...); r.code != 0 && !(running.args[0] == "rmi" && strings.Contains(r.stderr, "No such image")) {
			bad("again: %v", r)
		}
		if a, b := fmt.Sprint(names()), fmt.Sprint(running.after); a != b {
			bad("names after the command was given again: %s, want %s", a, b)
		}
		for _, f := range storeFaults(filepath.Join(p.mnt, "root")) {
			bad("after the command was given again: %s", f)
		}
	}
	// What was under way may be left over, and goes; nothing is at fault.
	for _, repair := range [][]string{{"system", "check"}, {"system", "check", "--repair"}, {"system", "check"}} {
		if r := p.do(nil, repair...); r.code != 0 {
			bad("%v", r)
		}
	}
	slices.Sort(problems)
	return slices.Compact(problems)
}

// names returns all tags and all repositories' digests with their images.
func (p *powerLoss) names(t *testing.T) map[string]string {
	t.Helper()
	m := map[string]string{}
	for line := range strings.Lines(p.ok("images", "--no-trunc", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}} {{.ID}}")) {
		f := strings.Fields(line)
		for _, name := range []string{f[0] + ":" + f[1], f[0] + "@" + f[2]} {
			if !strings.Contains(name, "<none>") {
				m[name] = f[3]
			}
		}
	}
	return m
}

func (p *powerLoss) mount(t *testing.T, path string) {
	t.Helper()
	mustRun(t, "mount", "-o", "loop,data=ordered", path, p.mnt)
}

func (p *powerLoss) unmount(t *testing.T) {
	t.Helper()
	unmount(t, p.mnt)
}

// unmount unmounts path. It may be busy for a moment: a process that another
// test is just starting has this one's files open until it calls execve.
func unmount(t *testing.T, path string) {
	t.Helper()
	eventually(t, patience, func() string {
		if _, err := fixture.Run("", "umount", path); err != nil {
			return err.Error()
		}
		return ""
	})
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := fixture.Run("", name, args...); err != nil {
		t.Fatal(err)
	}
}

// storeFaults checks what docs/formats.md says of images, with its own eyes:
// every name has a record, all that a record names is there, and everything is
// what its name says.
func storeFaults(root string) (faults []string) {
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	digest := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	each := func(dir string, f func(name, path string)) {
		entries, _ := os.ReadDir(filepath.Join(root, dir))
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".new-") {
				f(e.Name(), filepath.Join(root, dir, e.Name()))
			}
		}
	}
	each("layers", func(name, path string) {
		if got := digest(path + "/tar"); got != name {
			bad("layer %s has %s", name, got)
		}
		var meta struct{ Size, IndexSize int64 }
		b, _ := os.ReadFile(path + "/meta.json")
		tar, terr := os.Stat(path + "/tar")
		index, ierr := os.Stat(path + "/index.erofs")
		if json.Unmarshal(b, &meta) != nil || terr != nil || ierr != nil || tar.Size() != meta.Size || index.Size() != meta.IndexSize {
			bad("layer %s: meta.json is %q", name, b)
		} else if super := make([]byte, 1028); !readAt(path+"/index.erofs", super) || !bytes.Equal(super[1024:], []byte{0xe2, 0xe1, 0xf5, 0xe0}) {
			bad("layer %s: index.erofs has no superblock", name)
		}
	})
	there := func(dir, d string) bool {
		_, err := os.Stat(filepath.Join(root, dir, strings.TrimPrefix(d, "sha256:")))
		return err == nil
	}
	each("images/ids", func(name, path string) {
		var r struct {
			ID            string
			Blobs, Layers []string
		}
		b, _ := os.ReadFile(path)
		if json.Unmarshal(b, &r) != nil || "sha256:"+strings.TrimSuffix(name, ".json") != r.ID {
			bad("record %s is %q", name, b)
		}
		for _, d := range r.Blobs {
			if got := digest(filepath.Join(root, "blobs/sha256", strings.TrimPrefix(d, "sha256:"))); "sha256:"+got != d {
				bad("image %s: blob %s has %s", name, d, got)
			}
		}
		for _, d := range r.Layers {
			if !there("layers", d) {
				bad("image %s lacks layer %s", name, d)
			}
		}
	})
	each("images/names", func(name, path string) {
		var n struct{ Image string }
		b, _ := os.ReadFile(path)
		if json.Unmarshal(b, &n) != nil || !there("images/ids", n.Image+".json") {
			bad("name %s is %q", name, b)
		}
	})
	return faults
}

func readAt(path string, b []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.ReadAt(b, 0)
	return err == nil
}
