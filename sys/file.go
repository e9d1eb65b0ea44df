package sys

import (
	"errors"
	"os"

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
