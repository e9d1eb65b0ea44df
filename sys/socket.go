package sys

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// MaxPassedFds is how many descriptors one message may carry (the kernel's
// SCM_MAX_FD is 253).
const MaxPassedFds = 250

// SocketPair makes a connected pair of unix sequenced-packet sockets: message
// borders are kept and the end of the peer reads as EOF.
func SocketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, wrap("socketpair", "", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}

// SendMsg sends one message with descriptors on a blocking unix socket.
func SendMsg(sock *os.File, b []byte, files ...*os.File) error {
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = Fd(f)
		}
		oob = unix.UnixRights(fds...)
	}
	return wrap("sendmsg", "", retry(func() error {
		_, err := unix.SendmsgN(Fd(sock), b, oob, nil, unix.MSG_NOSIGNAL)
		return err
	}))
}

// RecvMsg receives one message of at most len(b) bytes and the descriptors
// that came with it, close-on-exec. It returns io.EOF when the peer is gone.
// A message that was longer than b, or carried too many descriptors, is an
// error and its descriptors are closed.
func RecvMsg(sock *os.File, b []byte) (int, []*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*MaxPassedFds))
	var n, oobn, flags int
	err := retry(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(Fd(sock), b, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			return 0, nil, io.EOF
		}
		return 0, nil, wrap("recvmsg", "", err)
	}
	files, err := ParseRights(oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = wrap("recvmsg", "", unix.EMSGSIZE)
	}
	if err != nil {
		CloseAll(files)
		return 0, nil, err
	}
	if n == 0 && len(files) == 0 {
		return 0, nil, io.EOF
	}
	return n, files, nil
}

// ParseRights turns received control bytes into files.
func ParseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, wrap("parse control message", "", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// Rights returns the control bytes that pass files, for net.UnixConn users.
func Rights(files ...*os.File) []byte {
	if len(files) == 0 {
		return nil
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = Fd(f)
	}
	return unix.UnixRights(fds...)
}

// CloseAll closes files and forgets errors; nil entries are skipped.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// ListenUnix makes a listening unix sequenced-packet socket at path, mode 0600.
// The path must be shorter than 108 bytes (unix(7)).
func ListenUnix(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, wrap("socket", "", err)
	}
	f := os.NewFile(uintptr(fd), path)
	// The mode of the socket's inode is taken over by the file in the
	// filesystem, so nobody can connect before it is set.
	err = unix.Fchmod(fd, 0o600)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 4096)
	}
	if err != nil {
		f.Close()
		return nil, wrap("listen", path, err)
	}
	return f, nil
}

// Accept waits for a connection on a listening unix socket.
func Accept(l *os.File) (*os.File, error) {
	var fd int
	err := retry(func() (err error) {
		fd, _, err = unix.Accept4(Fd(l), unix.SOCK_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, wrap("accept", l.Name(), err)
	}
	return os.NewFile(uintptr(fd), l.Name()), nil
}

// SetBlocking makes the calls on f wait.
func SetBlocking(f *os.File) error {
	return wrap("fcntl", f.Name(), unix.SetNonblock(Fd(f), false))
}

// ConnectUnix connects to the unix socket at path, sequenced-packet or stream.
// A path that is too long for a socket address is reached all the same.
func ConnectUnix(path string, stream bool) (*os.File, error) {
	at, err := OpenPath(path)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	typ := unix.SOCK_SEQPACKET
	if stream {
		typ = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("socket", "", err)
	}
	addr := &unix.SockaddrUnix{Name: FdPath(at)}
	if err := retry(func() error { return unix.Connect(fd, addr) }); err != nil {
		unix.Close(fd)
		return nil, wrap("connect", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// PidfdGet returns a copy of descriptor fd of the process of pidfd
// (pidfd_getfd(2), Linux 5.6).
func PidfdGet(pidfd *os.File, fd int) (*os.File, error) {
	n, err := unix.PidfdGetfd(Fd(pidfd), fd, 0)
	if err != nil {
		return nil, wrap("pidfd_getfd", "", err)
	}
	return os.NewFile(uintptr(n), "copied"), nil
}

// Readable reports whether reading from f would not wait.
func Readable(f *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(Fd(f)), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
