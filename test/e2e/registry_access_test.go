//go:build root

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/test/fixture"
)

// startPrivate starts a registry over r's files that lets in user u with the
// password geheim and nobody else.
func startPrivate(t *testing.T, r *fixture.Registry) (addr string) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	addr = l.Addr().String()
	l.Close()
	passwd, config := filepath.Join(dir, "htpasswd"), filepath.Join(dir, "config.yml")
	noError(t, os.WriteFile(passwd, []byte("u:$2y$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu\n"), 0o600))
	noError(t, os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s/data}\nhttp: {addr: %s}\nauth:\n  htpasswd: {realm: test, path: %s}\n", r.Dir(), addr, passwd), 0o600))
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	noError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v2/", nil)
		noError(t, err)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			return addr
		}
		noError(t, ctx.Err())
		time.Sleep(20 * time.Millisecond)
	}
}

// TestPrivateRegistry: nothing without a login, everything with, nothing after
// the logout.
func TestPrivateRegistry(t *testing.T) {
	t.Parallel()
	g, r, i := newTug(t), startRegistry(t), busybox(t)
	push(t, r, i, fixture.Gzip)
	addr := startPrivate(t, r)
	home := t.TempDir()
	g.env = []string{"HOME=" + home, "DOCKER_CONFIG=" + home, "TUG_REGISTRIES=/dev/null", "DOCKER_AUTH_CONFIG="}
	name := addr + "/busybox:test"
	denied := func(what string) {
		t.Helper()
		if out := g.do(nil, "pull", name); out.code != 1 || !strings.Contains(out.stderr, "pull access denied for "+addr+"/busybox") || !strings.Contains(out.stderr, "tug login "+addr) {
			t.Errorf("%s: %v", what, out)
		}
	}
	denied("before the login")
	if out := g.do(strings.NewReader("wrong"), "login", "-u", "u", "--password-stdin", addr); out.code != 1 || !strings.Contains(out.stderr, "unauthorized") {
		t.Errorf("a wrong password: %v", out)
	}
	if _, err := os.Stat(filepath.Join(home, "config.json")); err == nil {
		t.Error("a wrong password was stored")
	}
	if out := g.do(strings.NewReader("geheim\n"), "login", "-u", "u", "--password-stdin", addr); out.code != 0 || out.stdout != "Login Succeeded\n" {
		t.Errorf("login: %v", out)
	}
	g.ok("pull", name)
	g.ok("run", "--rm", name, "true")
	g.ok("logout", addr)
	denied("after the logout")
}

// TestMirror: a mirror serves while the registry is down, and the registry
// while the mirror is.
func TestMirror(t *testing.T) {
	t.Parallel()
	g, home, mirror, i := newTug(t), startRegistry(t), startRegistry(t), busybox(t)
	push(t, home, i, fixture.Gzip)
	push(t, mirror, i, fixture.Gzip)
	g.env = []string{"TUG_REGISTRIES=" + filepath.Join(t.TempDir(), "tug", "registries.toml")}
	g.ok("mirror", "add", home.Addr, "http://127.0.0.1:1")
	g.ok("mirror", "add", home.Addr, "http://"+mirror.Addr)
	name := home.Addr + "/busybox:test"
	g.ok("pull", name)
	g.ok("rmi", name)
	mirror.Stop()
	g.ok("pull", name)
	g.ok("rmi", name)
	home.Stop()
	if out := g.do(nil, "pull", name); out.code != 1 || !strings.Contains(out.stderr, home.Addr+": connection refused") {
		t.Errorf("nobody is there: %v", out)
	}
}

func TestPullAllTags(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startRegistry(t)
	for _, tag := range []string{"one", "two"} {
		i := *busybox(t)
		i.Name = "team/busybox:" + tag
		push(t, r, &i, fixture.Gzip)
	}
	name := r.Addr + "/team/busybox"
	out := g.ok("pull", "-a", name)
	for _, line := range []string{"one: Pulling from team/busybox", "two: Pulling from team/busybox", "Status: Downloaded newer image for " + name} {
		if !strings.Contains(out, line) {
			t.Errorf("pull -a lacks %q:\n%s", line, out)
		}
	}
	if n := len(digestLine.FindAllString(out, -1)); n != 2 || !strings.HasSuffix(out, name) {
		t.Errorf("%d digests:\n%s", n, out)
	}
	same(t, "tags", g.ok("images", "--format", "{{.Tag}}", name), "one\ntwo")
	if out := g.do(nil, "pull", "-a", name+":one"); out.code != 1 || !strings.Contains(out.stderr, "tag can't be used with --all-tags/-a") {
		t.Errorf("with a tag: %v", out)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
