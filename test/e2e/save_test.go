//go:build root

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What tug saves is what tug, podman and skopeo load: the same ID, and a
// container of it finds its files.
func TestSaveForOthers(t *testing.T) {
	g := newBusybox(t)
	g.ok("load", "-q", "-i", coreFile(t, "zoo.tar"))
	id := g.ok("images", "-q", "--no-trunc", "busybox:test")
	dir := t.TempDir()
	docker, oci := filepath.Join(dir, "docker.tar"), filepath.Join(dir, "oci.tar")
	g.ok("save", "-o", docker, "busybox:test")
	g.ok("save", "--format", "oci", "-o", oci, "busybox:test")
	if r := g.do(nil, "save", "busybox:test"); r.code != 0 {
		t.Fatal(r)
	} else if b, err := os.ReadFile(docker); err != nil || string(b) != r.stdout {
		t.Errorf("the file and standard output differ: %v", err)
	}

	h := newTug(t)
	for _, file := range []string{docker, oci} {
		same(t, "load", h.ok("load", "-i", file), "Loaded image: busybox:test")
		same(t, "ID", h.ok("images", "-q", "--no-trunc", "busybox:test"), id)
		same(t, "run", h.ok("run", "--rm", "busybox:test", "cat", "/etc/motd"), "second layer")
		h.ok("rmi", "busybox:test")
	}
	both := filepath.Join(dir, "both.tar")
	g.ok("save", "-o", both, "busybox:test", "zoo:test", id[7:20])
	same(t, "load of two", h.ok("load", "-i", both), "Loaded image: busybox:test\nLoaded image: zoo:test")
	if fi, err := os.Stat(both); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}

	for _, file := range []string{"docker-archive:" + docker, "oci-archive:" + oci, "oci-archive:" + docker} {
		out, err := exec.Command("skopeo", "inspect", "--config", "--raw", file).Output()
		if err != nil || !strings.Contains(string(out), `"GREETING=hello"`) {
			t.Errorf("skopeo inspect %s: %v\n%s", file, err, out)
		}
		copied := filepath.Join(dir, "copied")
		if out, err := exec.Command("skopeo", "--insecure-policy", "copy", file, "dir:"+copied).CombinedOutput(); err != nil {
			t.Errorf("skopeo copy %s: %v\n%s", file, err, out)
		}
		if _, err := os.Stat(filepath.Join(copied, id[7:])); err != nil {
			t.Errorf("skopeo made another config of %s", file)
		}
		os.RemoveAll(copied)
	}
	p := newPodman(t)
	for _, file := range []string{docker, oci} {
		p.ok("load", "-i", file)
		same(t, "podman's IDs after "+filepath.Base(file), p.ok("images", "-q", "--no-trunc"), id)
		if file == oci {
			same(t, "podman's name", p.ok("images", "--format", "{{.Repository}}:{{.Tag}}"), "docker.io/library/busybox:test")
		}
		p.ok("rmi", "-f", id[7:])
	}
}

func TestSaveRefuses(t *testing.T) {
	g := newBusybox(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out.tar")
	if err := os.WriteFile(out, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.fails(1, args("save", "-o", out, "nope"), "No such image: nope:latest")
	g.fails(1, args("save", "-o", out, "--platform", "linux/s390x", "busybox:test"), "does not match the specified platform (linux/s390x)")
	g.fails(1, args("save", "-o", filepath.Join(dir, "no/such/dir"), "busybox:test"), "failed to save image: invalid output path: directory", "does not exist")
	g.fails(1, args("save", "-o", dir, "busybox:test"), "is a directory")
	g.fails(125, args("save", "--platform", "a/b/c/d", "busybox:test"), "platform")
	if r := g.do(nil, "save", "-o", "/dev/full", "busybox:test"); r.code != 1 || !strings.Contains(r.stderr, "no space left") {
		t.Error(r)
	}
	// Damage in the store is not passed on.
	tars, _ := filepath.Glob(filepath.Join(g.root(), "layers/*/tar"))
	b, err := os.ReadFile(tars[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(tars[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	g.fails(1, args("save", "-o", out, "busybox:test"), "layer", "damaged")
	if b, err := os.ReadFile(out); err != nil || string(b) != "precious" {
		t.Errorf("the file that was there is now %q, %v", clip(string(b)), err)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 {
		t.Errorf("left: %v", all)
	}
}

// Interrupted or killed, a save leaves no file.
func TestSaveInterrupted(t *testing.T) {
	g := newBusybox(t)
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		dir := t.TempDir()
		cmd := g.command(t.Context(), "save", "-o", filepath.Join(dir, "out.tar"), "busybox:test")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		cmd.Process.Signal(sig)
		err := cmd.Wait()
		all, _ := os.ReadDir(dir)
		if err != nil && len(all) > 0 || err == nil && len(all) != 1 {
			t.Errorf("%v: %v %s; left: %v", sig, err, &stderr, all)
		}
	}
}
