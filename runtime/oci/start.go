package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime"
	"tug/runtime/plan"
	"tug/sys"
)

// Start has a created container execute its program.
func (r *Runtime) Start(id string) error {
	c, err := r.locked(id)
	if err != nil {
		return err
	}
	defer c.unlock()
	if s := c.status(); s != specs.StateCreated {
		return errs.New(errs.Conflict, "cannot start container %q: it is %s", id, s)
	}
	spec, err := c.config()
	if err != nil {
		return err
	}
	conn, err := sys.ConnectUnix(c.path(fileSocket), false)
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	defer conn.Close()
	if err := plan.SendGo(conn); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	if l := spec.Linux.Seccomp; l != nil && l.ListenerPath != "" {
		if err := c.passListener(l, c.rec.Pid, conn, c.hookState(specs.StateCreated)); err != nil {
			_ = c.signalInit(syscall.SIGKILL)
			return err
		}
	}
	if err := executed(conn); err != nil {
		return err
	}
	_ = os.Remove(c.path(fileSocket))
	if spec.Hooks == nil {
		return nil
	}
	return c.runHooks("poststart", spec.Hooks.Poststart, specs.StateRunning, true)
}

// executed waits until the program runs or could not be executed.
func executed(conn *os.File) error {
	reply, files, err := plan.ReceiveReply(conn)
	sys.CloseAll(files)
	switch {
	case err == nil:
		return &runtime.StartError{Code: reply.Code, Msg: reply.Msg}
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// passListener takes the descriptor of seccomp notifications out of a process
// that waits for just that, and hands it to the agent. It is taken and not
// sent, as the filter may be about the calls that would send it.
func (c *container) passListener(l *specs.LinuxSeccomp, pid int, conn *os.File, st plan.State) error {
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		return err
	}
	defer pidfd.Close()
	fd, err := findListener(pid, pidfd, conn)
	if err != nil || fd == nil {
		return err
	}
	defer fd.Close()
	msg, err := json.Marshal(struct {
		Version  string     `json:"ociVersion"`
		Fds      []string   `json:"fds"`
		Pid      int        `json:"pid"`
		Metadata string     `json:"metadata,omitempty"`
		State    plan.State `json:"state"`
	}{Version, []string{specs.SeccompFdName}, pid, l.ListenerMetadata, st})
	if err != nil {
		return err
	}
	agent, err := sys.ConnectUnix(l.ListenerPath, true)
	if err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
	}
	defer agent.Close()
	if err := sys.SendMsg(agent, msg, fd); err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
	}
	return plan.SendGo(conn)
}

// findListener waits until the process has the descriptor; nil when it has
// answered instead, with why there is none.
func findListener(pid int, pidfd, conn *os.File) (*os.File, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	for end := time.Now().Add(listenerLimit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			to, err := os.Readlink(dir + "/" + e.Name())
			if err != nil || to != "anon_inode:seccomp notify" {
				continue
			}
			n, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			return sys.PidfdGet(pidfd, n)
		}
		if len(entries) == 0 || sys.Readable(conn) {
			return nil, nil
		}
	}
	return nil, errs.New(errs.Unavailable, "the seccomp filter was not installed within %v", listenerLimit)
}

const listenerLimit = 30 * time.Second

// signalInit signals the first process.
func (c *container) signalInit(sig syscall.Signal) error {
	return sys.SignalProcess(c.rec.Pid, c.rec.StartTicks, sig)
}

// Kill sends a signal to the first process of a container or, with all, to all
// its processes.
func (r *Runtime) Kill(id string, sig syscall.Signal, all bool) error {
	c, err := r.load(id)
	if err != nil {
		return err
	}
	status := c.status()
	g, gerr := c.group()
	if all && gerr == nil && c.rec.Grouped {
		return g.Signal(sig)
	}
	if status == specs.StateStopped || status == specs.StateCreating && c.rec.Pid == 0 {
		return errs.New(errs.Conflict, "container not running")
	}
	if sig == syscall.SIGKILL && gerr == nil && !c.ownPIDs() {
		// They would live on, and there is nobody to tell them.
		return g.Signal(sig)
	}
	err = c.signalInit(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return errs.New(errs.Conflict, "container not running")
	}
	if err == nil && sig == syscall.SIGKILL && status == paused {
		return g.Thaw()
	}
	return err
}

// ownPIDs reports whether the end of the first process is that of all.
func (c *container) ownPIDs() bool {
	s, err := c.config()
	return err == nil && isNew(s, specs.PIDNamespace)
}

// Delete removes a stopped container; with force one in any state, and that
// there is none is no error.
func (r *Runtime) Delete(id string, force bool) error {
	if force {
		// A create that hangs has the lock; it cleans up when its child is gone.
		if c, err := r.load(id); err == nil && c.rec.Pid != 0 {
			_ = r.killNow(c)
		}
	}
	c, err := r.locked(id)
	if err != nil {
		if force && errs.Is(err, errs.NotFound) {
			return nil
		}
		return err
	}
	defer c.unlock()
	if s := c.status(); s != specs.StateStopped {
		if !force {
			return errs.New(errs.Conflict, "cannot delete container %q that is not stopped: it is %s", id, s)
		}
		if err := r.killNow(c); err != nil {
			return err
		}
	}
	return c.remove()
}

// killNow kills a container and waits for the end of its first process.
func (r *Runtime) killNow(c *container) error {
	g, err := c.group()
	if err == nil {
		_ = g.Thaw()
		if !c.ownPIDs() {
			_ = g.Signal(syscall.SIGKILL)
		}
	}
	_ = c.signalInit(syscall.SIGKILL)
	for wait := time.Millisecond; wait < 8*time.Second; wait *= 2 {
		if !sys.Alive(c.rec.Pid, c.rec.StartTicks) {
			return nil
		}
		time.Sleep(wait)
	}
	return errs.New(errs.Conflict, "container %q does not end", c.rec.ID)
}

// remove removes what is left of a container that has ended.
func (c *container) remove() error {
	spec, err := c.config()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.r.Warn(err.Error())
	}
	if err := c.removeGroup(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if spec == nil || spec.Hooks == nil || c.rec.Pid == 0 {
		return nil
	}
	return c.runHooks("poststop", spec.Hooks.Poststop, specs.StateStopped, true)
}

// removeGroup removes the cgroup. Where create ended before it was sure of it,
// only if nobody is in it.
func (c *container) removeGroup() error {
	if c.rec.Cgroup == "" {
		return nil
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	if !c.rec.Grouped {
		g.RemoveEmpty()
		return nil
	}
	if err := g.Remove(); err != nil {
		return err
	}
	g.RemoveAbove(defaultCgroups)
	return nil
}
