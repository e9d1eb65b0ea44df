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
	Tail         int // entries from the end; negative is all
	Since, Until time.Time
}

// LogLine is one entry: a line with its newline, or a piece of a longer line
// (or a last line that has none) without.
type LogLine struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	Text   []byte // valid until emit returns
}

// Logs passes a container's log to emit, oldest first. With Follow it goes on
// until the container's present run is over and all of it was passed.
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
	r := &logReader{dir: dir, opts: o, emit: emit}
	if err := r.begin(); err != nil {
		return err
	}
	defer r.close()
	for {
		last := !o.Follow || ctx.Err() != nil
		select {
		case <-over:
			last = true
		default:
		}
		if err := r.drain(); err != nil || last {
			if errors.Is(err, errPastUntil) {
				err = nil
			}
			return err
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

// begin finds where to start: the oldest entry, or the Tail'th from the end.
func (r *logReader) begin() error {
	gens, err := supervisor.LogGenerations(r.dir)
	if err != nil {
		return err
	}
	r.gen = 1
	if len(gens) > 0 {
		r.gen = gens[0]
	}
	var off int64
	if r.opts.Tail >= 0 {
		want := r.opts.Tail
		for i := len(gens) - 1; i >= 0; i-- {
			r.gen = gens[i]
			var found int
			if off, found, err = tailOffset(supervisor.LogFile(r.dir, r.gen), want); err != nil {
				return err
			}
			if want -= found; want <= 0 {
				break
			}
		}
	}
	return r.open(off)
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

// tailOffset finds where the last n lines of a log file begin, reading
// backwards, and how many there are (at most n). Pieces count with the line
// they belong to.
func tailOffset(path string, n int) (off int64, found int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, 0, err
	}
	const block = 64 << 10
	buf := make([]byte, block)
	// lineAt is where the entry behind the newline being looked at begins.
	for pos, first := end, true; pos > 0; {
		size := min(pos, block)
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' {
				continue
			}
			if first {
				first = false
				continue
			}
			// A new line of output begins behind this newline, unless the
			// entry before it was a piece.
			if found++; found == n {
				return pos + i + 1, found, nil
			}
		}
	}
	if end > 0 {
		found++
	}
	return 0, found, nil
}
