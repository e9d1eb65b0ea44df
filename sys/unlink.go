package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// UnlinkAt removes a name, of an empty directory if dir is set; like the
// functions in at.go it follows nothing.
func UnlinkAt(in *os.File, name string, dir bool) error {
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	return wrap("unlink", name, unix.Unlinkat(Fd(in), name, flags))
}

// ChmodPlace sets the permissions of what was opened as a place and is no
// symlink, as they are in the number.
func ChmodPlace(f *os.File, perm uint32) error {
	return wrap("chmod", f.Name(), unix.Chmod(FdPath(f), perm))
}
