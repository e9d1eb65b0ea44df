package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"tug/runtime"
	"tug/supervisor/keeper"
	"tug/sys"
)

// note is what the supervisor wants to remember of a process across its own
// death; the keeper carries it.
type note struct {
	ID        string    // of the container
	Run       int       // which start of it
	Token     string    // of the request that started it
	Exec      bool      `json:",omitempty"`
	Detached  bool      `json:",omitempty"` // nobody attached at the start, or not to its input
	Tty       bool      `json:",omitempty"`
	StdinOnce bool      `json:",omitempty"`
	LogDir    string    `json:",omitempty"`
	LogLimits LogLimits `json:",omitzero"`
	Journal   *Journal  `json:",omitempty"`
	Cgroup    string    `json:",omitempty"` // to remove at the end; empty for exec
	Outlive   bool      `json:",omitempty"` // others in Cgroup do not end with it by themselves
	Sync      bool      `json:",omitempty"`
	Hangup    bool      `json:",omitempty"` // it ends when no client is attached any more

	Restarts int           `json:",omitempty"`
	Delay    time.Duration `json:",omitempty"`

	// Of a run by another OCI runtime. Until Begun its program may have to be
	// executed yet.
	Foreign *runtime.Foreign `json:",omitempty"`
	Begun   bool             `json:",omitempty"`

	Probe string `json:",omitempty"` // of a health check: the container's cgroup
}

// procIO is a process of ours with its streams: the main process of a
// container, or an exec in one. It lives from before the program runs until
// the last client has its output.
type procIO struct {
	key   string
	note  note
	child *keeper.Child

	streams [2]*spool // stdout (or the terminal's output), stderr; nil where absent
	log     *logWriter
	out     *os.File // of a health check: read end of its output
	checker *checker // of a container with a health check
	rootfs  *os.File // keeps the overlay mounted until cleaned up off the start path

	mu       sync.Mutex
	attached int      // clients
	stdin    *os.File // write end or terminal master; nil when closed or never there
	exit     *keeper.Exit

	reclaimed bool     // from a dead supervisor
	sock      *os.File // to the prepared process, until it is known to run
	startErr  error    // why its program did not run; set by takeOver only

	exited chan struct{} // the process has ended
	pumps  sync.WaitGroup
	done   chan struct{} // and so has everything that had to follow
}

func newProcIO(key string, n note) *procIO {
	return &procIO{key: key, note: n, exited: make(chan struct{}), done: make(chan struct{})}
}

// Names of held descriptors. A stream's are "N.src", "N.mem", "N.in", "N.out".
const (
	heldStdin = "stdin"
	heldSock  = "sock"
	heldOut   = "out"
)

// run names the container's start this is.
func (p *procIO) run() Run {
	return Run{ID: p.note.ID, Token: p.note.Token, Number: p.note.Run, Sync: p.note.Sync, Restarts: p.note.Restarts, Delay: p.note.Delay}
}

// hold hands everything to the keeper. Called again when something changed.
func (p *procIO) hold(ctl *control) error {
	data, err := json.Marshal(p.note)
	if err != nil {
		return err
	}
	m := &keeper.Message{Op: keeper.OpHold, Key: p.key, Child: p.child, Data: string(data)}
	var files []*os.File
	add := func(name string, f *os.File) {
		if f != nil {
			m.Names, files = append(m.Names, name), append(files, f)
		}
	}
	for i, s := range p.streams {
		if s != nil {
			for j, f := range []*os.File{s.src, s.mem, s.via[0], s.via[1]} {
				add(streamNames[i][j], f)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	add(heldStdin, p.stdin)
	add(heldSock, p.sock)
	add(heldOut, p.out)
	return ctl.send(m, files...)
}

var streamNames = [2][4]string{
	{"0.src", "0.mem", "0.in", "0.out"},
	{"1.src", "1.mem", "1.in", "1.out"},
}

// cgroupOf returns the cgroup of an entry's container, or "".
func cgroupOf(m *keeper.Message) string {
	var n note
	_ = json.Unmarshal([]byte(m.Data), &n)
	return n.Cgroup
}

// probeOf returns the cgroup of the container whose health an entry's process
// checks.
func probeOf(m *keeper.Message) string {
	var n note
	_ = json.Unmarshal([]byte(m.Data), &n)
	return n.Probe
}

// reclaim rebuilds a process from what the keeper held.
func reclaim(m *keeper.Message, files []*os.File) (*procIO, error) {
	held := map[string]*os.File{}
	for i, name := range m.Names {
		if i < len(files) {
			held[name] = files[i]
		}
	}
	var n note
	if err := json.Unmarshal([]byte(m.Data), &n); err != nil {
		return nil, fmt.Errorf("entry %s: %w", m.Key, err)
	}
	p := newProcIO(m.Key, n)
	p.child, p.stdin, p.reclaimed = m.Child, held[heldStdin], true
	p.sock = held[heldSock]
	for i, names := range streamNames {
		src, mem := held[names[0]], held[names[1]]
		if src == nil || mem == nil {
			continue
		}
		src, err := sys.NonBlocking(src)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", m.Key, err)
		}
		s := newSpool([2]string{"stdout", "stderr"}[i], src, mem, [2]*os.File{held[names[2]], held[names[3]]})
		if err := s.recover(); err != nil {
			return nil, fmt.Errorf("entry %s: %w", m.Key, err)
		}
		p.streams[i] = s
	}
	if m.Exit != nil {
		p.ended(m.Exit)
	}
	return p, nil
}

// openLog opens or continues the log. After a supervisor's death the streams'
// headers say up to where it is good: the later of the two marks.
func (p *procIO) openLog() error {
	if p.note.LogDir == "" {
		return nil
	}
	var mark logMark
	for _, s := range p.streams {
		if s != nil && s.mark.after(mark) {
			mark = s.mark
		}
	}
	var err error
	if p.log, err = openLog(p.note.LogDir, p.note.LogLimits, mark); err != nil {
		return err
	}
	if p.note.Journal != nil {
		p.log.journal = p.note.Journal.open()
	}
	for _, s := range p.streams {
		if s != nil {
			s.mark = p.log.mark
			s.writeHeader()
		}
	}
	return nil
}

// clearLog empties the log while output goes on.
func (p *procIO) clearLog() error {
	if p.log == nil {
		return nil
	}
	return p.log.clear(func(mark logMark) {
		for _, s := range p.streams {
			if s != nil {
				s.remark(mark)
			}
		}
	})
}

// pump starts moving output.
func (p *procIO) pump() {
	for _, s := range p.streams {
		if s != nil {
			p.pumps.Go(func() { s.pump(p.log, p.exited) })
		}
	}
}

// ended records the exit; only the first counts.
func (p *procIO) ended(e *keeper.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		p.exit = e
		close(p.exited)
	}
}

func (p *procIO) exitCode() int { return p.exitFrame().Code }

func (p *procIO) exitFrame() exitFrame {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		return exitFrame{Code: lostCode}
	}
	return exitFrame{Code: p.exit.Code, At: p.exit.At}
}

// running reports whether the process has not ended yet.
func (p *procIO) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// input returns a descriptor for a client's standard input, or nil, and
// whether the client now is the only one to hold it: then its leaving is the
// end of the input.
func (p *procIO) input() (f *os.File, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f = p.stdin
	if f != nil && p.note.StdinOnce && !p.note.Tty {
		p.stdin = nil
		return f, true
	}
	return f, false
}

// closeInput reports whether there was an input to close.
func (p *procIO) closeInput() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stdin == nil {
		return false
	}
	p.stdin.Close()
	p.stdin = nil
	return true
}

func (p *procIO) close() {
	for _, s := range p.streams {
		if s != nil {
			s.close()
		}
	}
	p.log.close()
	p.closeInput()
	p.mu.Lock()
	defer p.mu.Unlock()
	sys.CloseAll([]*os.File{p.sock, p.rootfs, p.out})
	p.sock, p.rootfs, p.out = nil, nil, nil
}
