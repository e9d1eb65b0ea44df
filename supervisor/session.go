package supervisor

import (
	"io"
	"sync"
	"syscall"
	"time"

	"tug/sys"
)

// session is one attached client: a connection and its place in each stream.
type session struct {
	conn conn
	io   *procIO

	once sync.Once
	gone chan struct{} // closed when the client is gone
}

func newSession(c conn, p *procIO) *session {
	return &session{conn: c, io: p, gone: make(chan struct{})}
}

// join registers the session with the streams it wants, before any output
// beyond the given offsets can be dropped. It returns the offset in each stream
// that the client begins at.
func (s *session) join(o *AttachOptions, resume *[2]int64) (from [2]int64) {
	s.io.mu.Lock()
	s.io.attached++
	s.io.mu.Unlock()
	for i, sp := range s.io.streams {
		if sp == nil || !o.wants(i, s.io.note.Tty) {
			continue
		}
		at := int64(-1)
		if resume != nil {
			at = resume[i]
		}
		from[i] = sp.attach(s, at)
	}
	return from
}

// run forwards output until the process has ended and everything is sent, or
// the client is gone. A client that leaves takes nothing along.
func (s *session) run() {
	defer s.leave()
	go s.watch()
	var wg sync.WaitGroup
	for i, sp := range s.io.streams {
		if sp != nil {
			wg.Go(func() { s.forward(sp, [2]byte{frameStdout, frameStderr}[i]) })
		}
	}
	wg.Wait()
	select {
	case <-s.io.done:
		s.conn.send(frameExit, s.io.exitFrame())
	case <-s.gone:
	}
}

func (s *session) forward(sp *spool, kind byte) {
	buf := make([]byte, maxFrame)
	buf[0] = kind
	for {
		n, err := sp.next(s, buf[1:])
		if n == 0 && err != nil {
			if err != io.EOF {
				s.leave()
			}
			return
		}
		if _, err := s.conn.Write(buf[:1+n]); err != nil {
			s.leave()
			return
		}
		sp.delivered(s, n)
	}
}

// watch notices that the client left: it sends nothing after its request.
func (s *session) watch() {
	var b [1]byte
	s.conn.Read(b[:])
	s.leave()
}

func (s *session) leave() {
	s.once.Do(func() {
		close(s.gone)
		s.conn.Close()
		for _, sp := range s.io.streams {
			if sp != nil {
				sp.detach(s)
			}
		}
		s.io.mu.Lock()
		s.io.attached--
		alone := s.io.attached == 0
		s.io.mu.Unlock()
		if alone && s.io.note.Hangup && s.io.running() {
			s.io.hangUp()
		}
	})
}

// hangUpGrace is how long a process has that is told that its client is gone.
const hangUpGrace = 2 * time.Second

// hangUp ends a process that nobody has to do with any more.
func (p *procIO) hangUp() {
	_ = sys.SignalProcess(p.child.Pid, p.child.Start, syscall.SIGHUP)
	time.AfterFunc(hangUpGrace, func() {
		if p.running() {
			_ = sys.SignalProcess(p.child.Pid, p.child.Start, syscall.SIGKILL)
		}
	})
}
