package runtime

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime/plan"
	"tug/runtime/seccomp"
	"tug/runtime/user"
	"tug/spec"
	"tug/sys"
)

// ForeignPlan is what a container of another OCI runtime needs beside its plan.
type ForeignPlan struct {
	ID, Path    string
	Seccomp     *specs.LinuxSeccomp
	Annotations map[string]string
}

func foreignPlan(c *spec.Container, caps uint64) (*ForeignPlan, error) {
	if err := CheckForeign(c); err != nil {
		return nil, err
	}
	f := &ForeignPlan{ID: c.ID, Path: c.Host.RuntimePath, Annotations: c.Host.Annotations}
	if fi, err := os.Stat(f.Path); err != nil || !fi.Mode().IsRegular() {
		return nil, errs.New(errs.NotFound, "the container's runtime %s is not at %s any more", c.Host.Runtime, f.Path)
	}
	opts, err := parseSecurity(c.Host.SecurityOpt)
	if err != nil {
		return nil, err
	}
	var profile []byte
	switch {
	case opts.seccomp == "unconfined", opts.seccomp == "" && c.Host.Privileged:
		return f, nil
	case opts.seccomp != "" && opts.seccomp != "builtin":
		profile = []byte(opts.seccomp)
	}
	major, minor := sys.KernelVersion()
	f.Seccomp, err = seccomp.ToSpec(profile, runtime.GOARCH, CapNames(caps), [2]int{major, minor})
	return f, err
}

// foreignSpec is the configuration of the bundle. Limits are not in it: they are
// tug's to set, in the cgroup.
func (r *Runtime) foreignSpec(f *Foreign, pl *Plan, ns Namespaces, files Files) (*specs.Spec, error) {
	process, err := foreignProcess(pl, files.RootFS, files)
	if err != nil {
		return nil, err
	}
	if dir, err := sys.MkdirIn(files.RootFS, pl.Cwd); err == nil { // what is there already, is the runtime's to judge
		dir.Close()
	}
	s := &specs.Spec{
		Version: "1.0.2", Process: process, Root: &specs.Root{Path: foreignRoot, Readonly: pl.ReadOnly},
		Hostname: pl.Hostname, Annotations: pl.Foreign.Annotations,
		Linux: &specs.Linux{
			CgroupsPath: f.Cgroup, Seccomp: pl.Foreign.Seccomp, Namespaces: foreignNamespaces(ns),
			Sysctl: foreignSysctls(pl, ns), RootfsPropagation: "private",
			Resources: &specs.LinuxResources{Devices: foreignRules(pl)},
		},
	}
	for _, d := range pl.Devices {
		mode := os.FileMode(d.Mode)
		uid, gid := uint32(d.UID), uint32(d.GID)
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{
			Path: d.Path, Type: string(d.Kind), Major: int64(d.Major), Minor: int64(d.Minor), FileMode: &mode, UID: &uid, GID: &gid,
		})
	}
	if !pl.Privileged && !pl.Unmasked {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = plan.Masked(), plan.ReadOnlyPaths()
		for n := 0; hasFile("/sys/devices/system/cpu/cpu" + strconv.Itoa(n)); n++ {
			s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, plan.ThermalThrottle(n))
		}
	}
	s.Mounts = systemMounts(pl, ns)
	for _, m := range pl.Mounts { // outer ones come before those in them
		mount := specs.Mount{
			Destination: m.Target, Type: "bind", Source: f.treeAt(m.Tree),
			Options: append([]string{"rbind", "rprivate"}, mountOptions(&plan.Mount{Attr: m.Attr, ReadOnly: m.ReadOnly})...),
		}
		if m.Tree == 0 {
			if mount, err = foreignTmpfs(&m, files.RootFS); err != nil {
				return nil, err
			}
		}
		s.Mounts = append(s.Mounts, mount)
	}
	return s, nil
}

// foreignTmpfs describes a tmpfs. runc before 1.2 gives it the mode of the
// directory that it covers, so a missing one is made with the mode.
func foreignTmpfs(m *plan.Mount, root *os.File) (specs.Mount, error) {
	out := specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: mountOptions(m)}
	mode := uint64(0o1777)
	if i := slices.IndexFunc(m.Options, func(o plan.Option) bool { return o.Key == "mode" }); i < 0 {
		out.Options = append(out.Options, "mode=1777")
	} else if n, err := strconv.ParseUint(m.Options[i].Value, 8, 12); err == nil {
		mode = n
	}
	at, err := sys.OpenIn(root, m.Target, sys.OPath|sys.ODirectory, false)
	if errors.Is(err, os.ErrNotExist) {
		if at, err = sys.MkdirIn(root, m.Target); err == nil {
			err = sys.ChmodPlace(at, uint32(mode))
		}
	}
	sys.CloseAll([]*os.File{at})
	if err != nil {
		return out, &StartError{Code: 125, Msg: fmt.Sprintf("mount %s: %v", m.Target, cause(err))}
	}
	return out, nil
}

// foreignProcess describes a process with the user that root's files know.
func foreignProcess(pl *Plan, root *os.File, files Files) (*specs.Process, error) {
	who, err := user.Lookup(root, pl.User)
	if err == nil {
		err = user.AddGroups(root, &who, pl.Groups)
	}
	if err != nil {
		return nil, &StartError{Code: 125, Msg: err.Error()}
	}
	env := slices.Clone(pl.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") && len(e) > len("HOME=") }) {
		env = append(env, "HOME="+who.Home)
	}
	umask := pl.Umask
	p := &specs.Process{
		Terminal: pl.Tty, Args: pl.Args, Env: env, Cwd: pl.Cwd, NoNewPrivileges: pl.NoNewPrivs,
		User: specs.User{UID: who.UID, GID: who.GID, Umask: &umask},
	}
	p.User.AdditionalGids = who.Groups
	if pl.Tty && files.Rows > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(files.Rows), Width: uint(files.Cols)}
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	caps := CapNames(pl.Caps)
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
	if who.UID == 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = caps, caps
	}
	for _, l := range pl.Rlimits {
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(l.Name), Soft: l.Soft, Hard: l.Hard})
	}
	if score := pl.OOMScoreAdj; score != 0 {
		p.OOMScoreAdj = &score
	}
	return p, nil
}

func foreignNamespaces(ns Namespaces) []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		host bool
		kind specs.LinuxNamespaceType
	}{
		{ns.HostPID, specs.PIDNamespace},
		{ns.HostNet, specs.NetworkNamespace},
		{ns.HostIPC, specs.IPCNamespace},
		{ns.HostUTS, specs.UTSNamespace},
		{ns.HostCgroup, specs.CgroupNamespace},
	} {
		if !n.host {
			all = append(all, specs.LinuxNamespace{Type: n.kind})
		}
	}
	return all
}

// foreignSysctls are those asked for and what every container gets.
func foreignSysctls(pl *Plan, ns Namespaces) map[string]string {
	all := map[string]string{}
	if !ns.HostNet {
		for name, value := range map[string]string{
			"net.ipv4.ip_unprivileged_port_start": "0",
			"net.ipv4.ping_group_range":           "0 2147483647",
		} {
			if hasFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/")) {
				all[name] = value
			}
		}
	}
	if pl.Domainname != "" {
		all["kernel.domainname"] = pl.Domainname
	}
	for _, o := range pl.Sysctls {
		all[o.Key] = o.Value
	}
	return all
}

func foreignRules(pl *Plan) []specs.LinuxDeviceCgroup {
	if pl.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, r := range mergeRules(append(defaultDeviceRules(), pl.rules...)) {
		one := specs.LinuxDeviceCgroup{Allow: true, Type: string(r.kind), Access: r.access}
		if n := int64(r.major); n >= 0 {
			one.Major = &n
		}
		if n := int64(r.minor); n >= 0 {
			one.Minor = &n
		}
		rules = append(rules, one)
	}
	return rules
}

// systemMounts are those of every container.
func systemMounts(pl *Plan, ns Namespaces) []specs.Mount {
	noexec := func(more ...string) []string { return append([]string{"nosuid", "noexec", "nodev"}, more...) }
	shm := pl.ShmSize
	if shm == 0 {
		shm = spec.DefaultShmSize
	}
	mode := "ro"
	if pl.Privileged {
		mode = "rw"
	}
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: noexec()},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: noexec(mode)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: noexec(mode)},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: noexec()},
	}
	switch {
	case pl.NoShm:
	case ns.HostIPC:
		all = append(all, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: noexec("bind")})
	default:
		all = append(all, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: noexec("mode=1777", "size="+strconv.FormatInt(shm, 10))})
	}
	return all
}

func mountOptions(m *plan.Mount) []string {
	var o []string
	for _, a := range []struct {
		bit  uint64
		name string
	}{
		{sys.AttrNoExec, "noexec"},
		{sys.AttrNoSuid, "nosuid"},
		{sys.AttrNoDev, "nodev"},
		{sys.AttrNoAtime, "noatime"},
		{sys.AttrNoDirAtime, "nodiratime"},
	} {
		if m.Attr&a.bit != 0 {
			o = append(o, a.name)
		}
	}
	if m.ReadOnly {
		o = append(o, "ro")
	}
	for _, opt := range m.Options {
		o = append(o, opt.Key+"="+opt.Value)
	}
	return o
}

// mount attaches the root file system and the trees in the bundle, for as long
// as the runtime needs to take them.
func (f *Foreign) mount(pl *Plan, files Files) error {
	attach := func(m *os.File, at string, dir bool) error {
		if err := sys.MakePrivate(m); err != nil {
			return err
		}
		var err error
		if dir {
			err = os.Mkdir(at, 0o700)
		} else {
			err = os.WriteFile(at, nil, 0o600)
		}
		if err != nil {
			return err
		}
		return sys.AttachMount(m, nil, at)
	}
	if err := attach(files.RootFS, f.at(foreignRoot), true); err != nil {
		return err
	}
	if err := os.Mkdir(f.at(foreignTree), 0o700); err != nil {
		return err
	}
	for _, m := range pl.Mounts {
		if m.Tree == 0 {
			continue
		}
		if m.Tree > len(files.Trees) {
			return errs.New(errs.Internal, "mount %s: its tree was not passed", m.Target)
		}
		tree := files.Trees[m.Tree-1]
		fi, err := tree.Stat()
		if err == nil {
			err = attach(tree, f.treeAt(m.Tree), fi.IsDir())
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

// treeAt is where the tree with that number is attached.
func (f *Foreign) treeAt(n int) string { return filepath.Join(f.at(foreignTree), strconv.Itoa(n)) }

// unmount takes away what mount has attached.
func (f *Foreign) unmount() {
	entries, _ := os.ReadDir(f.at(foreignTree))
	for _, e := range entries {
		_ = sys.Unmount(filepath.Join(f.at(foreignTree), e.Name()))
	}
	_ = sys.Unmount(f.at(foreignRoot))
}

// bindInit makes the program a child of tug-init, whose copy the container can
// read and nobody else runs.
func (r *Runtime) bindInit(f *Foreign, s *specs.Spec) error {
	const inside = "/sbin/docker-init"
	out, err := os.OpenFile(f.at("tug-init"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	fi, err := r.self.Stat()
	if err == nil {
		_, err = io.Copy(out, io.NewSectionReader(r.self, 0, fi.Size()))
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: inside, Type: "bind", Source: out.Name(), Options: []string{"bind", "ro"}})
	s.Process.Args = append([]string{inside, "reap", "--", ""}, s.Process.Args...)
	return nil
}

// consoleWait is how long a terminal may still be on its way when the runtime
// has ended.
const consoleWait = 2 * time.Second

// listenConsole listens at a socket in dir for a terminal's master.
func listenConsole(dir, name string) (take func() (*os.File, error), end func(), err error) {
	d, err := os.OpenFile(dir, sys.OPath|sys.ODirectory, 0)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: sys.FdPath(d) + "/" + name})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false) // the descriptor in its name is another file's by then
	end = func() {
		l.Close()
		os.Remove(filepath.Join(dir, name))
	}
	return func() (*os.File, error) { return takeConsole(l) }, end, nil
}

func takeConsole(l *net.UnixListener) (*os.File, error) {
	deadline := time.Now().Add(consoleWait)
	_ = l.SetDeadline(deadline)
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(deadline)
	oob := make([]byte, 256)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 4096), oob)
	if err != nil {
		return nil, err
	}
	files, err := sys.ParseRights(oob[:n])
	if err != nil {
		return nil, err
	}
	if len(files) != 1 || !sys.IsPtmx(files[0]) {
		sys.CloseAll(files)
		return nil, errors.New("what comes is no terminal")
	}
	return files[0], nil
}
