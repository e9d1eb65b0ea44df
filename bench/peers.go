package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tug is a tug with a store of its own.
type tug struct {
	l         *lab
	root, run string
	env       []string
}

// newTug makes a store. quiet is how long its supervisor stays without work.
func (l *lab) newTug(name, quiet string) *tug {
	t := &tug{l: l, root: l.path(name, "root"), run: l.path(name, "run"), env: []string{"TUG_QUIET=" + quiet}}
	l.later(t.clean)
	return t
}

func (t *tug) command(args ...string) command {
	return command{args: append([]string{filepath.Join(t.l.bin, "tug"), "--root", t.root, "--run-root", t.run}, args...), env: t.env}
}

func (t *tug) clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := os.Stat(t.root); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ids, err := t.command("ps", "-aq").output(ctx)
	if err != nil || ids == "" {
		return err
	}
	_, err = t.command(append([]string{"rm", "-f"}, strings.Fields(ids)...)...).run(ctx)
	return err
}

// podman is a podman with a store of its own.
type podman struct {
	l    *lab
	args []string
	env  []string
}

// containersConf: cgroupfs because systemd need not be there, and limits that
// podman can set without CAP_SYS_RESOURCE.
const containersConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
`

func (l *lab) newPodman(name string) (*podman, error) {
	dir := l.path(name)
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(conf, []byte(containersConf), 0o644); err != nil {
		return nil, err
	}
	p := &podman{
		l: l,
		args: []string{
			"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
			"--tmpdir", filepath.Join(dir, "tmp"), "--storage-driver", "overlay",
		},
		env: []string{"CONTAINERS_CONF=" + conf, "TMPDIR=" + filepath.Join(dir, "tmp")},
	}
	l.later(p.clean)
	return p, nil
}

func (p *podman) command(args ...string) command {
	return command{args: append(append([]string{}, p.args...), args...), env: p.env}
}

func (p *podman) clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	_, err := p.command("rm", "--all", "--force", "--time", "0").run(ctx)
	_, err2 := p.command("rmi", "--all", "--force").run(ctx)
	return errors.Join(err, err2)
}

// docker is a Docker engine with directories and a socket of its own, without
// networks, so that it changes nothing of the host's.
type docker struct {
	socket string
	daemon *exec.Cmd
}

// newDocker starts an engine; nil when Debian's docker.io is not installed. It
// is stopped when the lab is closed.
func (l *lab) newDocker(ctx context.Context, name string) (*docker, error) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		l.say("no dockerd, so no figures of Docker's (apt-get install docker.io)")
		return nil, nil
	}
	dir := l.path(name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d := &docker{socket: "unix://" + filepath.Join(dir, "sock")}
	d.daemon = exec.Command("dockerd", "-H", d.socket, "--data-root", filepath.Join(dir, "root"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--storage-driver", "overlay2",
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none")
	d.daemon.Stdout, d.daemon.Stderr = log, log
	if err := d.daemon.Start(); err != nil {
		return nil, err
	}
	l.later(func() error { d.stop(); return nil })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := d.command("version").run(ctx); err == nil {
			return d, nil
		} else if time.Now().After(end) {
			return nil, fmt.Errorf("dockerd does not answer: %w", err)
		}
	}
}

func (d *docker) command(args ...string) command {
	return command{args: append([]string{"docker", "-H", d.socket}, args...)}
}

// stop ends the engine, and with it its containerd. It may be called twice,
// and for no engine.
func (d *docker) stop() {
	if d == nil || d.daemon.ProcessState != nil {
		return
	}
	_ = d.daemon.Process.Signal(syscall.SIGTERM)
	_ = d.daemon.Wait() // its exit code says nothing
}

// bundle makes an OCI bundle of the small image for bare runc.
func (l *lab) bundle(ctx context.Context) (string, error) {
	dir := l.path("bundle")
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return "", err
	}
	layers, err := command{args: []string{"tar", "-tf", l.busyboxA}}.output(ctx)
	if err != nil {
		return "", err
	}
	for _, name := range strings.Fields(layers) {
		if !strings.HasSuffix(name, "/layer.tar") {
			continue
		}
		script := fmt.Sprintf("tar -xOf %s %s | tar -x -C %s", l.busyboxA, name, rootfs)
		if _, err := (command{args: []string{"sh", "-c", script}}).run(ctx); err != nil {
			return "", err
		}
	}
	if _, err := (command{args: []string{"runc", "spec"}, dir: dir}).run(ctx); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return "", err
	}
	process, ok := spec["process"].(map[string]any)
	linux, ok2 := spec["linux"].(map[string]any)
	if !ok || !ok2 {
		return "", errors.New("runc spec writes something unknown")
	}
	process["terminal"], process["args"] = false, []string{"true"}
	linux["cgroupsPath"] = "/tug-bench/runc"
	if text, err = json.Marshal(spec); err != nil {
		return "", err
	}
	return dir, os.WriteFile(file, text, 0o644)
}
