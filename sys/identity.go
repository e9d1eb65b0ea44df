package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions of this file change the calling thread only, by raw system
// calls: the caller has locked itself to its thread and is about to execute a
// program from it, which ends all other threads. Go's own wrappers would stop
// the world to change every thread, for nothing.

// SetDumpable says whether others may read this process's memory and
// descriptors through /proc.
func SetDumpable(on bool) error {
	var v uintptr
	if on {
		v = 1
	}
	return prctl("dumpable", unix.PR_SET_DUMPABLE, v)
}

// DieWithParent has the caller killed when its parent ends. Setting another
// identity undoes it (prctl(2)).
func DieWithParent() error {
	return prctl("pdeathsig", unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
}

// SetNoNewPrivs makes execve(2) never give more privileges.
func SetNoNewPrivs() error { return prctl("no_new_privs", unix.PR_SET_NO_NEW_PRIVS, 1) }

// ClearAmbient empties the ambient capability set.
func ClearAmbient() error {
	return prctl("ambient", unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
}

// RaiseAmbient puts the capabilities of set, which have to be permitted and
// inheritable, into the ambient set.
func RaiseAmbient(set uint64) error {
	for n := range uint64(64) {
		if set&(1<<n) == 0 {
			continue
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0, 0)
		if errno != 0 {
			return wrap("prctl", "ambient", errno)
		}
	}
	return nil
}

// KeepCaps lets the permitted capabilities stay when the user ids change from
// root's.
func KeepCaps() error { return prctl("keepcaps", unix.PR_SET_KEEPCAPS, 1) }

func prctl(what string, op int, arg uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, uintptr(op), arg, 0, 0, 0, 0); errno != 0 {
		return wrap("prctl", what, errno)
	}
	return nil
}

// LimitBounding drops every capability that is not in keep (bit n is
// capability n) from the bounding set. Numbers the kernel does not know end it.
func LimitBounding(keep uint64) error {
	for n := range uint64(64) {
		if keep&(1<<n) != 0 {
			continue
		}
		err := prctl("bounding set", unix.PR_CAPBSET_DROP, uintptr(n))
		if err != nil {
			if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0, 0); errno == unix.EINVAL {
				return nil
			}
			return err
		}
	}
	return nil
}

// BoundingSet returns the bounding set: all a program may ever have.
func BoundingSet() uint64 {
	var set uint64
	for n := range uint64(64) {
		v, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0, 0)
		if errno != 0 {
			break
		}
		set |= uint64(v) << n
	}
	return set
}

// Capset sets the three classic capability sets (capset(2)).
func Capset(effective, permitted, inheritable uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	return wrap("capset", "", unix.Capset(&hdr, &data[0]))
}

// Capget returns the calling thread's effective and permitted sets.
func Capget() (effective, permitted uint64, err error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, 0, wrap("capget", "", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32,
		uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// SetIDs sets the supplementary groups and all user and group ids, groups
// first, while that is still allowed.
func SetIDs(uid, gid uint32, groups []uint32) error {
	if err := SetGroups(groups); err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return wrap("setresgid", "", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return wrap("setresuid", "", errno)
	}
	return nil
}

// SetGroups sets the supplementary groups.
func SetGroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); errno != 0 {
		return wrap("setgroups", "", errno)
	}
	return nil
}

// SetFSIDs sets the ids that file permission checks use. Going from 0 to
// another user also takes the file capabilities away, coming back returns them.
func SetFSIDs(uid, gid uint32) {
	if uid == 0 {
		unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	}
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
}

// MakeFilesAs gives the calling thread other ids for files than root's, and
// keeps the capabilities that this takes away: what it makes is another's, what
// it may do is root's. It cannot be undone; the thread is to end.
func MakeFilesAs(uid, gid uint32) error {
	effective, permitted, err := Capget()
	if err != nil {
		return err
	}
	SetFSIDs(uid, gid)
	return Capset(effective, permitted, 0)
}

// SetSeccomp installs a filter program, 8 bytes per instruction in the host's
// byte order, with SECCOMP_FILTER_FLAG_* flags. Without no_new_privs it needs
// CAP_SYS_ADMIN.
func SetSeccomp(prog []byte, flags uint) error {
	if len(prog) == 0 || len(prog)%8 != 0 || len(prog)/8 > 4096 {
		return wrap("seccomp", "filter", unix.EINVAL)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return wrap("seccomp", "filter", errno)
	}
	return nil
}

// SetSeccompListener is SetSeccomp for a filter whose notifications go to a new
// descriptor of this process.
func SetSeccompListener(prog []byte, flags uint) error {
	return SetSeccomp(prog, flags|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
}

// NewSessionKeyring gives the process a session keyring of its own, so that it
// possesses none of the caller's keys.
func NewSessionKeyring() error {
	// No name: a named keyring could be one that exists already.
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 {
		return wrap("keyctl", "join session keyring", errno)
	}
	return nil
}

// SetLimit sets one resource limit of the caller.
func SetLimit(resource int, soft, hard uint64) error {
	return wrap("setrlimit", "", unix.Prlimit(0, resource, &unix.Rlimit{Cur: soft, Max: hard}, nil))
}

// Limit returns one resource limit of the caller.
func Limit(resource int) (soft, hard uint64, err error) {
	var r unix.Rlimit
	err = unix.Prlimit(0, resource, nil, &r)
	return r.Cur, r.Max, wrap("getrlimit", "", err)
}

// ResetSignals unblocks all signals on the calling thread and gives ignored
// ones their default action: both would survive execve(2). Handled ones go
// back to the default by themselves.
func ResetSignals() {
	type sigaction struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	for sig := uintptr(1); sig <= 64; sig++ {
		var old sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		if errno == 0 && old.handler == 1 { // SIG_IGN
			var dfl sigaction
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
		}
	}
	var none uint64
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
}

// CloexecFrom marks every descriptor from first on close-on-exec.
func CloexecFrom(first uint) error {
	return wrap("close_range", "", unix.CloseRange(first, ^uint(0), unix.CLOSE_RANGE_CLOEXEC))
}

// CloseRange closes descriptors first to last.
func CloseRange(first, last uint) error {
	return wrap("close_range", "", unix.CloseRange(first, last, 0))
}

// Exec replaces the process by a program; it returns only the errno.
func Exec(path string, args, env []string) error { return syscall.Exec(path, args, env) }

// ExecFd is Exec of an open program file (execveat(2)), so no path is needed.
func ExecFd(fd int, args, env []string) error {
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}
