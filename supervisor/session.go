package supervisor

import (
	"io"
	"sync"
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
	})
}
