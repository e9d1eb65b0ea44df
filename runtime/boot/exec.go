package boot

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// Exec is `tug-init exec`: it joins a running container and executes one more
// program there. The supervisor has made this process in the container's pid
// namespace and cgroup already; the rest is joined here, in one setns(2).
//
// From the moment it is made, the container's processes can see this one. It
// is not dumpable, so they can neither read its descriptors nor its memory,
// and it opens nothing through the container's /proc.
func Exec() int {
	runtime.LockOSThread()
	_ = sys.SetDumpable(false)
	sock := os.NewFile(sockFd, "supervisor")
	defer protect(sock)
	syscall.CloseOnExec(sockFd)
	s := &starter{sock: sock}
	p, files, err := plan.ReceivePlan(sock)
	if errors.Is(err, io.EOF) {
		return 0
	}
	var console *os.File
	if err == nil {
		s.plan = p
		console, err = s.join(files)
	}
	return s.finish(console, err)
}

func (s *starter) join(files []*os.File) (*os.File, error) {
	target, std, rest, err := splitFiles(s.plan, files)
	if err != nil {
		return nil, err
	}
	sys.CloseAll(rest)
	// While /proc is the host's.
	if err := s.setOOMScore(); err != nil {
		return nil, err
	}
	if err := sys.NewSessionKeyring(); err != nil && !errors.Is(err, syscall.ENOSYS) {
		return nil, err
	}
	// A mount namespace is joined only by a thread that shares its root and
	// working directory with no other.
	if err := sys.Unshare(sys.CloneFS); err != nil {
		return nil, err
	}
	if err := sys.Setns(target, sys.NewNS|sys.NewNet|sys.NewIPC|sys.NewUTS|sys.NewCgroup); err != nil {
		return nil, failf(125, "join container: %v", err)
	}
	target.Close()
	root, err := os.OpenFile("/", sys.OPath|sys.ODirectory, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var master *os.File
	if s.plan.Tty {
		if master, std, err = joinTerminal(root); err != nil {
			return nil, err
		}
	}
	return master, s.ready(root, std)
}

// joinTerminal makes a terminal in the running container's devpts, and makes
// sure that it is one: the container may have put anything at its path.
func joinTerminal(root *os.File) (master *os.File, std stdio, err error) {
	master, err = sys.OpenIn(root, "/dev/pts/ptmx", os.O_RDWR|sys.ONoctty|sys.ONonblock, true)
	if err != nil {
		return nil, std, failf(125, "open a terminal in the container: %v", err)
	}
	if !sys.IsPtmx(master) {
		return nil, std, failf(125, "open a terminal in the container: /dev/pts/ptmx is no pty multiplexer")
	}
	slave, err := sys.OpenPty(master)
	if err != nil {
		return nil, std, err
	}
	return master, stdio{slave, slave, slave}, nil
}
