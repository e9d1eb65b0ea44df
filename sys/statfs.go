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
