package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Logs are CRI lines (Kubernetes CRI logging format: RFC 3339 time with
// nanoseconds, stream, tag F or P, text), in files NNNNNN.log of a container's
// log directory, numbered upwards. P marks a piece of a line that goes on in
// the next entry of the stream. When a file has grown to a size the next one is
// begun; only the last few are kept.
//
// Times do not go back, so that a reader can look for one by halves. When the
// clock is set back by more than stepMax they do all the same; then there is a
// file "unordered", and readers read everything.
const (
	logFileMax = 64 << 20
	logFiles   = 5
	// lineMax is where a long line is cut into pieces, as Docker does.
	lineMax = 16 << 10
	// outMax is about how much is formatted before it is written.
	outMax = 256 << 10

	stepMax       = time.Second
	fileUnordered = "unordered"
)

// LogTime is how the times of entries are written: always in UTC, and always
// with the same number of characters.
const LogTime = "2006-01-02T15:04:05.000000000Z"

// LogLimits bounds a container's log. Zero values are what tug does where
// nobody says anything.
type LogLimits struct {
	Size  int64 `json:",omitempty"` // of one file, in bytes; negative is no limit
	Files int   `json:",omitempty"` // how many are kept
}

func (l LogLimits) orDefault() LogLimits {
	if l.Size == 0 {
		l.Size = logFileMax
	}
	if l.Files <= 0 {
		l.Files = logFiles
	}
	return l
}

// logWriter is the one writer of a container's log. Both streams share it.
type logWriter struct {
	dir     string
	limits  LogLimits
	journal *journal // gets everything, too; nil for none

	mu   sync.Mutex
	f    *os.File // for appending, so that whoever empties the file leaves no hole in it
	mark logMark
	last time.Time // of the last entry
	err  error     // first failure, reported once
}

// outs are the buffers that entries are formatted in.
var outs = sync.Pool{New: func() any { return new([]byte) }}

// openLog continues the log at mark, cutting off what lies behind it (written
// but not committed by a killed supervisor). A mark of generation 0 begins
// behind whatever is there.
func openLog(dir string, limits LogLimits, mark logMark) (*logWriter, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	gens, err := LogGenerations(dir)
	if err != nil {
		return nil, err
	}
	w := &logWriter{dir: dir, limits: limits.orDefault(), mark: mark}
	if mark.gen == 0 {
		w.mark.gen = 1
		if len(gens) > 0 {
			w.mark.gen = gens[len(gens)-1]
		}
	}
	for _, g := range gens {
		if g > w.mark.gen || g <= w.mark.gen-int64(w.limits.Files) {
			os.Remove(LogFile(dir, g))
		}
	}
	if w.f, err = os.OpenFile(LogFile(dir, w.mark.gen), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	if err := w.goOn(mark.gen == 0); err != nil {
		w.f.Close()
		return nil, err
	}
	return w, nil
}

// goOn finds out where in the file the log goes on. A fresh one goes on behind
// the last whole entry: after a power failure part of one may be there. The
// file may be shorter than its mark says, when somebody has emptied it.
func (w *logWriter) goOn(fresh bool) error {
	size, err := w.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	end := size
	if !fresh {
		end = min(size, w.mark.size)
	}
	if whole, last, err := lastEntry(w.f, end); err == nil {
		w.last = last
		if fresh {
			end = whole
		}
	}
	w.mark.size = end
	if end == size {
		return nil
	}
	return w.f.Truncate(end)
}

// lastEntry returns where the last whole entry below end ends, and its time.
// Where there is none in the file, it is the file's beginning; where there is
// none for as far as entries reach, it is end. The time is then zero.
func lastEntry(f io.ReaderAt, end int64) (int64, time.Time, error) {
	b := make([]byte, min(end, 4*lineMax))
	from := end - int64(len(b))
	if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return 0, time.Time{}, err
	}
	last := bytes.LastIndexByte(b, '\n')
	if last < 0 && from == 0 {
		return 0, time.Time{}, nil
	}
	if last < 0 {
		return end, time.Time{}, nil
	}
	entry := b[bytes.LastIndexByte(b[:last], '\n')+1 : last]
	t, _ := EntryTime(entry)
	return from + int64(last) + 1, t, nil
}

// EntryTime is the time of an entry, or of its beginning. Long logs have
// millions of entries, so it is faster than time.Parse, which would do.
func EntryTime(entry []byte) (time.Time, bool) {
	const shape = "0000-00-00T00:00:00.000000000Z"
	if len(entry) < len(shape) {
		return time.Time{}, false
	}
	for i := range len(shape) {
		if c := entry[i]; shape[i] == '0' && (c < '0' || c > '9') || shape[i] != '0' && c != shape[i] {
			return time.Time{}, false
		}
	}
	n := func(from, to int) (v int) {
		for _, c := range entry[from:to] {
			v = v*10 + int(c-'0')
		}
		return v
	}
	month, day, hour, minute, second := n(5, 7), n(8, 10), n(11, 13), n(14, 16), n(17, 19)
	if month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return time.Time{}, false
	}
	return time.Date(n(0, 4), time.Month(month), day, hour, minute, second, n(20, 29), time.UTC), true
}

// LogFile is the path of one file of a log.
func LogFile(dir string, gen int64) string {
	return filepath.Join(dir, fmt.Sprintf("%06d.log", gen))
}

// LogUnordered reports whether the times of a log may go back somewhere.
func LogUnordered(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, fileUnordered))
	return !errors.Is(err, fs.ErrNotExist)
}

// LogGenerations lists the file numbers of a log, oldest first. An absent
// directory has none.
func LogGenerations(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir) // sorted by name, so by number
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var gens []int64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		if g, err := strconv.ParseInt(name, 10, 64); ok && err == nil && g > 0 {
			gens = append(gens, g)
		}
	}
	return gens, nil
}

// write logs whole lines of b, and with flush also the rest, and returns how
// many bytes of b are in the log; there may be more to write. commit hears that
// and where the log then ends, before the other stream writes: else a recovered
// log would end behind what this stream did not commit and would write again.
// When the log cannot be written (a full disk), the bytes are dropped and
// counted as written: a container must not hang because its log has no room.
//
// Files go only once commit has heard of the next one: until then a recovered
// log ends in one of them.
func (w *logWriter) write(stream string, b []byte, flush bool, commit func(used int, end logMark)) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	buf := outs.Get().(*[]byte)
	defer outs.Put(buf)
	now := w.now()
	used := w.format(buf, now, stream, b, flush)
	if used == 0 {
		return 0
	}
	n, err := w.f.Write(*buf)
	w.mark.size += int64(n)
	if err != nil {
		w.fail(err)
		// No half line may stay: the next entry would be glued to it. The file
		// may be shorter than its mark, when somebody has emptied it.
		w.mark.size -= int64(n)
		if fi, err := w.f.Stat(); err == nil {
			w.f.Truncate(fi.Size() - int64(n))
		}
	}
	if w.journal != nil {
		w.journal.send(*buf)
	}
	next := w.limits.Size > 0 && w.mark.size >= w.limits.Size && w.rotate() == nil
	commit(used, w.mark)
	if next {
		os.Remove(LogFile(w.dir, w.mark.gen-int64(w.limits.Files)))
	}
	return used
}

func (w *logWriter) fail(err error) {
	if w.err == nil {
		w.err = err
		fmt.Fprintf(os.Stderr, "supervisor: write log %s: %v; output is lost until there is room\n", w.dir, err)
	}
}

// now is the time of the next entries. A clock that was set back a little
// stands still until it is where it was.
func (w *logWriter) now() time.Time {
	now := time.Now().Round(0).UTC() // of the wall: the monotonic clock knows of no steps
	switch back := w.last.Sub(now); {
	case back > stepMax:
		f, err := os.OpenFile(filepath.Join(w.dir, fileUnordered), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			w.fail(err)
			return w.last
		}
		f.Close()
	case back > 0:
		return w.last
	}
	w.last = now
	return now
}

// format fills buf and returns how many bytes of b went into it. It ends where
// the file is full.
func (w *logWriter) format(buf *[]byte, now time.Time, stream string, b []byte, flush bool) int {
	head := make([]byte, 0, 64)
	head = now.AppendFormat(head, LogTime)
	head = append(append(append(head, ' '), stream...), " F "...)
	room := outMax
	if w.limits.Size > 0 {
		room = int(min(outMax, max(w.limits.Size-w.mark.size, 1)))
	}
	out := (*buf)[:0]
	used := 0
	for used < len(b) && len(out) < room {
		rest := b[used:]
		i := bytes.IndexByte(rest, '\n')
		out = append(out, head...)
		if i >= 0 && i <= lineMax {
			out = append(out, rest[:i+1]...)
			used += i + 1
			continue
		}
		n := len(rest)
		if n >= lineMax {
			n = lineMax
		} else if !flush {
			out = out[:len(out)-len(head)]
			break
		}
		out[len(out)-2] = 'P'
		out = append(append(out, rest[:n]...), '\n')
		used += n
	}
	*buf = out
	return used
}

// rotate begins the next file.
func (w *logWriter) rotate() error {
	f, err := os.OpenFile(LogFile(w.dir, w.mark.gen+1), os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		w.fail(err)
		return err
	}
	w.f.Close()
	w.f, w.mark = f, logMark{gen: w.mark.gen + 1}
	return nil
}

// clear begins the next file and removes those before it. commit hears where
// the log then ends, before anything is gone.
func (w *logWriter) clear(commit func(logMark)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.rotate(); err != nil {
		return err
	}
	commit(w.mark)
	return removeBefore(w.dir, w.mark.gen)
}

// ClearLog empties the log in dir of a container that does not run. Numbers of
// files are not used again: somebody may be reading.
func ClearLog(dir string) error {
	gens, err := LogGenerations(dir)
	if err != nil || len(gens) == 0 {
		return err
	}
	next := gens[len(gens)-1] + 1
	f, err := os.OpenFile(LogFile(dir, next), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	return removeBefore(dir, next)
}

// removeBefore removes the files of a log before gen, the oldest first, so
// that what a crash leaves is the end of the log.
func removeBefore(dir string, gen int64) error {
	gens, err := LogGenerations(dir)
	if err != nil {
		return err
	}
	for _, g := range gens {
		if g >= gen {
			break
		}
		if err := os.Remove(LogFile(dir, g)); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, fileUnordered)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (w *logWriter) close() {
	if w != nil {
		w.mu.Lock()
		w.f.Close()
		w.mu.Unlock()
		if w.journal != nil {
			w.journal.close()
		}
	}
}
