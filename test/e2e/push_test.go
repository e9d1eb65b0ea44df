//go:build root

package e2e

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/test/fixture"
)

var pushedLine = regexp.MustCompile(`(?m)^([^:\n]+): digest: (sha256:[0-9a-f]{64}) size: [0-9]+$`)

// pushed runs push and returns the digest that it printed last.
func (g *tug) pushed(args ...string) (digest, out string) {
	g.t.Helper()
	out = g.ok(append([]string{"push"}, args...)...)
	all := pushedLine.FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		g.t.Fatalf("push printed no digest:\n%s", out)
	}
	return all[len(all)-1][2], out
}

// imageOf is what inspect says of an image.
func (g *tug) imageOf(name string) (id string, layers []string) {
	g.t.Helper()
	var in struct {
		ID     string `json:"Id"`
		RootFS struct{ Layers []string }
	}
	g.inspect(&in, name, "image")
	return in.ID, in.RootFS.Layers
}

// What tug pushes, skopeo and podman's library read, and tug itself gets the
// same image back from it.
func TestPush(t *testing.T) {
	t.Parallel()
	g, r := newBusybox(t), startRegistry(t)
	name := r.Addr + "/team/busybox:v1"
	g.ok("tag", "busybox:test", name)
	digest, out := g.pushed(name)
	if !strings.HasPrefix(out, "The push refers to repository ["+r.Addr+"/team/busybox]\n") || strings.Count(out, ": Pushed") != 2 || strings.Count(out, ": Preparing") != 2 {
		t.Errorf("push printed:\n%s", out)
	}
	if again, out := g.pushed(name); again != digest || strings.Count(out, ": Layer already exists") != 2 {
		t.Errorf("the second push printed:\n%s", out)
	}
	g.ok("tag", name, r.Addr+"/copy")
	if again, out := g.pushed(r.Addr + "/copy"); again != digest || strings.Count(out, ": Mounted from team/busybox") != 2 || !strings.HasPrefix(out, "Using default tag: latest\n") {
		t.Errorf("push to another repository printed:\n%s", out)
	}
	same(t, "push -q", g.ok("push", "-q", name), name)
	if out := g.ok("image", "inspect", "--format", "{{.RepoDigests}}", name); !strings.Contains(out, r.Addr+"/team/busybox@"+digest) {
		t.Errorf("RepoDigests: %s", out)
	}

	said, err := fixture.Run("/", "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+name)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "skopeo inspect", strings.TrimSpace(string(said)), digest)
	dir := t.TempDir()
	if _, err := fixture.Run("/", "skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+name, "docker-archive:"+dir+"/a.tar:x:y"); err != nil {
		t.Fatal(err)
	}
	id, layers := g.imageOf("busybox:test")
	loaded := newTug(t)
	loaded.ok("load", "-q", "-i", dir+"/a.tar")
	if got, _ := loaded.imageOf("x:y"); got != id {
		t.Errorf("by way of skopeo: %s instead of %s", got, id)
	}
	fresh := newTug(t)
	fresh.ok("pull", name)
	gotID, gotLayers := fresh.imageOf(name)
	same(t, "the image pulled again", gotID+strings.Join(gotLayers, " "), id+strings.Join(layers, " "))
	same(t, "run", fresh.ok("run", "--rm", name, "cat", "/etc/motd"), "second layer")

	g.ok("tag", "busybox:test", r.Addr+"/copy:other")
	_, out = g.pushed("-a", r.Addr+"/copy")
	if all := pushedLine.FindAllStringSubmatch(out, -1); len(all) != 2 || all[0][1] != "latest" || all[1][1] != "other" {
		t.Errorf("push -a printed:\n%s", out)
	}
	g.fails(1, args("push", "-a", name), "tag can't be used with --all-tags/-a")
	g.fails(1, args("push", r.Addr+"/none"), "An image does not exist locally with the tag: "+r.Addr+"/none")
	g.fails(1, args("push", r.Addr+"/copy:none"), "tag does not exist: "+r.Addr+"/copy:none")
	g.fails(1, args("push", r.Addr+"/copy@"+digest), "cannot push a digest reference")
	r.Stop()
	g.fails(1, args("push", name), "connection refused")
}

// An image keeps its digests from registry to registry as long as the first one
// is there, and gets others that stay when it is not.
func TestPushPulled(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"oci", "v2s2"} {
		g, from, to, i := newTug(t), startRegistry(t), startRegistry(t), busybox(t)
		push(t, from, i, fixture.Gzip, "--format", format)
		name, target := from.Addr+"/busybox:test", to.Addr+"/busybox:test"
		m := digestLine.FindStringSubmatch(g.ok("pull", name))
		g.ok("tag", name, target)
		if digest, out := g.pushed(target); digest != m[1] {
			t.Errorf("another digest:\n%s", out)
		}
		from.Stop()
		third := startRegistry(t)
		lost := third.Addr + "/busybox:test"
		g.ok("tag", name, lost)
		if digest, out := g.pushed(lost); digest != m[1] {
			t.Errorf("passed on from the second registry, another digest:\n%s", out)
		}
		to.Stop()
		third.Stop()
		last := startRegistry(t)
		g.ok("tag", name, last.Addr+"/busybox:test")
		digest, out := g.pushed(last.Addr + "/busybox:test")
		if digest == m[1] {
			t.Errorf("nobody had the layers:\n%s", out)
		}
		if again, _ := g.pushed(last.Addr + "/busybox:test"); again != digest {
			t.Errorf("%s and then %s", digest, again)
		}
		fresh := newTug(t)
		fresh.ok("pull", last.Addr+"/busybox:test")
		if id, _ := fresh.imageOf(last.Addr + "/busybox:test"); id != fixture.Digest(i.ConfigJSON()) {
			t.Errorf("another image: %s", id)
		}
	}
}

func TestPushPlatforms(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startRegistry(t)
	amd, arm := busybox(t), busybox(t)
	amd.Arch, arm.Arch = "amd64", "arm64"
	arm.Layers = append(arm.Layers, fixture.NewLayer().File("arm", 0o644, "yes\n").Bytes())
	if err := r.PushIndex("both:test", amd, arm); err != nil {
		t.Fatal(err)
	}
	other := startRegistry(t)
	name, target := r.Addr+"/both:test", other.Addr+"/both:test"
	index := digestLine.FindStringSubmatch(g.ok("pull", name))[1]
	g.ok("tag", name, target)
	if digest, out := g.pushed(target); digest == index || !strings.Contains(out, " Info -> Not all multiplatform-content is present and only the available single-platform image was pushed\n         "+index+" -> "+digest) {
		t.Errorf("push of one of two printed:\n%s", out)
	}
	g.fails(1, args("push", "--platform", "linux/arm64", target), "does not match the specified platform (linux/arm64)")
	g.ok("pull", "--platform", "linux/arm64", name)
	g.pushed("--platform", "linux/arm64", target)
	fresh := newTug(t)
	fresh.ok("pull", "--platform", "linux/arm64", target)
	fresh.fails(1, args("pull", "--platform", "linux/amd64", target), "linux/amd64")
	if digest, out := g.pushed(target); digest != index {
		t.Errorf("push of both printed:\n%s", out)
	}
	fresh.ok("pull", "--platform", "linux/amd64", target)
}

// A push that is killed anywhere leaves the store as it was, and the next one
// does the whole.
func TestPushKilled(t *testing.T) {
	t.Parallel()
	g, r := newBusybox(t), startRegistry(t)
	name := r.Addr + "/busybox:v1"
	g.ok("tag", "busybox:test", name)
	for pause := time.Millisecond; pause < 200*time.Millisecond; pause = pause * 3 / 2 {
		cmd := g.command(t.Context(), "push", name)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		same(t, "images after a killed push", g.ok("images", "-q", "busybox:test"), g.ok("images", "-q", name))
		same(t, "tmp", strings.Join(storeFilesIn(t, g, "tmp"), "\n"), "")
	}
	digest, _ := g.pushed(name)
	same(t, "run after killed pushes", g.ok("run", "--rm", name, "echo", "ran"), "ran")
	fresh := newTug(t)
	fresh.ok("pull", r.Addr+"/busybox@"+digest)

	// Ctrl-C ends one that waits.
	cmd := g.command(t.Context(), "push", name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("push goes on after Ctrl-C")
	}
}
