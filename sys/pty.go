package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OpenPty makes a pseudo terminal from the multiplexer ptmx, an open devpts
// ptmx. The slave comes from the master itself (TIOCGPTPEER), so no path that
// somebody could have replaced is involved.
func OpenPty(ptmx *os.File) (slave *os.File, err error) {
	if err := unix.IoctlSetPointerInt(Fd(ptmx), unix.TIOCSPTLCK, 0); err != nil {
		return nil, wrap("unlock pty", "", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(Fd(ptmx)), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, wrap("open pty slave", "", errno)
	}
	return os.NewFile(fd, "pty"), nil
}

// PtyNumber returns the number of a pty master in its devpts.
func PtyNumber(master *os.File) (int, error) {
	n, err := unix.IoctlGetInt(Fd(master), unix.TIOCGPTN)
	return n, wrap("pty number", "", err)
}

// IsPtmx reports whether f is a pty multiplexer or master: device 5:2 on a
// devpts file system.
func IsPtmx(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(Fd(f), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return false
	}
	magic, err := FileSystem(f)
	return err == nil && magic == MagicDevpts
}

// SetWinsize sets a terminal's size.
func SetWinsize(tty *os.File, rows, cols uint16) error {
	return wrap("winsize", "", unix.IoctlSetWinsize(Fd(tty), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

// NewSession makes the caller a session leader without controlling terminal.
func NewSession() error {
	_, err := unix.Setsid()
	return wrap("setsid", "", err)
}

// SetControllingTTY makes tty the session's controlling terminal.
func SetControllingTTY(tty *os.File) error {
	return wrap("controlling terminal", "", unix.IoctlSetInt(Fd(tty), unix.TIOCSCTTY, 0))
}

// IsTerminal reports whether descriptor fd is a terminal.
func IsTerminal(fd int) bool {
	var t unix.Termios
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TCGETS, uintptr(unsafe.Pointer(&t)))
	return errno == 0
}

// DupTo makes descriptor fd a copy of f that survives execve(2).
func DupTo(f *os.File, fd int) error {
	if Fd(f) == fd {
		_, err := unix.FcntlInt(uintptr(Fd(f)), unix.F_SETFD, 0)
		return wrap("dup", "", err)
	}
	return wrap("dup", "", unix.Dup3(Fd(f), fd, 0))
}

// KeepOnExec lets descriptor fd survive execve(2).
func KeepOnExec(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	return wrap("fcntl", "", err)
}

// Inherited reports whether descriptor fd is open and came with this process:
// what it opens itself is close-on-exec.
func Inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// GiveTo makes uid the owner of f, so that a program may open it again through
// /dev/stdout and the like. Errors do not matter: not every file has an owner
// that can be changed. /dev/null stays as it is.
func GiveTo(f *os.File, uid uint32) {
	var st unix.Stat_t
	if unix.Fstat(Fd(f), &st) != nil || st.Uid == uid {
		return
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
		return
	}
	_ = unix.Fchown(Fd(f), int(uid), -1)
}
