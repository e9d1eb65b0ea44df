// Package event is the memory of what happened in a store: each change of a
// container or image, when, and by whom or why. Commands and the supervisor
// append to it; `tug events` reads it, also as it grows.
//
// It is lines of JSON in files events/<start>.jsonl, where start is the time of
// the first line in nanoseconds since 1970, in 20 digits. A line is written with
// one write(2) on a descriptor with O_APPEND, so lines of many processes never
// mix; it begins with a newline as well, so that the end of a line that a crash
// tore off does not take the next one along. A file that has grown to 16 MiB is
// left for a new one, and then files that are older than 90 days, and the oldest
// beyond 16, are removed.
//
// Events are told after the fact and are not synced to disk: a power failure can
// lose the last seconds, and a full disk loses what happens meanwhile. Nothing
// in tug depends on them.
package event

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Types of what an event is about, Docker's words.
const (
	Container = "container"
	Image     = "image"
	Volume    = "volume"
)

// Event is one thing that happened. Types, actions and attributes are those of
// Docker's events.
type Event struct {
	Type       string            `json:"type"`
	Action     string            `json:"action"`
	ID         string            `json:"id"` // of what it happened to
	Attributes map[string]string `json:"attributes,omitempty"`
	Time       time.Time         `json:"time"`
	Cause      Cause             `json:"cause"`
	// Run numbers a container's starts. Of two events of the same action and
	// run, which a killed supervisor can leave, readers pass on one.
	Run int `json:"run,omitempty"`
}

// Cause is who or what made something happen.
type Cause struct {
	By  string `json:"by"`            // a command ("tug rm"), or why without one ("its program ended")
	Pid int    `json:"pid,omitempty"` // of the command
	UID int    `json:"uid"`           // of its user
}

func (c Cause) String() string {
	if c.Pid == 0 {
		return c.By
	}
	return fmt.Sprintf("%s, process %d of user %d", c.By, c.Pid, c.UID)
}

const (
	segmentSize = 16 << 20
	segmentsMax = 16
	keepFor     = 90 * 24 * time.Hour
	suffix      = ".jsonl"
)

// Log is the events of one store. It may be used by many goroutines.
type Log struct {
	dir string
	by  string

	mu sync.Mutex
	f  *os.File // the file appended to last
}

// Open returns the log in dir, for a process that works for the command by. It
// does no I/O.
func Open(dir, by string) *Log { return &Log{dir: dir, by: by} }

// Self is the calling process as a cause.
func (l *Log) Self() Cause {
	if l == nil {
		return Cause{}
	}
	return Cause{By: l.by, Pid: os.Getpid(), UID: os.Getuid()}
}

// Add appends e. Its time is now and its cause this process, where e does not
// say otherwise. What cannot be written is lost; see the package comment. A nil
// Log forgets at once.
func (l *Log) Add(e Event) {
	if l == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	if e.Cause == (Cause{}) {
		e.Cause = l.Self()
	}
	b, err := json.Marshal(&e)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.segment(e.Time) != nil {
		return
	}
	l.f.Write(append(append([]byte{'\n'}, b...), '\n'))
}

// segment makes l.f the file to append to.
func (l *Log) segment(now time.Time) error {
	if l.f != nil {
		if fi, err := l.f.Stat(); err == nil && fi.Size() < segmentSize && linked(fi) {
			return nil
		}
		l.f.Close()
		l.f = nil
	}
	all, err := segments(l.dir)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		last := all[len(all)-1]
		f, err := os.OpenFile(last.path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			if fi, err := f.Stat(); err == nil && fi.Size() < segmentSize {
				l.f = f
				return nil
			}
			f.Close()
		}
	}
	if err := os.Mkdir(l.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	name := fmt.Sprintf("%020d%s", now.UnixNano(), suffix)
	if l.f, err = os.OpenFile(filepath.Join(l.dir, name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
		l.f = nil
		return err
	}
	forget(all, now)
	return nil
}

// segmentFile is one file of the log.
type segmentFile struct {
	path  string
	start time.Time
}

// segments returns the log's files, oldest first.
func segments(dir string) ([]segmentFile, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []segmentFile
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), suffix)
		n, err := strconv.ParseInt(digits, 10, 64)
		if ok && err == nil && len(digits) == 20 {
			all = append(all, segmentFile{filepath.Join(dir, e.Name()), time.Unix(0, n)})
		}
	}
	slices.SortFunc(all, func(a, b segmentFile) int { return cmp.Compare(a.path, b.path) })
	return all, nil
}

// forget removes those of the files before the newest that are too old or too
// many. A file ends where the next one starts.
func forget(old []segmentFile, now time.Time) {
	for i, s := range old {
		end := now
		if i+1 < len(old) {
			end = old[i+1].start
		}
		if now.Sub(end) > keepFor || len(old)-i >= segmentsMax {
			os.Remove(s.path)
		}
	}
}
