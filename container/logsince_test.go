package container

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tug/supervisor"
)

// A log that is looked through by halves shows the same as one that is read.
func TestSinceFindsWhatReadingFinds(t *testing.T) {
	var files [][]string
	for range 3 {
		var entries []string
		for i := range 3000 {
			text := strings.Repeat("z", rand.IntN(200))
			switch {
			case i%100 == 7:
				text = strings.Repeat("long", 4000)
				entries = append(entries, "stdout P "+text+"\n")
			case i%9 == 0:
				entries = append(entries, "stderr F "+text+"\n")
			default:
				entries = append(entries, "stdout F "+text+"\n")
			}
		}
		files = append(files, entries)
	}
	dir := logDir(t, files...)
	read1 := func(since time.Time) string {
		var b strings.Builder
		r := &logReader{dir: dir, opts: LogOptions{Tail: -1, Since: since}, emit: func(l LogLine) error {
			fmt.Fprint(&b, l.Time.Unix(), l.Stream, len(l.Text), ";")
			return nil
		}}
		if err := r.begin(); err != nil {
			t.Fatal(err)
		}
		defer r.close()
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	points := []time.Time{logTime(-1), logTime(0), logTime(1), logTime(2999), logTime(3000), logTime(8999), logTime(9000)}
	for range 100 {
		points = append(points, logTime(rand.IntN(9000)).Add(time.Duration(rand.IntN(1000))*time.Millisecond))
	}
	got := make([]string, len(points))
	for i, p := range points {
		got[i] = read1(p)
	}
	if err := os.WriteFile(filepath.Join(dir, "unordered"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, p := range points {
		if want := read1(p); got[i] != want {
			t.Errorf("since %v: %d bytes by halves, %d by reading", p, len(got[i]), len(want))
		}
	}
}

// By halves means that little is read.
func TestSinceReadsLittle(t *testing.T) {
	var entries []string
	for range 100_000 {
		entries = append(entries, "stdout F "+strings.Repeat("w", 100)+"\n")
	}
	dir := logDir(t, entries)
	f, err := os.Open(supervisor.LogFile(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{0, 1, 50_000, 99_999} {
		at, err := findSince(dir, []int64{1}, logTime(n))
		if err != nil {
			t.Fatal(err)
		}
		entry := int64(n) * int64(len(entries[0])+len(supervisor.LogTime)+1)
		if at.off > entry || entry-at.off > 2*sinceStep {
			t.Errorf("since line %d at %d: found %d", n, entry, at.off)
		}
	}
}

// A log in which times go back is read as a whole, also for --until.
func TestUnorderedLog(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	for _, n := range []int{5, 6, 1, 2, 7} {
		fmt.Fprintf(&b, "%s stdout F %d\n", logTime(n).Format(supervisor.LogTime), n)
	}
	for path, text := range map[string]string{supervisor.LogFile(dir, 1): b.String(), filepath.Join(dir, "unordered"): ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, dir, LogOptions{Tail: -1, Since: logTime(2), Until: logTime(6)}); got != "5\n6\n2\n" {
		t.Errorf("got %q", got)
	}
}

// A log that grows while it is read ends where it ended at the beginning.
func TestLogsEnd(t *testing.T) {
	dir := logDir(t, []string{"stdout F a\n"}, []string{"stdout F b\n", "stdout F c\n"})
	grow := func() {
		t.Helper()
		f, err := os.OpenFile(supervisor.LogFile(dir, 2), os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString(logTime(9).Format(supervisor.LogTime) + " stdout F more\n")
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var got strings.Builder
	r := &logReader{dir: dir, opts: LogOptions{Tail: -1}, emit: func(l LogLine) error {
		got.Write(l.Text)
		grow()
		return nil
	}}
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.drain(); err != nil || got.String() != "a\nb\nc\n" {
		t.Errorf("%q, %v", &got, err)
	}
}

// Files are rotated away between looking and opening.
func TestLogRotatedAway(t *testing.T) {
	dir := logDir(t, []string{"stdout F a\n"}, []string{"stdout F b\n"}, []string{"stdout F c\n"})
	r := &logReader{dir: dir, opts: LogOptions{Tail: -1}, emit: nil}
	var got strings.Builder
	r.emit = func(l LogLine) error { got.Write(l.Text); return nil }
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	r.close()
	for _, g := range []int64{1, 2} {
		if err := os.Remove(supervisor.LogFile(dir, g)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.drain(); err != nil || got.String() != "c\n" {
		t.Errorf("%q, %v", &got, err)
	}
	r.close()
}
