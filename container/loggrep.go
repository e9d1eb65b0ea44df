package container

import (
	"bytes"
	"slices"
)

// maxGrep is how much of a line is looked at; a line that goes on is passed on
// or not by what it begins with.
const maxGrep = 1 << 20

// logFilter passes on the lines that match. Entries are pieces of lines, of two
// streams that may alternate: a line's are kept until it is whole.
type logFilter struct {
	match func(line []byte) bool
	emit  func(LogLine) error
	last  int // only so many of those that come before settled; negative: all
	kept  [][]LogLine
	lines map[string]*lineSoFar // by stream
}

// lineSoFar is the beginning of a line.
type lineSoFar struct {
	pieces  []LogLine
	text    []byte
	decided bool // it is long, and what follows is treated as its beginning was
	passed  bool
}

func newLogFilter(match func([]byte) bool, last int, emit func(LogLine) error) *logFilter {
	return &logFilter{match: match, emit: emit, last: last, lines: map[string]*lineSoFar{}}
}

// add takes the next entry.
func (f *logFilter) add(l LogLine) error {
	s := f.lines[l.Stream]
	if s == nil {
		s = &lineSoFar{}
		f.lines[l.Stream] = s
	}
	over := bytes.HasSuffix(l.Text, []byte("\n"))
	l.Text = bytes.Clone(l.Text)
	if !s.decided {
		s.pieces = append(s.pieces, l)
		s.text = append(s.text, l.Text...)
		if !over && len(s.text) < maxGrep {
			return nil
		}
		s.passed = f.match(bytes.TrimSuffix(s.text, []byte("\n")))
		s.decided = true
	} else {
		s.pieces = []LogLine{l}
	}
	pieces, passed := s.pieces, s.passed
	s.pieces = nil
	if over {
		delete(f.lines, l.Stream)
	}
	if !passed {
		return nil
	}
	return f.pass(pieces)
}

// pass passes a line on, or keeps it while only the last ones are wanted.
func (f *logFilter) pass(pieces []LogLine) error {
	if f.last < 0 {
		for _, p := range pieces {
			if err := f.emit(p); err != nil {
				return err
			}
		}
		return nil
	}
	f.kept = append(f.kept, pieces)
	if len(f.kept) > 2*f.last+16 {
		f.kept = slices.Clone(f.kept[len(f.kept)-f.last:])
	}
	return nil
}

// settled passes on what was kept; what comes from now on is passed at once.
func (f *logFilter) settled() error {
	kept, last := f.kept, f.last
	f.kept, f.last = nil, -1
	if last < 0 {
		return nil
	}
	for _, pieces := range kept[max(len(kept)-last, 0):] {
		if err := f.pass(pieces); err != nil {
			return err
		}
	}
	return nil
}

// rest passes on lines that have no end, when no more comes.
func (f *logFilter) rest() error {
	for _, stream := range []string{"stdout", "stderr"} {
		if s := f.lines[stream]; s != nil && !s.decided && f.match(s.text) {
			if err := f.pass(s.pieces); err != nil {
				return err
			}
		}
	}
	return f.settled()
}
