package sys

import "golang.org/x/sys/unix"

// IsCgroup2 reports whether path lies on a cgroup v2 file system.
func IsCgroup2(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}
