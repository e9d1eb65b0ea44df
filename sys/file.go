package sys

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Fdatasync makes f's data durable, and of its metadata what is needed to read
// it back.
func Fdatasync(f *os.File) error {
	return wrap("fdatasync", f.Name(), retry(func() error { return unix.Fdatasync(Fd(f)) }))
}

// SyncFS writes back all of the filesystem that f is on (syncfs(2)).
func SyncFS(f *os.File) error { return wrap("syncfs", f.Name(), unix.Syncfs(Fd(f))) }

// StartWriteback asks the kernel to begin writing a range of f out, without
// waiting. It is advice: where it is not possible nothing happens.
func StartWriteback(f *os.File, off, n int64) {
	unix.SyncFileRange(Fd(f), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// IsNoSpace reports whether err says that a disk or a quota is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// SameFile reports whether two descriptors or paths name one inode, by stat.
func SameFile(f *os.File, path string) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	return os.SameFile(a, b), nil
}

// UnnamedFile makes a file on dir's filesystem that has no name, so that
// nothing is left of it when its maker dies (O_TMPFILE).
func UnnamedFile(dir string, perm os.FileMode) (*os.File, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	if err != nil {
		return nil, wrap("open", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// GiveName gives an unnamed file the name path, which must be free.
func GiveName(f *os.File, path string) error {
	self := "/proc/self/fd/" + strconv.Itoa(Fd(f))
	return wrap("linkat", path, unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW))
}

// WatchDir returns a descriptor that becomes readable when a file is made or
// written in dir (inotify(7)). What is read from it says no more than that.
func WatchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, wrap("inotify_init", dir, err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return nil, wrap("inotify_add_watch", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}
