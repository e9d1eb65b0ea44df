package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"tug/sys"
)

// linked reports whether the file is still in its directory.
func linked(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 0
}

// Query says which events are wanted.
type Query struct {
	Since time.Time // zero: those from now on
	Until time.Time // zero: without end
}

// Read passes events to emit in the order in which they were written, those of
// the past first, then others as they happen: until the time Until, or ctx is
// done. It returns the first error of emit.
func (l *Log) Read(ctx context.Context, q Query, emit func(*Event) error) error {
	now := time.Now()
	r := &reader{dir: l.dir, q: q, emit: emit, runs: map[ofRun]int{}}
	defer r.close()
	if q.Since.IsZero() {
		r.q.Since = now
	}
	if !q.Until.IsZero() && !q.Until.After(now) {
		return r.drain()
	}
	if !q.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, q.Until)
		defer cancel()
	}
	return r.follow(ctx)
}

// reader reads through the files of a log.
type reader struct {
	dir  string
	q    Query
	emit func(*Event) error

	at   string // the file being read
	f    *os.File
	part []byte // a line whose end is not written yet
	buf  []byte
	runs map[ofRun]int // the run of which it was passed on last
}

// follow reads what is there and then what comes, until ctx is done.
func (r *reader) follow(ctx context.Context) error {
	// The directory is watched before it is read, so nothing is missed.
	if err := os.Mkdir(r.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	w, err := sys.WatchDir(r.dir)
	if err != nil {
		return err
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { w.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	seen := make([]byte, 4096)
	for {
		if err := r.drain(); err != nil {
			return err
		}
		if _, err := w.Read(seen); err != nil {
			if ctx.Err() != nil {
				return r.drain()
			}
			return err
		}
	}
}

// drain passes on everything there is now.
func (r *reader) drain() error {
	for {
		if r.f != nil {
			if err := r.readOn(); err != nil {
				return err
			}
		}
		more, err := r.next()
		if err != nil || !more {
			return err
		}
	}
}

// next goes on to the file behind the present one, if there is one. That one
// may have got a last line in the moment when it was read to its end.
func (r *reader) next() (bool, error) {
	all, err := segments(r.dir)
	if err != nil {
		return false, err
	}
	for i, s := range all {
		over := i+1 < len(all) && all[i+1].start.Before(r.q.Since.Add(-slack))
		if s.path <= r.at || r.f == nil && over {
			continue
		}
		if r.f != nil {
			if err := r.readOn(); err != nil {
				return false, err
			}
		}
		f, err := os.Open(s.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just forgotten
		}
		if err != nil {
			return false, err
		}
		r.close()
		r.f, r.at, r.part = f, s.path, r.part[:0]
		return true, nil
	}
	return false, nil
}

// slack is how much later than its time an event may be written.
const slack = time.Minute

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// readOn reads the present file to its present end.
func (r *reader) readOn() error {
	if r.buf == nil {
		r.buf = make([]byte, 64<<10)
	}
	for {
		n, err := r.f.Read(r.buf)
		r.part = append(r.part, r.buf[:n]...)
		for {
			i := bytes.IndexByte(r.part, '\n')
			if i < 0 {
				break
			}
			if err := r.line(r.part[:i]); err != nil {
				return err
			}
			r.part = r.part[i+1:]
		}
		if err == io.EOF {
			r.part = bytes.Clone(r.part)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line passes on the event in one line. What is none was torn by a crash.
func (r *reader) line(b []byte) error {
	var e Event
	if len(b) == 0 || json.Unmarshal(b, &e) != nil {
		return nil
	}
	if e.Time.Before(r.q.Since) || !r.q.Until.IsZero() && e.Time.After(r.q.Until) || r.twice(&e) {
		return nil
	}
	return r.emit(&e)
}

// ofRun is the beginning or the end of a container's runs.
type ofRun struct{ id, action string }

// twice reports whether the beginning or the end of a container's run comes
// again.
func (r *reader) twice(e *Event) bool {
	if e.Type != Container || e.Run == 0 && e.Action != "destroy" {
		return false
	}
	switch e.Action {
	case "start", "die":
		of := ofRun{e.ID, e.Action}
		if r.runs[of] == e.Run {
			return true
		}
		r.runs[of] = e.Run
	case "destroy":
		delete(r.runs, ofRun{e.ID, "start"})
		delete(r.runs, ofRun{e.ID, "die"})
	}
	return false
}
