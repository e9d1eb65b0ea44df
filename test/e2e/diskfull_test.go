//go:build root

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tug/test/fixture"
)

// The disk is full at some point of a command: it says so in one line and
// leaves the store as it was, whole; or there was room enough and it did what
// it should. Each command is tried with more and more room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	p := &powerLoss{tug: newTug(t), registry: startRegistry(t)}
	p.mnt = filepath.Join(p.dir, "m")
	if err := os.Mkdir(p.mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env, "TUG_ROOT="+filepath.Join(p.mnt, "root"))
	base := filepath.Join(p.dir, "base")
	mustRun(t, "truncate", "-s", strconv.Itoa(diskSize), base)
	mustRun(t, "mkfs.ext4", "-q", "-m", "0", base)
	steps := p.fullSteps(t)
	p.mount(t, base)
	p.ok("load", "-q", "-i", filepath.Join(p.dir, "old.tar"))
	p.ok("tag", "old:1", p.registry.Addr+"/old:1")
	p.unmount(t)
	for _, s := range steps {
		failed, worked := 0, 0
		for room := 0; worked == 0 && room < 32<<10; room = room*2 + 4 {
			if p.tryFull(t, base, s, room) {
				worked++
			} else {
				failed++
			}
		}
		t.Logf("%s: out of room %d times", s.args[0], failed)
		if worked == 0 || failed == 0 && s.writes {
			t.Errorf("%q: failed %d times for want of room, worked %d times", s.args, failed, worked)
		}
	}
}

// A fullStep is a command that is given on a full disk.
type fullStep struct {
	args   []string
	writes bool // so that there is a point where it cannot work
}

func (p *powerLoss) fullSteps(t *testing.T) []fullStep {
	archive := func(name string, content int) {
		i := &fixture.Image{Name: strings.TrimSuffix(name, ".tar") + ":1", Layers: [][]byte{
			fixture.NewLayer().File("a", 0o644, strings.Repeat(name, content)).Bytes(),
			fixture.NewLayer().File("b", 0o644, name).Bytes(),
		}}
		if err := os.WriteFile(filepath.Join(p.dir, name), fixture.DockerArchive(i).Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "app.tar" {
			push(t, p.registry, i, fixture.Gzip)
		}
	}
	rootfs := fixture.NewLayer().File("a", 0o644, strings.Repeat("root", 100_000)).Bytes()
	if err := os.WriteFile(filepath.Join(p.dir, "rootfs"), rootfs, 0o600); err != nil {
		t.Fatal(err)
	}
	pushed := p.registry.Addr + "/old:1"
	archive("old.tar", 50_000)
	archive("new.tar", 100_000)
	archive("app.tar", 500_000)
	return []fullStep{
		{args("load", "-i", filepath.Join(p.dir, "new.tar")), true},
		{args("pull", p.registry.Addr+"/app:1"), true},
		{args("tag", "old:1", "other:1"), true},
		{args("create", "old:1", "true"), true},
		{args("import", filepath.Join(p.dir, "rootfs"), "imported:1"), true},
		{args("save", "-o", filepath.Join(p.mnt, "saved.tar"), "old:1"), true},
		{args("push", "-q", pushed), true},
		{args("rmi", "old:1"), false},
		{args("image", "prune", "-a", "-f"), false},
		{args("system", "check"), false},
	}
}

// tryFull gives one command with room KiB left on a copy of the disk and
// reports whether it worked.
func (p *powerLoss) tryFull(t *testing.T, base string, s fullStep, room int) bool {
	t.Helper()
	disk := filepath.Join(p.dir, fmt.Sprintf("full-%s-%d", s.args[0], room)) // see failAt
	mustRun(t, "cp", base, disk)
	defer os.Remove(disk)
	if err := os.RemoveAll(p.runRoot()); err != nil {
		t.Fatal(err)
	}
	p.mount(t, disk)
	defer p.unmount(t)
	before := p.names(t)
	p.fill(t, room)
	r := p.do(nil, s.args...)
	what := fmt.Sprintf("%d KiB left: %v", room, r)
	switch {
	case r.code == 0:
	case !strings.Contains(r.stderr, "no space left on"), strings.Count(r.stderr, "\n") != 1:
		t.Errorf("%s\nwant one line that says that the disk is full", what)
	case fmt.Sprint(before) != fmt.Sprint(p.names(t)):
		t.Errorf("%s\nnames were %v, are %v", what, before, p.names(t))
	}
	for _, f := range storeFaults(filepath.Join(p.mnt, "root")) {
		t.Errorf("%s\n%s", what, f)
	}
	left, err := filepath.Glob(filepath.Join(p.mnt, "root/*/.new-*"))
	tmp, terr := os.ReadDir(filepath.Join(p.mnt, "root/tmp"))
	if err != nil || terr != nil || len(left)+len(tmp) > 0 {
		t.Errorf("%s\nleft %v %v (%v, %v)", what, left, tmp, err, terr)
	}
	return r.code == 0
}

// fill leaves room KiB on the disk.
func (p *powerLoss) fill(t *testing.T, room int) {
	t.Helper()
	// The room is made first, so that none of it is a directory's overhead.
	reserve, filler := filepath.Join(p.mnt, "reserve"), filepath.Join(p.mnt, "filler")
	if room > 0 {
		mustRun(t, "fallocate", "-l", strconv.Itoa(room<<10), reserve)
	}
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 1<<20); len(b) >= 1024; {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if room > 0 {
		if err := os.Remove(reserve); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "sync", "-f", p.mnt)
}
