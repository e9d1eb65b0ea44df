package sys

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace and process flags of clone(2), unshare(2) and setns(2).
const (
	NewNS       = unix.CLONE_NEWNS
	NewPID      = unix.CLONE_NEWPID
	NewNet      = unix.CLONE_NEWNET
	NewIPC      = unix.CLONE_NEWIPC
	NewUTS      = unix.CLONE_NEWUTS
	NewCgroup   = unix.CLONE_NEWCGROUP
	NewUser     = unix.CLONE_NEWUSER
	NewTime     = unix.CLONE_NEWTIME
	CloneParent = unix.CLONE_PARENT
	CloneFS     = unix.CLONE_FS
)

// Clone describes a process made by CloneExec.
type Clone struct {
	Path   string // or, when empty, the child's descriptor ExecFd
	ExecFd int
	Args   []string
	Env    []string
	Files  []*os.File // become descriptors 0, 1, 2 ..., all there are; nil entries stay closed
	Flags  uintptr    // New... and CloneParent
	Cgroup *os.File   // directory of a v2 cgroup to start in (CLONE_INTO_CGROUP), or nil
	// Apart gives the child memory of its own from the first moment on, for
	// where others may look into it. That the program could not be executed is
	// then not told: the child exits with 253.
	Apart bool

	// With UIDs, in a new user namespace with these maps, as its root; this does
	// not go with CloneParent. With UserNS, in that one, as its root; the other
	// namespaces of Flags are the host's all the same.
	UIDs, GIDs []IDMap
	UserNS     *os.File
}

// CloneExec makes a process and executes a program in it. The caller's thread
// is suspended until the program runs, so the child's namespaces, cgroup and
// credentials are those of the calling thread where Flags do not say otherwise.
// With CloneParent the process is not the caller's child, so nothing here
// waits for it.
func CloneExec(c Clone) (pid int, pidfd *os.File, err error) {
	if len(c.UIDs) > 0 {
		return cloneMapped(c)
	}
	fds := make([]int32, len(c.Files))
	for i, f := range c.Files {
		if f == nil {
			fds[i] = -1
			continue
		}
		n := Fd(f)
		if n < len(fds) { // it could be overwritten before its turn
			if n, err = unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, len(fds)); err != nil {
				return 0, nil, wrap("fcntl", f.Name(), err)
			}
			defer unix.Close(n)
		}
		fds[i] = int32(n)
	}
	cgroup := -1
	if c.Cgroup != nil {
		cgroup = Fd(c.Cgroup)
	}
	pid, fd, err := vforkExec(&c, fds, cgroup)
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return 0, nil, wrap("clone", c.Path, err)
	}
	return pid, os.NewFile(uintptr(fd), "pidfd"), nil
}

// IDMap maps Size ids of a user namespace, from Inside on, to those from
// Outside on.
type IDMap struct{ Inside, Outside, Size uint32 }

// cloneMapped is CloneExec for a new user namespace: the maps are written while
// the child waits, so it cannot share this process's memory. It leaves other
// descriptors of this process than c.Files to close-on-exec.
func cloneMapped(c Clone) (int, *os.File, error) {
	pidfd := -1
	maps := func(all []IDMap) (out []syscall.SysProcIDMap) {
		for _, m := range all {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Outside), Size: int(m.Size)})
		}
		return out
	}
	attr := &syscall.ProcAttr{Env: c.Env, Sys: &syscall.SysProcAttr{
		Cloneflags:  c.Flags | unix.CLONE_NEWUSER,
		UidMappings: maps(c.UIDs), GidMappings: maps(c.GIDs), GidMappingsEnableSetgroups: true,
		// As another id than the namespace's root it would lose all rights by execve.
		Credential: &syscall.Credential{},
		PidFD:      &pidfd,
	}}
	if c.Cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, Fd(c.Cgroup)
	}
	for _, f := range c.Files {
		if f == nil {
			attr.Files = append(attr.Files, ^uintptr(0))
			continue
		}
		attr.Files = append(attr.Files, uintptr(Fd(f)))
	}
	pid, err := syscall.ForkExec(c.Path, c.Args, attr)
	if err != nil {
		return 0, nil, wrap("clone", c.Path, err)
	}
	if pidfd < 0 {
		f, err := PidfdOpen(pid)
		return pid, f, err
	}
	return pid, os.NewFile(uintptr(pidfd), "pidfd"), nil
}

func (c *Clone) userNS() int {
	if c.UserNS == nil {
		return -1
	}
	return Fd(c.UserNS)
}

// SealedCopy copies src into a memfd that nobody can change any more, not even
// through /proc/PID/exe of a process that runs it (CVE-2019-5736).
func SealedCopy(name string, src io.Reader) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 every memfd may be executed
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, wrap("memfd_create", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, src); err != nil {
		f.Close()
		return nil, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(Fd(f)), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, wrap("seal", name, err)
	}
	return f, nil
}

// MoveAbove moves f's descriptor to one that is at least low, for a file that
// CloneExec names by its path while it puts others in the low places.
func MoveAbove(f *os.File, low int) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(uintptr(Fd(f)), unix.F_DUPFD_CLOEXEC, low)
	if err != nil {
		return nil, wrap("fcntl", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// MemFile returns an anonymous file that holds b, positioned at its start.
func MemFile(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, wrap("memfd_create", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// PidfdOpen returns a descriptor of process pid (pidfd_open(2)).
func PidfdOpen(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, wrap("pidfd_open", "", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// PidfdSignal sends sig to the process of pidfd. A process that is gone is
// os.ErrProcessDone.
func PidfdSignal(pidfd *os.File, sig syscall.Signal) error {
	err := unix.PidfdSendSignal(Fd(pidfd), sig, nil, 0)
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return wrap("pidfd_send_signal", "", err)
}

// Setns moves the calling thread into the namespaces of f, a pidfd or a
// namespace file (setns(2); pidfds since Linux 5.8). NewPID only affects later
// children.
func Setns(f *os.File, flags int) error {
	return wrap("setns", f.Name(), unix.Setns(Fd(f), flags))
}

// Unshare gives the calling thread new namespaces (unshare(2)).
func Unshare(flags int) error { return wrap("unshare", "", unix.Unshare(flags)) }

// Gettid returns the calling thread's id.
func Gettid() int { return unix.Gettid() }

// SetChildSubreaper makes the caller the parent of its orphaned descendants.
func SetChildSubreaper() error {
	return wrap("prctl", "", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// KernelVersion returns the running kernel's major and minor version.
func KernelVersion() (major, minor int) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return 0, 0
	}
	n := [2]int{}
	i := 0
	for _, c := range u.Release {
		if c >= '0' && c <= '9' {
			n[i] = n[i]*10 + int(c-'0')
			continue
		}
		if i++; i == 2 || c != '.' {
			break
		}
	}
	return n[0], n[1]
}
