//go:build root

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tug/test/fixture"
)

func startRegistry(t *testing.T) *fixture.Registry {
	t.Helper()
	r, err := fixture.StartRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

func busybox(t *testing.T) *fixture.Image {
	t.Helper()
	i, err := fixture.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func push(t *testing.T, r *fixture.Registry, i *fixture.Image, compression string, flags ...string) {
	t.Helper()
	if err := r.Push(i, compression, flags...); err != nil {
		t.Fatal(err)
	}
}

var digestLine = regexp.MustCompile(`(?m)^Digest: (sha256:[0-9a-f]{64})$`)

func TestPull(t *testing.T) {
	t.Parallel()
	g, r, i := newTug(t), startRegistry(t), busybox(t)
	push(t, r, i, fixture.Gzip)
	name := r.Addr + "/busybox:test"

	out := g.ok("pull", name)
	m := digestLine.FindStringSubmatch(out)
	if m == nil || !strings.Contains(out, "Status: Downloaded newer image for "+name) || !strings.HasSuffix(out, name) {
		t.Fatalf("pull printed:\n%s", out)
	}
	if out := g.ok("pull", name); !strings.Contains(out, "Status: Image is up to date for "+name) {
		t.Errorf("second pull printed:\n%s", out)
	}
	byDigest := r.Addr + "/busybox@" + m[1]
	g.ok("pull", byDigest)
	same(t, "run of what was pulled", g.ok("run", "--rm", name, "cat", "/etc/motd"), "second layer")
	same(t, "run by digest", g.ok("run", "--rm", byDigest, "cat", "/etc/motd"), "second layer")
	var in struct {
		ID          string `json:"Id"`
		RepoDigests []string
	}
	g.inspect(&in, name, "image")
	same(t, "image id", in.ID, fixture.Digest(i.ConfigJSON()))
	if len(in.RepoDigests) != 1 || in.RepoDigests[0] != byDigest {
		t.Errorf("RepoDigests %q, want %q", in.RepoDigests, byDigest)
	}
	same(t, "pull -q", g.ok("pull", "-q", name), name)
}

// run pulls what is missing; layers that are here are not fetched again.
func TestRunPulls(t *testing.T) {
	t.Parallel()
	g, r, i := newTug(t), startRegistry(t), busybox(t)
	push(t, r, i, fixture.Zstd)
	res := g.do(nil, "run", "--rm", r.Addr+"/busybox:test", "echo", "ran")
	if res.code != 0 || res.stdout != "ran\n" || !strings.Contains(res.stderr, "Unable to find image") {
		t.Errorf("%v", res)
	}
	more := *i
	more.Name = "more:test"
	more.Layers = append(more.Layers[:2:2], fixture.NewLayer().File("added", 0o644, "by the third layer\n").Bytes())
	push(t, r, &more, fixture.Zstd)
	out := g.ok("pull", r.Addr+"/more:test")
	if n := strings.Count(out, "Already exists"); n != 2 {
		t.Errorf("want two layers that exist already:\n%s", out)
	}
	same(t, "third layer", g.ok("run", "--rm", r.Addr+"/more:test", "cat", "/added", "/etc/motd"), "by the third layer\nsecond layer")
}

func TestPullDockerSchema2(t *testing.T) {
	t.Parallel()
	g, r, i := newTug(t), startRegistry(t), busybox(t)
	push(t, r, i, fixture.Gzip, "--format", "v2s2")
	same(t, "run", g.ok("run", "--rm", r.Addr+"/busybox:test", "echo", "ran"), "ran")
}

func TestPullPlatform(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startRegistry(t)
	amd, arm := busybox(t), busybox(t)
	amd.Arch = "amd64"
	arm.Arch = "arm64"
	arm.Layers = append(arm.Layers, fixture.NewLayer().File("arm", 0o644, "yes\n").Bytes())
	if err := r.PushIndex("both:test", amd, arm); err != nil {
		t.Fatal(err)
	}
	name := r.Addr + "/both:test"
	g.ok("pull", name)
	same(t, "the host's platform", g.ok("image", "inspect", "--format", "{{.Architecture}}", name), "amd64")
	g.ok("pull", "--platform", "linux/arm64", name)
	same(t, "another platform", g.ok("image", "inspect", "--format", "{{.Architecture}}", name), "arm64")
	g.fails(1, args("pull", "--platform", "linux/s390x", name), "s390x")
}

func TestPullFailures(t *testing.T) {
	t.Parallel()
	g, r, i := newTug(t), startRegistry(t), busybox(t)
	i.Name = "bad:test"
	i.Layers = append(i.Layers, fixture.NewLayer().File("big", 0o644, strings.Repeat("content ", 1<<16)).Bytes())
	push(t, r, i, fixture.Gzip)
	g.fails(1, args("pull", r.Addr+"/bad:no-such-tag"), "no-such-tag")
	g.fails(1, args("pull", r.Addr+"/no-such-image"), "no-such-image")
	g.fails(1, args("pull", "UPPER CASE"), "invalid reference")
	before := storeFiles(t, g)

	blob, _ := fixture.Compress(fixture.Gzip, i.Layers[2])
	for what, change := range map[string]func([]byte) []byte{
		"changed":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"longer":    func(b []byte) []byte { return append(b, "more"...) },
		"empty":     func([]byte) []byte { return nil },
	} {
		path := r.Blob(fixture.Digest(blob))
		if err := os.WriteFile(path, change(append([]byte(nil), blob...)), 0o600); err != nil {
			t.Fatal(err)
		}
		res := g.do(nil, "pull", r.Addr+"/bad:test")
		if res.code != 1 || strings.TrimSpace(res.stderr) == "" {
			t.Errorf("a %s layer: %v", what, res)
		}
		t.Logf("a %s layer: %s", what, strings.TrimSpace(res.stderr))
		// Whole layers may stay for the next try; the bad one and its image not.
		same(t, "images after a "+what+" layer", g.ok("images", "-q"), "")
		if err := os.WriteFile(path, blob, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "tmp after failures", strings.Join(storeFilesIn(t, g, "tmp"), "\n"), "")
	g.ok("pull", r.Addr+"/bad:test")
	g.ok("rmi", r.Addr+"/bad:test")
	same(t, "store after all", strings.Join(storeFiles(t, g), "\n"), strings.Join(before, "\n"))
	r.Stop()
	g.fails(1, args("pull", r.Addr+"/bad:test"), r.Addr)
}

// The tree of a real distribution, through a real registry, is GNU tar's.
func TestDebian(t *testing.T) {
	t.Parallel()
	i, err := fixture.Debian()
	if err != nil {
		t.Fatal(err)
	}
	g, r := newTug(t), startRegistry(t)
	push(t, r, i, fixture.Gzip)
	name := r.Addr + "/debian:test"
	g.ok("pull", name)
	same(t, "os-release", g.ok("run", "--rm", name, "sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"), "bookworm")
	same(t, "dpkg", g.ok("run", "--rm", name, "dpkg", "--audit"), "")
	if out := g.ok("run", "--rm", name, "perl", "-e", "print 6*7"); out != "42" {
		t.Errorf("perl: %q", out)
	}
	dir := t.TempDir()
	if err := fixture.Extract(dir, i.Layers...); err != nil {
		t.Fatal(err)
	}
	want, err := fixture.Tree(dir)
	if err != nil {
		t.Fatal(err)
	}
	g.sameTree(name, want)
	g.fsckIndexes()
}

// fsck.erofs, too, must accept every index, of plain and odd files.
func TestIndexes(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	g.ok("load", "-q", "-i", coreFile(t, "busybox.tar"))
	g.ok("load", "-q", "-i", coreFile(t, "zoo.tar"))
	g.fsckIndexes()
}

// fsckIndexes lets Debian's fsck.erofs check every index of the store, and read
// every file through it.
func (g *tug) fsckIndexes() {
	g.t.Helper()
	fsck, err := fixture.FsckErofs()
	if err != nil {
		g.t.Fatal(err)
	}
	checked := 0
	for _, file := range storeFilesIn(g.t, g, "layers") {
		path, _, _ := strings.Cut(file, " ")
		dir, found := strings.CutSuffix(filepath.Join(g.root(), path), "/index.erofs")
		if !found {
			continue
		}
		checked++
		if out, err := fixture.Run("/", fsck, "--extract", "--device="+dir+"/tar", dir+"/index.erofs"); err != nil {
			g.t.Errorf("%v\n%s", err, out)
		}
	}
	if checked == 0 {
		g.t.Error("the store has no index")
	}
}
