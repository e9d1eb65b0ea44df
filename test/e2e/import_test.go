//go:build root

package e2e

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tug/test/fixture"
)

// A container's file system goes out as a tar and comes in as an image.
func TestImport(t *testing.T) {
	g := newTug(t)
	i, err := fixture.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "fs.tar")
	if err := os.WriteFile(file, i.Layers[0], 0o600); err != nil {
		t.Fatal(err)
	}
	id := g.ok("import", "-c", `CMD ["cat", "/etc/motd"]`, "--change", "ENV X=1", "-m", "made here", file, "imported:1")
	if !strings.HasPrefix(id, "sha256:") {
		t.Error(id)
	}
	same(t, "run", g.ok("run", "--rm", "imported:1"), "first layer")
	same(t, "history", g.ok("history", "--format", "{{.Comment}}|{{.CreatedBy}}", "imported:1"), "made here|")
	packed, err := exec.Command("xz", "-0", "-c", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if r := g.do(bytes.NewReader(packed), "import", "-", "imported:2"); r.code != 0 {
		t.Error(r)
	}
	same(t, "comment", g.ok("inspect", "-f", "{{.Comment}} {{.Os}}", "imported:2"), "Imported from - linux")
	web := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer web.Close()
	g.ok("import", web.URL+"/fs.tar", "imported:3")
	same(t, "comment", g.ok("inspect", "-f", "{{.Comment}}", "imported:3"), "Imported from "+web.URL+"/fs.tar")
	same(t, "one layer for all", strings.Join(listDir(t, filepath.Join(g.root(), "layers")), " "), fixture.Digest(i.Layers[0])[7:])

	g.fails(1, args("import", web.URL+"/none"), "404 Not Found")
	g.fails(1, args("import", filepath.Join(dir, "none")), "no such file")
	g.fails(1, args("import", "-c", "RUN make", file), "run is not a valid change command")
	g.fails(1, args("import", file, "UPPER"), "lowercase")
	g.fails(1, args("import", file, "a@"+id), "cannot import digest reference")
	g.fails(1, args("import"), "requires at least 1 argument")
}

func listDir(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Layouts that skopeo writes load from their directory.
func TestLoadLayout(t *testing.T) {
	g := newTug(t)
	dir := filepath.Join(t.TempDir(), "layout")
	if out, err := exec.Command("skopeo", "--insecure-policy", "copy", "docker-archive:"+coreFile(t, "busybox.tar"), "oci:"+dir+":busybox:test").CombinedOutput(); err != nil {
		t.Fatalf("skopeo: %v\n%s", err, out)
	}
	same(t, "load", g.ok("load", "-i", dir), "Loaded image: busybox:test")
	same(t, "run", g.ok("run", "--rm", "busybox:test", "cat", "/etc/motd"), "second layer")
	g.fails(1, args("load", "-i", dir, "--platform", "linux/s390x"), "no image for linux/s390x")
	g.fails(1, args("load", "-i", filepath.Dir(dir)), "is no OCI layout")
	same(t, "-q", g.ok("load", "-q", "--platform", "linux/amd64", "-i", dir), "Loaded image: busybox:test")
}
