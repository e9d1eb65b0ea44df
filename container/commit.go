package container

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"tug/errs"
	"tug/event"
	"tug/image"
	"tug/runtime"
	"tug/spec"
	"tug/sys"
)

// CommitOptions modify a Commit.
type CommitOptions struct {
	Name            *spec.Reference // that the image gets; nil: none
	Author, Message string
	Changes         []string // Dockerfile instructions, see image.ApplyChanges
	Pause           bool     // a running container stands still while it is read
}

// Commit makes an image of a container: the layers of its own image, and above
// them one with what the container has changed. It reads nothing but the
// writable layer, so its time goes with what has changed, not with the image.
//
// While a container is paused for it, the file committing says so, under the
// container's lock. Should this process be killed, the kernel frees the lock,
// and the supervisor, which has been waiting for it, lets the container go on;
// see Guard.
func (c *Containers) Commit(ctx context.Context, images *image.Images, name string, o CommitOptions) (spec.Digest, error) {
	s, err := c.Find(name)
	if err != nil {
		return "", err
	}
	cfg, err := commitConfig(&s.Container, o.Changes)
	if err != nil {
		return "", err
	}
	m, err := c.layers.Tree(ctx, s.Layers)
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", s.Name, err)
	}
	defer m.Close()
	release, err := c.holdStill(ctx, s.ID, o.Pause)
	if err != nil {
		return "", err
	}
	upper, err := os.Open(c.UpperDir(s.ID))
	if err != nil {
		release()
		return "", errs.New(errs.Corrupt, "container %s: its writable layer is missing", s.Name).WithHint("see: tug system check")
	}
	defer upper.Close()
	r, w := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := bufio.NewWriterSize(w, 256<<10)
		err := writeChanges(ctx, b, m, upper)
		if err == nil {
			err = b.Flush()
		}
		release() // the rest needs no container
		w.CloseWithError(err)
	}()
	id, err := images.Commit(ctx, r, image.CommitOptions{
		Parent: s.ImageID, Layers: s.Layers, Platform: s.Platform, Config: *cfg,
		CreatedBy: strings.Join(s.Config.Cmd, " "), Author: o.Author, Message: o.Message, Name: o.Name,
	})
	r.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
	<-read
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("commit container %s: %w", s.Name, err)
	}
	ref := ""
	if o.Name != nil {
		ref = o.Name.WithDefaultTag().Familiar()
	}
	c.tell(&s.Container, event.Event{Action: "commit", Attributes: map[string]string{"comment": o.Message, "imageID": string(id), "imageRef": ref}})
	return id, nil
}

// commitConfig is the container's own configuration with changes applied to it.
// An entrypoint that is set without a command takes the old command away.
func commitConfig(ctr *spec.Container, changes []string) (*spec.RunConfig, error) {
	cfg := ctr.Config
	cfg.Env, cfg.OnBuild, cfg.Cmd = slices.Clone(cfg.Env), slices.Clone(cfg.OnBuild), slices.Clone(cfg.Cmd)
	cfg.Labels, cfg.Volumes, cfg.ExposedPorts = maps.Clone(cfg.Labels), maps.Clone(cfg.Volumes), maps.Clone(cfg.ExposedPorts)
	if len(changes) == 0 {
		return &cfg, nil
	}
	return &cfg, image.ApplyChanges(&cfg, changes)
}

// holdStill keeps a container from being started, removed and committed by
// others until it is released; and, with pause, from running, unless somebody
// has paused it already.
func (c *Containers) holdStill(ctx context.Context, id string, pause bool) (release func(), err error) {
	lock, err := c.lockHow(id, pause)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(id)
	}
	if err != nil {
		return nil, err
	}
	release = func() { lock.Close() }
	r, err := c.startRecord(id)
	if !pause || err != nil || !r.alive() {
		return release, nil
	}
	c.goOnAfterCommit(id, r)
	if runtime.Frozen(r.Cgroup) {
		return release, nil
	}
	if err = c.freezeGuarded(ctx, id, r); err != nil && r.alive() {
		release()
		return nil, fmt.Errorf("cannot pause container %s: %w", id, err)
	}
	if err != nil { // it has ended: there is nobody to stop
		return release, nil
	}
	c.tellID(id, "pause")
	return func() {
		if runtime.Frozen(r.Cgroup) && c.thaw(id, r) != nil {
			lock.Close() // the guard tries again
			return
		}
		os.Remove(c.path(id, fileCommitting))
		lock.Close()
	}, nil
}

// freezeGuarded pauses a container that somebody else lets go on, should this
// process be killed. The order matters: a mark, a guard, the pause.
func (c *Containers) freezeGuarded(ctx context.Context, id string, r *startRecord) error {
	mark := c.path(id, fileCommitting)
	err := os.WriteFile(mark, nil, 0o600)
	if err == nil {
		err = c.client.Guard(ctx, id)
	}
	if err == nil {
		err = runtime.Freeze(ctx, r.Cgroup)
	}
	if err == nil && sys.SignalPending(r.Pid, 9) {
		err = runtime.Thaw(r.Cgroup) // it was killed at the same moment, and has to end
	}
	if err != nil {
		os.Remove(mark)
	}
	return err
}

// goOnAfterCommit lets a container go on that a killed commit has left paused.
// The container's lock is held exclusively: so there is no commit now.
func (c *Containers) goOnAfterCommit(id string, r *startRecord) {
	mark := c.path(id, fileCommitting)
	if _, err := os.Lstat(mark); err != nil {
		return
	}
	if runtime.Frozen(r.Cgroup) && c.thaw(id, r) != nil {
		return
	}
	os.Remove(mark)
}

// Guard lets a container go on when the commit that has it paused does not
// live to do it. That has the container's lock: when the lock is to be had and
// the mark is there, nobody else will. A supervisor that takes over from a
// killed one guards all that it goes on with.
func (s *Starter) Guard(id string) {
	if _, err := os.Lstat(s.path(id, fileCommitting)); err != nil {
		return
	}
	go func() {
		err := s.whileRunning(id, func(*startRecord) error { return nil })
		if err != nil && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
			fmt.Fprintln(os.Stderr, "supervisor: guard a paused container:", err)
		}
	}()
}
