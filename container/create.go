package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"tug/errs"
	"tug/image"
	"tug/runtime"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// Request is what a user asked for: the options of create and run. Nil and
// empty mean the image's value.
type Request struct {
	Name, Image string
	Platform    *spec.Platform

	Cmd        []string
	Entrypoint *[]string // an empty list clears the image's
	Env        []string  // NAME=VALUE, or NAME to unset
	Labels     map[string]string

	User, WorkingDir, Hostname, Domainname string
	StopSignal                             string
	StopTimeout                            *int // seconds
	Healthcheck                            *spec.Healthcheck

	Volumes     []string                // targets of anonymous volumes, beyond the image's
	MountImages map[string]*image.Image // of Host.Mounts, by their sources; kept as the container's image is

	Box bool // the program is tug-box, with Cmd as arguments, its name included

	Tty, OpenStdin, StdinOnce      bool
	AttachIn, AttachOut, AttachErr bool
	Host                           spec.HostConfig
}

// Create makes a container from img. The image must be kept from being removed
// meanwhile: call it with the reference lock held shared.
func (c *Containers) Create(ctx context.Context, req Request, img *image.Image) (*spec.Container, error) {
	ctr, err := describe(&req, img)
	if err != nil {
		return nil, err
	}
	if err := c.settle(&ctr.Host); err != nil {
		return nil, err
	}
	if err := checkLog(ctr); err != nil {
		return nil, err
	}
	if err := runtime.CheckSecurity(ctr.Host.SecurityOpt); err != nil {
		return nil, err
	}
	if err := runtime.CheckCgroupParent(ctr.Host.CgroupParent); err != nil {
		return nil, err
	}
	if err := setRuntime(ctr); err != nil {
		return nil, err
	}
	chosen, err := c.chooseIDs(&ctr.Host)
	if err != nil {
		return nil, err
	}
	defer chosen()
	release, err := c.takeName(ctr, req.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	letGo, err := c.settleMounts(ctx, ctr, &req)
	if err == nil {
		if err = c.place(ctr); err != nil {
			err = fmt.Errorf("create container %s: %w", ctr.Name, err)
		}
		letGo(err != nil)
	}
	if err != nil {
		os.Remove(c.st.ContainerName(ctr.Name))
		return nil, err
	}
	c.did(ctr, "create")
	return ctr, nil
}

// ownRuntime is the name of tug's own runtime.
const ownRuntime = "tug"

// setRuntime finds the program of another runtime that is asked for.
func setRuntime(ctr *spec.Container) (err error) {
	h := &ctr.Host
	if h.Runtime == ownRuntime {
		h.Runtime = ""
	}
	if h.Runtime == "" {
		return nil
	}
	if err := runtime.CheckForeign(ctr); err != nil {
		return err
	}
	h.RuntimePath, err = runtime.FindForeign(h.Runtime)
	return err
}

// place writes the container's directory in tmp/ and renames it to its place.
// Containers that are removed when they end need not survive a power failure.
func (c *Containers) place(ctr *spec.Container) error {
	durable := !ctr.Host.AutoRemove
	if ctr.Host.MayRestart() {
		if err := c.mark(ctr.ID); err != nil {
			return err
		}
	}
	tmp, held, err := c.st.TempDir("container-*")
	if err != nil {
		return err
	}
	defer held.Close()
	project, err := c.fill(tmp, ctr, durable)
	if err == nil {
		err = os.Rename(tmp, c.path(ctr.ID))
	}
	sys.CloseAll([]*os.File{project})
	if err != nil {
		os.RemoveAll(tmp)
		c.freeProject(ctr)
		os.Remove(c.st.Restart(ctr.ID))
		return noSpace(err)
	}
	if durable {
		return state.SyncDir(c.st.Containers())
	}
	return nil
}

// fill returns the file of the container's quota project, if it has one, see
// confine.
func (c *Containers) fill(dir string, ctr *spec.Container, durable bool) (project *os.File, err error) {
	// The upper directory is the container's root: it has a root's mode.
	for name, mode := range map[string]os.FileMode{dirUpper: 0o755, dirWork: 0o700, dirLog: 0o700} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil {
			return nil, err
		}
	}
	if project, err = c.confine(dir, ctr); err != nil {
		return nil, err
	}
	if err := c.layers.DressRoot(filepath.Join(dir, dirUpper), ctr.Layers); err != nil {
		return project, err
	}
	for name, text := range etcFiles(ctr) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return project, err
		}
	}
	return project, c.st.WriteJSON(filepath.Join(dir, fileConfig), ctr, durable)
}

func noSpace(err error) error {
	if errors.Is(err, sys.ErrNoSpace) {
		return errs.New(errs.NoSpace, "%w", err).WithHint("free some space, or remove containers and images that are not needed")
	}
	return err
}

// describe merges the request with the image's configuration.
func describe(req *Request, img *image.Image) (*spec.Container, error) {
	cfg := img.Config.Config
	cfg.Env = mergeEnv(cfg.Env, req.Env)
	cfg.Labels = maps.Clone(cfg.Labels)
	if cfg.Labels == nil {
		cfg.Labels = map[string]string{}
	}
	maps.Copy(cfg.Labels, req.Labels)
	if len(req.Volumes) > 0 {
		cfg.Volumes = maps.Clone(cfg.Volumes)
		if cfg.Volumes == nil {
			cfg.Volumes = map[string]struct{}{}
		}
		for _, target := range req.Volumes {
			cfg.Volumes[target] = struct{}{}
		}
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&cfg.User, req.User}, {&cfg.WorkingDir, req.WorkingDir}, {&cfg.StopSignal, req.StopSignal}} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	if req.WorkingDir != "" && !path.IsAbs(req.WorkingDir) {
		return nil, errs.New(errs.Invalid, "the working directory %q is invalid, it needs to be an absolute path", req.WorkingDir)
	}
	if req.StopTimeout != nil {
		cfg.StopTimeout = req.StopTimeout
	}
	if req.Entrypoint != nil {
		// A new entrypoint does not get the image's arguments.
		cfg.Entrypoint, cfg.Cmd = *req.Entrypoint, nil
	}
	if len(req.Cmd) > 0 {
		cfg.Cmd = req.Cmd
	}
	cfg.Healthcheck = req.Healthcheck.Over(cfg.Healthcheck)
	if err := cfg.Healthcheck.Valid(); err != nil {
		return nil, err
	}
	if req.Host.HealthOnFailure != "" && !cfg.Healthcheck.On() {
		return nil, errs.New(errs.Invalid, "--health-on-failure needs a health check").WithHint("the image has none: give one with --health-cmd")
	}
	argv := append(append([]string{}, cfg.Entrypoint...), cfg.Cmd...)
	if len(argv) == 0 || len(argv) == 1 && argv[0] == "" {
		return nil, errs.New(errs.Invalid, "no command specified").WithHint("the image names none: write one after the image's name")
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	ctr := &spec.Container{
		ID: id, Created: time.Now().UTC(), ImageID: img.ID, Image: req.Image,
		Platform: img.Config.Platform, Layers: img.Stack,
		Box: req.Box, Path: argv[0], Args: argv[1:],
		Hostname: req.Hostname, Domainname: req.Domainname,
		Tty: req.Tty, OpenStdin: req.OpenStdin, StdinOnce: req.StdinOnce,
		AttachIn: req.AttachIn, AttachOut: req.AttachOut, AttachErr: req.AttachErr,
		Config: cfg, Host: req.Host,
	}
	if ctr.Hostname == "" {
		ctr.Hostname = defaultHostname(ctr)
	}
	if ctr.Host.NetworkMode == "" {
		ctr.Host.NetworkMode = "none"
	}
	return ctr, nil
}

func defaultHostname(ctr *spec.Container) string {
	if ctr.Host.NetworkMode == "host" || ctr.Host.UTSMode == "host" {
		if h, err := os.Hostname(); err == nil {
			return h
		}
	}
	return ctr.ID[:12]
}

// mergeEnv sets the user's variables in the image's; NAME alone unsets.
func mergeEnv(base, add []string) []string {
	out := append([]string{}, base...)
	for _, e := range add {
		name, _, set := strings.Cut(e, "=")
		at := -1
		for i, old := range out {
			if n, _, _ := strings.Cut(old, "="); n == name {
				at = i
			}
		}
		switch {
		case set && at >= 0:
			out[at] = e
		case set:
			out = append(out, e)
		case at >= 0:
			out = append(out[:at], out[at+1:]...)
		}
	}
	return out
}

// newID returns 64 random hex digits. The first twelve, by which people name
// containers, are never all decimal, so that a short id is no number.
func newID() (string, error) {
	var b [32]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return "", err
		}
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id, nil
		}
	}
}

// etcFiles are the files bound over those of the image.
func etcFiles(ctr *spec.Container) map[string][]byte {
	hosts := "127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	if ctr.Host.NetworkMode == "host" {
		if b, err := os.ReadFile("/etc/hosts"); err == nil {
			hosts = string(b)
		}
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	return map[string][]byte{
		"hosts": []byte(hosts), "hostname": []byte(ctr.Hostname + "\n"), "resolv.conf": resolv,
	}
}

// takeName reserves the container's name, or makes one up when name is empty.
// The returned function is called when the container's directory is in place
// or given up.
func (c *Containers) takeName(ctr *spec.Container, name string) (release func(), err error) {
	if name != "" {
		name = strings.TrimPrefix(name, "/")
		if !validName(name) {
			return nil, errBadName(name)
		}
		ctr.Name = name
		return c.reserve(name, ctr.ID)
	}
	for try := 0; ; try++ {
		ctr.Name = randomName(try)
		release, err = c.reserve(ctr.Name, ctr.ID)
		if !errs.Is(err, errs.Conflict) || try > 100 {
			return release, err
		}
	}
}

// reserve makes the name's file and keeps it locked until released. A file
// that nobody holds and whose container does not exist, or has another name,
// was left by a crash.
func (c *Containers) reserve(name, id string) (release func(), err error) {
	p := c.st.ContainerName(name)
	for {
		f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, noSpace(err)
		}
		had, err := sys.TryLock(f, true)
		if err == nil && had {
			if !isAt(f, p) {
				f.Close()
				continue // it was removed meanwhile
			}
			if c.idByName(name) == "" {
				// Not emptied first: ext4 writes such a file out when it is
				// closed, and its removal would wait for the disk.
				_, err = f.WriteAt([]byte(id+"\n"), 0)
				if err == nil {
					err = f.Truncate(int64(len(id) + 1))
				}
				if err == nil {
					return func() { f.Close() }, nil
				}
			} else {
				had = false
			}
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("reserve name %s: %w", name, noSpace(err))
		}
		return nil, c.nameInUse(name)
	}
}

func (c *Containers) nameInUse(name string) error {
	by := c.idByName(name)
	if by == "" {
		by = "that is just being created"
	}
	return errs.New(errs.Conflict, "Conflict. The container name %q is already in use by container %q", "/"+name, by).
		WithHint("remove or rename that container to be able to reuse the name")
}

// validName is Docker's [a-zA-Z0-9][a-zA-Z0-9_.-]+, of a length that fits a
// file name.
func validName(s string) bool {
	if len(s) < 2 || len(s) > 200 {
		return false
	}
	for i := 0; i < len(s); i++ {
		ch := s[i]
		alnum := ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch >= '0' && ch <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(ch))) {
			return false
		}
	}
	return true
}
