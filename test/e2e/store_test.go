//go:build root

package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	units "github.com/docker/go-units"
)

func TestHistory(t *testing.T) {
	g := newBusybox(t)
	id := g.ok("images", "-q", "--no-trunc", "busybox:test")
	lines := strings.Split(g.ok("history", "busybox:test"), "\n")
	if len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "IMAGE CREATED CREATED BY SIZE COMMENT" ||
		!strings.HasPrefix(lines[1], id[7:19]+" ") || !strings.Contains(lines[1], "layer 1") || !strings.HasPrefix(lines[2], "<missing> ") {
		t.Errorf("history:\n%s", strings.Join(lines, "\n"))
	}
	same(t, "history -q", g.ok("image", "history", "-q", "--no-trunc", "busybox:test"), id+"\n<missing>")
	same(t, "history --format", g.ok("history", "--format", "{{.CreatedBy}} {{.CreatedAt}} {{.Size}}", "-H=false", "busybox:test"),
		"layer 1 2026-01-02T03:04:05Z 13\nlayer 0 2026-01-02T03:04:05Z "+sizeOfLayer(t, g))
	var row map[string]string
	if err := json.Unmarshal([]byte(strings.Split(g.ok("history", "--format", "json", "busybox:test"), "\n")[0]), &row); err != nil || len(row) != 6 || row["ID"] != id[7:19] {
		t.Errorf("%v, %v", row, err)
	}
	g.fails(1, args("history", "nope"), "No such image: nope:latest")
	g.fails(1, args("history", "--platform", "linux/s390x", "busybox:test"), "does not match")
}

// sizeOfLayer is the size of busybox's first layer's files.
func sizeOfLayer(t *testing.T, g *tug) string {
	t.Helper()
	metas, _ := filepath.Glob(filepath.Join(g.root(), "layers/*/meta.json"))
	var largest int64
	for _, m := range metas {
		b, err := os.ReadFile(m)
		if err != nil {
			t.Fatal(err)
		}
		var info struct{ Content int64 }
		if err := json.Unmarshal(b, &info); err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Content)
	}
	b, _ := json.Marshal(largest)
	return string(b)
}

func filesBelow(t *testing.T, dirs ...string) (sum int64) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				fi, err := d.Info()
				if err != nil {
					return err
				}
				sum += fi.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sum
}

// system df tells what is on the disk, and prunes reclaim what they say.
func TestDiskUsage(t *testing.T) {
	g := newBusybox(t)
	g.ok("load", "-q", "-i", coreFile(t, "zoo.tar"))
	g.ok("run", "--name", "stopped", "busybox:test", "sh", "-c", "head -c 300000 /dev/zero >/file")
	running := g.ok("run", "-d", "--name", "running", "busybox:test", "sh", "-c", "head -c 5000 /dev/zero >/file; sleep 1000")
	eventually(t, patience, func() string {
		if got := g.ok("system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}"); !strings.Contains(got, "Containers|2|1|305kB|300kB (98%)") {
			return got
		}
		return ""
	})
	all := filesBelow(t, filepath.Join(g.root(), "layers"), filepath.Join(g.root(), "blobs"))
	out := g.ok("system", "df", "--format", "{{.Size}}")
	same(t, "size of images", strings.Split(out, "\n")[0], units.HumanSize(float64(all)))
	if got := g.ok("system", "df"); !strings.HasPrefix(got, "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\nImages          2         1  ") ||
		!strings.HasSuffix(got, "\nLocal Volumes   0         0         0B        0B\nBuild Cache     0         0         0B        0B") {
		t.Errorf("system df:\n%s", got)
	}
	verbose := g.ok("system", "df", "-v")
	for _, want := range []string{
		"Images space usage:\n\nREPOSITORY   TAG       IMAGE ID ", "SHARED SIZE   UNIQUE SIZE   CONTAINERS\n",
		"Containers space usage:\n\nCONTAINER ID ", "300kB", "Local Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\n", "Build cache usage: 0B\n",
	} {
		if !strings.Contains(verbose, want) {
			t.Errorf("no %q in\n%s", want, verbose)
		}
	}
	g.ok("tag", "zoo:test", "zoo:again")
	// An image is one row, whatever names it has, and its ID is whole in templates.
	ids := strings.Fields(g.ok("system", "df", "-v", "--format", "{{range .Images}}{{.ID}} {{end}}"))
	if len(ids) != 2 || len(ids[0]) != len("sha256:")+64 {
		t.Errorf("images: %q", ids)
	}
	g.ok("rmi", "zoo:again")
	// What a container that ended has written is kept until it runs again.
	stopped := g.state("stopped").ID
	if _, err := os.Stat(filepath.Join(g.root(), "containers", stopped, "size.json")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(g.root(), "containers", running, "size.json")); err == nil {
		t.Error("the size of a running container was kept")
	}
	g.ok("start", "-a", "stopped")
	g.ok("rm", "-f", "running")

	// Refused, then dry, then done.
	const warning = "WARNING! This will remove:\n  - all stopped containers\n  - all images without at least one container associated to them\n\nAre you sure you want to continue? [y/N] "
	if r := g.do(strings.NewReader("n\n"), "system", "prune", "-a"); r.code != 0 || r.stdout != warning {
		t.Errorf("%v\nwant %q", r, warning)
	}
	if r := g.do(strings.NewReader(""), "image", "prune"); r.code != 0 || !strings.HasPrefix(r.stdout, "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] ") {
		t.Error(r)
	}
	dry := g.ok("system", "prune", "-a", "--dry-run")
	r := g.do(strings.NewReader("y\n"), "system", "prune", "-a")
	real := strings.TrimPrefix(strings.TrimSuffix(r.stdout, "\n"), warning)
	same(t, "prune", real, strings.NewReplacer("Containers that would be deleted", "Deleted Containers", "Images that would be deleted", "Deleted Images",
		"Total space that would be reclaimed", "Total reclaimed space").Replace(dry))
	for _, want := range []string{
		"Deleted Containers:\n" + stopped + "\n\nDeleted Images:\n", "untagged: busybox:test\n", "deleted: sha256:",
		"Total reclaimed space: " + units.HumanSize(float64(all+300000)),
	} {
		if !strings.Contains(real, want) {
			t.Errorf("no %q in\n%s", want, real)
		}
	}
	if left := filesBelow(t, filepath.Join(g.root(), "layers"), filepath.Join(g.root(), "blobs")); left != 0 {
		t.Errorf("%d bytes left", left)
	}
}

func TestPruneFilters(t *testing.T) {
	g := newBusybox(t)
	g.ok("create", "--name", "keeps", "--label", "keep=yes", "busybox:test")
	g.ok("create", "--name", "goes", "busybox:test")
	same(t, "nothing so old", g.ok("container", "prune", "-f", "--filter", "until=1h"), "Total reclaimed space: 0B")
	g.ok("container", "prune", "-f", "--filter", "label!=keep")
	same(t, "after label!=", g.ok("ps", "-a", "--format", "{{.Names}}"), "keeps")
	same(t, "image in use", g.ok("image", "prune", "-af"), "Total reclaimed space: 0B")
	g.ok("container", "prune", "-f", "--filter", "label=keep=yes")
	same(t, "after label=", g.ok("ps", "-aq"), "")
	g.ok("image", "prune", "-af", "--filter", "label=origin=elsewhere")
	g.ok("image", "prune", "-f")
	same(t, "tagged", g.ok("images", "--format", "{{.Repository}}"), "busybox")
	same(t, "until", g.ok("images", "-q", "--filter", "until=2026-01-01"), "")
	g.ok("image", "prune", "-af", "--filter", "label=origin=fixture", "--filter", "until=2026-01-03")
	same(t, "gone", g.ok("images", "-q"), "")
	g.fails(1, args("image", "prune", "-f", "--filter", "until=soon"), "invalid filter 'until=soon'")
	g.fails(1, args("image", "prune", "-f", "--filter", "color=red"), "invalid filter 'color'")
	g.fails(1, args("system", "prune", "-f", "--volumes", "--filter", "until=1h"), `The "until" filter is not supported with "--volumes"`)
}

func TestImageTree(t *testing.T) {
	g := newBusybox(t)
	g.ok("load", "-q", "-i", coreFile(t, "zoo.tar"))
	out := g.ok("image", "tree")
	lines := strings.Split(out, "\n")
	if !strings.Contains(lines[0], "  layer 0") || !strings.Contains(out, "├─ busybox:test (") || !strings.Contains(out, "└─ zoo:test (") || !strings.Contains(lines[len(lines)-1], "if nothing were shared") {
		t.Errorf("image tree:\n%s", out)
	}
	g.env = []string{"LC_ALL=C"}
	if out := g.ok("image", "tree", "busybox:test"); strings.Contains(out, "─") || strings.Contains(out, "zoo") || !strings.Contains(out, "`- busybox:test (") {
		t.Errorf("image tree busybox:test:\n%s", out)
	}
	var v struct{ TotalSize int64 }
	if err := json.Unmarshal([]byte(g.ok("image", "tree", "--format", "json")), &v); err != nil || v.TotalSize == 0 {
		t.Errorf("%v, %+v", err, v)
	}
	g.fails(1, args("image", "tree", "nope"), "No such image: nope:latest")
	if out := g.ok("images", "--tree"); !strings.Contains(out, "busybox:test") || !strings.Contains(out, "`- linux/amd64") {
		t.Errorf("images --tree:\n%s", out)
	}
	g.fails(1, args("images", "--tree", "-q"), "--quiet is not yet supported with --tree")
	g.fails(1, args("rmi", "--platform", "linux/s390x", "busybox:test"), "does not match the specified platform")
	g.ok("image", "inspect", "--platform", "linux/amd64", "busybox:test")
	g.ok("rmi", "--platform", "linux/amd64", "busybox:test")
	g.fails(1, args("image", "inspect", "busybox:test"), "No such image")
}
