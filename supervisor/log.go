package supervisor

import (
	"bytes"
	"fmt"
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
// the next entry of the stream. When a file has grown over logFileMax the next
// one is begun; the last logFiles are kept.
const (
	logFileMax = 64 << 20
	logFiles   = 5
	// lineMax is where a long line is cut into pieces, as Docker does.
	lineMax = 16 << 10
)

// logWriter is the one writer of a container's log. Both streams share it.
type logWriter struct {
	dir string

	mu   sync.Mutex
	f    *os.File
	mark logMark
	out  []byte
	err  error // first failure, reported once
}

// openLog continues the log at mark, cutting off what lies behind it (written
// but not committed by a killed supervisor). A mark of generation 0 begins
// behind whatever is there.
func openLog(dir string, mark logMark) (*logWriter, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	gens, err := LogGenerations(dir)
	if err != nil {
		return nil, err
	}
	w := &logWriter{dir: dir, mark: mark}
	if mark.gen == 0 {
		w.mark.gen = 1
		if len(gens) > 0 {
			w.mark.gen = gens[len(gens)-1]
		}
	}
	for _, g := range gens {
		if g > w.mark.gen {
			os.Remove(LogFile(dir, g))
		}
	}
	if w.f, err = os.OpenFile(LogFile(dir, w.mark.gen), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if mark.gen == 0 {
		w.mark.size, err = w.f.Seek(0, 2)
	} else if err = w.f.Truncate(w.mark.size); err == nil {
		_, err = w.f.Seek(w.mark.size, 0)
	}
	if err != nil {
		w.f.Close()
		return nil, err
	}
	return w, nil
}

// LogFile is the path of one file of a log.
func LogFile(dir string, gen int64) string {
	return filepath.Join(dir, fmt.Sprintf("%06d.log", gen))
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
// many bytes of b are in the log. commit hears that and where the log then
// ends, before the other stream writes: else a recovered log would end behind
// what this stream did not commit and would write again. When the log
// cannot be written (a full disk), the bytes are dropped and counted as
// written: a container must not hang because its log has no room.
func (w *logWriter) write(stream string, b []byte, flush bool, commit func(used int, end logMark)) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	used := w.format(stream, b, flush)
	if used == 0 {
		return 0
	}
	n, err := w.f.Write(w.out)
	w.mark.size += int64(n)
	if err != nil {
		w.fail(err)
		// No half line may stay: the next entry would be glued to it.
		w.mark.size -= int64(n)
		w.f.Truncate(w.mark.size)
		w.f.Seek(w.mark.size, 0)
	}
	if w.mark.size >= logFileMax {
		w.rotate()
	}
	commit(used, w.mark)
	return used
}

func (w *logWriter) fail(err error) {
	if w.err == nil {
		w.err = err
		fmt.Fprintf(os.Stderr, "supervisor: write log %s: %v; output is lost until there is room\n", w.dir, err)
	}
}

// format fills w.out and returns how many bytes of b went into it.
func (w *logWriter) format(stream string, b []byte, flush bool) int {
	now := time.Now().UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000000Z")
	w.out = w.out[:0]
	entry := func(tag byte, text []byte) {
		w.out = append(w.out, now...)
		w.out = append(w.out, ' ')
		w.out = append(w.out, stream...)
		w.out = append(w.out, ' ', tag, ' ')
		w.out = append(w.out, text...)
		w.out = append(w.out, '\n')
	}
	used := 0
	for used < len(b) {
		rest := b[used:]
		i := bytes.IndexByte(rest, '\n')
		switch {
		case i >= 0 && i <= lineMax:
			entry('F', rest[:i])
			used += i + 1
		case i > lineMax || len(rest) >= lineMax:
			entry('P', rest[:lineMax])
			used += lineMax
		case flush:
			entry('P', rest)
			used += len(rest)
		default:
			return used
		}
	}
	return used
}

// rotate begins the next file and removes the oldest beyond logFiles.
func (w *logWriter) rotate() {
	f, err := os.OpenFile(LogFile(w.dir, w.mark.gen+1), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		w.fail(err)
		return
	}
	w.f.Close()
	w.f, w.mark = f, logMark{gen: w.mark.gen + 1}
	os.Remove(LogFile(w.dir, w.mark.gen-logFiles))
}

func (w *logWriter) close() {
	if w != nil {
		w.mu.Lock()
		w.f.Close()
		w.mu.Unlock()
	}
}
