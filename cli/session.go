package cli

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"tug/container"
	"tug/spec"
	"tug/sys"
)

// stream is what an attachment needs of a container.Session.
type stream interface {
	Stream(stdout, stderr io.Writer) (exit int, err error)
	Resize(rows, cols uint16) error
	Signal(sig syscall.Signal) error
	Detach()
}

// attachment connects the user's streams, terminal and signals with a process.
//
// Catching signals begins before the process starts, so that none gets lost;
// the terminal becomes raw after, so that a failed start prints as usual.
type attachment struct {
	app      *app
	tty      bool   // the process has a terminal
	stdin    bool   // the user's input goes to the process
	sigProxy bool   // signals go to the process
	keys     []byte // detach keys
	redraw   bool   // make a terminal program draw its screen again
	timing   *startTiming

	// readerGone is called when nobody reads the output any more.
	readerGone func()

	signals chan os.Signal
	resized chan os.Signal
}

// options are what the session is opened with.
func (t *attachment) options(stdout, stderr bool) container.AttachOptions {
	o := container.AttachOptions{Stdin: t.stdin, Stdout: stdout, Stderr: stderr}
	if t.tty {
		o.Rows, o.Cols = t.app.size()
	}
	return o
}

// catch begins catching signals, for the rest of the command's life. Each
// signal costs the Go runtime 20 µs to enable and as much to disable: those
// that users send while a container starts are caught at once, the many others
// while the supervisor works.
func (t *attachment) catch() {
	t.signals = make(chan os.Signal, 64)
	t.resized = make(chan os.Signal, 1)
	if t.sigProxy || t.ownsTerminal() {
		signal.Notify(t.signals, deadly()...)
	}
	if t.sigProxy {
		go signal.Notify(t.signals, proxied()...)
	}
	if t.tty {
		signal.Notify(t.resized, syscall.SIGWINCH, syscall.SIGCONT)
	}
	// A reader that has gone is then an error of write(2), not the end.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// ownsTerminal reports whether the user's terminal is to be raw.
func (t *attachment) ownsTerminal() bool { return t.tty && t.stdin && isTerminal(t.app.In) }

// run serves the session until the process ends (its exit code), the user
// detaches (container.ErrDetached) or a stream of the user's fails.
func (t *attachment) run(s stream, input *os.File) (int, error) {
	a := t.app
	if t.ownsTerminal() {
		if err := a.raw(); err != nil {
			return 0, err
		}
	}
	defer a.restore()
	done := make(chan struct{})
	defer close(done)
	a.background(func() { t.forward(s, done) })
	if t.tty {
		if t.redraw {
			rows, cols := a.size()
			s.Resize(rows+1, cols)
		}
		t.resize(s)
		a.background(func() { t.followSize(s, done) })
	}
	if t.stdin && input != nil {
		// Not waited for: the user's input may never end.
		a.background(func() { t.copyInput(s, input) })
	}
	out, errOut := &guard{w: a.Out, gone: t.readerGone}, &guard{w: a.Err, gone: t.readerGone}
	code, err := s.Stream(out, errOut)
	if out.broken.Load() || errOut.broken.Load() {
		return 0, errReaderGone
	}
	return code, err
}

// guard is a writer of the user's that may have lost its reader (`tug run … |
// head`). It then calls gone, once, and swallows the rest.
type guard struct {
	w      io.Writer
	gone   func()
	broken atomic.Bool
}

func (g *guard) Write(p []byte) (int, error) {
	if g.broken.Load() {
		return len(p), nil
	}
	n, err := g.w.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		g.broken.Store(true)
		g.gone()
		return len(p), nil
	}
	return n, err
}

// forward passes signals on.
func (t *attachment) forward(s stream, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case sig := <-t.signals:
			n, ok := sig.(syscall.Signal)
			switch {
			case !t.sigProxy:
				t.app.dieOf(sig)
			case ok && !(t.tty && n == syscall.SIGCONT):
				s.Signal(n)
			}
		}
	}
}

// followSize passes changes of the window's size on. After a stop and SIGCONT
// the shell has left the terminal in its own mode.
func (t *attachment) followSize(s stream, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case sig := <-t.resized:
			if sig == syscall.SIGCONT && t.ownsTerminal() {
				select {
				case <-done:
					return
				default:
					t.app.rawAgain()
				}
			}
			t.resize(s)
		}
	}
}

func (t *attachment) resize(s stream) {
	if rows, cols := t.app.size(); rows > 0 {
		s.Resize(rows, cols)
	}
}

// rawAgain renews raw mode if it is on.
func (a *app) rawAgain() {
	a.term.mu.Lock()
	defer a.term.mu.Unlock()
	if a.term.old != nil {
		sys.MakeRaw(a.term.tty)
	}
}

// copyInput copies the user's input until it ends, which closes the process's,
// or the detach keys are typed. A process that does not read any more ends it
// too.
func (t *attachment) copyInput(s stream, input io.WriteCloser) {
	defer input.Close()
	buf := make([]byte, 64<<10)
	if !t.tty {
		// The wrapping keeps io.Copy from os.File's ReadFrom, whose buffer is
		// smaller than a pipe.
		io.CopyBuffer(struct{ io.Writer }{input}, struct{ io.Reader }{t.app.In}, buf)
		return
	}
	d := detacher{keys: t.keys}
	var out []byte
	for {
		n, err := t.app.In.Read(buf)
		var detach bool
		out, detach = d.feed(out[:0], buf[:n])
		if len(out) > 0 {
			if _, werr := input.Write(out); werr != nil {
				return
			}
		}
		if detach {
			s.Detach()
			return
		}
		if err != nil {
			return
		}
	}
}

// checkTTY refuses a terminal whose input is none.
func (a *app) checkTTY(stdin, tty bool) error {
	if stdin && tty && !isTerminal(a.In) {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

// isRunning reports whether a container runs.
func isRunning(s *container.Summary) bool { return s.State.Status == spec.StatusRunning }

// isRestarting reports whether a container is about to be started by its
// restart policy.
func isRestarting(s *container.Summary) bool { return s.State.Status == spec.StatusRestarting }
