package keeper

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tug/spec"
	"tug/state"
	"tug/sys"
)

// Config is the keeper's command line.
type Config struct {
	Run    string   // the store's run directory: socket, lock and log lie there
	Socket string   // path of the listening socket
	Args   []string // the supervisor's program and arguments
}

// keeper is the process's state. One mutex is enough: there is little to do.
type keeper struct {
	cfg    Config
	listen *os.File
	host   *os.File // mount namespace

	mu      sync.Mutex
	entries map[string]*entry
	early   map[process]Exit // ended before their hold message was read
	sock    *os.File         // to the present supervisor; nil between two
	super   *exec.Cmd
	ended   chan struct{} // closed when super was reaped
	quit    bool
	up      bool // the present supervisor has served
}

type process struct {
	pid   int
	start uint64
}

type entry struct {
	msg   Message // as last held, plus Exit
	files []*os.File
}

// Main is `tug-init keeper --version V --run DIR --socket PATH -- SUPERVISOR
// ARG...`. It returns the exit code. It refuses to work for another version.
func Main(args []string) int {
	if len(args) < 8 || args[0] != "--version" || args[2] != "--run" || args[4] != "--socket" || args[6] != "--" {
		return fail(errors.New("usage: tug-init keeper --version V --run DIR --socket PATH -- SUPERVISOR ARG..."))
	}
	if args[1] != spec.Version {
		return fail(fmt.Errorf("tug-init is version %s, tug is %s", spec.Version, args[1]))
	}
	return run(Config{Run: args[3], Socket: args[5], Args: args[7:]})
}

// run keeps until the supervisor says that nothing is left to keep.
func run(cfg Config) int {
	// Containers are to die with the keeper, and for that their parent is the
	// thread that started the supervisor: it must live as long as the process.
	runtime.LockOSThread()
	lock, err := os.OpenFile(filepath.Join(cfg.Run, "keeper.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fail(err)
	}
	defer lock.Close() // not before: a file that nothing refers to any more is closed
	if !takeLock(lock) {
		return fail(fmt.Errorf("another keeper serves %s", cfg.Run))
	}
	if err := sign(lock); err != nil {
		fail(err) // nothing but readers who wait in vain depends on it
	}
	// Before anything is mounted: what happens on the host is seen here, what
	// happens here is seen by nobody else.
	if err := sys.SetPropagation("/", false); err != nil {
		return fail(err)
	}
	// What another OCI runtime starts is an orphan when that one ends, and then
	// this process's child, as what supervisors start is.
	if err := sys.SetChildSubreaper(); err != nil {
		return fail(err)
	}
	k := &keeper{cfg: cfg, host: os.NewFile(HostFd, "host"), entries: map[string]*entry{}, early: map[process]Exit{}}
	if err := k.bind(); err != nil {
		return fail(err)
	}
	ready := os.NewFile(ReadyFd, "ready")
	ready.Write([]byte{1})
	ready.Close()
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	go func() {
		for range chld {
			k.reap()
		}
	}()
	code := k.supervise()
	os.Remove(cfg.Socket)
	return code
}

// takeLock tries for a moment: Running holds the lock for an instant.
func takeLock(lock *os.File) bool {
	for range 50 {
		if had, err := sys.TryLock(lock, true); err != nil || had {
			return had
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}

// sign writes into the lock when this process was started. Until it has, the
// file is empty or tells of a former keeper, which Running takes for this one.
func sign(lock *os.File) error {
	ticks, err := sys.StartTicks(os.Getpid())
	if err != nil {
		return err
	}
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err = lock.WriteAt(strconv.AppendUint(nil, ticks, 10), 0)
	return err
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "keeper:", err)
	return 1
}

// bind makes the listening socket. It belongs to the keeper, so that commands
// that connect while a supervisor is replaced wait instead of failing.
func (k *keeper) bind() error {
	if err := os.Remove(k.cfg.Socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	var err error
	k.listen, err = sys.ListenUnix(k.cfg.Socket)
	return err
}

// supervise runs one supervisor after another. One that dies after it served
// is replaced at once; one that does not even get there is tried less and less
// often, and with nothing to keep given up after the fifth time.
func (k *keeper) supervise() int {
	delay := 20 * time.Millisecond
	for failures := 0; ; {
		k.up = false
		sock, err := k.start()
		if err == nil {
			k.serve(sock)
		} else {
			fail(err)
		}
		switch {
		case k.quit:
			return 0
		case k.up:
			failures, delay = 0, 20*time.Millisecond
			continue
		}
		if failures++; failures >= 5 && !k.busy() {
			return 1
		}
		time.Sleep(delay)
		delay = min(2*delay, 5*time.Second)
	}
}

// busy reports whether any child is still running.
func (k *keeper) busy() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.entries {
		if e.msg.Child != nil && e.msg.Exit == nil {
			return true
		}
	}
	return false
}

// start starts a supervisor and hands it all entries.
func (k *keeper) start() (*os.File, error) {
	ours, theirs, err := sys.SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(k.cfg.Args[0], k.cfg.Args[1:]...)
	cmd.ExtraFiles = []*os.File{theirs, k.listen, k.host} // ControlFd, ListenFd, MountsFd
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr

	k.mu.Lock()
	defer k.mu.Unlock()
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	// Reaped by reap like every other child, never by cmd.Wait.
	k.super, k.ended = cmd, make(chan struct{})
	for _, e := range k.entries {
		m := e.msg
		m.Op = OpItem
		if err := Send(ours, &m, e.files...); err != nil {
			fail(err) // it died already: the next one gets everything again
			break
		}
	}
	Send(ours, &Message{Op: OpReady})
	k.sock = ours
	return ours, nil
}

// serve reads the supervisor's messages until its end of the socket is closed
// and everything it sent was read, then waits for the process itself.
func (k *keeper) serve(sock *os.File) {
	for {
		m, files, err := Receive(sock)
		if err != nil {
			break
		}
		k.mu.Lock()
		k.handle(m, files)
		k.mu.Unlock()
	}
	k.mu.Lock()
	k.sock = nil
	sock.Close()
	k.mu.Unlock()
	// The socket is its only one, so its end is the process's end, unless it
	// closed it on purpose: then it is of no use any more.
	k.super.Process.Kill()
	<-k.ended
	k.mu.Lock()
	clear(k.early)
	k.mu.Unlock()
}

func (k *keeper) handle(m *Message, files []*os.File) {
	switch m.Op {
	case OpHold:
		k.hold(m, files)
	case OpDrop:
		if e := k.entries[m.Key]; e != nil {
			sys.CloseAll(e.files)
			delete(k.entries, m.Key)
		}
	case OpUp:
		k.up = true
	case OpQuit:
		k.quit = true
	}
}

func (k *keeper) hold(m *Message, files []*os.File) {
	if e := k.entries[m.Key]; e != nil {
		sys.CloseAll(e.files)
		m.Exit = e.msg.Exit
	}
	e := &entry{msg: *m, files: files}
	k.entries[m.Key] = e
	if m.Child == nil || e.msg.Exit != nil {
		return
	}
	if p, ok := k.endedEarly(m.Child); ok {
		exit := k.early[p]
		if !e.parked() {
			delete(k.early, p)
		}
		go k.record(e, exit)
	}
}

// endedEarly finds a child among those that ended before they were held. One
// whose start nobody has seen is the last one of its pid.
func (k *keeper) endedEarly(c *Child) (last process, found bool) {
	if c.Start != 0 {
		last = process{c.Pid, c.Start}
		_, found = k.early[last]
		return last, found
	}
	for p, exit := range k.early {
		if p.pid == c.Pid && (!found || exit.At.After(k.early[last].At)) {
			last, found = p, true
		}
	}
	return last, found
}

// parked reports whether nothing is held for the child yet.
func (e *entry) parked() bool { return e.msg.Child.Record == "" && len(e.files) == 0 }

// reap reaps all children that have ended. The start time is read while the
// child is still a zombie, which keeps its pid from being used again.
func (k *keeper) reap() {
	for {
		pid := sys.NextZombie()
		if pid == 0 {
			return
		}
		start, _ := sys.StartTicks(pid)
		code, err := sys.Reap(pid)
		if err != nil {
			fail(err)
			return
		}
		k.childEnded(Exit{Pid: pid, Start: start, Code: code, At: time.Now().UTC()})
	}
}

func (k *keeper) childEnded(exit Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.super != nil && k.super.Process.Pid == exit.Pid {
		close(k.ended)
		return
	}
	for _, e := range k.entries {
		if c := e.msg.Child; c != nil && c.is(&exit) {
			go k.record(e, exit)
			if !e.parked() {
				return
			}
		}
	}
	// Also a parked process: it may have become a container's, with an entry
	// that is still on its way. What nobody asks for was a start that failed, or
	// a helper of the start of another.
	maps.DeleteFunc(k.early, func(_ process, old Exit) bool { return exit.At.Sub(old.At) > earlyKept })
	k.early[process{exit.Pid, exit.Start}] = exit
}

// earlyKept is how long an exit waits for a hold message that is on its way.
const earlyKept = time.Minute

// record writes the exit to its file and then tells the supervisor: whoever
// hears of an exit can rely on the record.
func (k *keeper) record(e *entry, exit Exit) {
	c := e.msg.Child
	exit.OOMKilled = c.Events != "" && oomKilled(c.Events)
	if c.Record != "" {
		if err := writeRecord(c.Record, &exit, c.Sync); err != nil {
			fail(fmt.Errorf("record exit of %s: %w", e.msg.Key, err))
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// The entry may have been replaced by a newer hold of the same child.
	if now := k.entries[e.msg.Key]; now != nil && now.msg.Child != nil && *now.msg.Child == *c {
		now.msg.Exit = &exit
	}
	if k.sock != nil {
		Send(k.sock, &Message{Op: OpExit, Key: e.msg.Key, Exit: &exit})
	}
}

// oomKilled looks for a line "oom_kill N" with N > 0.
func oomKilled(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if n, ok := strings.CutPrefix(s.Text(), "oom_kill "); ok {
			v, _ := strconv.Atoi(n)
			return v > 0
		}
	}
	return false
}

// writeRecord replaces the record file. It can be read before it is durable, so
// that nobody who sees that the process is gone waits for the disk. A directory
// that is gone means that the object was removed meanwhile: nobody wants the
// record.
func writeRecord(path string, exit *Exit, sync bool) error {
	b, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	err = state.Replace(path, append(b, '\n'), false)
	if err == nil && sync {
		err = state.SyncFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Running reports whether the keeper of a process that was started then (field
// 22 of /proc/PID/stat) serves the run directory: it holds the lock as long as
// it lives. A later keeper knows nothing of that process.
func Running(run string, start uint64) bool {
	f, err := os.Open(filepath.Join(run, "keeper.lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	// Shared, so that two who look at the same time do not see each other.
	if had, err := sys.TryLock(f, false); err != nil || had {
		return false
	}
	b := make([]byte, 20)
	n, _ := f.Read(b)
	since, _ := strconv.ParseUint(string(b[:n]), 10, 64) // 0: unknown
	return since <= start
}
