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

// Exec is `tug-init exec [PRESERVED]`: it executes one more program in a running
// container, whose namespaces and cgroup it was made in, by Enter. Its root is
// an empty directory; the container's is passed.
//
// From the moment it is made, the container's processes can see this one. It
// is not dumpable, so those without CAP_SYS_PTRACE can neither read its
// descriptors nor its memory, and it opens nothing through the container's
// /proc.
func Exec(args []string) int {
	runtime.LockOSThread()
	_ = sys.SetDumpable(false)
	if len(args) < 1 {
		args = []string{"0"}
	}
	sock, preserved, err := socketBehind(args[0])
	if err != nil {
		return 125
	}
	defer protect(sock)
	root := os.NewFile(uintptr(rootFd+preserved), "/")
	s := &starter{sock: sock}
	p, files, err := plan.ReceivePlan(sock)
	if errors.Is(err, io.EOF) {
		return 0
	}
	var console *os.File
	if err == nil {
		s.plan = p
		console, err = s.join(root, files)
	}
	return s.finish(console, err)
}

func (s *starter) join(root *os.File, files []*os.File) (*os.File, error) {
	defer root.Close()
	std, rest, err := takeStdio(s.plan, files)
	if err == nil {
		rest, err = s.takeBox(rest)
	}
	if err != nil {
		return nil, err
	}
	sys.CloseAll(rest)
	if err := sys.NewSessionKeyring(); err != nil && !errors.Is(err, syscall.ENOSYS) {
		return nil, err
	}
	if s.plan.Exec != (plan.Labels{}) {
		s.procfs = ownProc()
		if err := checkLabels(s.procfs, s.plan.Exec); err != nil {
			return nil, err
		}
	}
	if err := sys.EnterRoot(root); err != nil {
		return nil, err
	}
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
