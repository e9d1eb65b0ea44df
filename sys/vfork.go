//go:build amd64 || arm64

package sys

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Why this file: Go's syscall.ForkExec uses clone3(2) when it is to put the
// child into a cgroup, with SIGCHLD as the exit signal, and the kernel refuses
// an exit signal together with CLONE_PARENT. So this is ForkExec again, for
// what CloneExec needs, with no exit signal: the child then gets its
// siblings', SIGCHLD.

// Provided by the runtime for programs that fork: block signals and stack
// growth, and undo it.
//
//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

func rawVfork(trap, a1, a2 uintptr) (r1, errno uintptr)

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal     uint64
	stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// program is what execveat(2) is given.
type program struct {
	dir       int // descriptor
	path      *byte
	argv, env **byte
	flags     int
}

func (c *Clone) program() (p program, err error) {
	p = program{dir: unix.AT_FDCWD}
	if c.Path == "" {
		p.dir, p.flags = c.ExecFd, unix.AT_EMPTY_PATH
	}
	if p.path, err = unix.BytePtrFromString(c.Path); err != nil {
		return p, err
	}
	argv, err := syscall.SlicePtrFromStrings(c.Args)
	if err != nil {
		return p, err
	}
	env, err := syscall.SlicePtrFromStrings(c.Env)
	if err != nil {
		return p, err
	}
	p.argv, p.env = &argv[0], &env[0]
	return p, nil
}

// vforkExec makes a process by clone3, puts fds in place as descriptors 0, 1,
// 2 ..., and executes c's program with no others open. Numbers in fds must lie
// above len(fds), or be -1.
func vforkExec(c *Clone, fds []int32, cgroup int) (pid int, pidfd int, err error) {
	prog, err := c.program()
	if err != nil {
		return 0, -1, err
	}
	// Pinned, so that it is no part of a stack that moves when it grows: the
	// kernel is given its address as a number.
	fd := new(int32)
	*fd = -1
	var pin runtime.Pinner
	pin.Pin(fd)
	defer pin.Unpin()
	flags := uint64(c.Flags) | unix.CLONE_VFORK | unix.CLONE_PIDFD
	if !c.Apart {
		flags |= unix.CLONE_VM
	}
	args := &cloneArgs{flags: flags, pidfd: uint64(uintptr(unsafe.Pointer(fd)))}
	if flags&unix.CLONE_PARENT == 0 {
		args.exitSignal = uint64(unix.SIGCHLD)
	}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	syscall.ForkLock.Lock()
	report := new(unix.Errno)
	r, forkErr := vforkInChild(args, &prog, fds, c.userNS(), report)
	syscall.ForkLock.Unlock()
	if forkErr != 0 {
		return 0, -1, forkErr
	}
	if execErr := *report; execErr != 0 {
		var ws unix.WaitStatus // ours to reap unless it is our parent's
		for _, err := unix.Wait4(int(r), &ws, 0, nil); err == unix.EINTR; {
			_, err = unix.Wait4(int(r), &ws, 0, nil)
		}
		return 0, int(*fd), execErr
	}
	return int(r), int(*fd), nil
}

// vforkInChild is both processes. In the child it may neither grow the stack,
// allocate nor return: it runs in the parent's memory, on the suspended
// parent's stack (Clone.Apart: in a copy of both). report is how the child
// tells, through that memory, why it failed.
//
//go:noinline
//go:norace
//go:nocheckptr
func vforkInChild(args *cloneArgs, prog *program, fds []int32, userns int, report *unix.Errno) (pid uintptr, forkErr unix.Errno) {
	var (
		r, e uintptr
		err  unix.Errno
		i    int
	)
	runtimeBeforeFork()
	r, e = rawVfork(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	if e != 0 || r != 0 {
		runtimeAfterFork()
		return r, unix.Errno(e)
	}
	runtimeAfterForkInChild()
	if userns >= 0 {
		if _, _, err = unix.RawSyscall(unix.SYS_SETNS, uintptr(userns), unix.CLONE_NEWUSER, 0); err != 0 {
			goto fail
		}
		// As another id than the namespace's root it would lose all rights by
		// execve. A namespace may forbid setgroups.
		_, _, _ = unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		if _, _, err = unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); err != 0 {
			goto fail
		}
		if _, _, err = unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); err != 0 {
			goto fail
		}
	}
	for i = 0; i < len(fds); i++ {
		if fds[i] < 0 {
			_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(i), 0, 0)
			continue
		}
		if _, _, err = unix.RawSyscall(unix.SYS_DUP3, uintptr(fds[i]), uintptr(i), 0); err != 0 {
			goto fail
		}
	}
	// Also what this process inherited itself, without close-on-exec.
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(len(fds)), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	_, _, err = unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(prog.dir), uintptr(unsafe.Pointer(prog.path)),
		uintptr(unsafe.Pointer(prog.argv)), uintptr(unsafe.Pointer(prog.env)), uintptr(prog.flags), 0)
fail:
	*report = err
	for {
		unix.RawSyscall(unix.SYS_EXIT, 253, 0, 0)
	}
}
