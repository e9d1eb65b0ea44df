package sys

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tug/errs"
)

// Real-time signals as the C library numbers them: it keeps the first two.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal parses a signal's number, or its name with or without SIG, in
// any case; RTMIN+n and RTMAX-n as in kill(1).
func ParseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= sigRTMax {
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := realTimeSignal(name); n != 0 {
		return n, nil
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	return 0, errs.New(errs.Invalid, "invalid signal: %s", s).WithHint("kill -l lists the names")
}

// SignalName is a signal's name, such as SIGTERM; "" for one that has none.
func SignalName(sig syscall.Signal) string { return unix.SignalName(sig) }

func realTimeSignal(name string) syscall.Signal {
	base := sigRTMin
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		base = sigRTMax
		if rest, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0
		}
	}
	n := 0
	if rest != "" {
		var err error
		if n, err = strconv.Atoi(rest); err != nil {
			return 0
		}
	}
	if base += n; base < sigRTMin || base > sigRTMax {
		return 0
	}
	return syscall.Signal(base)
}
