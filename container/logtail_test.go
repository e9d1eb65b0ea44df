package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tug/layer"
	"tug/state"
	"tug/supervisor"
)

// logDir writes files of a log, oldest first, of entries "STREAM TAG TEXT",
// and gives each entry a second.
func logDir(t *testing.T, files ...[]string) string {
	t.Helper()
	dir, n := t.TempDir(), 0
	for i, entries := range files {
		var b strings.Builder
		for _, e := range entries {
			b.WriteString(logTime(n).Format(supervisor.LogTime) + " " + e)
			n++
		}
		if err := os.WriteFile(supervisor.LogFile(dir, int64(i+1)), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func logTime(n int) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

// read returns what a log reader passes on, with the newlines as they are.
func read(t *testing.T, dir string, o LogOptions) string {
	t.Helper()
	var b strings.Builder
	r := &logReader{dir: dir, opts: o, emit: func(l LogLine) error { b.Write(l.Text); return nil }}
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.drain(); err != nil && err != errPastUntil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTail(t *testing.T) {
	long := strings.Repeat("x", 3*tailBlock/2)
	dir := logDir(t,
		[]string{"stdout F one\n", "stderr F two\n", "stdout P th\n"},
		[]string{"stdout P r\n", "stdout F ee\n", "stdout F " + long + "\n", "stdout F five\n", "stdout P s\n", "stdout P ix\n"})
	lines := []string{"one\n", "two\n", "three\n", long + "\n", "five\n", "six"}
	for n := range len(lines) + 3 {
		want := strings.Join(lines[max(0, len(lines)-n):], "")
		if got := read(t, dir, LogOptions{Tail: n}); got != want {
			t.Errorf("tail %d: %.80q, want %.80q", n, got, want)
		}
	}
	if got := read(t, dir, LogOptions{Tail: -1}); got != strings.Join(lines, "") {
		t.Errorf("all: %.80q", got)
	}
}

func TestTailOfOneFile(t *testing.T) {
	for _, tt := range []struct {
		n       int
		entries []string
		want    string
	}{
		{0, nil, ""},
		{5, nil, ""},
		{0, []string{"stdout F a\n"}, ""},
		{1, []string{"stdout F \n"}, "\n"},
		{1, []string{"stdout F a\n", "stdout F b\n"}, "b\n"},
		{2, []string{"stdout F a\n", "stdout F b\n"}, "a\nb\n"},
		// An entry that is just being written is neither counted nor torn.
		{1, []string{"stdout F a\n", "stdout F b\n", "stdout F torn"}, "b\n"},
		{1, []string{"stdout F torn"}, ""},
	} {
		if got := read(t, logDir(t, tt.entries), LogOptions{Tail: tt.n}); got != tt.want {
			t.Errorf("tail %d of %q: %q, want %q", tt.n, tt.entries, got, tt.want)
		}
	}
}

// A tail agrees with counting lines forwards, wherever blocks begin.
func TestTailAtBlockBounds(t *testing.T) {
	var entries, lines []string
	for i := range 4000 {
		text := strings.Repeat("y", i%97) + fmt.Sprint(i)
		if i%5 == 2 {
			entries = append(entries, "stderr P "+text+"\n")
			lines = append(lines, text)
			continue
		}
		entries = append(entries, "stdout F "+text+"\n")
		if i%5 == 3 {
			lines[len(lines)-1] += text + "\n"
		} else {
			lines = append(lines, text+"\n")
		}
	}
	dir := logDir(t, entries)
	for n := 0; n <= len(lines)+1; n += 37 {
		want := strings.Join(lines[max(0, len(lines)-n):], "")
		if got := read(t, dir, LogOptions{Tail: n}); got != want {
			t.Fatalf("tail %d: %d bytes, want %d", n, len(got), len(want))
		}
	}
}

func TestLogTimes(t *testing.T) {
	dir := logDir(t, []string{"stdout F 0\n", "stdout F 1\n"}, []string{"stdout F 2\n", "stdout F 3\n"})
	for _, tt := range []struct {
		since, until int // -1 is none
		want         string
	}{
		{-1, -1, "0\n1\n2\n3\n"},
		{1, -1, "1\n2\n3\n"},
		{-1, 2, "0\n1\n2\n"},
		{2, 2, "2\n"},
		{9, -1, ""},
	} {
		o := LogOptions{Tail: -1}
		if tt.since >= 0 {
			o.Since = logTime(tt.since)
		}
		if tt.until >= 0 {
			o.Until = logTime(tt.until)
		}
		if got := read(t, dir, o); got != tt.want {
			t.Errorf("since %d until %d: %q, want %q", tt.since, tt.until, got, tt.want)
		}
	}
}

func TestLogOfNobody(t *testing.T) {
	st, err := state.Open(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := Open(st, layer.Open(st, ""), nil)
	if err := c.Logs(context.Background(), strings.Repeat("a", 64), LogOptions{}, nil); err == nil {
		t.Error("a container that does not exist has a log")
	}
}

func TestCorruptLog(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(supervisor.LogFile(dir, 1), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &logReader{dir: dir, opts: LogOptions{Tail: -1}, emit: func(LogLine) error { return nil }}
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.drain(); err == nil || !strings.Contains(err.Error(), filepath.Base(supervisor.LogFile(dir, 1))) {
		t.Errorf("a corrupt log: %v", err)
	}
}

func TestRandomNames(t *testing.T) {
	seen := map[string]bool{}
	for try := range 200 {
		name := randomName(try)
		if !validName(name) {
			t.Fatalf("%q is no valid name", name)
		}
		seen[name] = true
	}
	if len(seen) < 100 {
		t.Errorf("only %d names", len(seen))
	}
	for _, words := range []string{moods, vessels} {
		all := strings.Fields(words)
		if sorted := slices.Sorted(slices.Values(all)); len(slices.Compact(sorted)) != len(all) {
			t.Error("a word is there twice")
		}
	}
}
