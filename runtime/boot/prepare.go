package boot

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// stdio are the descriptors the program gets; nil ones become /dev/null.
type stdio [3]*os.File

// takeStdio takes the descriptors of stdio off those that were passed.
func takeStdio(p *plan.Plan, files []*os.File) (std stdio, rest []*os.File, err error) {
	for i := range std {
		if p.Stdio&(1<<i) == 0 {
			continue
		}
		if len(files) == 0 {
			return std, nil, errMissing
		}
		std[i], files = files[0], files[1:]
	}
	return std, files, nil
}

var errMissing = errors.New("tug-init: a descriptor is missing")

// takeBox takes tug-box from the end of the passed descriptors, if it is to be
// the program.
func (s *starter) takeBox(rest []*os.File) ([]*os.File, error) {
	if !s.plan.Box {
		return rest, nil
	}
	if len(rest) == 0 {
		return nil, errMissing
	}
	s.box = rest[len(rest)-1]
	return rest[:len(rest)-1], nil
}

// prepare does everything up to the last steps before execve: it makes the
// container's root out of the passed file system and what was parked, moves
// into it and becomes ready to run the program. It returns the pty master.
func (s *starter) prepare(files []*os.File) (*os.File, error) {
	if len(files) == 0 {
		return nil, errMissing
	}
	rootfs := files[0]
	std, trees, err := takeStdio(s.plan, files[1:])
	if err == nil {
		trees, err = s.takeBox(trees)
	}
	if err != nil {
		return nil, err
	}
	if err := s.setOOMScore(); err != nil {
		return nil, err
	}
	if s.shown() {
		if err := s.unhide(); err != nil {
			return nil, err
		}
	}
	if err := s.setKernel(); err != nil {
		return nil, err
	}
	if err := s.makeDevices(); err != nil {
		return nil, err
	}
	var master *os.File
	if s.plan.Tty {
		// While /dev is nobody's but ours.
		if master, std, err = openTerminal(); err != nil {
			return nil, err
		}
	}
	if err := s.buildRoot(rootfs, trees); err != nil {
		return nil, err
	}
	if err := sys.PivotInto(rootfs); err != nil {
		return nil, err
	}
	sys.CloseAll(trees)
	if err := s.setNames(); err != nil {
		return nil, err
	}
	if err := s.ready(rootfs, std); err != nil {
		return nil, err
	}
	rootfs.Close()
	return master, nil
}

func inDev(d *plan.Device) bool { return strings.HasPrefix(d.Path, "/dev/") }

// makeDevices makes the nodes below /dev, in the place of what may be there.
func (s *starter) makeDevices() error {
	for i := range s.plan.Devices {
		d := &s.plan.Devices[i]
		if !inDev(d) {
			continue
		}
		if err := os.MkdirAll(path.Dir(d.Path), 0o755); err != nil {
			return err
		}
		err := makeDevice(d)
		if errors.Is(err, os.ErrExist) {
			if err = os.Remove(d.Path); err == nil {
				err = makeDevice(d)
			}
		}
		if err != nil {
			return failf(125, "make device %s: %v", d.Path, err)
		}
	}
	return nil
}

// makeDeviceIn makes a node elsewhere in the root, which is the container's:
// nothing there is followed out of it or replaced. It needs our own /proc.
func makeDeviceIn(root *os.File, d *plan.Device) error {
	dir, err := sys.MkdirIn(root, path.Dir(d.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	in := *d
	in.Path = sys.FdPath(dir) + "/" + path.Base(d.Path)
	err = makeDevice(&in)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	fi, serr := os.Lstat(in.Path)
	if serr != nil {
		return serr
	}
	if d.Is(fi) {
		return nil // made by an earlier start
	}
	return err
}

// shown tells that the container sees all of /proc and /sys.
func (s *starter) shown() bool { return s.plan.Privileged || s.plan.Unmasked }

// unhide replaces the masked proc by a plain one, and takes the masks off sys; a
// privileged container gets a sys that it may change.
func (s *starter) unhide() error {
	if s.inUserNS {
		return unmask()
	}
	if err := sys.Unmount("/proc"); err != nil {
		return err
	}
	if err := sys.Mount("proc", "/proc", "proc", sys.MsNoSuid|sys.MsNoDev|sys.MsNoExec, ""); err != nil {
		return err
	}
	if s.plan.Privileged {
		if err := sys.Unmount("/sys"); err != nil {
			return err
		}
		return mountSys(s.layout, true)
	}
	for _, path := range maskedPaths() {
		if !strings.HasPrefix(path, "/sys/") {
			continue
		}
		// What was not there is not masked: no error.
		if err := sys.Unmount(path); err != nil {
			return err
		}
	}
	return nil
}

// unmask takes all masks off one by one: a user namespace gets no further proc.
func unmask() error {
	for _, path := range append(maskedPaths(), plan.ReadOnlyPaths()...) {
		if err := sys.Unmount(path); err != nil {
			return err
		}
	}
	return nil
}

// setKernel sets what the kernel keeps for the container's namespaces and
// mounts, while /proc and /dev are where park put them.
func (s *starter) setKernel() error {
	const noexec = sys.MsNoSuid | sys.MsNoDev | sys.MsNoExec
	if n := s.plan.ShmSize; n > 0 {
		if err := sys.Mount("", "/dev/shm", "", noexec|sys.MsRemount, "size="+strconv.FormatInt(n, 10)); err != nil {
			return failf(125, "set --shm-size %d: %v", n, err)
		}
	}
	if s.plan.NoShm {
		if err := sys.Unmount("/dev/shm"); err != nil {
			return err
		}
		if err := os.Remove("/dev/shm"); err != nil {
			return err
		}
	}
	if len(s.plan.Sysctls) == 0 {
		return nil
	}
	if !s.shown() { // hidePaths made it read-only; no program sees it yet
		if err := sys.Mount("", "/proc/sys", "", noexec|sys.MsBind|sys.MsRemount, ""); err != nil {
			return err
		}
	}
	for _, o := range s.plan.Sysctls {
		if err := setSysctl(o.Key, o.Value); err != nil {
			return failf(125, "set sysctl %s=%s: %v", o.Key, o.Value, err)
		}
	}
	if s.shown() {
		return nil
	}
	return sys.Mount("", "/proc/sys", "", noexec|sys.MsBind|sys.MsRemount|sys.MsReadOnly, "")
}

func setSysctl(name, value string) error {
	f, err := os.OpenFile("/proc/"+sysctlFile(name), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		f.Close()
	}
	return cause(err)
}

// sysctlFile is a sysctl's file below /proc. A slash in the name stands for a
// dot in a file's.
func sysctlFile(name string) string {
	return "sys/" + strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

// openTerminal makes the container's terminal in its own devpts and shows it
// as /dev/console.
func openTerminal() (master *os.File, std stdio, err error) {
	master, err = os.OpenFile("/dev/pts/ptmx", os.O_RDWR|sys.ONoctty, 0)
	if err != nil {
		return nil, std, err
	}
	slave, err := sys.OpenPty(master)
	if err != nil {
		return nil, std, err
	}
	n, err := sys.PtyNumber(master)
	if err != nil {
		return nil, std, err
	}
	console, err := os.OpenFile("/dev/console", os.O_CREATE|os.O_RDONLY|os.O_EXCL, 0o620)
	if err == nil {
		console.Close()
		err = sys.Mount("/dev/pts/"+strconv.Itoa(n), "/dev/console", "", sys.MsBind, "")
	}
	return master, stdio{slave, slave, slave}, err
}

// buildRoot attaches the root file system and puts all mounts onto it.
func (s *starter) buildRoot(rootfs *os.File, trees []*os.File) error {
	if err := sys.MakePrivate(rootfs); err != nil {
		return err
	}
	if err := sys.AttachMount(rootfs, nil, newRoot); err != nil {
		return err
	}
	for i := range s.plan.Devices {
		if d := &s.plan.Devices[i]; !inDev(d) {
			if err := makeDeviceIn(rootfs, d); err != nil {
				return failf(125, "make device %s: %v", d.Path, err)
			}
		}
	}
	null, err := os.OpenFile("/dev/null", sys.OPath, 0) // while /dev is here
	if err != nil {
		return err
	}
	defer null.Close()
	for _, dir := range []string{"/proc", "/dev", "/sys"} {
		target, err := systemDir(rootfs, dir)
		if err != nil {
			return err
		}
		err = sys.MoveMount(dir, target)
		target.Close()
		if err != nil {
			return err
		}
	}
	if err := s.addMounts(rootfs, null, trees); err != nil {
		return err
	}
	if err := makeWorkDir(rootfs, s.plan.Cwd); err != nil {
		return err
	}
	if !s.plan.ReadOnly {
		return nil
	}
	// After the last mount point and directory were made in it.
	return sys.SetMountAttr(rootfs, "", sys.AttrReadOnly, 0, false)
}

// systemDir opens the mount point of /proc, /dev or /sys and makes it when
// missing. As a symlink it would put these, and the masks on them, where no
// program looks for them, with something the image brought in their place.
func systemDir(root *os.File, dir string) (*os.File, error) {
	f, err := sys.OpenIn(root, dir, sys.OPath|sys.ODirectory, true)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return sys.MkdirIn(root, dir)
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return nil, failf(125, "mount %s: the image has it as something else than a directory", dir)
	}
	return f, err
}

// addMounts puts the plan's mounts onto the root, in its order: outer ones come
// before those in them. What was masked, or made read-only, and was covered is
// so again afterwards.
func (s *starter) addMounts(root, null *os.File, trees []*os.File) error {
	again := false
	for i := range s.plan.Mounts {
		m := &s.plan.Mounts[i]
		covers, err := s.addMount(root, m, trees)
		if err != nil {
			return failf(125, "mount %s: %v", m.Target, err)
		}
		again = again || covers
	}
	if !again || s.shown() {
		return nil
	}
	return hideIn(root, maskedIn(root), plan.ReadOnlyPaths(), func(at *os.File) (*os.File, error) { return maskWith(at, null) })
}

// addMount is addMount, but that the terminal is /dev/console of a /dev that
// takes the place of the container's, too.
func (s *starter) addMount(root *os.File, m *plan.Mount, trees []*os.File) (covers bool, err error) {
	if m.Target != "/dev" || !s.plan.Tty {
		return addMount(root, m, trees)
	}
	at, err := sys.OpenIn(root, "/dev/console", sys.OPath, true)
	if err != nil {
		return false, err
	}
	console, err := sys.CloneTree(at, "", false)
	at.Close()
	if err != nil {
		return false, err
	}
	defer console.Close()
	if covers, err = addMount(root, m, trees); err != nil {
		return false, err
	}
	if at, err = sys.OpenIn(root, "/dev/console", sys.OPath, true); errors.Is(err, os.ErrNotExist) {
		return covers, nil
	}
	if err != nil {
		return false, err
	}
	defer at.Close()
	return covers, sys.AttachMount(console, at, "")
}

// addMount puts one of the plan's mounts onto the root. The target is resolved
// inside the root, so a symlink there leads to a place in the container, and
// then held by a descriptor, so nobody exchanges it meanwhile. covers tells that
// it lies in, or over, what tells about the machine.
func addMount(root *os.File, m *plan.Mount, trees []*os.File) (covers bool, err error) {
	if m.Tree > len(trees) {
		return false, errors.New("its tree was not passed")
	}
	if m.Tree == 0 {
		return false, addTmpfs(root, m)
	}
	tree := trees[m.Tree-1]
	target, err := placeFor(root, m.Target, tree)
	if err != nil {
		return false, err
	}
	defer target.Close()
	if err := checkProc(root, m.Target, target, tree, false); err != nil {
		return false, err
	}
	magic, err := sys.FileSystem(target)
	if err != nil {
		return false, err
	}
	covers = magic == sys.MagicProc || magic == sys.MagicSysfs
	if m.AsItIs {
		return covers, sys.AttachMount(tree, target, "")
	}
	if err := sys.MakePrivate(tree); err != nil {
		return false, err
	}
	attr := m.Attr
	if m.ReadOnly {
		attr |= sys.AttrReadOnly
	}
	if attr != 0 {
		if err := sys.SetMountAttr(tree, "", attr, 0, true); err != nil {
			return false, err
		}
	}
	return covers, sys.AttachMount(tree, target, "")
}

// placeFor opens where a tree is to be attached, and makes it where it is
// missing.
func placeFor(root *os.File, path string, tree *os.File) (*os.File, error) {
	source, err := tree.Stat()
	if err != nil {
		return nil, err
	}
	var target *os.File
	if source.IsDir() {
		target, err = sys.MkdirIn(root, path)
	} else {
		target, err = sys.CreateIn(root, path)
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, errMixed
	}
	if err != nil {
		return nil, err
	}
	fi, err := target.Stat()
	if err == nil && fi.IsDir() != source.IsDir() {
		err = errMixed
	}
	if err != nil {
		target.Close()
		return nil, err
	}
	return target, nil
}

var errMixed = errors.New("not a directory: are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type")

func addTmpfs(root *os.File, m *plan.Mount) error {
	opts := append(make([]sys.Option, 0, len(m.Options)+2), sys.Option{Key: "source", Value: "tmpfs"})
	withMode := false
	for _, o := range m.Options {
		opts = append(opts, sys.Option(o))
		withMode = withMode || o.Key == "mode"
	}
	target, err := sys.OpenIn(root, m.Target, sys.OPath|sys.ODirectory, false)
	switch {
	case err == nil && !withMode:
		// A directory of the image keeps its mode under the tmpfs.
		fi, err := target.Stat()
		if err != nil {
			return err
		}
		mode := uint64(fi.Mode().Perm())
		if fi.Mode()&os.ModeSticky != 0 {
			mode |= 0o1000
		}
		opts = append(opts, sys.Option{Key: "mode", Value: strconv.FormatUint(mode, 8)})
	case errors.Is(err, os.ErrNotExist):
		target, err = sys.MkdirIn(root, m.Target)
	}
	if err != nil {
		return err
	}
	defer target.Close()
	if err := checkTarget(target); err != nil {
		return err
	}
	attr := m.Attr
	if m.ReadOnly {
		attr |= sys.AttrReadOnly
	}
	fs, err := sys.NewMount("tmpfs", int(attr), opts...)
	if err != nil {
		return err
	}
	defer fs.Close()
	return sys.AttachMount(fs, target, "")
}

// checkTarget refuses mounts inside /proc, by whatever symlink they got there:
// security settings are written through it.
func checkTarget(target *os.File) error {
	magic, err := sys.FileSystem(target)
	if err == nil && magic == sys.MagicProc {
		err = errors.New("inside /proc")
	}
	return err
}

// makeWorkDir makes the working directory, as Docker does.
func makeWorkDir(root *os.File, cwd string) error {
	if cwd == "" || cwd == "/" {
		return nil
	}
	f, err := sys.MkdirIn(root, cwd)
	if errors.Is(err, syscall.ENOTDIR) {
		return failf(125, "cannot mkdir: %s is not a directory", cwd)
	}
	if err != nil {
		return failf(125, "create working directory %s: %v", cwd, err)
	}
	return f.Close()
}

func (s *starter) setNames() error {
	if s.plan.Hostname != "" {
		if err := sys.SetHostname(s.plan.Hostname); err != nil {
			return err
		}
	}
	if s.plan.Domainname != "" {
		return sys.SetDomainname(s.plan.Domainname)
	}
	return nil
}

// setOOMScore adjusts the process's OOM score. A score that was asked for is
// set or the start fails; that the usual one cannot be had, as below a
// supervisor that is itself to be killed early, is worth a warning.
func (s *starter) setOOMScore() error {
	if s.plan.AsItIs {
		return nil
	}
	adj := s.plan.OOMScoreAdj
	err := writeOOMScore(adj)
	switch {
	case err == nil:
		return nil
	case adj == 0:
		s.warnf("oom-score-adj %d cannot be set (%v) and stays as it was", adj, err)
		return nil
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return failf(125, "set --oom-score-adj %d: %v: to lower the score tug needs CAP_SYS_RESOURCE", adj, err)
	}
	return failf(125, "set --oom-score-adj %d: %v", adj, err)
}

// writeOOMScore writes the OOM score adjustment through a /proc that is not the
// container's yet.
func writeOOMScore(adj int) error {
	const file = "/proc/self/oom_score_adj"
	old, err := os.ReadFile(file)
	want := strconv.Itoa(adj)
	if err == nil && string(old) == want+"\n" {
		return nil
	}
	return cause(os.WriteFile(file, []byte(want), 0))
}
