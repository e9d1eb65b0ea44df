// Package container is a container's life: made from an image and a request,
// started, attached to, stopped, removed. Its state is files; no process has to
// run for it to be known.
//
// One directory per container, containers/<id>/, each file with one writer:
//
//	config.json  spec.Container as created                    Create, Rename, Update
//	start.json   the last start: run number, process, error   the supervisor
//	exit.json    how that process ended                       the keeper
//	stopped.json which run a user ended                       Stop, Kill, Remove, Update
//	health.json  what the health checks have found            the supervisor
//	upper/ work/ the writable layer (overlayfs)               the kernel
//	log/         CRI log files                                the supervisor
//	hosts hostname resolv.conf  bound into the container      Create
//	committing   it is there while commit has it paused       Commit
//
// A state is derived from these, never stored: no start.json is created; an
// exit.json of the same process is exited; else the process lives, or it was
// lost (power failure, killed keeper) and counts as exited with code 255.
//
// What the restart policy does is derived as well, so a supervisor can be lost
// at any moment and the next one knows. An exited container is restarting when
// its policy asks for another run, the machine has not gone down since, and
// stopped.json does not name the run. The supervisor starts it when the time
// has come, under the container's lock, and writes in the new start.json how
// many restarts that makes and how long it waited, from which the next wait
// follows. A run of which stopped.json says nothing is an ordinary one, so a
// new start needs to take nothing back. Containers with a policy have an empty
// file restarts/<id>, written by Create before they are there: nothing else has
// to be read to find restarts that are due. The same goes for a run that was
// ended because it was unhealthy: health.json says that another is to follow.
//
// The directory is made whole in tmp/ and renamed to its place, and renamed
// away before it is deleted, so it is there entirely or not at all. A name is a
// file containers-by-name/<name> with the id in it; one whose container does
// not exist or says that it has another name (a crash in between) is as good as
// absent.
package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tug/errs"
	"tug/event"
	"tug/image"
	"tug/layer"
	"tug/runtime"
	"tug/spec"
	"tug/state"
	"tug/supervisor"
	"tug/sys"
	"tug/volume"
)

// Containers is the containers of a store, for commands.
type Containers struct {
	Events  *event.Log // may be nil
	Volumes *volume.Volumes

	st     *state.Store
	layers *layer.Layers
	client *supervisor.Client
	by     event.Cause // on whose behalf, for events; empty for this command
}

// Open returns the containers of st, made from layers. It does no I/O.
func Open(st *state.Store, layers *layer.Layers, client *supervisor.Client) *Containers {
	return &Containers{st: st, layers: layers, client: client}
}

// Summary is a container with its present state.
type Summary struct {
	spec.Container
	State              spec.State
	SizeRw, SizeRootFs int64
}

// Types that commands use together with Containers.
type (
	AttachOptions = supervisor.AttachOptions
	Session       = supervisor.Session
)

// ErrDetached is what Session.Stream returns after Detach.
var ErrDetached = supervisor.ErrDetached

const (
	fileConfig = "config.json"
	fileStart  = "start.json"
	fileExit   = "exit.json"

	fileCommitting = "committing"

	dirUpper = "upper"
	dirWork  = "work"
	dirLog   = "log"
)

func (c *Containers) path(id string, elem ...string) string {
	return filepath.Join(append([]string{c.st.Container(id)}, elem...)...)
}

// load reads one container; fs.ErrNotExist when there is none.
func (c *Containers) load(id string) (*Summary, error) {
	s := &Summary{}
	if err := state.ReadJSON(c.path(id, fileConfig), &s.Container); err != nil {
		return nil, err
	}
	st, r, err := c.stateOf(id)
	if err != nil {
		return nil, err
	}
	s.State = st
	if s.Host.MayRestart() && r != nil {
		c.foresee(s, r)
	}
	c.seeHealth(s, r)
	return s, nil
}

// List returns all containers, newest first.
func (c *Containers) List() ([]*Summary, error) {
	ids, err := c.ids()
	if err != nil {
		return nil, err
	}
	list, err := c.loadAll(ids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *Summary) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// loadAll loads containers on all processors there are: with a thousand that is
// what the user waits for. Those that are removed meanwhile are left out.
func (c *Containers) loadAll(ids []string) ([]*Summary, error) {
	all, errs := make([]*Summary, len(ids)), make([]error, len(ids))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(goruntime.GOMAXPROCS(0), 1+len(ids)/32) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
				all[i], errs[i] = c.load(ids[i])
			}
		})
	}
	wg.Wait()
	list := all[:0]
	for i, s := range all {
		switch {
		case errs[i] == nil:
			list = append(list, s)
		case !errors.Is(errs[i], fs.ErrNotExist):
			return nil, errs[i]
		}
	}
	return list, nil
}

func (c *Containers) ids() ([]string, error) {
	d, err := os.Open(c.st.Containers())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return slices.DeleteFunc(names, func(n string) bool { return !spec.IsHex64(n) }), err
}

// Find returns the container of that name, id, or unique id prefix, in this
// order. The error for none is NotFound.
func (c *Containers) Find(name string) (*Summary, error) {
	id, err := c.resolve(strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil, err
	}
	s, err := c.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(name)
	}
	return s, err
}

func noSuch(name string) error { return errs.New(errs.NotFound, "No such container: %s", name) }

func (c *Containers) resolve(name string) (string, error) {
	if spec.IsHex64(name) {
		return name, nil
	}
	if validName(name) {
		if id := c.idByName(name); id != "" {
			return id, nil
		}
	}
	if name == "" || !spec.IsHex(name) {
		return "", noSuch(name)
	}
	ids, err := c.ids()
	if err != nil {
		return "", err
	}
	found := ""
	for _, id := range ids {
		if strings.HasPrefix(id, name) {
			if found != "" {
				return "", errs.New(errs.Invalid, "Multiple IDs found with provided prefix: %s", name)
			}
			found = id
		}
	}
	if found == "" {
		return "", noSuch(name)
	}
	return found, nil
}

// idByName returns the id a name stands for, or "" when it is free. One whose
// description cannot be read keeps its names.
func (c *Containers) idByName(name string) string {
	b, err := os.ReadFile(c.st.ContainerName(name))
	id := strings.TrimSpace(string(b))
	if err != nil || !spec.IsHex64(id) {
		return ""
	}
	var ctr struct{ Name string }
	err = state.ReadJSON(c.path(id, fileConfig), &ctr)
	if errors.Is(err, fs.ErrNotExist) || err == nil && ctr.Name != name {
		return ""
	}
	return id
}

// Warm lets a supervisor be started while the caller is still busy with what
// comes before Start.
func (c *Containers) Warm() { c.client.Warm() }

// Start starts a container; one that runs already is left alone. The warnings
// tell what of its settings this machine cannot do.
func (c *Containers) Start(ctx context.Context, id string) (warnings []string, err error) {
	st, err := c.state(id)
	if err != nil {
		return nil, err
	}
	if st.Paused {
		return nil, errs.New(errs.Conflict, "cannot start a paused container, try unpause instead")
	}
	if st.Status == spec.StatusRunning {
		return nil, nil
	}
	warnings, err = c.client.Start(ctx, id)
	if errs.Is(err, errs.Conflict) && c.runs(id) {
		return nil, nil // another command was faster
	}
	return warnings, err
}

// runs reports whether the container is running.
func (c *Containers) runs(id string) bool {
	st, err := c.state(id)
	return err == nil && st.Status == spec.StatusRunning
}

// StartAttached starts a container with the caller attached from before its
// first byte of output. To one that runs already it only attaches.
func (c *Containers) StartAttached(ctx context.Context, id string, o AttachOptions) (*Session, error) {
	if st, err := c.state(id); err == nil && st.Paused {
		return nil, errs.New(errs.Conflict, "cannot start a paused container, try unpause instead")
	}
	s, err := c.client.StartAttached(ctx, id, o)
	if errs.Is(err, errs.Conflict) && c.runs(id) {
		return c.client.Attach(ctx, id, o)
	}
	return s, err
}

// Attach attaches to a running container.
func (c *Containers) Attach(ctx context.Context, id string, o AttachOptions) (*Session, error) {
	return c.client.Attach(ctx, id, o)
}

// Exec runs a further program in a running container, attached.
func (c *Containers) Exec(ctx context.Context, id string, e spec.ExecSpec, o AttachOptions) (*Session, error) {
	return c.client.Exec(ctx, id, &e, &o)
}

// ExecDetached starts a further program in a running container.
func (c *Containers) ExecDetached(ctx context.Context, id string, e spec.ExecSpec) error {
	_, err := c.client.Exec(ctx, id, &e, nil)
	return err
}

// Kill sends a signal to a container's main process. One that is paused goes on
// when the signal is to end it: SIGKILL, its stop signal, or any if it names no
// stop signal, as with Docker. Such a signal also ends the restarts.
func (c *Containers) Kill(id string, sig syscall.Signal) error {
	s, err := c.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(id)
	}
	if err != nil {
		return err
	}
	again := s.State.Status == spec.StatusRestarting
	if again || s.State.Status == spec.StatusRunning && ends(&s.Container, sig) {
		if err := c.noMore(context.Background(), s); err != nil {
			return err
		}
	}
	if again && !c.runs(id) {
		return nil
	}
	return c.signal(id, sig)
}

// ends reports whether a signal is meant to end a container.
func ends(ctr *spec.Container, sig syscall.Signal) bool {
	return sig == syscall.SIGKILL || ctr.Config.StopSignal == "" || sig == stopSignal(ctr)
}

func (c *Containers) signal(id string, sig syscall.Signal) error {
	r, err := c.startRecord(id)
	if err == nil && r.alive() {
		if err = sys.SignalProcess(r.Pid, r.Start, sig); err == nil && runtime.Frozen(r.Cgroup) {
			err = c.thawFor(id, r, sig)
		}
		if err == nil {
			c.tellKill(id, sig)
		}
	} else if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = errNotRunning(id)
	}
	if errors.Is(err, os.ErrProcessDone) {
		err = errNotRunning(id)
	}
	return err
}

func errNotRunning(id string) error {
	return errs.New(errs.Conflict, "container %s is not running", id)
}

// Stop asks a container to end with its stop signal (or sig) and kills it
// after the timeout in seconds; a negative one waits for ever. No restart
// follows, nor one that was due. One that does not run is no error.
func (c *Containers) Stop(ctx context.Context, id string, sig syscall.Signal, timeout *int) error {
	s, err := c.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(id)
	}
	if err != nil {
		return err
	}
	again := s.State.Status == spec.StatusRestarting
	if !again && s.State.Status != spec.StatusRunning {
		return nil
	}
	if err := c.noMore(ctx, s); err != nil {
		return err
	}
	if again && !c.runs(id) {
		c.did(&s.Container, "stop")
		return nil
	}
	if err := c.end(ctx, &s.Container, sig, timeout); err != nil {
		return err
	}
	c.did(&s.Container, "stop")
	return nil
}

// end ends a running container as Stop does; what follows is up to others.
func (c *Containers) end(ctx context.Context, ctr *spec.Container, sig syscall.Signal, timeout *int) error {
	if sig == 0 {
		sig = stopSignal(ctr)
	}
	err := c.signal(ctr.ID, sig)
	if err != nil {
		return ignoreNotRunning(err)
	}
	wait := stopTimeout(ctr, timeout)
	soft, cancel := ctx, context.CancelFunc(func() {})
	if wait >= 0 {
		soft, cancel = context.WithTimeout(ctx, wait)
	}
	_, err = c.Wait(soft, ctr.ID)
	cancel()
	if err != nil && ctx.Err() == nil {
		if err = ignoreNotRunning(c.signal(ctr.ID, syscall.SIGKILL)); err == nil {
			_, err = c.Wait(ctx, ctr.ID)
		}
	}
	return err
}

// Restart is Stop, then Start.
func (c *Containers) Restart(ctx context.Context, id string, sig syscall.Signal, timeout *int) (warnings []string, err error) {
	if err := c.Stop(ctx, id, sig, timeout); err != nil {
		return nil, err
	}
	if warnings, err = c.Start(ctx, id); err != nil {
		return nil, err
	}
	ctr, err := c.config(id)
	if err == nil {
		c.did(ctr, "restart")
	}
	return warnings, nil // one with --rm may be gone already
}

func ignoreNotRunning(err error) error {
	if errs.Is(err, errs.Conflict) {
		return nil
	}
	return err
}

func stopSignal(s *spec.Container) syscall.Signal {
	if sig, err := sys.ParseSignal(s.Config.StopSignal); err == nil {
		return sig
	}
	return syscall.SIGTERM
}

func stopTimeout(s *spec.Container, asked *int) time.Duration {
	seconds := 10
	if s.Config.StopTimeout != nil {
		seconds = *s.Config.StopTimeout
	}
	if asked != nil {
		seconds = *asked
	}
	return time.Duration(seconds) * time.Second
}

// Wait waits until a container does not run and returns its last exit code.
func (c *Containers) Wait(ctx context.Context, id string) (int, error) {
	for {
		code, ran, err := c.client.Wait(ctx, id)
		if err != nil || ran {
			return code, err
		}
		st, err := c.state(id)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, noSuch(id)
		}
		if err != nil {
			return 0, err
		}
		if st.Status != spec.StatusRunning {
			return st.ExitCode, nil
		}
		// It runs, but no supervisor owns it: its keeper was killed.
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Remove removes a container, its writable layer and its log, with volumes also
// the anonymous ones that no other container has. A running one is Conflict, or
// killed with force.
func (c *Containers) Remove(ctx context.Context, id string, force, volumes bool) error {
	s, err := c.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(id)
	}
	if err != nil {
		return err
	}
	if s.State.Status == spec.StatusRestarting && !force {
		return errs.New(errs.Conflict, "cannot remove container %q: container is restarting", "/"+s.Name).
			WithHint("stop the container before removing it, or force with -f")
	}
	if s.State.Status == spec.StatusRestarting {
		if err := c.Kill(id, syscall.SIGKILL); err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) {
			return err
		}
	}
	if s.State.Status == spec.StatusRunning {
		if !force && s.State.Paused {
			return errs.New(errs.Conflict, "cannot remove container %q: container is paused and must be unpaused first", "/"+s.Name).
				WithHint("or force with -f")
		}
		if !force {
			return errs.New(errs.Conflict, "cannot remove container %q: container is running", "/"+s.Name).
				WithHint("stop the container before removing it, or force with -f")
		}
		if err := ignoreNotRunning(c.Kill(id, syscall.SIGKILL)); err != nil {
			return err
		}
	}
	// Also one that has just ended is cleaned up by the supervisor first.
	if _, err := c.Wait(ctx, id); err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	trash, gone, err := c.unlink(id, event.Cause{})
	if err != nil || trash == "" {
		return err
	}
	err = c.destroy(trash, gone)
	if volumes || gone.Host.AutoRemove {
		err = errors.Join(err, c.freeVolumes(gone))
	}
	return err
}

// destroy deletes the files of what was a container.
func (c *Containers) destroy(trash string, gone *spec.Container) error {
	err := state.RemoveAll(trash)
	c.freeProject(gone)
	return err
}

// unlink takes the container out of the store and returns where its files now
// are, or "" when another command was faster, and what it was. No cause means
// this command.
func (c *Containers) unlink(id string, by event.Cause) (trash string, gone *spec.Container, err error) {
	lock, err := c.lock(id)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	defer lock.Close()
	s, err := c.load(id)
	if err != nil {
		return "", nil, err
	}
	if s.State.Status == spec.StatusRunning || s.State.Status == spec.StatusRestarting {
		return "", nil, errs.New(errs.Conflict, "cannot remove container %q: it was started meanwhile", "/"+s.Name)
	}
	trash = filepath.Join(c.st.Tmp(), "removed-"+id)
	if err := os.Rename(c.path(id), trash); err != nil {
		return "", nil, err
	}
	c.dropName(s.Name, id)
	if s.Host.MayRestart() {
		os.Remove(c.st.Restart(id))
	}
	c.tell(&s.Container, event.Event{Action: "destroy", Cause: by})
	return trash, &s.Container, nil
}

// lock takes the container's exclusive lock (state's lock order, 2).
func (c *Containers) lock(id string) (*os.File, error) { return c.lockHow(id, true) }

func (c *Containers) lockHow(id string, exclusive bool) (*os.File, error) {
	d, err := os.Open(c.path(id))
	if err != nil {
		return nil, err
	}
	if err := sys.Lock(d, exclusive); err != nil {
		d.Close()
		return nil, err
	}
	// It may have been removed while we waited.
	if _, err := os.Stat(c.path(id, fileConfig)); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// mountsImage reports whether a container has an image mounted.
func mountsImage(ctr *spec.Container, id spec.Digest) bool {
	return slices.ContainsFunc(ctr.Mounts, func(m spec.Mount) bool { return m.Image == id })
}

// UsersOf returns the containers made from an image, or that have it mounted,
// for refusing its removal.
// Call it with the reference lock held.
func (c *Containers) UsersOf(id spec.Digest) []image.User {
	ids, _ := c.ids()
	var users []image.User
	for _, ctr := range ids {
		s, err := c.load(ctr)
		if err == nil && (s.ImageID == id || mountsImage(&s.Container, id)) {
			running := s.State.Status == spec.StatusRunning || s.State.Status == spec.StatusRestarting
			users = append(users, image.User{Container: ctr, Running: running})
		}
	}
	return users
}
