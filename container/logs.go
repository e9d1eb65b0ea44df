package container

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"tug/errs"
	"tug/supervisor"
)

// LogOptions says which part of a log is wanted.
type LogOptions struct {
	Follow       bool
	Tail         int // lines from the end; negative is all
	Since, Until time.Time
	Match        func(line []byte) bool // only such lines, Tail counting them alone; nil: all
}

// LogLine is one entry: a line with its newline, or a piece of a longer line
// (or a last line that has none) without.
type LogLine struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	Text   []byte // valid until emit returns
}

// Logs passes a container's log to emit, oldest first. With Follow it goes on
// until the container's present run is over and all of it was passed, or the
// time is past Until.
func (c *Containers) Logs(ctx context.Context, id string, o LogOptions, emit func(LogLine) error) error {
	dir := c.path(id, dirLog)
	if _, err := os.Stat(dir); err != nil {
		return noSuch(id)
	}
	over := make(chan struct{})
	if o.Follow {
		wctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			c.Wait(wctx, id)
			close(over)
		}()
	}
	var filter *logFilter
	if o.Match != nil {
		filter = newLogFilter(o.Match, o.Tail, emit)
		emit, o.Tail = filter.add, -1
	}
	r := &logReader{dir: dir, opts: o, emit: emit}
	if err := r.begin(); err != nil {
		return err
	}
	defer r.close()
	for {
		last := !o.Follow || ctx.Err() != nil || !o.Until.IsZero() && time.Now().After(o.Until)
		select {
		case <-over:
			last = true
		default:
		}
		err := r.drain()
		if err != nil || last {
			if errors.Is(err, errPastUntil) {
				err = nil
			}
			if err == nil && filter != nil {
				err = filter.rest()
			}
			return err
		}
		if filter != nil {
			if err := filter.settled(); err != nil {
				return err
			}
		}
		select {
		case <-over:
		case <-ctx.Done():
		case <-time.After(25 * time.Millisecond):
		}
	}
}

var errPastUntil = errors.New("past the end time")

// logReader reads through the files of a log.
type logReader struct {
	dir  string
	opts LogOptions
	emit func(LogLine) error
	gen  int64
	f    *os.File
	br   *bufio.Reader
	part []byte // an entry whose end is not written yet
}

// begin finds where to start: the oldest entry, or the Tail'th line from the end.
func (r *logReader) begin() error {
	gens, err := supervisor.LogGenerations(r.dir)
	if err != nil {
		return err
	}
	r.gen = 1
	if len(gens) > 0 {
		r.gen = gens[0]
	}
	if r.opts.Tail < 0 {
		return r.open(0)
	}
	t := tail{want: r.opts.Tail}
	for i := len(gens) - 1; i >= 0 && !t.found; i-- {
		r.gen = gens[i]
		if err := t.file(supervisor.LogFile(r.dir, r.gen)); err != nil {
			return err
		}
	}
	return r.open(t.off)
}

func (r *logReader) open(off int64) error {
	f, err := os.Open(supervisor.LogFile(r.dir, r.gen))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not written yet
	}
	if err != nil {
		return err
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		f.Close()
		return err
	}
	r.f, r.br = f, bufio.NewReaderSize(f, 64<<10)
	return nil
}

func (r *logReader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// drain passes on everything there is now.
func (r *logReader) drain() error {
	for {
		if r.f == nil {
			if err := r.open(0); err != nil || r.f == nil {
				return err
			}
		}
		line, err := r.br.ReadSlice('\n')
		r.part = append(r.part, line...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			if more, err := r.nextFile(); err != nil || !more {
				return err
			}
		case err != nil:
			return err
		default:
			entry := r.part
			r.part = r.part[:0]
			if err := r.pass(entry); err != nil {
				return err
			}
		}
	}
}

// nextFile goes to the next file if this one is finished: that is so when the
// next one exists, and then once more read to the end.
func (r *logReader) nextFile() (bool, error) {
	gens, err := supervisor.LogGenerations(r.dir)
	if err != nil {
		return false, err
	}
	for _, g := range gens {
		if g <= r.gen {
			continue
		}
		if _, err := r.br.Peek(1); err == nil {
			return true, nil
		}
		r.close()
		r.gen, r.part = g, r.part[:0]
		return true, nil
	}
	return false, nil
}

func (r *logReader) pass(entry []byte) error {
	l, ok := parseLogLine(entry)
	if !ok {
		return errs.New(errs.Corrupt, "log %s: an entry is not in the CRI format", supervisor.LogFile(r.dir, r.gen))
	}
	if l.Time.Before(r.opts.Since) {
		return nil
	}
	if !r.opts.Until.IsZero() && l.Time.After(r.opts.Until) {
		return errPastUntil
	}
	return r.emit(l)
}

// parseLogLine parses one CRI entry with its newline.
func parseLogLine(b []byte) (LogLine, bool) {
	parts := bytes.SplitN(b, []byte(" "), 4)
	if len(parts) != 4 || len(parts[2]) != 1 {
		return LogLine{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(parts[0]))
	if err != nil {
		return LogLine{}, false
	}
	text := parts[3]
	if parts[2][0] == 'P' {
		text = text[:len(text)-1]
	}
	return LogLine{Time: t, Stream: string(parts[1]), Text: text}, true
}
