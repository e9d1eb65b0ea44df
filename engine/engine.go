// Package engine is tug as a Go library: one Engine per store, with the images
// and containers in it, and the few operations that need both. The command
// line is an adapter over it and holds no logic of its own.
//
// Opening is cheap and starts nothing. Everything but running processes is
// done in the caller's process; those belong to the store's supervisor, which
// the first start brings up.
package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tug/container"
	"tug/errs"
	"tug/event"
	"tug/image"
	"tug/layer"
	"tug/registry"
	"tug/runtime"
	"tug/spec"
	"tug/state"
	"tug/supervisor"
	"tug/volume"
)

// Options say which store and how. Empty fields are the defaults.
type Options struct {
	Root    string // /var/lib/tug
	Run     string // /run/tug
	Storage string // storage backend; empty probes
	Command string // on whose behalf, for events: "tug run"

	MaxLayerSize    int64 // bytes of a layer's tar; 0 is 1 TiB
	MaxLayerEntries int   // members of a layer's tar; 0 is 4 Mi
}

// Defaults of Options.
const (
	DefaultRoot = "/var/lib/tug"
	DefaultRun  = "/run/tug"
)

// Engine is an opened store.
type Engine struct {
	Store      *state.Store
	Layers     *layer.Layers
	Images     *image.Images
	Containers *container.Containers
	Volumes    *volume.Volumes
	Events     *event.Log

	storage string
	client  *supervisor.Client
}

// Open opens the store, making it where there is none.
func Open(o Options) (*Engine, error) {
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	if o.Run == "" {
		o.Run = DefaultRun
	}
	st, err := state.Open(o.Root, o.Run)
	if err != nil {
		return nil, err
	}
	e := &Engine{Store: st, storage: o.Storage, Layers: layer.Open(st, o.Storage)}
	e.Layers.Limits = layer.Limits{Tar: o.MaxLayerSize, Entries: o.MaxLayerEntries}
	e.Images = image.Open(st, e.Layers, registry.New(registry.Options{}))
	e.Events = event.Open(st.Events(), cmp.Or(o.Command, "tug"))
	e.Images.Events = e.Events
	e.client = &supervisor.Client{Run: st.Run, Command: e.command, Diagnose: e.checkInit, Cause: e.Events.Self()}
	e.Containers = container.Open(st, e.Layers, e.client)
	e.Containers.Events = e.Events
	e.Volumes = volume.Open(st)
	e.Volumes.Events, e.Volumes.Uses = e.Events, e.Containers.VolumeUses
	e.Containers.Volumes = e.Volumes
	return e, nil
}

// Trace has t collect the phases of starts.
func (e *Engine) Trace(t *supervisor.Timing) { e.client.Timing = t }

// command returns tug-init's path and the supervisor's command line. It is
// asked for only when a supervisor has to be started. A storage that does not
// work is found out here, where the user can be told.
func (e *Engine) command() (init string, args []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("find tug's own program: %w", err)
	}
	if init, err = findInit(self); err != nil {
		return "", nil, err
	}
	if _, err := e.Layers.Storage(); err != nil {
		return "", nil, err
	}
	args = []string{self, "supervise", "--root", e.Store.Root, "--run-root", e.Store.Run}
	if e.storage != "" {
		args = append(args, "--storage", e.storage)
	}
	return init, args, nil
}

// InitPath returns the path of tug-init.
func InitPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return findInit(self)
}

// findInit finds tug-init.
func findInit(self string) (string, error) { return findProgram(self, "tug-init") }

// findBox finds the tug-box of this tug.
func findBox() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find tug's own program: %w", err)
	}
	return findProgram(self, "tug-box")
}

// findProgram finds one of tug's programs beside tug or in ../libexec/tug.
func findProgram(self, name string) (string, error) {
	dir := filepath.Dir(self)
	libexec := filepath.Join(dir, "..", "libexec", "tug", name)
	for _, p := range []string{filepath.Join(dir, name), libexec} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", errs.New(errs.NotFound, "%s is neither in %s nor at %s", name, dir, libexec).WithHint("copy it beside tug")
}

// checkInit refuses a tug-init of another version. A keeper refuses by itself
// to work for a tug of another version, without a further process; this tells
// the user why.
func (e *Engine) checkInit() error {
	p, _, err := e.command()
	if err != nil {
		return err
	}
	out, err := exec.Command(p, "--version").Output()
	if err != nil {
		return errs.New(errs.Unsupported, "%s is not this tug's: %w", p, err).WithHint("install both from the same build")
	}
	if v := strings.TrimSpace(strings.TrimPrefix(string(out), "tug-init version ")); v != spec.Version {
		return errs.New(errs.Unsupported, "%s is version %s, this tug is %s", p, v, spec.Version).
			WithHint("install both from the same build")
	}
	return nil
}

// Names of the built-in images.
const (
	HelloImage = "tug.local/hello"
	BoxImage   = "tug.local/box"
)

// Pull policies of Create.
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"
)

// checkStorage refuses a --storage that the running supervisor does not use.
func (e *Engine) checkStorage(ctx context.Context) error {
	if e.storage == "" {
		return nil
	}
	if _, _, used, running := e.client.Ping(ctx); running && used != e.storage {
		return errs.New(errs.Conflict, "storage %s is in use, not %s, as long as containers run", used, e.storage).
			WithHint("leave --storage out, or stop all containers and wait until tug info shows no supervisor")
	}
	return nil
}

// Pulling is how Create fetches images.
type Pulling struct {
	Policy   string         // PullMissing, PullAlways or PullNever
	Progress image.Progress // may be nil

	// Around does a pull, which its context ends; nil: nothing around it. What
	// comes after the pull takes no time worth being interrupted.
	Around func(pull func(context.Context) error) error
}

// Create makes a container, fetching its image first where the policy says so.
// The warnings are about things of the request that cannot be done here.
func (e *Engine) Create(ctx context.Context, req container.Request, o Pulling) (*spec.Container, []string, error) {
	if err := e.checkStorage(ctx); err != nil {
		return nil, nil, err
	}
	for try := 0; ; try++ {
		img, err := e.image(ctx, &req, o)
		if err != nil {
			return nil, nil, err
		}
		refs, err := e.Store.Refs(false)
		if err != nil {
			return nil, nil, err
		}
		// Between finding the image and taking the lock it may have been removed.
		if _, err := os.Stat(e.Store.Image(img.ID.Hex())); err == nil {
			if req.MountImages, err = e.mountImages(&req); err != nil {
				refs.Close()
				return nil, nil, err
			}
			ctr, err := e.Containers.Create(ctx, req, img)
			refs.Close()
			return ctr, nil, err
		}
		refs.Close()
		if try > 3 {
			return nil, nil, errs.New(errs.Conflict, "image %s is removed again and again", req.Image)
		}
	}
}

// mountImages finds the images that are to be mounted. It is called with the
// reference lock held, so they stay.
func (e *Engine) mountImages(req *container.Request) (map[string]*image.Image, error) {
	var all map[string]*image.Image
	for _, m := range req.Host.Mounts {
		if m.Type != spec.MountImage {
			continue
		}
		img, err := e.Images.Lookup(m.Source)
		if errs.Is(err, errs.NotFound) {
			continue // Create says so
		}
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = map[string]*image.Image{}
		}
		all[m.Source] = img
	}
	return all, nil
}

// image finds or fetches the request's image.
func (e *Engine) image(ctx context.Context, req *container.Request, o Pulling) (*image.Image, error) {
	if name, tag, _ := strings.Cut(req.Image, ":"); tag == "" || tag == "latest" {
		switch name {
		case HelloImage:
			return e.hello(ctx)
		case BoxImage:
			return e.box(ctx)
		}
	}
	if o.Policy != PullAlways {
		img, err := e.Images.Lookup(req.Image)
		fits := err == nil && (req.Platform == nil || img.Config.Platform.Matches(*req.Platform))
		if fits || err != nil && !errs.Is(err, errs.NotFound) {
			return img, err
		}
		if err == nil && o.Policy == PullNever {
			return nil, errs.New(errs.NotFound, "image %s is for %s, not for %s", req.Image, img.Config.Platform, req.Platform).
				WithHint("fetch the other with: tug pull --platform %s %s", req.Platform, req.Image)
		}
		if o.Policy == PullNever {
			return nil, errs.New(errs.NotFound, "No such image: %s", req.Image).WithHint("fetch it with: tug pull %s", req.Image)
		}
	}
	ref, err := spec.ParseReference(req.Image)
	if err != nil {
		return nil, err
	}
	if o.Progress != nil && o.Policy != PullAlways {
		o.Progress.Message(fmt.Sprintf("Unable to find image '%s' locally", ref.WithDefaultTag().Familiar()))
	}
	var img *image.Image
	pull := func(ctx context.Context) error {
		got, err := e.Images.Pull(ctx, ref.WithDefaultTag(), image.PullOptions{Platform: req.Platform, Progress: o.Progress})
		if err == nil {
			img = got.Image
		}
		return err
	}
	if o.Around == nil {
		err = pull(ctx)
	} else {
		err = o.Around(pull)
	}
	if err != nil {
		return nil, err // a pull that was given up may still write img
	}
	return img, nil
}

// hello returns the built-in image, made from the tug-init of this tug.
func (e *Engine) hello(ctx context.Context) (*image.Image, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find tug's own program: %w", err)
	}
	init, err := findInit(self)
	if err != nil {
		return nil, err
	}
	return e.Images.Hello(ctx, init)
}

// box returns the built-in image with a userland, made from the tug-box of this
// tug, which knows the names of its applets.
func (e *Engine) box(ctx context.Context) (*image.Image, error) {
	path, err := findBox()
	if err != nil {
		return nil, err
	}
	return e.Images.Box(ctx, path, func() ([]string, error) {
		out, err := exec.CommandContext(ctx, path, "--list").Output()
		if err != nil {
			return nil, fmt.Errorf("ask %s for its applets: %w", path, err)
		}
		return strings.Fields(string(out)), nil
	})
}

// poolSize is how many processes a supervisor keeps parked.
const poolSize = 2

// quietTime is how long a supervisor stays with nothing to do. TUG_QUIET, a Go
// duration, sets another.
func quietTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TUG_QUIET")); err == nil && d > 0 {
		return d
	}
	return 30 * time.Second
}

// Supervise is the body of the hidden command `tug supervise`.
func (e *Engine) Supervise(ctx context.Context) error {
	init, _, err := e.command()
	if err != nil {
		return err
	}
	go runtime.Warm()
	rt, err := runtime.New(runtime.Options{InitPath: init, BoxPath: findBox, Cgroup: e.cgroupName(), Notes: e.Store.RunPath("cgroups"), Bundles: e.Store.RunPath("bundles")})
	if err != nil {
		return err
	}
	defer rt.Close()
	mounter, err := e.Layers.Mounter(e.Store.RunPath("layers"))
	if err != nil {
		return err
	}
	host := supervisor.HostMounts()
	defer host.Close()
	err = supervisor.Serve(ctx, supervisor.Config{
		Runtime: rt, Starter: &container.Starter{Containers: e.Containers, Mounter: mounter, Runtime: rt, Host: host},
		Backend: mounter.Backend, Quiet: quietTime(), Pool: poolSize,
	})
	if errors.Is(err, supervisor.ErrRestartsLeft) {
		return e.client.Successor(ctx)
	}
	return err
}

// cgroupName names tug's parent cgroup for this store, so that the supervisors
// of several stores do not meet.
func (e *Engine) cgroupName() string {
	sum := sha256.Sum256([]byte(e.Store.Root + "\x00" + e.Store.Run))
	return "tug-" + hex.EncodeToString(sum[:4])
}
