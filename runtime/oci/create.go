package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime"
	"tug/runtime/plan"
	"tug/state"
	"tug/sys"
)

// CreateOptions are what `create` is told beside the bundle's configuration.
type CreateOptions struct {
	ID, Bundle    string
	PidFile       string
	ConsoleSocket string
	Preserve      int         // descriptors from 3 on that the program has, too
	Stdio         [3]*os.File // the program's, without a terminal
	Terminal      bool        // the caller takes the terminal itself
}

// Create makes a container up to the point where its program is executed. The
// first process is this process's child, and when this one ends that of whoever
// takes its orphans. It returns the terminal's master with o.Terminal.
func (r *Runtime) Create(o CreateOptions) (master *os.File, err error) {
	bundle, err := filepath.Abs(o.Bundle) // "" is the working directory
	if err != nil {
		return nil, err
	}
	spec, text, err := loadBundle(bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, invalid("process is missing")
	}
	switch tty := spec.Process.Terminal; {
	case tty && o.ConsoleSocket == "" && !o.Terminal:
		return nil, errs.New(errs.Invalid, "process.terminal is set, and nobody takes the terminal").WithHint("give --console-socket")
	case !tty && o.ConsoleSocket != "":
		return nil, errs.New(errs.Invalid, "--console-socket is for process.terminal, which is not set")
	}
	c, err := r.reserve(o.ID)
	if err != nil {
		return nil, err
	}
	defer c.unlock()
	c.rec = record{
		Version: Version, ID: o.ID, Bundle: bundle, Annotations: spec.Annotations,
		Cgroup: cgroupPath(spec, o.ID), Created: time.Now().UTC(),
	}
	m := &maker{container: c, spec: spec, text: text, o: o}
	master, err = m.make()
	if err != nil {
		m.undo()
		return nil, err
	}
	return master, nil
}

// cgroupPath is that of the configuration, or one below tug's own for OCI
// containers, which goes with the last of them.
func cgroupPath(s *specs.Spec, id string) string {
	p := s.Linux.CgroupsPath
	switch {
	case p == "":
		return defaultCgroups + "/" + id
	case !filepath.IsAbs(p):
		return filepath.Join(defaultCgroups, filepath.Clean("/"+p))
	}
	return filepath.Clean(p)
}

const defaultCgroups = "/tug-oci"

// reserve makes the directory of a container, locked. That it is there already
// is errs.Conflict.
func (r *Runtime) reserve(id string) (*container, error) {
	dir, err := r.dir(id)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.Root, 0o700); err != nil {
		return nil, err
	}
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, errs.New(errs.Conflict, "container %q exists already", id)
	}
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err == nil && lock == nil {
		err = errs.New(errs.Conflict, "container %q was removed while it was made", id)
	}
	if err != nil {
		return nil, err
	}
	return &container{r: r, dir: dir, lock: lock}, nil
}

// maker makes one container.
type maker struct {
	*container
	spec   *specs.Spec
	text   []byte // of spec
	o      CreateOptions
	b      *builder
	group  *runtime.Group
	sock   *os.File
	pidfd  *os.File
	hooked bool // hooks of the start have run: those of the end have to
}

func (m *maker) make() (master *os.File, err error) {
	if err := state.Replace(m.path(fileConfig), m.text, false); err != nil {
		return nil, err
	}
	self, err := openSelf(m.r.InitPath, m.o.Preserve)
	if err != nil {
		return nil, err
	}
	defer self.Close()
	if m.group, err = runtime.OpenGroup(m.rec.Cgroup); err != nil {
		return nil, err
	}
	m.b = &builder{spec: m.spec, bundle: m.rec.Bundle, group: m.group, self: self, warn: m.r.Warn}
	if err := m.save(); err != nil {
		return nil, err
	}
	if err := m.group.Create(); err != nil {
		return nil, err
	}
	m.rec.Grouped = true
	if err := m.save(); err != nil {
		return nil, err
	}
	defer func() { sys.CloseAll([]*os.File{m.sock, m.pidfd}) }()
	if err := m.launch(self); err != nil {
		return nil, err
	}
	defer m.b.close()
	if err := m.b.build(); err != nil {
		return nil, err
	}
	m.rec.Rootfs = m.b.plan.OCI.Root
	if err := m.save(); err != nil {
		return nil, err
	}
	return m.prepare()
}

// openSelf copies tug-init to where nobody in a container can write it. Its
// descriptor is above all those of a process that is made from it.
func openSelf(path string, preserved int) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, errs.New(errs.NotFound, "open tug-init: %w", err)
	}
	defer src.Close()
	self, err := sys.SealedCopy("tug-init", src)
	if err != nil {
		return nil, err
	}
	return sys.MoveAbove(self, 16+preserved)
}

// launch makes the first process: in its cgroup and its namespaces, and away
// from nothing yet.
func (m *maker) launch(self *os.File) error {
	ours, theirs, err := sys.SocketPair()
	if err != nil {
		return err
	}
	m.sock = ours
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	clone := sys.Clone{
		Path: sys.FdPath(self), Env: runtime.InitEnv(),
		Args:  []string{"tug-init", "oci", strconv.Itoa(m.o.Preserve), m.group.Layout()},
		Files: []*os.File{null, null, null}, Flags: sys.NewNS,
	}
	clone.Files = append(clone.Files, preserved(m.o.Preserve)...)
	clone.Files = append(clone.Files, theirs)
	for _, n := range m.spec.Linux.Namespaces {
		flag, _ := namespaceFlag(n.Type)
		switch {
		case n.Path != "" && n.Type == specs.PIDNamespace:
			clone.Apart = true // others may look into it
		case n.Path != "", n.Type == specs.CgroupNamespace, n.Type == specs.TimeNamespace:
		case n.Type == specs.UserNamespace:
			clone.UIDs, clone.GIDs = idMaps(m.spec.Linux.UIDMappings), idMaps(m.spec.Linux.GIDMappings)
		default:
			clone.Flags |= uintptr(flag)
		}
	}
	err = sys.OnThread(func() error {
		if err := m.join(); err != nil {
			return err
		}
		m.rec.Pid, m.pidfd, err = m.group.Start(clone)
		return err
	})
	if err == nil {
		m.rec.StartTicks, err = sys.StartTicks(m.rec.Pid)
	}
	if err != nil {
		return fmt.Errorf("start tug-init: %w", err)
	}
	return m.save()
}

// preserved are the descriptors from 3 on that this process was given.
func preserved(n int) (all []*os.File) {
	for fd := range n {
		all = append(all, os.NewFile(uintptr(3+fd), "preserved"))
	}
	return all
}

func idMaps(all []specs.LinuxIDMapping) (out []sys.IDMap) {
	for _, m := range all {
		out = append(out, sys.IDMap{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size})
	}
	return out
}

// join takes the calling thread into the namespaces that are there already. The
// first process is made by it, with the rights over them that this process has
// and the root of a user namespace would not have.
func (m *maker) join() error {
	for _, n := range m.spec.Linux.Namespaces {
		if n.Path == "" {
			continue
		}
		flag, _ := namespaceFlag(n.Type)
		f, err := os.Open(n.Path)
		if err == nil {
			err = sys.Setns(f, flag)
			f.Close()
		}
		if err != nil {
			return fmt.Errorf("join %s namespace %s: %w", n.Type, n.Path, err)
		}
	}
	if !isNew(m.spec, specs.TimeNamespace) {
		return nil
	}
	if err := sys.Unshare(sys.NewTime); err != nil {
		return err
	}
	var text string
	for clock, o := range m.spec.Linux.TimeOffsets {
		text += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	if text == "" {
		return nil
	}
	// By the thread's number, as only the directories of processes have it.
	return os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", sys.Gettid()), []byte(text), 0)
}

// prepare has tug-init make the container, with the hooks in between.
func (m *maker) prepare() (master *os.File, err error) {
	p := m.b.plan
	if err := raiseLimits(m.rec.Pid, p.Rlimits); err != nil {
		return nil, err
	}
	if err := setOOMScore(m.rec.Pid, m.spec.Process.OOMScoreAdj); err != nil {
		return nil, err
	}
	p.Preserve = m.o.Preserve
	p.OCI.State = m.hookState(specs.StateCreating)
	listener, err := m.listen()
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	passed := []*os.File{m.b.root}
	if !p.Tty {
		for i, f := range m.o.Stdio {
			if f != nil {
				p.Stdio |= 1 << i
				passed = append(passed, f)
			}
		}
	}
	passed = append(append(passed, m.b.trees...), listener)
	if len(passed) >= sys.MaxPassedFds {
		return nil, errs.New(errs.Invalid, "config.json: too many bind mounts: %d", len(m.b.trees))
	}
	if err := plan.SendPlan(m.sock, p, passed...); err != nil {
		return nil, m.lost(err)
	}
	if _, err := m.reply(); err != nil {
		return nil, err
	}
	var rules []specs.LinuxDeviceCgroup
	if res := m.spec.Linux.Resources; res != nil {
		rules = res.Devices
	}
	if err := m.group.ConfineDevices(rules); err != nil {
		return nil, err
	}
	m.hooked = true
	if h := m.spec.Hooks; h != nil {
		//lint:ignore SA1019 prestart is old and still in use
		if err := m.runHooks("prestart", h.Prestart, specs.StateCreating, false); err != nil {
			return nil, err
		}
		if err := m.runHooks("createRuntime", h.CreateRuntime, specs.StateCreating, false); err != nil {
			return nil, err
		}
	}
	if err := plan.SendGo(m.sock); err != nil {
		return nil, m.lost(err)
	}
	if master, err = m.reply(); err != nil {
		return nil, err
	}
	// Not before: tug-init itself needs more than the program may have.
	if err := m.group.Apply(m.spec.Linux.Resources); err != nil {
		sys.CloseAll([]*os.File{master})
		return nil, err
	}
	return m.done(master)
}

// done hands the terminal over and makes the container created.
func (m *maker) done(master *os.File) (*os.File, error) {
	err := sendConsole(m.o.ConsoleSocket, master)
	if err == nil {
		err = writePidFile(m.o.PidFile, m.rec.Pid)
	}
	if err == nil {
		m.rec.Ready = true
		err = m.save()
	}
	if err != nil || !m.o.Terminal {
		sys.CloseAll([]*os.File{master})
		master = nil
	}
	return master, err
}

// listen makes the socket by which `start` reaches the first process.
func (m *maker) listen() (*os.File, error) {
	// By way of the directory's descriptor, as the path may be too long for a
	// socket.
	l, err := sys.ListenUnix(sys.FdPath(m.lock) + "/" + fileSocket)
	if err == nil {
		err = sys.SetBlocking(l)
	}
	return l, err
}

func (m *maker) reply() (*os.File, error) {
	r, files, err := plan.ReceiveReply(m.sock)
	if err != nil {
		return nil, m.lost(err)
	}
	for _, w := range r.Warnings {
		m.r.Warn(w)
	}
	if r.Code != 0 {
		sys.CloseAll(files)
		return nil, &runtime.StartError{Code: r.Code, Msg: r.Msg}
	}
	if len(files) == 0 {
		return nil, nil
	}
	sys.CloseAll(files[1:])
	return files[0], nil
}

func (m *maker) lost(err error) error {
	return fmt.Errorf("tug-init (pid %d) died before the start: %w", m.rec.Pid, err)
}

// undo removes all of a container that did not come to be.
func (m *maker) undo() {
	if m.rec.Pid != 0 {
		_ = sys.SignalProcess(m.rec.Pid, m.rec.StartTicks, syscall.SIGKILL)
		// A child of ours; whoever comes after it may not have its number yet.
		_, _ = sys.Reap(m.rec.Pid)
	}
	if err := m.removeGroup(); err != nil {
		m.r.Warn(err.Error())
	}
	if m.hooked && m.spec.Hooks != nil {
		_ = m.runHooks("poststop", m.spec.Hooks.Poststop, specs.StateStopped, true)
	}
	if err := os.RemoveAll(m.dir); err != nil {
		m.r.Warn(err.Error())
	}
}

// userNS makes a user namespace, which lives as long as the returned file.
func (b *builder) userNS(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	return runtime.MakeUserNS(b.self, idMaps(uids), idMaps(gids))
}

// sendConsole sends a terminal's master to whoever listens at the socket.
func sendConsole(socket string, master *os.File) error {
	if socket == "" || master == nil {
		return nil
	}
	conn, err := sys.ConnectUnix(socket, true)
	if err != nil {
		return fmt.Errorf("--console-socket: %w", err)
	}
	defer conn.Close()
	return sys.SendMsg(conn, []byte("/dev/ptmx"), master)
}

// writePidFile writes it whole or not at all.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
