package sys

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenIn opens path as if root were "/": symlinks, absolute ones and "..",
// stay inside root, and the magic links of /proc are not followed (openat2(2)).
// With noLinks no symlink is followed at all.
func OpenIn(root *os.File, path string, flags int, noLinks bool) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if noLinks {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	var fd int
	var err error
	// EAGAIN: something was renamed while ".." was checked; the kernel asks to
	// try again, and somebody hostile may rename for ever.
	for range 128 {
		fd, err = unix.Openat2(Fd(root), path, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// MkdirIn opens the directory path seen from root, as OpenIn does, and makes
// what is missing of it with mode 0755. Where a symlink points to nothing, its
// target is made, inside root.
func MkdirIn(root *os.File, path string) (*os.File, error) {
	if f, err := OpenIn(root, path, OPath|ODirectory, false); err == nil || !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	at, links := "/", 0
	rest := splitPath(path)
	for len(rest) > 0 {
		name := rest[0]
		next := at + name
		f, err := OpenIn(root, next, OPath|ODirectory, false)
		if err == nil {
			f.Close()
			at, rest = next+"/", rest[1:]
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		target, err := mkdirOrReadlink(root, at, name)
		if err != nil {
			return nil, err
		}
		// Also bounds a race with somebody who makes and removes it in turn.
		if links++; links > maxLinks {
			return nil, wrap("mkdir", path, unix.ELOOP)
		}
		if target == "" {
			continue // made; the next turn opens it
		}
		if strings.HasPrefix(target, "/") {
			at = "/"
		}
		rest = append(splitPath(target), rest[1:]...)
	}
	return OpenIn(root, at, OPath|ODirectory, false)
}

// mkdirOrReadlink makes directory name in at; when name is a symlink instead,
// which then points to nothing, it returns where to.
func mkdirOrReadlink(root *os.File, at, name string) (target string, err error) {
	dir, err := OpenIn(root, at, OPath|ODirectory, false)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	err = unix.Mkdirat(Fd(dir), name, 0o755)
	if err == nil {
		// The umask may have narrowed it, and Mkdirat follows no symlink, so
		// this is the directory just made.
		return "", wrap("chmod", at+name, unix.Fchmodat(Fd(dir), name, 0o755, 0))
	}
	if err != unix.EEXIST {
		return "", wrap("mkdir", at+name, err)
	}
	return danglingLink(dir, name)
}

// danglingLink reads where symlink name in dir points to; "" when it is none,
// as when somebody else made what was to be made.
func danglingLink(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(Fd(dir), name, buf)
	if err == unix.EINVAL || err == unix.ENOENT {
		return "", nil
	}
	if err != nil {
		return "", wrap("readlink", name, err)
	}
	if n == 0 || n == len(buf) {
		return "", wrap("readlink", name, unix.ENAMETOOLONG)
	}
	return string(buf[:n]), nil
}

// CreateIn opens file path seen from root for use as a mount point, and makes
// it, empty, and its directories where they are missing. Where a symlink points
// to nothing, its target is made, inside root: images have /etc/resolv.conf as
// a link into /run.
func CreateIn(root *os.File, path string) (*os.File, error) {
	for at, links := path, 0; ; links++ {
		f, err := OpenIn(root, at, OPath, false)
		if err == nil || !errors.Is(err, unix.ENOENT) {
			return f, err
		}
		if links > maxLinks {
			return nil, wrap("create", path, unix.ELOOP)
		}
		parts := splitPath(at)
		if len(parts) == 0 {
			return nil, wrap("create", path, unix.EISDIR)
		}
		parent := strings.Join(parts[:len(parts)-1], "/")
		target, err := createOrReadlink(root, parent, parts[len(parts)-1])
		switch {
		case err != nil:
			return nil, wrap("create", path, err)
		case strings.HasPrefix(target, "/"):
			at = target
		case target != "":
			at = parent + "/" + target
		}
	}
}

// createOrReadlink makes an empty file; where a symlink is in its place, which
// then points to nothing, it returns where to.
func createOrReadlink(root *os.File, parent, name string) (target string, err error) {
	dir, err := MkdirIn(root, parent)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	fd, err := unix.Openat(Fd(dir), name, unix.O_CREAT|unix.O_EXCL|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err == unix.EEXIST {
		return danglingLink(dir, name)
	}
	if err == nil {
		unix.Close(fd)
	}
	return "", err
}

// maxLinks is how many steps a path may take beyond its own: for each missing
// directory one, for each dangling symlink one.
const maxLinks = 256

func splitPath(p string) []string {
	var out []string
	for part := range strings.SplitSeq(p, "/") {
		if part != "" && part != "." {
			out = append(out, part)
		}
	}
	return out
}
