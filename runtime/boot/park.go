package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// newRoot is where a container's root file system is attached before it
// becomes "/".
const newRoot = "/rootfs"

// park brings the process from the host's view to an empty root of its own,
// with everything mounted there that every container gets, and masked as every
// unprivileged one. layout says which cgroup hierarchies the process was put
// into: see mountCgroups; kept is what it keeps of the host.
func park(layout string, kept []string) error {
	if err := sys.SetDumpable(false); err != nil {
		return err
	}
	back, err := enterCgroupNS(layout, slices.Contains(kept, plan.HostCgroup))
	if err != nil {
		return err
	}
	// Not to hold the caller's keys. A kernel without keyrings has none to hold.
	if err := sys.NewSessionKeyring(); err != nil && !errors.Is(err, syscall.ENOSYS) {
		return err
	}
	sys.Umask(0)
	shm, err := sharedShm(kept)
	if err != nil {
		return err
	}
	host := &taken{shm: shm}
	defer host.close()
	inUserNS := slices.Contains(kept, plan.UserNS)
	if inUserNS {
		if err := host.take(slices.Contains(kept, plan.HostIPC)); err != nil {
			return err
		}
	}
	if err := enterEmptyRoot(); err != nil {
		return fmt.Errorf("leave the host's mounts: %w", err)
	}
	if err := mountCommon(host); err != nil {
		return err
	}
	if inUserNS {
		err = host.mountSys(layout)
	} else {
		err = mountSys(layout, false)
	}
	if err != nil {
		return err
	}
	if back != nil {
		err := sys.Setns(back, sys.NewCgroup)
		back.Close()
		if err != nil {
			return err
		}
	}
	if !slices.Contains(kept, plan.HostNet) {
		if err := prepareNet(); err != nil {
			return err
		}
	}
	return hidePaths()
}

// enterCgroupNS makes a cgroup namespace. With host it is only for mounting the
// container's part of version 1's hierarchies: back is the one to return to.
// Version 2 is then seen as a whole, as with Docker.
func enterCgroupNS(layout string, host bool) (back *os.File, err error) {
	if host {
		if layout == "v2" {
			return nil, nil
		}
		if back, err = os.Open("/proc/thread-self/ns/cgroup"); err != nil {
			return nil, err
		}
	}
	// The process sits in its cgroup since before it was made, so this
	// namespace's root is the container's cgroup.
	return back, sys.Unshare(sys.NewCgroup)
}

// enterEmptyRoot makes an empty tmpfs the root and lets go of every host mount.
func enterEmptyRoot() error {
	// First of all: nothing done here may be seen in the host's mounts.
	if err := sys.SetPropagation("/", true); err != nil {
		return err
	}
	root, err := sys.NewMount("tmpfs", sys.AttrNoSuid, sys.Option{Key: "size", Value: "1m"}, sys.Option{Key: "mode", Value: "755"})
	if err != nil {
		return err
	}
	defer root.Close()
	// pivot_root wants its new root mounted somewhere; /proc exists everywhere
	// and this namespace's copy is needed no more.
	if err := sys.AttachMount(root, nil, "/proc"); err != nil {
		return err
	}
	return sys.PivotInto(root)
}

// sharedShm returns the /dev/shm that comes with an IPC namespace of others, or
// nil. Another container's is joined here.
func sharedShm(kept []string) (shm *os.File, err error) {
	switch {
	case slices.Contains(kept, plan.HostIPC):
		if shm, err = copyShm(); err != nil {
			return nil, fmt.Errorf("take along the host's /dev/shm: %w", err)
		}
	case slices.Contains(kept, plan.JoinIPC):
		if shm, err = joinIPC(); err != nil {
			return nil, fmt.Errorf("failed to join IPC namespace: %w", err)
		}
	}
	return shm, nil
}

// joinIPC enters the IPC namespace of the passed process and returns a copy of
// its mount of /dev/shm. For that it looks in from the other's mounts, which
// are not to be trusted, and comes back.
func joinIPC() (*os.File, error) {
	syscall.CloseOnExec(joinFd)
	other := os.NewFile(joinFd, "process")
	defer other.Close()
	own, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	// A mount namespace is joined only by a thread that shares its root and
	// working directory with no other.
	if err := sys.Unshare(sys.CloneFS); err != nil {
		return nil, err
	}
	if err := sys.Setns(other, sys.NewIPC|sys.NewNS); err != nil {
		return nil, err
	}
	shm, err := copyShm()
	if back := sys.Setns(own, sys.NewNS); back != nil {
		sys.CloseAll([]*os.File{shm})
		return nil, back
	}
	return shm, err
}

// copyShm makes a copy of the mount of /dev/shm. Its options are those of the
// mount alone, the file system stays as it is. It must be a tmpfs: a container
// could have put something else there, or taken it away.
func copyShm() (*os.File, error) {
	root, err := os.OpenFile("/", sys.OPath|sys.ODirectory, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	at, err := sys.OpenIn(root, "/dev/shm", sys.OPath|sys.ODirectory, true)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	if magic, err := sys.FileSystem(at); err != nil || magic != sys.MagicTmpfs {
		return nil, errors.New("its /dev/shm is no tmpfs")
	}
	shm, err := sys.CloneTree(at, "", false)
	if err != nil {
		return nil, err
	}
	err = sys.MakePrivate(shm)
	if err == nil {
		err = sys.SetMountAttr(shm, "", sys.AttrNoSuid|sys.AttrNoDev|sys.AttrNoExec, 0, false)
	}
	if err != nil {
		shm.Close()
		return nil, err
	}
	return shm, nil
}

// mountCommon mounts /proc and /dev in the empty root, of what was taken along
// from the host where it was.
func mountCommon(host *taken) error {
	for _, dir := range []string{"/proc", "/sys", "/dev", newRoot} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	const noexec = sys.MsNoSuid | sys.MsNoDev | sys.MsNoExec
	err := attachOr(host.proc, "/proc", func() error { return sys.Mount("proc", "/proc", "proc", noexec, "") })
	if err != nil {
		return err
	}
	if err := sys.Mount("tmpfs", "/dev", "tmpfs", sys.MsNoSuid, "mode=755,size=65536k"); err != nil {
		return err
	}
	if err := host.makeDevices(); err != nil {
		return err
	}
	links := [][2]string{
		{"pts/ptmx", "/dev/ptmx"},
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
		{"/proc/kcore", "/dev/core"},
	}
	for _, l := range links {
		if err := os.Symlink(l[0], l[1]); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/dev/pts", "/dev/shm", "/dev/mqueue"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	const devpts = "newinstance,ptmxmode=0666,mode=0620,gid=5"
	if err := sys.Mount("devpts", "/dev/pts", "devpts", sys.MsNoSuid|sys.MsNoExec, devpts); err != nil {
		return err
	}
	err = attachOr(host.shm, "/dev/shm", func() error { return sys.Mount("shm", "/dev/shm", "tmpfs", noexec, "mode=1777,size=65536k") })
	if err != nil {
		return err
	}
	err = attachOr(host.mqueue, "/dev/mqueue", func() error { return sys.Mount("mqueue", "/dev/mqueue", "mqueue", noexec, "") })
	if errors.Is(err, syscall.ENODEV) || host.noQueues && errors.Is(err, syscall.EPERM) { // a kernel, or a host, without POSIX queues
		return os.Remove("/dev/mqueue")
	}
	return err
}

// attachOr puts a mount in its place or, if there is none, makes one.
func attachOr(m *os.File, at string, mount func() error) error {
	if m == nil {
		return mount()
	}
	return sys.AttachMount(m, nil, at)
}

func makeDevice(d *plan.Device) error {
	if err := sys.Mknod(d.Path, d.Kind, d.Major, d.Minor, d.Mode); err != nil {
		return err
	}
	if d.UID != 0 || d.GID != 0 {
		return os.Lchown(d.Path, d.UID, d.GID)
	}
	return nil
}

// mountSys mounts sysfs with the container's cgroups in it, read-only unless
// the container is privileged.
func mountSys(layout string, writable bool) error {
	flags := uintptr(sys.MsNoSuid | sys.MsNoDev | sys.MsNoExec)
	if !writable {
		flags |= sys.MsReadOnly
	}
	if err := sys.Mount("sysfs", "/sys", "sysfs", flags, ""); err != nil {
		return err
	}
	return mountCgroups(layout, flags)
}

// mountCgroups mounts the hierarchies the container has a cgroup in. layout is
// "v2", or for version 1 one name per hierarchy, ';' between them, as the
// mount option is written: "cpu,cpuacct;memory;pids". Hierarchies without a
// cgroup of ours are left out: they would show the host's.
func mountCgroups(layout string, flags uintptr) error {
	const dir = "/sys/fs/cgroup"
	if layout == "" {
		return nil
	}
	if layout == "v2" {
		return sys.Mount("cgroup", dir, "cgroup2", flags, "")
	}
	if err := sys.Mount("tmpfs", dir, "tmpfs", flags&^sys.MsReadOnly, "mode=755,size=64k"); err != nil {
		return err
	}
	for h := range strings.SplitSeq(layout, ";") {
		name := strings.TrimPrefix(h, "name=")
		at := dir + "/" + name
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		if err := sys.Mount("cgroup", at, "cgroup", flags, h); err != nil {
			return err
		}
		for c := range strings.SplitSeq(name, ",") {
			if c == name {
				continue
			}
			if err := os.Symlink(name, dir+"/"+c); err != nil {
				return err
			}
		}
	}
	if flags&sys.MsReadOnly == 0 {
		return nil
	}
	return sys.Mount("", dir, "", flags|sys.MsRemount|sys.MsBind, "")
}

// prepareNet brings up loopback and sets what Docker sets in every network
// namespace of its own: low ports and ping need no privilege there.
func prepareNet() error {
	if err := sys.LoopbackUp(); err != nil {
		return err
	}
	for path, value := range map[string]string{
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
		"/proc/sys/net/ipv4/ping_group_range":           "0 " + strconv.FormatUint(lastGroup(), 10),
	} {
		err := os.WriteFile(path, []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lastGroup is the last group there is of those from 0 on.
func lastGroup() uint64 {
	const most = 1<<31 - 1
	b, _ := os.ReadFile("/proc/self/gid_map")
	var inside, outside, size, next uint64
	for line := range strings.Lines(string(b)) {
		if n, _ := fmt.Sscan(line, &inside, &outside, &size); n != 3 || inside != next {
			break
		}
		next += size
	}
	if next == 0 || next > most {
		return most
	}
	return next - 1
}

// maskedPaths are those of this machine.
func maskedPaths() []string {
	return maskedWhere(func(path string) bool { _, err := os.Lstat(path); return err == nil })
}

// maskedIn are those as seen from a root that is not this process's.
func maskedIn(root *os.File) []string {
	return maskedWhere(func(path string) bool {
		f, err := sys.OpenIn(root, path, sys.OPath, true)
		if err == nil {
			f.Close()
		}
		return err == nil
	})
}

func maskedWhere(exists func(path string) bool) []string {
	masked := plan.Masked()
	for n := 0; exists("/sys/devices/system/cpu/cpu" + strconv.Itoa(n)); n++ {
		masked = append(masked, plan.ThermalThrottle(n))
	}
	return masked
}

// hidePaths masks what unprivileged containers must not see and makes
// read-only what they must not change. One empty read-only tmpfs serves all
// masked directories.
func hidePaths() error {
	const empty = "/empty"
	if err := os.Mkdir(empty, 0o555); err != nil {
		return err
	}
	const noexec = sys.MsNoSuid | sys.MsNoDev | sys.MsNoExec
	if err := sys.Mount("tmpfs", empty, "tmpfs", noexec|sys.MsReadOnly, "mode=555,size=4k"); err != nil {
		return err
	}
	for _, path := range maskedPaths() {
		fi, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			err = sys.Mount("/dev/null", path, "", sys.MsBind, "")
		} else {
			err = sys.Mount(empty, path, "", sys.MsBind, "")
		}
		if err != nil {
			return err
		}
	}
	for _, path := range plan.ReadOnlyPaths() {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := sys.Mount(path, path, "", sys.MsBind|sys.MsRec, ""); err != nil {
			return err
		}
		if err := sys.Mount("", path, "", noexec|sys.MsBind|sys.MsRemount|sys.MsReadOnly, ""); err != nil {
			return err
		}
	}
	return nil
}
