package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"tug/supervisor"
)

// logPlace is a place in a log: a file and an offset in it.
type logPlace struct{ gen, off int64 }

func (a logPlace) after(b logPlace) bool { return a.gen > b.gen || a.gen == b.gen && a.off > b.off }

// findSince returns a place in an ordered log that is not behind the first
// entry of that time, and not far before it: by halves, since a log may be
// large.
func findSince(dir string, gens []int64, since time.Time) (logPlace, error) {
	for i := len(gens) - 1; i >= 0; i-- {
		off, found, err := sinceIn(supervisor.LogFile(dir, gens[i]), since)
		if err != nil {
			return logPlace{}, fmt.Errorf("look for a time in log %s: %w", dir, err)
		}
		if found {
			return logPlace{gens[i], off}, nil
		}
	}
	return logPlace{}, nil
}

// sinceStep is where reading on is cheaper than looking further.
const sinceStep = 64 << 10

// sinceIn looks in one file. found tells that its first entry is older.
func sinceIn(path string, since time.Time) (off int64, found bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil // rotated away
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	_, first, err := entryAfter(f, 0)
	if err != nil || first.IsZero() || !first.Before(since) {
		return 0, false, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, false, err
	}
	for end-off > sinceStep {
		middle := off + (end-off)/2
		at, t, err := entryAfter(f, middle)
		switch {
		case err != nil:
			return 0, false, err
		case t.IsZero() || at >= end || !t.Before(since):
			end = middle
		default:
			off = at
		}
	}
	return off, true, nil
}

// entryAfter returns the first entry that begins at pos or behind it, and its
// time, which is zero when there is none, or none that can be understood. pos 0
// is the beginning of one.
func entryAfter(f io.ReaderAt, pos int64) (int64, time.Time, error) {
	from := max(pos-1, 0)         // if pos is where an entry begins, that one is meant
	b := make([]byte, 16<<10+256) // an entry is not longer
	n, err := f.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, time.Time{}, err
	}
	b = b[:n]
	if pos > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return 0, time.Time{}, nil
		}
		b, from = b[i+1:], from+int64(i)+1
	}
	t, _ := supervisor.EntryTime(b)
	return from, t, nil
}
