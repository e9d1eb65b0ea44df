package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"tug/errs"
	"tug/event"
	"tug/layer"
	"tug/runtime"
	"tug/spec"
	"tug/state"
	"tug/supervisor"
	"tug/sys"
)

// Starter does the steps of a start inside the supervisor. It implements
// supervisor.Starter.
type Starter struct {
	*Containers
	Mounter *layer.Mounter
	Runtime *runtime.Runtime
	Host    *os.File // the host's mount namespace, where sources of mounts are; nil is this process's own

	shared sharedVolumes
}

// bound are the files of the container's directory that are seen in its /etc.
// On the host's network there is nothing of its own to say in resolv.conf and
// hosts, but as with Docker they are copies all the same.
var bound = []string{"resolv.conf", "hostname", "hosts"}

// Launch readies the next run by a user.
func (s *Starter) Launch(_ context.Context, id, token string) (*supervisor.Launch, error) {
	return s.launch(id, func(_ *Summary, last *startRecord) (supervisor.Run, error) {
		if last.Run > 0 && last.Token == token {
			return supervisor.Run{}, supervisor.ErrBegun
		}
		return supervisor.Run{Token: token, Number: last.Run + 1}, nil
	})
}

// launch readies the next run: lock, plan, root file system. name says which it
// is, after the last, or that there is to be none.
func (s *Starter) launch(id string, name func(*Summary, *startRecord) (supervisor.Run, error)) (l *supervisor.Launch, err error) {
	lock, err := s.lock(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(id)
	}
	if err != nil {
		return nil, err
	}
	ctr, err := s.load(id)
	if err != nil {
		lock.Close()
		return nil, err
	}
	last, err := s.startRecord(id)
	if err != nil {
		last = &startRecord{} // none, or nobody can read it
	}
	run, err := name(ctr, last)
	if err != nil {
		lock.Close()
		return nil, err
	}
	run.ID, run.Sync, run.About = id, !ctr.Host.AutoRemove, about(&ctr.Container)
	defer func() {
		if err == nil {
			return
		}
		lock.Close()
		if ctr.Host.AutoRemove && ctr.State.Status != spec.StatusRunning {
			s.remove(id)
		}
	}()
	if ctr.State.Status == spec.StatusRunning {
		return nil, errs.New(errs.Conflict, "container %s is already running", ctr.Name)
	}
	plan, warnings, err := runtime.MakePlan(&ctr.Container)
	if err != nil {
		return nil, err
	}
	os.Remove(s.path(id, fileCommitting)) // of a commit that did not survive the last run
	l = &supervisor.Launch{
		Run: run, Plan: plan, Warnings: warnings,
		Namespaces: runtime.NamespacesOf(&ctr.Container),
		OpenStdin:  ctr.OpenStdin, StdinOnce: ctr.StdinOnce, Hangup: ctr.Box,
		Record:  s.path(id, fileExit),
		Check:   s.check(&ctr.Container, run.Number, time.Now()),
		Release: func() { lock.Close() },
	}
	if err := s.logTo(l, &ctr.Container); err != nil {
		return nil, err
	}
	if err := s.join(&l.Namespaces, &ctr.Host); err != nil {
		return nil, err
	}
	if l.Namespaces.User, err = s.userNS(&l.Namespaces, ctr.Host.IDs); err != nil {
		return nil, err
	}
	letGo, err := s.holdVolumes(&ctr.Container)
	if err != nil {
		sys.CloseAll([]*os.File{l.Namespaces.User})
		return nil, err
	}
	if err := s.mount(l, &ctr.Container); err != nil {
		sys.CloseAll(append(l.Files.Trees, l.Files.RootFS, l.Namespaces.User))
		letGo()
		return nil, err
	}
	l.Release = func() { letGo(); lock.Close() }
	return l, nil
}

// overlay makes a container's root file system, with the ids of a user
// namespace if it is for one.
func (s *Starter) overlay(ctr *spec.Container, userns *os.File) (*os.File, error) {
	tighten, err := s.loosen(ctr)
	if err != nil {
		return nil, err
	}
	defer tighten()
	o := mappedFor(ctr, userns)
	o.Volatile = ctr.Host.AutoRemove
	f, err := s.Mounter.Overlay(ctr.Layers, s.path(ctr.ID, dirUpper), s.path(ctr.ID, dirWork), o)
	if err != nil {
		return nil, fmt.Errorf("mount the root file system of %s: %w", ctr.Name, noSpace(err))
	}
	return f, nil
}

// mount makes the root file system and the trees that are bound into it.
func (s *Starter) mount(l *supervisor.Launch, ctr *spec.Container) error {
	var err error
	userns := l.Namespaces.User
	if l.Files.RootFS, err = s.overlay(ctr, userns); err != nil {
		return err
	}
	for _, name := range bound {
		if covered(ctr, "/etc/"+name) {
			continue
		}
		tree, err := s.boundTree(s.path(ctr.ID, name), userns)
		if err != nil {
			return fmt.Errorf("bind %s of %s: %w", name, ctr.Name, err)
		}
		l.Files.Trees = append(l.Files.Trees, tree)
		l.Plan.Bind("/etc/"+name, false)
	}
	if userns != nil {
		trees, err := l.Plan.BindDevices()
		l.Files.Trees = append(l.Files.Trees, trees...)
		if err != nil {
			return err
		}
	}
	if err := s.attach(l, ctr); err != nil {
		return err
	}
	l.Plan.SortMounts()
	return nil
}

// boundTree is a file as it is bound into a container.
func (s *Starter) boundTree(path string, userns *os.File) (*os.File, error) {
	if userns != nil {
		return layer.MappedTree(path, userns)
	}
	return sys.CloneTree(nil, path, false)
}

// covered reports whether the user mounts something at target.
func covered(ctr *spec.Container, target string) bool {
	return slices.ContainsFunc(ctr.Mounts, func(m spec.Mount) bool { return m.Target == target })
}

// LaunchExec describes an exec in a running container. Until it is released the
// container cannot be paused: a process on its way in would stop halfway, and
// on cgroup version 1 the thread that makes it as well.
func (s *Starter) LaunchExec(id string, e *spec.ExecSpec) (*supervisor.ExecLaunch, error) {
	lock, err := s.lockHow(id, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(id)
	}
	if err != nil {
		return nil, err
	}
	l, err := s.describeExec(id, e)
	if err != nil {
		lock.Close()
		return nil, err
	}
	l.Release = func() { lock.Close() }
	return l, nil
}

func (s *Starter) describeExec(id string, e *spec.ExecSpec) (*supervisor.ExecLaunch, error) {
	ctr, err := s.load(id)
	if err != nil {
		return nil, err
	}
	r, err := s.startRecord(id)
	if err != nil || !r.alive() {
		return nil, errs.New(errs.Conflict, "container %s is not running", id)
	}
	if ctr.State.Paused {
		return nil, errs.New(errs.Conflict, "Container %s is paused, unpause the container before exec", id)
	}
	plan, err := runtime.MakeExecPlan(&ctr.Container, e)
	if err != nil {
		return nil, err
	}
	return &supervisor.ExecLaunch{Plan: plan, Target: runtime.Process{Pid: r.Pid, StartTicks: r.Start, Cgroup: r.Cgroup}}, nil
}

// Began writes start.json. For containers that stay it is made durable behind
// the start's back: a power failure in that moment leaves the state before.
func (s *Starter) Began(run supervisor.Run, p runtime.Process) error {
	if last, err := s.startRecord(run.ID); err == nil && last.Token == run.Token {
		// Who wrote that was killed, perhaps before it told of it. Readers of
		// events pass on one of two.
		if time.Since(last.At) < time.Minute {
			s.began(run, last.At)
		}
		return nil
	}
	r := startRecord{Run: run.Number, Token: run.Token, At: time.Now().UTC(), Pid: p.Pid, Start: p.StartTicks, Boot: bootID(), Cgroup: p.Cgroup, Restarts: run.Restarts, Wait: run.Delay}
	if err := s.writeStart(run.ID, &r); err != nil {
		return fmt.Errorf("record the start: %w", noSpace(err))
	}
	s.began(run, r.At)
	if run.Sync {
		go s.syncStart(run.ID)
	}
	return nil
}

func (s *Starter) syncStart(id string) {
	if err := state.SyncFile(s.path(id, fileStart)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "supervisor: record the start:", err)
	}
}

func (s *Starter) writeStart(id string, r *startRecord) error {
	return s.st.WriteJSON(s.path(id, fileStart), r, false)
}

// Failed records why the program did not run, as Docker shows it in inspect.
// A container that is removed when it ends goes at once.
func (s *Starter) Failed(run supervisor.Run, err error) {
	r := startRecord{Run: run.Number, Token: run.Token, At: time.Now().UTC(), Error: err.Error(), Code: 125, Restarts: run.Restarts}
	if se := runtime.AsStartError(err); se != nil {
		r.Code = se.Code
	}
	if err := s.writeStart(run.ID, &r); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor: record a failed start:", err)
	}
	s.failed(run, r.Code, r.Error)
	s.leaveVolumes(run.ID)
	if !run.Sync {
		go s.remove(run.ID) // once the start's lock is released
	}
}

// Cut tells of the end of a run that was recorded and did not get to its
// program.
func (s *Starter) Cut(run supervisor.Run) {
	r, err := s.startRecord(run.ID)
	if err != nil || r.Run != run.Number || r.Error != "" {
		return
	}
	for end := time.Now().Add(time.Second); r.alive() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		// It is being killed.
	}
	if ctr, err := s.load(run.ID); err == nil && ctr.State.Status != spec.StatusRunning {
		s.ended(ctr, run)
		s.dropVolumes(&ctr.Container)
	}
}

// Ended removes a container that wants it, and tells whether and when another
// is started again.
func (s *Starter) Ended(run supervisor.Run) (at time.Time, again bool) {
	ctr, err := s.load(run.ID)
	if err != nil {
		return time.Time{}, false
	}
	s.ended(ctr, run)
	s.dropVolumes(&ctr.Container)
	if ctr.Host.AutoRemove {
		s.remove(run.ID)
		return time.Time{}, false
	}
	return ctr.State.RestartAt, ctr.State.Status == spec.StatusRestarting
}

// remove takes the container out of the store at once, with its anonymous
// volumes, and deletes its files behind the caller's back: nobody needs to wait
// for that.
func (s *Starter) remove(id string) {
	trash, gone, err := s.unlink(id, event.Cause{By: "it was to be removed at its end (--rm)"})
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervisor: remove container:", err)
		return
	}
	if trash == "" {
		return
	}
	if err := s.freeVolumes(gone); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor: remove volumes:", err)
	}
	go s.destroy(trash, gone)
}

// leaveVolumes is dropVolumes for a start that came to nothing.
func (s *Starter) leaveVolumes(id string) {
	if ctr, err := s.config(id); err == nil {
		s.dropVolumes(ctr)
	}
}
