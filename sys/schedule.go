package sys

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetPersonality sets the calling thread's execution domain (personality(2)).
func SetPersonality(persona uint64) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(persona), 0, 0); errno != 0 {
		return wrap("personality", "", errno)
	}
	return nil
}

// Personalities.
const (
	PersonalityLinux   = 0
	PersonalityLinux32 = 8
)

// Scheduling is what sched_setattr(2) takes.
type Scheduling struct {
	Policy                    uint32
	Flags                     uint64
	Nice                      int32
	Priority                  uint32
	Runtime, Deadline, Period uint64
}

// SetScheduling sets the scheduling of a process.
func SetScheduling(pid int, s Scheduling) error {
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: s.Policy, Flags: s.Flags, Nice: s.Nice, Priority: s.Priority,
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	return wrap("sched_setattr", "", unix.SchedSetAttr(pid, &attr, 0))
}

// SetIOPriority sets the I/O scheduling class and priority of a process.
func SetIOPriority(pid, class, priority int) error {
	const whoProcess, classShift = 1, 13
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(pid), uintptr(class<<classShift|priority))
	if errno != 0 {
		return wrap("ioprio_set", "", errno)
	}
	return nil
}

// SetAffinity binds a process, or with 0 the calling thread, to processors.
func SetAffinity(pid int, cpus []int) error {
	var mask [1024]uint64
	for _, n := range cpus {
		if n < 0 || n/64 >= len(mask) {
			return wrap("sched_setaffinity", "", unix.EINVAL)
		}
		mask[n/64] |= 1 << (n % 64)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(pid), unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		return wrap("sched_setaffinity", "", errno)
	}
	return nil
}

// SetLimitOf sets one resource limit of a process.
func SetLimitOf(pid, resource int, soft, hard uint64) error {
	return wrap("prlimit", "", unix.Prlimit(pid, resource, &unix.Rlimit{Cur: soft, Max: hard}, nil))
}

// LimitOf returns one resource limit of a process.
func LimitOf(pid, resource int) (soft, hard uint64, err error) {
	var r unix.Rlimit
	err = unix.Prlimit(pid, resource, nil, &r)
	return r.Cur, r.Max, wrap("prlimit", "", err)
}

// OnThread runs f on a thread of its own, which ends with it: what f changes
// of its thread (namespaces, cgroups) changes nothing else.
func OnThread(f func() error) error {
	done := make(chan error)
	go func() { onThread(f, done) }()
	return <-done
}

func onThread(f func() error, done chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() != os.Getpid() {
		done <- f()
		return
	}
	// The main thread cannot end. While this goroutine holds it, the next one
	// gets another.
	next := make(chan error)
	go func() { onThread(f, next) }()
	err := <-next
	runtime.UnlockOSThread()
	done <- err
}
