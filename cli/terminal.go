package cli

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"tug/sys"
)

// terminal is the user's terminal while it is in raw mode. It is given back on
// every way out: Main and each goroutine of an attachment defer restore, and
// signals that end the program are caught while it is raw.
type terminal struct {
	mu  sync.Mutex
	tty *os.File
	old *sys.Termios // nil when not raw
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f := file(stream)
	return f != nil && sys.IsTerminal(sys.Fd(f))
}

// raw puts the terminal that is standard input into raw mode.
func (a *app) raw() error {
	t := &a.term
	t.mu.Lock()
	defer t.mu.Unlock()
	tty := file(a.In)
	old, err := sys.MakeRaw(tty)
	if err != nil {
		return err
	}
	if t.old == nil {
		t.tty, t.old = tty, old
	}
	return nil
}

// restore gives the terminal back, if it is raw.
func (a *app) restore() {
	t := &a.term
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.old != nil {
		sys.RestoreTerminal(t.tty, t.old)
		t.old = nil
	}
}

// background runs f; when it panics, the terminal is given back first.
func (a *app) background(f func()) {
	go func() {
		defer func() {
			if p := recover(); p != nil {
				a.restore()
				panic(p)
			}
		}()
		f()
	}()
}

// size is the size of the user's terminal, 0 when there is none.
func (a *app) size() (rows, cols uint16) {
	for _, s := range []any{a.Out, a.In} {
		if f := file(s); f != nil {
			if rows, cols = sys.Winsize(f); rows > 0 {
				return rows, cols
			}
		}
	}
	return 0, 0
}

// dieOf ends the program by signal sig, as if it had not been caught.
func (a *app) dieOf(sig os.Signal) {
	a.restore()
	signal.Reset(sig)
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		p.Signal(sig)
	}
}

// proxied are the signals that are passed on to the container: all that can be
// caught, less those that say something about tug itself. SIGPIPE and SIGCHLD
// do, SIGURG is the Go runtime's, SIGWINCH is a resize, and SIGTTIN and SIGTTOU
// stop a background job, which has to happen.
func proxied() []os.Signal {
	var sigs []os.Signal
	for n := syscall.Signal(1); n < 65; n++ {
		switch n {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG,
			syscall.SIGWINCH, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPROF,
			syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, 32, 33, 34:
		default:
			sigs = append(sigs, n)
		}
	}
	return sigs
}

// deadly are the signals that end a program and must not leave a terminal raw.
func deadly() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}
}
