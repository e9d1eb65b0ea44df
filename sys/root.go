package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Open flags for OpenIn.
const (
	OPath      = unix.O_PATH
	ODirectory = unix.O_DIRECTORY
	ONonblock  = unix.O_NONBLOCK
	ONoctty    = unix.O_NOCTTY
)

// Classic mount(2) flags.
const (
	MsBind     = unix.MS_BIND
	MsRec      = unix.MS_REC
	MsReadOnly = unix.MS_RDONLY
	MsNoSuid   = unix.MS_NOSUID
	MsNoDev    = unix.MS_NODEV
	MsNoExec   = unix.MS_NOEXEC
	MsRemount  = unix.MS_REMOUNT
)

// Further mount attributes.
const (
	AttrNoAtime    = unix.MOUNT_ATTR_NOATIME
	AttrNoDirAtime = unix.MOUNT_ATTR_NODIRATIME
)

// Filesystem magic numbers, as statfs(2) tells them.
const (
	MagicDevpts = unix.DEVPTS_SUPER_MAGIC
	MagicProc   = unix.PROC_SUPER_MAGIC
	MagicSysfs  = unix.SYSFS_MAGIC
	MagicTmpfs  = unix.TMPFS_MAGIC
	MagicMqueue = 0x19800202
)

// MoveMount moves the mount at path, with all below it, onto target.
func MoveMount(path string, target *os.File) error {
	return wrap("move_mount", path, unix.MoveMount(unix.AT_FDCWD, path, Fd(target), "", unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// Mount is mount(2), for use in a mount namespace of one's own.
func Mount(source, target, fstype string, flags uintptr, data string) error {
	return wrap("mount", target, unix.Mount(source, target, fstype, flags, data))
}

// MakePrivate stops propagation of the mount tree m, which need not be attached.
func MakePrivate(m *os.File) error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	return wrap("mount_setattr", m.Name(), unix.MountSetattr(Fd(m), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr))
}

// PivotInto makes the mount whose root is dir the root of the mount namespace
// and lets go of the old root and of all below it. The old root must not
// propagate (SetPropagation). From the kernel's initial ramfs, which cannot be
// pivoted away from, it moves the mount over the root as switch_root does.
func PivotInto(dir *os.File) error {
	if err := unix.Fchdir(Fd(dir)); err != nil {
		return wrap("fchdir", dir.Name(), err)
	}
	// With "." twice the old root ends up on top of the new one, so no
	// directory is needed to put it, and "." is then the old root.
	err := unix.PivotRoot(".", ".")
	if err == unix.EINVAL {
		if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
			return wrap("move mount to /", dir.Name(), err)
		}
		if err := unix.Chroot("."); err != nil {
			return wrap("chroot", dir.Name(), err)
		}
		return wrap("chdir", "/", unix.Chdir("/"))
	}
	if err != nil {
		return wrap("pivot_root", dir.Name(), err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return wrap("umount old root", "", err)
	}
	return wrap("chdir", "/", unix.Chdir("/"))
}

// Mknod makes a device node; kind is 'c', 'b', or 'p' for a fifo.
func Mknod(path string, kind byte, major, minor uint32, mode uint32) error {
	typ := uint32(unix.S_IFCHR)
	switch kind {
	case 'b':
		typ = unix.S_IFBLK
	case 'p':
		typ = unix.S_IFIFO
	}
	return wrap("mknod", path, unix.Mknod(path, typ|mode, int(unix.Mkdev(major, minor))))
}

// DeviceNumber is the number of a device as stat(2) gives it.
func DeviceNumber(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

// SplitDevice takes such a number apart.
func SplitDevice(dev uint64) (major, minor uint32) { return unix.Major(dev), unix.Minor(dev) }

// Fchdir makes dir the working directory.
func Fchdir(dir *os.File) error { return wrap("fchdir", dir.Name(), unix.Fchdir(Fd(dir))) }

// EnterRoot makes dir the root and working directory of the calling thread and
// of all that share its fs struct (chroot(2)).
func EnterRoot(dir *os.File) error {
	if err := Fchdir(dir); err != nil {
		return err
	}
	return wrap("chroot", dir.Name(), unix.Chroot("."))
}

// Getcwd returns the working directory as the kernel sees it from the root;
// it does not begin with "/" when it lies outside.
func Getcwd() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return "", wrap("getcwd", "", err)
	}
	return string(buf[:n-1]), nil
}

// FileSystem returns the magic number of the filesystem f is on.
func FileSystem(f *os.File) (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(Fd(f), &st) })
	return st.Type, wrap("fstatfs", f.Name(), err)
}

// Executable reports whether the calling thread, with its file system ids,
// may execute path.
func Executable(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// Umask sets the file mode creation mask.
func Umask(mask int) { unix.Umask(mask) }

// SetHostname sets the UTS namespace's host name.
func SetHostname(s string) error { return wrap("sethostname", "", unix.Sethostname([]byte(s))) }

// SetDomainname sets the UTS namespace's NIS domain name.
func SetDomainname(s string) error { return wrap("setdomainname", "", unix.Setdomainname([]byte(s))) }

// LoopbackUp brings interface lo of the network namespace up.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return wrap("socket", "", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return wrap("ioctl", "lo up", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr))
}
