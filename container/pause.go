package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"tug/errs"
	"tug/runtime"
	"tug/sys"
)

// Pause stops all processes of a running container until Unpause. That it is
// paused is not written anywhere: the kernel knows.
func (c *Containers) Pause(ctx context.Context, id string) error {
	return c.whileRunning(id, func(r *startRecord) error {
		if runtime.Frozen(r.Cgroup) {
			return errs.New(errs.Conflict, "Container %s is already paused", id)
		}
		if err := runtime.Freeze(ctx, r.Cgroup); err != nil {
			return fmt.Errorf("cannot pause container %s: %w", id, err)
		}
		// What was killed at the same moment has to end.
		if sys.SignalPending(r.Pid, syscall.SIGKILL) {
			if err := runtime.Thaw(r.Cgroup); err != nil {
				return err
			}
			return errNotRunning(id)
		}
		c.tellID(id, "pause")
		return nil
	})
}

// Unpause lets the processes of a paused container go on.
func (c *Containers) Unpause(id string) error {
	return c.whileRunning(id, func(r *startRecord) error {
		if !runtime.Frozen(r.Cgroup) {
			return errs.New(errs.Conflict, "Container %s is not paused", id)
		}
		return c.thaw(id, r)
	})
}

func (c *Containers) thaw(id string, r *startRecord) error {
	err := runtime.Thaw(r.Cgroup)
	if err == nil {
		c.tellID(id, "unpause")
	}
	return err
}

// whileRunning calls f for a running container with its lock held, so that
// nothing is being started in it.
func (c *Containers) whileRunning(id string, f func(*startRecord) error) error {
	lock, err := c.lock(id)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(id)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	r, err := c.startRecord(id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !r.alive() {
		return errNotRunning(id)
	}
	if err != nil {
		return err
	}
	c.goOnAfterCommit(id, r)
	if err = f(r); err != nil && !r.alive() {
		return errNotRunning(id)
	}
	return err
}

// thawFor lets a paused container go on when the signal that was sent to it is
// to end it. Who is pausing it right now sees a SIGKILL that is on its way.
func (c *Containers) thawFor(id string, r *startRecord, sig syscall.Signal) error {
	ctr, err := c.config(id)
	if err != nil {
		return err
	}
	if !ends(ctr, sig) {
		return nil
	}
	if err := c.thaw(id, r); err != nil && r.alive() {
		return err
	}
	return nil
}

// tellID records that this command did action to the container id.
func (c *Containers) tellID(id, action string) {
	if ctr, err := c.config(id); err == nil {
		c.did(ctr, action)
	}
}
