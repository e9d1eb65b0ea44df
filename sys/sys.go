// Package sys is the kernel seam: the one package that makes raw system calls.
// Everything here is a thin, typed wrapper that retries EINTR where the man
// page says it may happen, names the call in its error, and sets close-on-exec
// on every descriptor it makes. It holds no policy and knows no tug object.
//
// An import test keeps golang.org/x/sys/unix out of all other packages;
// package syscall is allowed elsewhere for signal numbers, errno values and
// os/exec attributes only.
package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Errno values that callers compare with.
var (
	ErrAgain    error = unix.EAGAIN
	ErrNotBlock error = unix.ENOTBLK
	ErrInvalid  error = unix.EINVAL
	ErrNoSpace  error = unix.ENOSPC
	ErrBusy     error = unix.EBUSY
)

func wrap(call, path string, err error) error {
	if err == nil {
		return nil
	}
	if path == "" {
		return os.NewSyscallError(call, err)
	}
	return &os.PathError{Op: call, Path: path, Err: err}
}

// retry runs f until it ends with something else than EINTR.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Fd returns f's descriptor without the side effect of os.File.Fd, which takes
// the file out of non-blocking mode. f must be kept open while it is used.
func Fd(f *os.File) int {
	n := -1
	rc, err := f.SyscallConn()
	if err == nil {
		err = rc.Control(func(fd uintptr) { n = int(fd) })
	}
	if err != nil {
		return -1 // closed: the kernel will say EBADF
	}
	return n
}
