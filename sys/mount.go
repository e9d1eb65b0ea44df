package sys

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount attribute and propagation flags, as in mount_setattr(2).
const (
	AttrReadOnly = unix.MOUNT_ATTR_RDONLY
	AttrNoSuid   = unix.MOUNT_ATTR_NOSUID
	AttrNoDev    = unix.MOUNT_ATTR_NODEV
	AttrNoExec   = unix.MOUNT_ATTR_NOEXEC
	AttrRelatime = unix.MOUNT_ATTR_RELATIME

	AttrStrictAtime  = unix.MOUNT_ATTR_STRICTATIME
	AttrNoSymfollow  = unix.MOUNT_ATTR_NOSYMFOLLOW
	AttrAtimeSetting = unix.MOUNT_ATTR__ATIME // mask of the settings of access times, to be cleared before one is set
)

// Propagation types.
const (
	PropagationPrivate    = unix.MS_PRIVATE
	PropagationSlave      = unix.MS_SLAVE
	PropagationShared     = unix.MS_SHARED
	PropagationUnbindable = unix.MS_UNBINDABLE
)

// Option is one key of a filesystem's configuration. An empty Value makes it
// a flag (FSCONFIG_SET_FLAG).
type Option struct{ Key, Value string }

// FdPath returns the path under /proc by which a descriptor can be named to
// the kernel. Mount option strings are limited to 256 bytes and several
// filesystems refuse FSCONFIG_SET_FD, so descriptors go in as such paths.
func FdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(Fd(f)) }

// NewMount makes a detached mount of a new filesystem instance (fsopen(2),
// fsconfig(2), fsmount(2); Linux 5.2). fstype and opts are the filesystem's;
// attrs are Attr flags. The mount exists until the returned file and every
// place it is moved to are gone. The error carries the kernel's own messages.
func NewMount(fstype string, attrs int, opts ...Option) (*os.File, error) {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, wrap("fsopen", fstype, err)
	}
	defer unix.Close(fd)
	for _, o := range opts {
		if o.Value == "" {
			err = unix.FsconfigSetFlag(fd, o.Key)
		} else {
			err = unix.FsconfigSetString(fd, o.Key, o.Value)
		}
		if err != nil {
			return nil, fsError("fsconfig", fstype+" "+o.Key, fd, err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fsError("mount", fstype, fd, err)
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fsError("fsmount", fstype, fd, err)
	}
	return os.NewFile(uintptr(mfd), "mount:"+fstype), nil
}

// fsError adds the messages the kernel queued on a filesystem context.
func fsError(call, what string, fd int, err error) error {
	var msgs string
	buf := make([]byte, 1024)
	for {
		n, rerr := unix.Read(fd, buf)
		if rerr != nil || n <= 0 {
			break
		}
		// Each begins with a letter for how grave it is: "e size: ...\n".
		_, msg, _ := strings.Cut(string(buf[:n]), " ")
		msgs += "; " + strings.TrimSpace(msg)
	}
	if msgs != "" {
		return &os.PathError{Op: call, Path: what + msgs, Err: err}
	}
	return wrap(call, what, err)
}

// CloneTree makes a detached copy of the mount at path, seen from dir
// (open_tree(2) with OPEN_TREE_CLONE); recursive also copies mounts below it.
// A nil dir means the working directory. A trailing symlink is not followed.
func CloneTree(dir *os.File, path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dirFd(dir), path, flags)
	if err != nil {
		return nil, wrap("open_tree", path, err)
	}
	return os.NewFile(uintptr(fd), "tree:"+path), nil
}

// AttachMount moves a detached mount to path, seen from dir (move_mount(2)).
// An empty path means dir itself. A trailing symlink in path is not followed.
func AttachMount(m *os.File, dir *os.File, path string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if path == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return wrap("move_mount", path, unix.MoveMount(Fd(m), "", dirFd(dir), path, flags))
}

// SetMountAttr sets and clears Attr flags on the mount at path seen from dir;
// recursive includes all mounts below (mount_setattr(2), Linux 5.12).
func SetMountAttr(dir *os.File, path string, set, clear uint64, recursive bool) error {
	flags := uint(unix.AT_SYMLINK_NOFOLLOW)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: set, Attr_clr: clear}
	return wrap("mount_setattr", path, unix.MountSetattr(dirFd(dir), path, flags, &attr))
}

// SetTreePropagation sets the propagation of the mount tree m, which need not be
// attached; recursive includes all mounts below.
func SetTreePropagation(m *os.File, propagation uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Propagation: propagation}
	return wrap("mount_setattr", m.Name(), unix.MountSetattr(Fd(m), "", flags, &attr))
}

// MapTree shows the files of the detached mount m with the ids of the user
// namespace userns, as an idmapped mount.
func MapTree(m, userns *os.File, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(Fd(userns))}
	return wrap("mount_setattr", m.Name(), unix.MountSetattr(Fd(m), "", flags, &attr))
}

// SetPropagation sets the propagation (unix.MS_PRIVATE, unix.MS_SLAVE ...) of
// the mount at path and of those below it.
func SetPropagation(path string, private bool) error {
	flag := uintptr(unix.MS_REC | unix.MS_SLAVE)
	if private {
		flag = unix.MS_REC | unix.MS_PRIVATE
	}
	return wrap("mount propagation", path, unix.Mount("", path, "", flag, ""))
}

// Unmount detaches the mount at path lazily (umount2(2) with MNT_DETACH),
// never following a symlink. That nothing is mounted there is not an error.
func Unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return wrap("umount", path, err)
}

// UnmountNow takes away the mount at path; lazy also one that is in use. That
// there is none is an error.
func UnmountNow(path string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	return wrap("umount", path, unix.Unmount(path, flags))
}

func dirFd(dir *os.File) int {
	if dir == nil {
		return unix.AT_FDCWD
	}
	return Fd(dir)
}

// UnescapeMount undoes the octal escapes, \040 and the like, in the kernel's
// lists of mounts.
func UnescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
