package sys

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Pipe makes a pipe whose read end is non-blocking when pollRead is set and
// whose write end when pollWrite is set. Each end has its own file
// description, so the other side notices nothing.
func Pipe(pollRead, pollWrite bool) (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, wrap("pipe2", "", err)
	}
	if pollRead {
		unix.SetNonblock(p[0], true)
	}
	if pollWrite {
		unix.SetNonblock(p[1], true)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

// NonBlocking makes f's description non-blocking and returns a new *os.File
// that waits with the poller. f is consumed.
func NonBlocking(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(Fd(f)), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, wrap("fcntl", f.Name(), err)
	}
	name := f.Name()
	f.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, wrap("fcntl", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Memfd makes an anonymous file in memory.
func Memfd(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, wrap("memfd_create", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// SpliceToFile moves up to max bytes from pipe src to the end-or-wherever off
// of regular file dst (splice(2)) and returns how many. src must be
// non-blocking; the call waits for data with the poller until block is false,
// then it returns 0 when there is none. io.EOF means that all writers are gone.
//
// Kill -9 cannot split it: the kernel takes the bytes out of the pipe and
// extends the file in one uninterruptible step per buffer.
func SpliceToFile(src, dst *os.File, off int64, max int, block bool) (int, error) {
	return pollRead(src, block, func(fd int) (int, error) {
		o := off
		n, err := unix.Splice(fd, nil, Fd(dst), &o, max, unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
}

// SpliceToPipe moves up to max bytes from src, a terminal master or a pipe, into
// pipe dst, with the rules of SpliceToFile. A terminal whose slaves are all
// closed reads as io.EOF.
func SpliceToPipe(src, dst *os.File, max int, block bool) (int, error) {
	return pollRead(src, block, func(fd int) (int, error) {
		n, err := unix.Splice(fd, nil, Fd(dst), nil, max, unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
}

func pollRead(src *os.File, block bool, move func(fd int) (int, error)) (int, error) {
	rc, err := src.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var merr error
	err = rc.Read(func(fd uintptr) bool {
		merr = retry(func() error {
			n, merr = move(int(fd))
			return merr
		})
		return !block || !errors.Is(merr, unix.EAGAIN)
	})
	switch {
	case err != nil:
		return 0, err
	case errors.Is(merr, unix.EAGAIN):
		return 0, nil
	case errors.Is(merr, unix.EIO):
		return 0, io.EOF // the last slave of a terminal was closed
	case merr != nil:
		return 0, wrap("splice", src.Name(), merr)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// SetPipeSize asks for a pipe buffer of n bytes and is content with less.
func SetPipeSize(f *os.File, n int) { unix.FcntlInt(uintptr(Fd(f)), unix.F_SETPIPE_SZ, n) }
