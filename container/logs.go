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
	"tug/spec"
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

// Logs passes a container's log to emit, oldest first: what is there when it is
// called, however much is added meanwhile. With Follow it goes on until the
// container's present run is over and all of it was passed, or the time is past
// Until.
func (c *Containers) Logs(ctx context.Context, id string, o LogOptions, emit func(LogLine) error) error {
	ctr, err := c.config(id)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(id)
	}
	if err != nil {
		return err
	}
	if ctr.Host.Log.Name() == spec.LogNone {
		return errNoReading()
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
	r := &logReader{dir: c.path(id, dirLog), opts: o, emit: emit}
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

// ClearLog empties a container's log. What it writes from then on is logged as
// ever; who follows the log goes on with that.
func (c *Containers) ClearLog(ctx context.Context, id string) error {
	lock, err := c.lock(id)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(id)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	ctr, err := c.config(id)
	if err != nil {
		return err
	}
	if ctr.Host.Log.Name() == spec.LogNone {
		return errNoReading()
	}
	// The supervisor is the one writer as long as it has the run, which may be
	// a moment longer than the container runs. None begins: we have the lock.
	running, err := c.client.ClearLog(ctx, id)
	if err == nil && !running {
		err = supervisor.ClearLog(c.path(id, dirLog))
	}
	return noSpace(err)
}

var errPastUntil = errors.New("past the end time")

// logReader reads through the files of a log.
type logReader struct {
	dir       string
	opts      LogOptions
	emit      func(LogLine) error
	unordered bool
	gen       int64
	f         *os.File
	br        *bufio.Reader
	at        int64  // how far the file was read
	part      []byte // an entry whose end is not written yet
	stamp     []byte // the last entry's time as written, and as time
	time      time.Time

	// Where reading ends, without Follow: else it would not, as long as a
	// container writes faster than somebody reads.
	endGen, endSize int64
}

// begin finds where to start: the oldest entry, the Tail'th line from the end,
// or where Since may be, whichever comes last.
func (r *logReader) begin() error {
	gens, err := supervisor.LogGenerations(r.dir)
	if err != nil {
		return err
	}
	r.gen, r.endGen = 1, 1
	if len(gens) > 0 {
		r.gen, r.endGen = gens[0], gens[len(gens)-1]
	}
	if fi, err := os.Stat(supervisor.LogFile(r.dir, r.endGen)); err == nil {
		r.endSize = fi.Size()
	}
	r.unordered = supervisor.LogUnordered(r.dir)
	from := logPlace{r.gen, 0}
	if r.opts.Tail >= 0 {
		t := tail{want: r.opts.Tail}
		for i := len(gens) - 1; i >= 0 && !t.found; i-- {
			if err := t.file(supervisor.LogFile(r.dir, gens[i])); err != nil {
				return err
			}
			from = logPlace{gens[i], t.off}
		}
	}
	if !r.opts.Since.IsZero() && !r.unordered {
		at, err := findSince(r.dir, gens, r.opts.Since)
		if err != nil {
			return err
		}
		if at.after(from) {
			from = at
		}
	}
	r.gen = from.gen
	return r.open(from.off)
}

// open opens the present file, or, when it was removed meanwhile, the next one
// that is there.
func (r *logReader) open(off int64) error {
	f, err := os.Open(supervisor.LogFile(r.dir, r.gen))
	for errors.Is(err, fs.ErrNotExist) {
		next, lerr := r.next()
		if lerr != nil || next == 0 {
			return lerr // not written yet
		}
		r.gen, off = next, 0
		f, err = os.Open(supervisor.LogFile(r.dir, r.gen))
	}
	if err != nil {
		return err
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		f.Close()
		return err
	}
	r.f, r.br, r.at = f, bufio.NewReaderSize(f, 64<<10), off
	return nil
}

// next is the number of the file after the present one, 0 for none.
func (r *logReader) next() (int64, error) {
	if _, err := os.Lstat(supervisor.LogFile(r.dir, r.gen+1)); err == nil {
		return r.gen + 1, nil // and no need to look through what may be thousands
	}
	gens, err := supervisor.LogGenerations(r.dir)
	for _, g := range gens {
		if g > r.gen {
			return g, err
		}
	}
	return 0, err
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
		if !r.opts.Follow && (r.gen > r.endGen || r.gen == r.endGen && r.at >= r.endSize) {
			return nil
		}
		line, err := r.br.ReadSlice('\n')
		r.at += int64(len(line))
		entry := line
		if len(r.part) > 0 || err != nil {
			r.part = append(r.part, line...)
			entry = r.part
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			if more, err := r.nextFile(); err != nil || !more {
				return err
			}
		case err != nil:
			return err
		default:
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
	next, err := r.next()
	if err != nil || next == 0 {
		return false, err
	}
	if _, err := r.br.Peek(1); err == nil {
		return true, nil
	}
	r.close()
	r.gen, r.part = next, r.part[:0]
	return true, nil
}

func (r *logReader) pass(entry []byte) error {
	l, ok := r.parse(entry)
	if !ok {
		return errs.New(errs.Corrupt, "log %s: an entry is not in the CRI format", supervisor.LogFile(r.dir, r.gen))
	}
	if l.Time.Before(r.opts.Since) {
		return nil
	}
	if !r.opts.Until.IsZero() && l.Time.After(r.opts.Until) {
		if r.unordered {
			return nil
		}
		return errPastUntil
	}
	return r.emit(l)
}

// parse parses one CRI entry with its newline. Entries that were written
// together have the same time, which is then not parsed again.
func (r *logReader) parse(b []byte) (LogLine, bool) {
	when, rest, ok1 := bytes.Cut(b, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || len(rest) < 2 || rest[1] != ' ' {
		return LogLine{}, false
	}
	if !bytes.Equal(when, r.stamp) {
		t, ok := supervisor.EntryTime(when)
		if !ok || len(when) != len(supervisor.LogTime) {
			return LogLine{}, false
		}
		r.stamp, r.time = append(r.stamp[:0], when...), t
	}
	text := rest[2:]
	if rest[0] == 'P' {
		text = text[:len(text)-1]
	}
	l := LogLine{Time: r.time, Stream: streamOut, Text: text}
	if string(stream) != streamOut {
		l.Stream = string(stream)
	}
	return l, true
}

const streamOut = "stdout"
