package sys

import (
	"math"

	"golang.org/x/sys/unix"
)

// IsCgroup2 reports whether path lies on a cgroup v2 file system.
func IsCgroup2(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// FreeSpace returns how many bytes may still be written to the file system that
// path lies on.
func FreeSpace(path string) (int64, error) {
	var st unix.Statfs_t
	if err := wrap("statfs", path, retry(func() error { return unix.Statfs(path, &st) })); err != nil {
		return 0, err
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(st.Bsize))) * st.Bsize, nil
}

// Space is how full a file system is, in bytes and inodes.
type Space struct {
	Total, Free, Available uint64
	Inodes, FreeInodes     uint64
}

// SpaceOf returns the space of the file system that path is on (statfs(2)).
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return Space{}, wrap("statfs", path, err)
	}
	size := uint64(st.Bsize)
	return Space{st.Blocks * size, st.Bfree * size, st.Bavail * size, st.Files, st.Ffree}, nil
}
