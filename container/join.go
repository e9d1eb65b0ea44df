package container

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"tug/errs"
	"tug/runtime"
	"tug/spec"
)

// settle replaces names by ids in the modes that name a container: names
// change.
func (c *Containers) settle(h *spec.HostConfig) error {
	for _, mode := range []*string{&h.PidMode, &h.IpcMode} {
		name, ok := strings.CutPrefix(*mode, spec.JoinPrefix)
		if !ok {
			continue
		}
		other, err := c.Find(name)
		if err != nil {
			return err
		}
		*mode = spec.JoinPrefix + other.ID
	}
	return nil
}

// join finds the running containers whose namespaces a container shares.
func (s *Starter) join(ns *runtime.Namespaces, h *spec.HostConfig) error {
	if id, ok := strings.CutPrefix(h.PidMode, spec.JoinPrefix); ok {
		_, p, err := s.running(id)
		if err != nil {
			return fmt.Errorf("failed to join PID namespace: %w", err)
		}
		ns.PID = p
	}
	if id, ok := strings.CutPrefix(h.IpcMode, spec.JoinPrefix); ok {
		other, p, err := s.running(id)
		if err == nil {
			switch other.Host.IpcMode {
			case "", "none":
				err = errs.New(errs.Invalid, "container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", id)
			}
		}
		if err != nil {
			return fmt.Errorf("failed to join IPC namespace: %w", err)
		}
		ns.IPC = p
	}
	return nil
}

// running returns a container that runs and its first process.
func (s *Starter) running(id string) (*spec.Container, runtime.Process, error) {
	ctr, err := s.config(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, runtime.Process{}, noSuch(id)
	}
	if err != nil {
		return nil, runtime.Process{}, err
	}
	r, err := s.startRecord(id)
	if err != nil || !r.alive() {
		return nil, runtime.Process{}, errNotRunning(id)
	}
	return ctr, runtime.Process{Pid: r.Pid, StartTicks: r.Start}, nil
}
