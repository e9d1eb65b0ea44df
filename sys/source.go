package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// InMounts runs f on a thread of its own that is in the mount namespace of ns,
// with its root as root and working directory. All other threads stay where
// they are. A nil ns is this process's own, and f runs on this thread.
func InMounts(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	return OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return wrap("unshare", "", err)
		}
		if err := unix.Setns(Fd(ns), unix.CLONE_NEWNS); err != nil {
			return wrap("setns", ns.Name(), err)
		}
		return f()
	})
}

// InOwnMounts runs f on a thread of its own in a new mount namespace, a copy of
// this process's that nothing propagates from or to and that ends with f.
func InOwnMounts(f func() error) error {
	return OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return wrap("unshare", "", err)
		}
		if err := SetPropagation("/", true); err != nil {
			return err
		}
		return f()
	})
}

// OpenPlace is OpenPath for a path below dir that must not lead out of it: by
// "..", by an absolute symlink or otherwise (openat2(2), RESOLVE_BENEATH).
func OpenPlace(dir *os.File, path string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	var fd int
	var err error
	for range 128 { // see OpenIn
		fd, err = unix.Openat2(Fd(dir), path, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ErrOutside is what OpenPlace finds when a path leads out.
var ErrOutside error = unix.EXDEV

// IsNoPlace reports whether err says that there is nothing at a path.
func IsNoPlace(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

// OwnerOf returns who the file or directory f belongs to.
func OwnerOf(f *os.File) (uid, gid uint32, err error) {
	var st unix.Stat_t
	err = unix.Fstat(Fd(f), &st)
	return st.Uid, st.Gid, wrap("fstat", f.Name(), err)
}

// MountID returns the number of the mount that f is on, as in mountinfo
// (statx(2), Linux 5.8).
func MountID(f *os.File) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(Fd(f), "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, wrap("statx", f.Name(), err)
}

// ThreadMounts returns the mountinfo of the calling thread's mount namespace.
func ThreadMounts() ([]byte, error) { return os.ReadFile("/proc/thread-self/mountinfo") }
