//go:build root

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tug/test/fixture"
)

// podman is Debian's, with a store and a configuration of its own.
type podman struct {
	t    *testing.T
	args []string
	env  []string
}

// podmanConf: cgroupfs because systemd need not be there, and limits that podman
// can set without CAP_SYS_RESOURCE.
const podmanConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
`

// conmonParent is the cgroup that podman makes for its conmons, and leaves.
const conmonParent = "libpod_parent"

// hadConmonParent tells whether it was there before the tests.
var hadConmonParent = sync.OnceValue(func() bool { return len(cgroupsNamed(conmonParent)) > 0 })

// removeConmonParent removes it, unless another test's conmon is in it: then
// that test will.
func removeConmonParent() {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		left := cgroupsNamed(conmonParent)
		if len(left) == 0 {
			return
		}
		for _, top := range left {
			_ = os.Remove(filepath.Join(top, "conmon"))
			_ = os.Remove(top)
		}
	}
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	if !hadConmonParent() {
		t.Cleanup(removeConmonParent)
	}
	dir, err := os.MkdirTemp("", "tug-podman-")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(conf, []byte(podmanConf), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &podman{
		t:    t,
		args: []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"), "--storage-driver", "vfs"},
		env:  append(os.Environ(), "CONTAINERS_CONF="+conf, "TMPDIR="+dir, "HOME="+dir),
	}
	t.Cleanup(func() {
		p.ok("rm", "--all", "--force", "--time", "0")
		p.ok("rmi", "--all", "--force")
		for _, m := range mountsWith(dir) {
			t.Errorf("podman left the mount %s", m)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

// ok runs podman and returns what it printed.
func (p *podman) ok(args ...string) string {
	p.t.Helper()
	cmd := exec.Command("podman", append(p.args[:len(p.args):len(p.args)], args...)...)
	cmd.Env = p.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("podman %v: %v\n%s%s", args, err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// pulled makes podman pull name and returns the image's ID as tug writes it.
func (p *podman) pulled(name string) string {
	p.t.Helper()
	out := p.ok("pull", "-q", "--tls-verify=false", name)
	same(p.t, "the digest of "+name+" for podman", p.ok("image", "inspect", "--format", "{{.Digest}}", name), remoteDigest(p.t, name))
	return "sha256:" + out
}

// remoteDigest is what skopeo finds in the registry.
func remoteDigest(t *testing.T, name string) string {
	t.Helper()
	out, err := fixture.Run("/", "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// tree is the fixture.Tree of an image as podman unpacked it, less the top,
// whose time is podman's.
func (p *podman) tree(name string) string {
	p.t.Helper()
	dir := p.ok("image", "mount", name)
	lines, err := fixture.Tree(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	p.ok("image", "unmount", name)
	return strings.Join(lines[1:], "\n")
}

// copied makes skopeo copy name into a directory and fails where the image has
// another config than the one that id names.
func copied(t *testing.T, name, id string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	if _, err := fixture.Run("/", "skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+name, "dir:"+dir); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(id, "sha256:")))
	if err != nil {
		t.Fatalf("skopeo's copy of %s: %v", name, err)
	}
	same(t, "config of skopeo's copy of "+name, fixture.Digest(config), id)
}

// What tug pushes, podman and skopeo pull: an image that came with blobs of its
// own, one whose layers tug has compressed, with all that layers can remove and
// replace, and one that tug has made.
func TestPushForOthers(t *testing.T) {
	t.Parallel()
	g, p, to := newBusybox(t), newPodman(t), startRegistry(t)

	for _, format := range []string{"oci", "v2s2"} {
		from, i := startRegistry(t), busybox(t)
		i.Config["Labels"] = map[string]string{"format": format} // an image of its own
		push(t, from, i, fixture.Gzip, "--format", format)
		source, target := from.Addr+"/busybox:test", to.Addr+"/pulled:"+format
		g.ok("pull", "-q", source)
		g.ok("tag", source, target)
		digest, _ := g.pushed(target)
		same(t, "digest of what was pulled", digest, remoteDigest(t, source))
		id, _ := g.imageOf(target)
		same(t, "podman's ID of what was pulled", p.pulled(target), id)
		same(t, "podman run", p.ok("run", "--rm", "--network", "none", target, "sh", "-c", "cat /etc/motd; ls /etc/removed 2>&1; echo $GREETING"), "second layer\nls: /etc/removed: No such file or directory\nhello")
		copied(t, target, id)
	}

	i := reworked(t)
	archive := filepath.Join(t.TempDir(), "reworked.tar")
	if err := os.WriteFile(archive, fixture.DockerArchive(i).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	g.ok("load", "-q", "-i", archive)
	loaded := to.Addr + "/loaded:v1"
	g.ok("tag", i.Name, loaded)
	g.pushed(loaded)
	id, layers := g.imageOf(i.Name)
	same(t, "podman's ID of what was loaded", p.pulled(loaded), id)
	same(t, "podman's layers", p.ok("image", "inspect", "--format", `{{range .RootFS.Layers}}{{.}} {{end}}`, loaded), strings.Join(layers, " "))
	dir := t.TempDir()
	if err := fixture.Extract(dir, i.Layers...); err != nil {
		t.Fatal(err)
	}
	want, err := fixture.Tree(dir)
	if err != nil {
		t.Fatal(err)
	}
	sameLines(t, "podman's tree of what was loaded", p.tree(loaded), strings.Join(want[1:], "\n"))
	copied(t, loaded, id)

	file := filepath.Join(t.TempDir(), "files.tar")
	if err := os.WriteFile(file, fixture.NewLayer().Dirs("etc").File("etc/name", 0o600, "imported\n").Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	made := to.Addr + "/made:v1"
	g.ok("import", "--change", "ENV A=b", file, made)
	g.pushed(made)
	id, _ = g.imageOf(made)
	same(t, "podman's ID of what was imported", p.pulled(made), id)
	same(t, "podman's environment", p.ok("image", "inspect", "--format", "{{.Config.Env}}", made), "[A=b]")
	if tree := p.tree(made); !strings.Contains(tree, `"/etc/name"`) {
		t.Errorf("podman's tree of what was imported:\n%s", tree)
	}
	copied(t, made, id)
}

// reworked is an image whose layers remove and replace each other's files in
// all ways that podman's unpacker knows: it refuses names that come twice.
func reworked(t *testing.T) *fixture.Image {
	i := busybox(t)
	i.Name = "reworked:test"
	first := fixture.NewLayer().Dirs("a", "a/gone", "a/gone/deep", "a/opaque", "a/opaque/old", "a/file", "a/many")
	first.File("a/gone/deep/file", 0o644, "gone").File("a/opaque/old/file", 0o644, "old").File("a/opaque/name", 0o600, "old")
	first.File("a/directory", 0o644, "a file").File("a/first", 0o644, "one\n").Link("a/second", "a/first").Symlink("a/link", "first")
	for n := range 300 {
		first.File(fmt.Sprintf("a/many/%d", n), 0o644, strings.Repeat("n", n*n))
	}
	second := fixture.NewLayer().Dirs("a", "a/opaque", "a/directory", "a/many")
	second.File("a/.wh.gone", 0o600, "").File("a/opaque/.wh..wh..opq", 0o600, "").File("a/opaque/name", 0o640, "new").File("a/.wh.never-was", 0o600, "")
	second.File("a/file", 0o644, "now a file").File("a/directory/file", 0o644, "now a directory").File("a/many/.wh.123", 0o600, "").File("a/.wh.link", 0o600, "")
	third := fixture.NewLayer().Dirs("a", "a/gone").File("a/gone/again", 0o644, "back").Symlink("a/link", "second")
	i.Layers = append(i.Layers, first.Bytes(), second.Bytes(), third.Bytes())
	return i
}

// sameLines is same that shows only the lines that differ.
func sameLines(t *testing.T, what, got, want string) {
	t.Helper()
	has := map[string]int{}
	for line := range strings.SplitSeq(got, "\n") {
		has[line]++
	}
	for line := range strings.SplitSeq(want, "\n") {
		if has[line]--; has[line] < 0 {
			t.Errorf("%s lacks %s", what, line)
		}
	}
	for line, n := range has {
		if n > 0 {
			t.Errorf("%s has also %s", what, line)
		}
	}
}
