package sys

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// NextZombie returns a child of this process that has ended and is not reaped
// yet, without reaping it, or 0 when there is none (waitid(2) with WNOWAIT).
func NextZombie() int {
	var info unix.Siginfo
	err := retry(func() error {
		return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	if err != nil {
		return 0
	}
	return siginfoPid(&info)
}

// Reap reaps child pid, which must have ended, and returns its exit status as
// shells give it: the code, or 128 + signal.
func Reap(pid int) (int, error) {
	var ws unix.WaitStatus
	err := retry(func() error {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		return err
	})
	if err != nil {
		return 0, wrap("wait4", strconv.Itoa(pid), err)
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// StartTicks returns when pid was started, in clock ticks since boot: field 22
// of /proc/PID/stat (proc(5)). Together with the pid it names one process.
func StartTicks(pid int) (uint64, error) {
	_, ticks, err := processStat(pid)
	return ticks, err
}

// Alive reports whether the process that started at ticks still runs as pid
// (a zombie does not run).
func Alive(pid int, ticks uint64) bool {
	state, t, err := processStat(pid)
	return err == nil && state != 'Z' && state != 'X' && t == ticks
}

// processStat returns fields 3 and 22 of /proc/PID/stat.
func processStat(pid int) (state byte, ticks uint64, err error) {
	b, err := ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The command name, in parentheses, may itself hold blanks and parentheses.
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	field := 2
	for f := range bytes.FieldsSeq(rest) {
		if field++; field == 3 {
			state = f[0]
		}
		if field == 22 {
			ticks, err = strconv.ParseUint(string(f), 10, 64)
			return state, ticks, err
		}
	}
	return 0, 0, fmt.Errorf("read /proc/%d/stat: unknown format", pid)
}

// ProcessorTime returns how much time of processors this process has used.
func ProcessorTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
