//go:build root

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tug/test/fixture"
)

// smallDisk makes an ext4 of that size and mounts it where the store will be.
func smallDisk(t *testing.T, g *tug, size string) {
	t.Helper()
	disk := filepath.Join(g.dir, "disk")
	if err := os.MkdirAll(g.root(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"truncate", "-s", size, disk},
		{"mkfs.ext4", "-q", "-m", "0", disk},
		{"mount", "-o", "loop", disk, g.root()},
	} {
		if _, err := fixture.Run("/", c[0], c[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // before that of newTug
		ids := strings.Fields(g.do(nil, "ps", "-aq", "--no-trunc").stdout)
		if len(ids) > 0 {
			g.do(nil, append([]string{"rm", "-f"}, ids...)...)
		}
		g.endProcesses()
		unmount(t, g.root())
	})
}

// random does not compress.
func random(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What does not fit on the disk is refused in one line that says where there is
// no room, the store is as it was, and what fits still gets in.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startRegistry(t)
	smallDisk(t, g, "24M")
	g.ok("load", "-q", "-i", coreFile(t, "busybox.tar"))
	before := fmt.Sprint(storeFiles(t, g))

	big := &fixture.Image{Name: "big:test", Layers: [][]byte{
		fixture.NewLayer().File("some", 0o644, random(t, 2<<20)).Bytes(),
		fixture.NewLayer().File("big", 0o644, random(t, 30<<20)).Bytes(),
	}}
	push(t, r, big, fixture.Gzip)
	file := filepath.Join(g.dir, "big.tar")
	if err := os.WriteFile(file, fixture.DockerArchive(big).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	room := "no space left on the disk of " + g.root()
	for range 2 {
		g.fails(1, args("load", "-i", file), room, "free some space there")
		same(t, "store after load", fmt.Sprint(storeFiles(t, g)), before)
		res := g.fails(1, args("pull", "-q", r.Addr+"/big:test"), room, "free some space there")
		same(t, "output of pull -q", res.stdout, "")
		same(t, "images after pull", g.ok("images", "--format", "{{.Repository}}"), "busybox")
	}
	// The pull's whole layer may stay for the next try; without one, any rmi
	// gives the room back when there is need.
	same(t, "tmp", strings.Join(storeFilesIn(t, g, "tmp"), "\n"), "")
	same(t, "a container on the nearly full disk", g.ok("run", "--rm", image, "echo", "ok"), "ok")

	fits := &fixture.Image{Name: "fits:test", Layers: [][]byte{fixture.NewLayer().File("fits", 0o644, random(t, 4<<20)).Bytes()}}
	if res := g.do(bytes.NewReader(fixture.DockerArchive(fits).Bytes()), "load"); res.code != 0 {
		t.Errorf("what fits: %v", res)
	}
}

// A container that fills the disk is told by its own write; the engine goes on,
// and keeps what happened as well as it can.
func TestContainerFillsDisk(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	smallDisk(t, g, "24M")
	g.ok("load", "-q", "-i", coreFile(t, "busybox.tar"))
	g.ok("run", "-d", "--name", "bystander", image, "sleep", "1000")
	res := g.do(nil, "run", "--name", "filler", image, "sh", "-c", "dd if=/dev/zero of=/fill bs=64k; echo dd ended with $?; cat /dev/zero >/last-byte; exit 7")
	if res.code != 7 || !strings.Contains(res.stderr, "No space left on device") || res.stdout != "dd ended with 1\n" {
		t.Errorf("the container: %v", res)
	}
	if s := g.state("filler"); s.State.Status != "exited" || s.State.ExitCode != 7 {
		t.Errorf("inspect says %+v", s.State)
	}
	if s := g.state("bystander"); !s.State.Running {
		t.Errorf("the other container is %+v", s.State)
	}
	same(t, "exec beside it", g.ok("exec", "bystander", "echo", "ok"), "ok")

	// Nothing new fits, which is said.
	t.Log(g.fails(125, args("run", "--name", "late", image, "true"), "no space left").stderr)
	if out := g.ok("ps", "-a", "--format", "{{.Names}}"); strings.Contains(out, "late") {
		t.Errorf("a container that could not be made is there: %q", out)
	}
	// Removing is always possible, and makes room.
	g.ok("rm", "filler")
	same(t, "run after making room", g.ok("run", "--rm", image, "echo", "ok"), "ok")
	g.ok("stop", "-t", "0", "bystander")
}
