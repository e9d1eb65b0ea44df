package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"tug/errs"
	"tug/event"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// Client is how commands reach the supervisor of their store. It holds no
// connection: each request makes one.
type Client struct {
	Run string // the store's run directory
	// Command returns the path of tug-init, to start a keeper with, and the
	// supervisor's program and arguments.
	Command func() (init string, args []string, err error)
	// Cause is who asks, for events.
	Cause event.Cause
	// Timing collects the phases of a start; may be nil.
	Timing *Timing
	// Diagnose says why a keeper may have refused to start; may be nil.
	Diagnose func() error
}

// Socket is the path of the store's socket.
func (c *Client) Socket() string { return filepath.Join(c.Run, "tug.sock") }

// maxSocket is how long a unix socket's path may be (unix(7)).
const maxSocket = 107

// errNotRunning says that there is no supervisor.
var errNotRunning = errors.New("no supervisor is running")

// connect connects to the supervisor, which it starts where there is none if
// start is set; else the error is errNotRunning.
func (c *Client) connect(ctx context.Context, start bool) (conn, error) {
	got, err := c.dial()
	if err != nil && start && isNotRunning(err) {
		got, err = c.startKeeper(ctx)
	}
	if err != nil && isNotRunning(err) {
		err = errNotRunning
	}
	return got, err
}

func (c *Client) dial() (conn, error) {
	if len(c.Socket()) > maxSocket {
		return conn{}, errs.New(errs.Invalid, "the run directory %s has too long a name for a socket", c.Run).WithHint("choose a shorter --run-root")
	}
	u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: c.Socket(), Net: "unixpacket"})
	return conn{u}, err
}

func isNotRunning(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Warm starts a supervisor in the background if none is there, for a command
// that is about to need one. Whatever goes wrong, the request itself tells.
func (c *Client) Warm() {
	if _, err := os.Stat(c.Socket()); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	go func() {
		if got, err := c.startKeeper(context.Background()); err == nil {
			got.Close()
		}
	}()
}

// startKeeper starts a keeper, which starts a supervisor. The lock makes one
// of many commands do it; the pipe ends when the socket is there.
func (c *Client) startKeeper(ctx context.Context) (conn, error) {
	lock, err := state.LockFile(filepath.Join(c.Run, "start.lock"), true)
	if err != nil {
		return conn{}, fmt.Errorf("start supervisor: %w", err)
	}
	defer lock.Close()
	if got, err := c.dial(); err == nil {
		return got, nil
	}
	init, args, err := c.Command()
	if err != nil {
		return conn{}, err
	}
	logPath := filepath.Join(c.Run, "supervisor.log")
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return conn{}, fmt.Errorf("start supervisor: %w", err)
	}
	defer log.Close()
	ready, theirs, err := os.Pipe()
	if err != nil {
		return conn{}, fmt.Errorf("start supervisor: %w", err)
	}
	defer ready.Close()
	host, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		theirs.Close()
		return conn{}, fmt.Errorf("start supervisor: %w", err)
	}
	defer host.Close()
	cmd := exec.Command(init, append([]string{"keeper", "--version", spec.Version, "--run", c.Run, "--socket", c.Socket(), "--"}, args...)...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs, host} // keeper.ReadyFd, keeper.HostFd
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return conn{}, c.explain(fmt.Errorf("start supervisor: %w", err))
	}
	go cmd.Wait()
	ready.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return conn{}, c.explain(errs.New(errs.Internal, "the supervisor did not start").WithHint("see %s", logPath))
	}
	return c.dial()
}

// explain returns what Diagnose says, or err.
func (c *Client) explain(err error) error {
	if c.Diagnose != nil {
		if better := c.Diagnose(); better != nil {
			return better
		}
	}
	return err
}

// patience is how long supervisors may end before they answer, one after the
// other, until a request is given up.
const patience = 10 * time.Second

// ask sends a request and reads the answer. When the supervisor ends before it
// answered, the next one is asked.
func (c *Client) ask(ctx context.Context, req *request, start bool) (conn, *answer, []*os.File, error) {
	begin := time.Now()
	for try := 0; ; try++ {
		req.Again, req.Cause, req.Timing = try > 0, c.Cause, c.Timing != nil
		got, err := c.connect(ctx, start)
		if err != nil {
			return conn{}, nil, nil, err
		}
		a, files, err := exchange(got, req)
		if err == nil && a.Error == nil {
			c.Timing.add(a.Phases)
			return got, a, files, nil
		}
		got.Close()
		switch {
		case err == nil:
			return conn{}, nil, nil, a.Error.err()
		case ctx.Err() != nil:
			return conn{}, nil, nil, ctx.Err()
		case try >= 20 && time.Since(begin) > patience:
			return conn{}, nil, nil, fmt.Errorf("supervisor: %w", err)
		}
		time.Sleep(time.Duration(min(try, 10)) * 5 * time.Millisecond)
	}
}

func exchange(c conn, req *request) (*answer, []*os.File, error) {
	if err := c.send(frameRequest, req); err != nil {
		return nil, nil, err
	}
	kind, body, files, err := c.receive(make([]byte, maxFrame), make([]byte, 256))
	if err != nil {
		return nil, nil, err
	}
	a := new(answer)
	if err := decode(kind, frameAnswer, body, a); err != nil {
		sys.CloseAll(files)
		return nil, nil, err
	}
	return a, files, nil
}

// token makes a name for a request that must be done once.
func token() string { return rand.Text() }

// Start starts a container without attaching and returns warnings.
func (c *Client) Start(ctx context.Context, id string) ([]string, error) {
	got, a, files, err := c.ask(ctx, &request{Op: opStart, ID: id, Token: token()}, true)
	if err != nil {
		return nil, err
	}
	sys.CloseAll(files)
	got.Close()
	return a.Warnings, nil
}

// StartAttached starts a container with a client attached from its first byte.
func (c *Client) StartAttached(ctx context.Context, id string, o AttachOptions) (*Session, error) {
	return c.session(ctx, &request{Op: opStart, ID: id, Token: token(), Attach: &o}, true)
}

// Attach attaches to a running container.
func (c *Client) Attach(ctx context.Context, id string, o AttachOptions) (*Session, error) {
	s, err := c.session(ctx, &request{Op: opAttach, ID: id, Attach: &o}, false)
	if errors.Is(err, errNotRunning) {
		err = errs.New(errs.Conflict, "cannot attach to a stopped container, start it first")
	}
	return s, err
}

// Exec runs a further program in a running container, attached when o is not
// nil; else the session is nil.
func (c *Client) Exec(ctx context.Context, id string, e *spec.ExecSpec, o *AttachOptions) (*Session, error) {
	req := &request{Op: opExec, ID: id, Token: token(), Exec: e, Attach: o}
	if o != nil {
		return c.session(ctx, req, true)
	}
	got, _, files, err := c.ask(ctx, req, true)
	if err != nil {
		return nil, err
	}
	sys.CloseAll(files)
	return nil, got.Close()
}

// Wait waits for the present run of a container to be wholly over: its log is
// complete, its resources are freed, and with AutoRemove it is gone. running is
// false when there is no such run.
func (c *Client) Wait(ctx context.Context, id string) (code int, running bool, err error) {
	for {
		got, _, _, err := c.ask(ctx, &request{Op: opWait, ID: id}, false)
		if errors.Is(err, errNotRunning) || errs.Is(err, errs.NotFound) {
			return 0, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		stop := context.AfterFunc(ctx, func() { got.Close() })
		kind, body, _, err := got.receive(make([]byte, maxFrame), nil)
		stop()
		got.Close()
		var x exitFrame
		if err == nil && decode(kind, frameExit, body, &x) == nil {
			return x.Code, true, nil
		}
		if ctx.Err() != nil {
			return 0, false, ctx.Err()
		}
		// The supervisor died: ask the next one.
	}
}

// ClearLog has the supervisor empty the log of a container, whose lock the
// caller holds. running is false when there is no run of it.
func (c *Client) ClearLog(ctx context.Context, id string) (running bool, err error) {
	got, _, files, err := c.ask(ctx, &request{Op: opClear, ID: id}, false)
	if errors.Is(err, errNotRunning) || errs.Is(err, errs.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sys.CloseAll(files)
	return true, got.Close()
}

// Guard has the supervisor let a container go on should the caller, who is to
// pause it and holds its lock, be killed.
func (c *Client) Guard(ctx context.Context, id string) error {
	got, _, files, err := c.ask(ctx, &request{Op: opGuard, ID: id}, true)
	if err != nil {
		return err
	}
	sys.CloseAll(files)
	return got.Close()
}

// Settle makes the running supervisor, if there is one, look again at whether a
// container is to be started again.
func (c *Client) Settle(ctx context.Context, id string) error {
	got, _, _, err := c.ask(ctx, &request{Op: opSettle, ID: id}, false)
	if errors.Is(err, errNotRunning) || errs.Is(err, errs.Unsupported) {
		return nil
	}
	if err == nil {
		got.Close()
	}
	return err
}

// Successor starts a keeper and a supervisor in the place of a keeper that was
// killed, unless a command has done so.
func (c *Client) Successor(ctx context.Context) error {
	got, err := c.startKeeper(ctx)
	if err == nil {
		got.Close()
	}
	return err
}

// Mount returns the root file system of a container that does not run and whose
// lock the caller holds, mounted nowhere.
func (c *Client) Mount(ctx context.Context, id string) (*os.File, error) {
	got, _, files, err := c.ask(ctx, &request{Op: opMount, ID: id}, true)
	if err != nil {
		return nil, err
	}
	got.Close()
	if len(files) != 1 {
		sys.CloseAll(files)
		return nil, errs.New(errs.Internal, "the supervisor sent no root file system")
	}
	return files[0], nil
}

// Ping tells about the running supervisor; ok is false when there is none.
func (c *Client) Ping(ctx context.Context) (pid, running int, backend string, ok bool) {
	got, a, _, err := c.ask(ctx, &request{Op: opPing}, false)
	if err != nil {
		return 0, 0, "", false
	}
	got.Close()
	return a.Pid, a.Running, a.Backend, true
}

// ErrDetached is what Stream returns after Detach.
var ErrDetached = errors.New("detached")

// Session is an attached process, seen from the command.
type Session struct {
	Stdin *os.File // write end of its input or its terminal; nil without
	Tty   bool
	Pid   int
	// Warnings of the start.
	Warnings []string
	// Ended is when the process ended, as the keeper saw it; set by Stream.
	Ended time.Time

	client   *Client
	ctx      context.Context
	start    uint64 // of Pid
	id, key  string
	opts     AttachOptions
	conn     conn
	received [2]int64
	detached chan struct{}
}

func (c *Client) session(ctx context.Context, req *request, start bool) (*Session, error) {
	got, a, files, err := c.ask(ctx, req, start)
	if err != nil {
		return nil, err
	}
	s := &Session{
		Tty: a.Tty, Pid: a.Pid, start: a.Start, Warnings: a.Warnings, client: c, ctx: ctx,
		id: req.ID, key: a.Key, opts: *req.Attach, conn: got, received: a.From, detached: make(chan struct{}),
	}
	if a.Stdin && len(files) > 0 {
		s.Stdin, files = files[0], files[1:]
	}
	sys.CloseAll(files)
	return s, nil
}

// Stream copies output until the process has ended and returns its exit code.
// When the supervisor dies it goes on with the next one, without a byte lost
// or doubled. A failing writer ends it with that writer's error; the process
// goes on.
func (s *Session) Stream(stdout, stderr io.Writer) (int, error) {
	buf := make([]byte, maxFrame)
	for {
		code, over, err := s.copy(buf, stdout, stderr)
		if over {
			return code, err
		}
		select {
		case <-s.detached:
			return 0, ErrDetached
		default:
		}
		if err := s.resume(); err != nil {
			return 0, err
		}
	}
}

// copy copies until the exit, or until the connection is lost (over is false).
func (s *Session) copy(buf []byte, stdout, stderr io.Writer) (code int, over bool, err error) {
	for {
		n, err := s.conn.Read(buf)
		if err != nil || n == 0 {
			return 0, false, nil
		}
		switch b := buf[1:n]; buf[0] {
		case frameStdout:
			s.received[0] += int64(len(b))
			_, err = stdout.Write(b)
		case frameStderr:
			s.received[1] += int64(len(b))
			_, err = stderr.Write(b)
		case frameExit:
			var x exitFrame
			err := decode(frameExit, frameExit, b, &x)
			s.Ended = x.At
			return x.Code, true, err
		}
		if err != nil {
			s.conn.Close()
			return 0, true, err
		}
	}
}

// resume goes on with the next supervisor.
func (s *Session) resume() error {
	got, _, files, err := s.client.ask(s.ctx, &request{Op: opAttach, ID: s.id, Key: s.key, Attach: &s.opts, Resume: &s.received}, true)
	if err != nil {
		return err
	}
	sys.CloseAll(files) // the input is the one there was
	s.conn = got
	return nil
}

// Detach leaves; the process goes on.
func (s *Session) Detach() {
	close(s.detached)
	s.conn.Close()
}

// Resize sets the terminal's size.
func (s *Session) Resize(rows, cols uint16) error {
	if !s.Tty || s.Stdin == nil {
		return nil
	}
	return sys.SetWinsize(s.Stdin, rows, cols)
}

// Signal sends a signal to the process.
func (s *Session) Signal(sig syscall.Signal) error { return sys.SignalProcess(s.Pid, s.start, sig) }
