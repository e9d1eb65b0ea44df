package supervisor

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"tug/sys"
)

// A spool is where one output stream of a process passes through on its way
// from the pipe or terminal to the log and to attached clients. It is a memory
// file that the keeper holds too, so that a supervisor can be killed at any
// instant without a byte lost or doubled:
//
//	pipe --splice--> spool data --format--> log file   (commit: header.logged)
//	                            --frames--> clients    (each counts for itself)
//
// The splice moves bytes out of the pipe and into the file in one step that
// kill -9 cannot split, so the size of the file says how many bytes were
// taken. The log is written before the header, and the header names the size
// the log then had: what a killed supervisor wrote without committing is cut
// off and written again. Clients count what they received and say so when they
// come back.
//
// Layout: a page with the header (little-endian int64s: base, logged, log
// generation, log size, attached clients), then the data. base is the stream
// offset of the first data byte. The data is dropped (file cut to one page)
// when it is logged and every client has it; after that cut and before the
// header is rewritten, base + data < logged, which means base = logged.
type spool struct {
	name string      // "stdout" or "stderr"
	src  *os.File    // non-blocking read end, or terminal master
	via  [2]*os.File // for a terminal: the pipe in between, read and write end
	mem  *os.File

	sized bool // the header has its page
	wide  bool // src is a larger pipe than it was made

	mu     sync.Mutex
	cond   *sync.Cond // broadcast at every change below
	base   int64
	end    int64
	logged int64
	mark   logMark
	closed bool               // nothing will be added
	sent   map[*session]int64 // next offset each client needs
	await  int                // clients that were attached to a dead supervisor
	until  time.Time          // how long to wait for them
}

// logMark names a state of a log: file number and its size in bytes.
type logMark struct{ gen, size int64 }

func (a logMark) after(b logMark) bool {
	return a.gen > b.gen || a.gen == b.gen && a.size > b.size
}

// chunkSize is how much output is sent to a client at once.
const chunkSize = 32 << 10

// logChunks are the buffers that output passes through on its way to the log;
// an idle stream holds none.
var logChunks = sync.Pool{New: func() any { return new([logChunk]byte) }}

const logChunk = 64 << 10

const (
	spoolHeader  = 4096
	spoolMax     = 1 << 20  // the process waits when so much is not delivered
	spoolCut     = 64 << 10 // not worth cutting before
	resumeWindow = 10 * time.Second

	pipeSize = 64 << 10 // what the kernel makes pipes with
	widePipe = 512 << 10
)

func newSpool(name string, src, mem *os.File, via [2]*os.File) *spool {
	s := &spool{name: name, src: src, mem: mem, via: via, sent: map[*session]int64{}}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// makeSpool makes a spool with a fresh memory file.
func makeSpool(name string, src *os.File, tty bool) (*spool, error) {
	mem, err := sys.Memfd("tug-" + name)
	if err != nil {
		return nil, err
	}
	var via [2]*os.File
	if tty {
		if via[0], via[1], err = sys.Pipe(true, true); err != nil {
			mem.Close()
			return nil, err
		}
	}
	s := newSpool(name, src, mem, via)
	if err := s.writeHeader(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// recover reads the state a former supervisor left.
func (s *spool) recover() error {
	var h [40]byte
	if _, err := s.mem.ReadAt(h[:], 0); err != nil {
		return err
	}
	at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(h[8*i:])) }
	fi, err := s.mem.Stat()
	if err != nil {
		return err
	}
	s.sized = fi.Size() >= spoolHeader
	s.base, s.logged, s.mark = at(0), at(1), logMark{at(2), at(3)}
	s.end = s.base + max(0, fi.Size()-spoolHeader)
	s.await, s.until = int(at(4)), time.Now().Add(resumeWindow)
	if s.end < s.logged {
		// Before new data makes the file look as if it had not been cut.
		s.base, s.end = s.logged, s.logged
		return s.writeHeader()
	}
	return nil
}

func (s *spool) writeHeader() error {
	var h [spoolHeader]byte
	for i, v := range []int64{s.base, s.logged, s.mark.gen, s.mark.size, int64(len(s.sent) + s.await)} {
		binary.LittleEndian.PutUint64(h[8*i:], uint64(v))
	}
	n := 40
	if !s.sized {
		n = spoolHeader // the first time: data must start behind the page
	}
	_, err := s.mem.WriteAt(h[:n], 0)
	s.sized = s.sized || err == nil
	return err
}

func (s *spool) close() {
	sys.CloseAll([]*os.File{s.src, s.mem, s.via[0], s.via[1]})
}

// pump moves output until the stream ends. exited is closed when the process
// has ended: from then on nothing is waited for, what is in the pipe is taken
// and the rest, from descriptors leaked to elsewhere, is not.
func (s *spool) pump(log *logWriter, exited <-chan struct{}) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-exited:
			s.src.SetReadDeadline(time.Unix(1, 0))
			s.mu.Lock()
			s.cond.Broadcast()
			s.mu.Unlock()
		case <-stop:
		}
	}()
	s.log(log, false)
	for {
		room := s.room(log)
		n, err := s.take(room, exited)
		s.mu.Lock()
		s.end += int64(n)
		s.mu.Unlock()
		if n >= pipeSize {
			s.widen()
		}
		if n > 0 {
			s.log(log, false)
		}
		if n == 0 && err != nil {
			break
		}
	}
	s.log(log, true)
	s.mu.Lock()
	s.closed = true
	s.cond.Broadcast()
	s.mu.Unlock()
}

// widen makes the pipe of a process that writes much larger, so that it and the
// pump wait less for each other.
func (s *spool) widen() {
	if !s.wide && s.via[0] == nil {
		s.wide = true
		sys.SetPipeSize(s.src, widePipe)
	}
}

// take splices at most max bytes behind the data there is. It waits unless the
// process has ended. An error means that nothing more will come.
func (s *spool) take(max int, exited <-chan struct{}) (int, error) {
	block := true
	select {
	case <-exited:
		block = false
		s.src.SetReadDeadline(time.Time{})
	default:
	}
	off := spoolHeader + s.end - s.base
	var n int
	var err error
	if s.via[0] == nil {
		n, err = sys.SpliceToFile(s.src, s.mem, off, max, block)
	} else {
		n, err = s.takeTerminal(off, max, block)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, nil // exited: once more, without waiting
	}
	if n == 0 && err == nil && !block {
		err = io.EOF
	}
	return n, err
}

// takeTerminal goes through the pipe in between, because the kernel splices a
// terminal only into a pipe. What is left there by a killed supervisor comes
// first.
func (s *spool) takeTerminal(off int64, max int, block bool) (int, error) {
	n, err := sys.SpliceToFile(s.via[0], s.mem, off, max, false)
	if n > 0 || err != nil && err != io.EOF {
		return n, err
	}
	if _, err := sys.SpliceToPipe(s.src, s.via[1], 16<<10, block); err != nil {
		return 0, err
	}
	return sys.SpliceToFile(s.via[0], s.mem, off, max, false)
}

// room waits until the spool has room and returns how much. The wait is for
// slow clients only: the log never lags.
func (s *spool) room(log *logWriter) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.cut()
		if n := spoolMax - (s.end - s.base); n > 0 {
			return int(n)
		}
		if s.logged < s.end { // an endless line: log what there is of it
			s.mu.Unlock()
			s.log(log, true)
			s.mu.Lock()
			continue
		}
		s.waitOrResume()
	}
}

// waitOrResume waits for a change, or for the end of the resume window.
func (s *spool) waitOrResume() {
	if s.await > 0 {
		t := time.AfterFunc(time.Until(s.until), func() { s.mu.Lock(); s.cond.Broadcast(); s.mu.Unlock() })
		defer t.Stop()
	}
	s.cond.Wait()
}

// cut drops the data when nobody needs it any more. s.mu is held.
func (s *spool) cut() {
	if s.end-s.base < spoolCut || s.logged < s.end || s.awaiting() {
		return
	}
	for _, off := range s.sent {
		if off < s.end {
			return
		}
	}
	// This order: see the type's comment.
	if s.mem.Truncate(spoolHeader) == nil {
		s.base = s.end
		s.writeHeader()
	}
}

// awaiting reports whether clients of a dead supervisor may still come back.
func (s *spool) awaiting() bool {
	return s.await > 0 && time.Now().Before(s.until)
}

// log writes what is new to the log and commits it. Without a log everything
// counts as logged. flush also writes an unfinished line. Only the pump's
// goroutine calls it.
func (s *spool) log(w *logWriter, flush bool) {
	if s.logged == s.end {
		return
	}
	buf := logChunks.Get().(*[logChunk]byte)
	defer logChunks.Put(buf)
	for s.logged < s.end {
		if w == nil {
			s.commit(s.end, logMark{})
			return
		}
		n, err := s.mem.ReadAt(buf[:min(int64(len(buf)), s.end-s.logged)], spoolHeader+s.logged-s.base)
		if n == 0 && err != nil {
			return
		}
		used := w.write(s.name, buf[:n], flush && s.logged+int64(n) == s.end, func(used int, mark logMark) {
			s.commit(s.logged+int64(used), mark)
		})
		if used == 0 {
			break
		}
	}
	s.mu.Lock()
	s.cond.Broadcast()
	s.mu.Unlock()
}

func (s *spool) commit(logged int64, mark logMark) {
	s.mu.Lock()
	s.logged, s.mark = logged, mark
	s.writeHeader()
	s.cond.Broadcast()
	s.mu.Unlock()
}

// remark records where the log ends now, when that has nothing to do with this
// stream. The log's lock is held, so nothing is being written.
func (s *spool) remark(mark logMark) {
	s.mu.Lock()
	s.mark = mark
	s.writeHeader()
	s.mu.Unlock()
}

// expect keeps all output for a client that is about to attach, also across
// the supervisor's death.
func (s *spool) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.await, s.until = 1, time.Now().Add(resumeWindow)
	s.writeHeader()
}

// attach registers a client. resume < 0 starts at what comes next; otherwise
// the client has everything before that offset. It returns where it starts.
func (s *spool) attach(c *session, resume int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	off := s.end
	if resume >= 0 {
		off = min(max(resume, s.base), s.end)
		if s.await > 0 {
			s.await--
		}
	}
	s.sent[c] = off
	s.writeHeader()
	return off
}

func (s *spool) detach(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sent, c)
	s.writeHeader()
	s.cond.Broadcast()
}

// next waits for output the client does not have and reads it into buf. It
// returns io.EOF when the stream has ended and the client has all of it, or
// when the client was detached.
func (s *spool) next(c *session, buf []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		off, ok := s.sent[c]
		if !ok {
			return 0, io.EOF
		}
		if off < s.end {
			return s.mem.ReadAt(buf[:min(int64(len(buf)), s.end-off)], spoolHeader+off-s.base)
		}
		if s.closed {
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}

// delivered counts n bytes as sent to the client.
func (s *spool) delivered(c *session, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off, ok := s.sent[c]; ok {
		s.sent[c] = off + int64(n)
		s.cond.Broadcast()
	}
}

// settled waits until the stream has ended, every client has all of it, and
// none may come back for it.
func (s *spool) settled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed || len(s.sent) > 0 || s.awaiting() {
		s.waitOrResume()
	}
}
