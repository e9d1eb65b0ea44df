package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// The functions in this file look at files that somebody hostile may be
// changing meanwhile: a name is opened once, as a place and without following
// it, and everything else is asked of what was opened.

// OpenPathAt opens one name in an open directory without opening the file
// (O_PATH), a symlink as itself.
func OpenPathAt(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_PATH, 0)
}

// Reopen opens for reading what f, opened as a place, stands for. The caller
// has made sure that it is a regular file or a directory.
func Reopen(f *os.File) (*os.File, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(FdPath(f), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	})
	if err != nil {
		return nil, wrap("open", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Readlink reads a symlink that was opened as a place.
func Readlink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(Fd(f), "", buf)
	if err != nil {
		return "", wrap("readlink", f.Name(), err)
	}
	return string(buf[:n]), nil
}

// SetXattrOf sets an extended attribute of what was opened as a place, also of a
// symlink.
func SetXattrOf(f *os.File, attr string, value []byte) error {
	return wrap("setxattr "+attr, f.Name(), unix.Setxattr(FdPath(f), attr, value, 0))
}

// XattrsOf returns the extended attributes of what was opened as a place. Those
// that go while they are read are left out. A filesystem without attributes
// has none.
func XattrsOf(f *os.File) (map[string]string, error) {
	path := FdPath(f)
	names := make([]byte, 1<<16) // the kernel's XATTR_LIST_MAX
	n, err := unix.Listxattr(path, names)
	if err == unix.EOPNOTSUPP || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("listxattr", f.Name(), err)
	}
	out := make(map[string]string)
	var value []byte
	for rest := names[:n]; len(rest) > 0; {
		name := unix.ByteSliceToString(rest)
		rest = rest[min(len(name)+1, len(rest)):]
		if value == nil {
			value = make([]byte, 1<<16) // XATTR_SIZE_MAX
		}
		size, err := unix.Getxattr(path, name, value)
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			continue
		}
		if err != nil {
			return nil, wrap("getxattr "+name, f.Name(), err)
		}
		out[name] = string(value[:size])
	}
	return out, nil
}
