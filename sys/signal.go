package sys

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalProcess sends sig to the process that started at ticks as pid, and
// never to another that took over its pid (pidfd_send_signal(2)). The error is
// os.ErrProcessDone when it has ended.
func SignalProcess(pid int, ticks uint64, sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
		// The descriptor pins whoever has the pid now; if that is ours, it stays ours.
		if now, serr := StartTicks(pid); serr != nil || now != ticks {
			return os.ErrProcessDone
		}
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return os.ErrProcessDone
	}
	return wrap("pidfd_send_signal", "", err)
}

// SignalPending reports whether a signal was sent to a process that it did not
// get yet: because it is stopped, or blocks it.
func SignalPending(pid int, sig syscall.Signal) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		if set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil && set&(1<<(sig-1)) != 0 {
			return true
		}
	}
	return false
}
