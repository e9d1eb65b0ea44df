package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
