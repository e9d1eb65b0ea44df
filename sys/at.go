package sys

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The functions in this file act on one name in an open directory. The name
// must not hold a slash, and a symlink is never followed.

// MkdirAt makes a directory and opens it.
func MkdirAt(dir *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(Fd(dir), name, 0o700); err != nil {
		return nil, wrap("mkdir", name, err)
	}
	return openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// OpenDirAt opens a directory.
func OpenDirAt(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// CreateAt makes a file that does not exist yet and opens it for writing.
func CreateAt(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
}

func openAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(Fd(dir), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, wrap("open", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// SymlinkAt makes a symlink.
func SymlinkAt(target string, dir *os.File, name string) error {
	return wrap("symlink", name, unix.Symlinkat(target, Fd(dir), name))
}

// LinkAt makes name in dir another name of old in olddir.
func LinkAt(olddir *os.File, old string, dir *os.File, name string) error {
	return wrap("link", name, unix.Linkat(Fd(olddir), old, Fd(dir), name, 0))
}

// MknodAt makes a device node or fifo; mode holds the kind too, and dev is
// encoded as the kernel does on disk (new_encode_dev).
func MknodAt(dir *os.File, name string, mode uint32, dev uint32) error {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	return wrap("mknod", name, unix.Mknodat(Fd(dir), name, mode, int(unix.Mkdev(major, minor))))
}

// ChownAt sets owner and group.
func ChownAt(dir *os.File, name string, uid, gid uint32) error {
	return wrap("chown", name, unix.Fchownat(Fd(dir), name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW))
}

// ChmodAt sets the permissions of what must not be a symlink: one would be
// followed, fchmodat(2) has no flag against it.
func ChmodAt(dir *os.File, name string, perm uint32) error {
	return wrap("chmod", name, unix.Fchmodat(Fd(dir), name, perm, 0))
}

// UtimesAt sets both times; an empty name means dir itself.
func UtimesAt(dir *os.File, name string, sec int64, nsec uint32) error {
	ts := []unix.Timespec{{Sec: sec, Nsec: int64(nsec)}, {Sec: sec, Nsec: int64(nsec)}}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return wrap("utimensat", name, unix.UtimesNanoAt(Fd(dir), name, ts, flags))
}

// SetXattrAt sets an extended attribute.
func SetXattrAt(dir *os.File, name, attr string, value []byte) error {
	return wrap("setxattr "+attr, name, unix.Lsetxattr(FdPath(dir)+"/"+name, attr, value, 0))
}

// SetXattr sets an extended attribute of an open file or directory.
func SetXattr(f *os.File, attr string, value []byte) error {
	return wrap("setxattr "+attr, f.Name(), unix.Fsetxattr(Fd(f), attr, value, 0))
}

// Xattrs returns all extended attributes of path, which is not followed when
// it is a symlink.
func Xattrs(path string) (map[string]string, error) {
	n, err := unix.Llistxattr(path, nil)
	if err != nil || n == 0 {
		return nil, wrap("listxattr", path, err)
	}
	names := make([]byte, n)
	if n, err = unix.Llistxattr(path, names); err != nil {
		return nil, wrap("listxattr", path, err)
	}
	out := make(map[string]string)
	for len(names[:n]) > 0 {
		name := unix.ByteSliceToString(names[:n])
		names, n = names[len(name)+1:], n-len(name)-1
		value := make([]byte, 1<<16)
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, wrap("getxattr "+name, path, err)
		}
		out[name] = string(value[:size])
	}
	return out, nil
}

// IsMountPoint reports whether path is the root of a mount (statx(2),
// Linux 5.8). What does not exist is none.
func IsMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if err == unix.ENOENT {
		return false, nil
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, wrap("statx", path, err)
}

// InDir runs f on a thread of its own whose working directory is dir. The
// working directory of all other threads stays as it is.
func InDir(dir *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Fchdir(Fd(dir))
		}
		if err != nil {
			done <- wrap("chdir", dir.Name(), err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Fchmod sets the permissions of an open file as they are in the number,
// set-user-ID and sticky bits too, which os.FileMode keeps elsewhere.
func Fchmod(f *os.File, perm uint32) error {
	return wrap("fchmod", f.Name(), unix.Fchmod(Fd(f), perm))
}

// OpenPath opens a place in the filesystem without opening the file (O_PATH).
func OpenPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
