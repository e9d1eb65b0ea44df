package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// tail looks for where the last lines of a log begin, reading the files
// backwards, newest first. A line is one full entry, with the pieces before it
// that have no newline; pieces at the very end, whose line is not over, count
// as one.
type tail struct {
	want  int   // lines still to be found
	found bool  // all were found; else an older file has more
	off   int64 // where the line that was found last begins in the file given last
	some  bool  // an entry was seen
}

// tailBlock is how much is read at once.
const tailBlock = 64 << 10

// file looks through one file, the next older one.
func (t *tail) file(path string) error {
	t.off = 0
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not written yet, or rotated away
	}
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = t.scan(f, end)
	}
	if err != nil {
		return fmt.Errorf("read the end of log %s: %w", path, err)
	}
	return nil
}

// scan goes through the newlines below end. Each ends an entry and begins the
// one that was passed before; what stands behind the last is not written yet.
func (t *tail) scan(f io.ReaderAt, end int64) error {
	next := int64(-1) // where the entry behind the newline before begins
	buf := make([]byte, tailBlock)
	for pos := end; pos > 0; {
		size := min(pos, tailBlock)
		pos -= size
		block := buf[:size]
		if _, err := f.ReadAt(block, pos); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := bytes.LastIndexByte(block, '\n'); i >= 0; i = bytes.LastIndexByte(block[:i], '\n') {
			start := pos + int64(i) + 1
			if next >= 0 {
				if err := t.entry(f, start, next); err != nil || t.found {
					return err
				}
			}
			next = start
		}
	}
	if next < 0 {
		return nil
	}
	return t.entry(f, 0, next)
}

// headLen is more than the head of an entry, its time, stream and tag.
const headLen = 64

// entry counts the entry from start to next.
func (t *tail) entry(f io.ReaderAt, start, next int64) error {
	head := make([]byte, min(headLen, next-start))
	if _, err := f.ReadAt(head, start); err != nil {
		return err
	}
	words := bytes.SplitN(head, []byte(" "), 4)
	piece := len(words) == 4 && string(words[2]) == "P"
	if !piece || !t.some {
		if t.want == 0 {
			t.found, t.off = true, next
			return nil
		}
		t.want--
	}
	t.some, t.off = true, start
	return nil
}
