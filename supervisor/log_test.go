package supervisor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeAll writes b as a spool does, and returns where the log ends.
func writeAll(w *logWriter, b string) (mark logMark) {
	for len(b) > 0 {
		n := w.write("stdout", []byte(b), true, func(_ int, end logMark) { mark = end })
		b = b[n:]
	}
	return mark
}

func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func TestLogStaysWithinItsLimits(t *testing.T) {
	for _, limits := range []LogLimits{{Size: 1000, Files: 1}, {Size: 1000, Files: 3}, {Size: 100_000, Files: 2}, {Size: 1, Files: 2}} {
		dir := t.TempDir()
		w, err := openLog(dir, limits, logMark{})
		if err != nil {
			t.Fatal(err)
		}
		want := numbered(0, 5000)
		writeAll(w, want)
		w.close()
		gens, err := LogGenerations(dir)
		if err != nil || len(gens) > limits.Files {
			t.Errorf("%+v: files %v, %v", limits, gens, err)
		}
		for _, g := range gens {
			fi, err := os.Stat(LogFile(dir, g))
			if err != nil || fi.Size() > limits.Size+100 {
				t.Errorf("%+v: file %d has %d bytes, %v", limits, g, fi.Size(), err)
			}
		}
		if got := string(logText(t, dir)); !strings.HasSuffix(want, got) || limits.Files > 1 && got == "" {
			t.Errorf("%+v: the log is not the end of what was written: %.100q", limits, got)
		}
	}
}

func TestLogWithoutLimit(t *testing.T) {
	dir := t.TempDir()
	w, err := openLog(dir, LogLimits{Size: -1}, logMark{})
	if err != nil {
		t.Fatal(err)
	}
	want := numbered(0, 50_000)
	if mark := writeAll(w, want); mark.gen != 1 {
		t.Errorf("ends at %v", mark)
	}
	w.close()
	if got := logText(t, dir); string(got) != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

// A supervisor is killed at any point of a rotation: what the next one finds
// is a mark and files of before or after.
func TestLogKilledAmidRotation(t *testing.T) {
	limits := LogLimits{Size: 300, Files: 1}
	dir := t.TempDir()
	w, err := openLog(dir, limits, logMark{})
	if err != nil {
		t.Fatal(err)
	}
	mark := writeAll(w, numbered(0, 3))
	w.f.WriteString("2026-01-02T03:04:05.000000000Z stdout F not committed\n")
	if err := w.rotate(); err != nil { // and killed
		t.Fatal(err)
	}
	w.close()
	if w, err = openLog(dir, limits, mark); err != nil {
		t.Fatal(err)
	}
	if got := string(logText(t, dir)); got != numbered(0, 3) || w.mark != mark {
		t.Errorf("before the commit: %q, mark %v, want %v", got, w.mark, mark)
	}
	// Committed, but the old file is still there.
	if err := w.rotate(); err != nil {
		t.Fatal(err)
	}
	mark = w.mark
	w.close()
	if w, err = openLog(dir, limits, mark); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if gens, _ := LogGenerations(dir); len(gens) != 1 || gens[0] != mark.gen {
		t.Errorf("after the commit: files %v, want %d alone", gens, mark.gen)
	}
}

// Somebody empties the file, as people do with Docker's: the log goes on at its
// beginning, without a hole, also after a supervisor's death.
func TestLogEmptiedByHand(t *testing.T) {
	dir := t.TempDir()
	w, err := openLog(dir, LogLimits{}, logMark{})
	if err != nil {
		t.Fatal(err)
	}
	writeAll(w, numbered(0, 100))
	if err := os.Truncate(LogFile(dir, 1), 0); err != nil {
		t.Fatal(err)
	}
	mark := writeAll(w, "after\n")
	w.close()
	if w, err = openLog(dir, LogLimits{}, mark); err != nil {
		t.Fatal(err)
	}
	writeAll(w, "again\n")
	w.close()
	if got := string(logText(t, dir)); got != "after\nagain\n" {
		t.Errorf("got %q", got)
	}
}

// What a power failure left of an entry is not glued to the next one.
func TestLogGoesOnBehindTornEntry(t *testing.T) {
	for before, want := range map[string]string{
		"2026-01-02T03:04:05.000000000Z stdout F whole\n": "whole\nnext\n",
		"": "next\n", // the torn one is the file's first
	} {
		dir := t.TempDir()
		if err := os.WriteFile(LogFile(dir, 3), []byte(before+"2026-01-02T03:04:06.0000"), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := openLog(dir, LogLimits{}, logMark{})
		if err != nil {
			t.Fatal(err)
		}
		writeAll(w, "next\n")
		w.close()
		if got := string(logText(t, dir)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestLogTimesDoNotGoBack(t *testing.T) {
	dir := t.TempDir()
	ahead := time.Now().Add(time.Second / 2).UTC()
	entry := func(at time.Time) []byte { return []byte(at.Format(LogTime) + " stdout F x\n") }
	if err := os.WriteFile(LogFile(dir, 1), entry(ahead), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *logWriter {
		t.Helper()
		w, err := openLog(dir, LogLimits{}, logMark{})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := open()
	writeAll(w, "a\n")
	w.close()
	b, err := os.ReadFile(LogFile(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	if at, ok := EntryTime([]byte(lines[1])); !ok || at.Before(ahead) || LogUnordered(dir) {
		t.Errorf("after %v comes %q; unordered %v", ahead, lines[1], LogUnordered(dir))
	}

	// The clock was really wrong: then times are right, and the log says that
	// they are not in order.
	if err := os.WriteFile(LogFile(dir, 1), entry(ahead.Add(time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	w = open()
	writeAll(w, "b\n")
	if !LogUnordered(dir) || w.last.After(time.Now()) {
		t.Errorf("unordered %v, last %v", LogUnordered(dir), w.last)
	}
	if err := w.clear(func(logMark) {}); err != nil || LogUnordered(dir) {
		t.Errorf("cleared, and still unordered: %v", err)
	}
	w.close()
}

func TestClearLog(t *testing.T) {
	dir := t.TempDir()
	w, err := openLog(dir, LogLimits{Size: 200, Files: 4}, logMark{})
	if err != nil {
		t.Fatal(err)
	}
	writeAll(w, numbered(0, 100))
	var mark logMark
	if err := w.clear(func(m logMark) { mark = m }); err != nil {
		t.Fatal(err)
	}
	if gens, _ := LogGenerations(dir); len(gens) != 1 || mark != (logMark{gen: gens[0]}) {
		t.Errorf("files %v, mark %v", gens, mark)
	}
	writeAll(w, "after\n")
	w.close()
	if got := string(logText(t, dir)); got != "after\n" {
		t.Errorf("got %q", got)
	}
	// And without a writer.
	before, _ := LogGenerations(dir)
	if err := ClearLog(dir); err != nil {
		t.Fatal(err)
	}
	after, _ := LogGenerations(dir)
	if len(after) != 1 || after[0] <= before[len(before)-1] || len(logText(t, dir)) != 0 {
		t.Errorf("files %v, were %v", after, before)
	}
	if err := ClearLog(t.TempDir()); err != nil {
		t.Errorf("a log that was never written: %v", err)
	}
}

// The spool's header hears of a clear, so that a recovered log goes on behind it.
func TestClearIsRecovered(t *testing.T) {
	dir := t.TempDir()
	p := newProcIO("k", note{LogDir: dir})
	for i, name := range []string{"stdout", "stderr"} {
		s, err := makeSpool(name, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.mem.Close()
		p.streams[i] = s
	}
	if err := p.openLog(); err != nil {
		t.Fatal(err)
	}
	writeAll(p.log, numbered(0, 10))
	if err := p.clearLog(); err != nil {
		t.Fatal(err)
	}
	for i, s := range p.streams { // the supervisor is killed
		again := newSpool(s.name, nil, s.mem, [2]*os.File{})
		if err := again.recover(); err != nil {
			t.Fatal(err)
		}
		p.streams[i] = again
	}
	p.log.close()
	if err := p.openLog(); err != nil {
		t.Fatal(err)
	}
	writeAll(p.log, "after\n")
	p.log.close()
	if got := string(logText(t, dir)); got != "after\n" {
		t.Errorf("got %q", got)
	}
}

// journald gets each entry as one datagram of its native protocol.
func TestJournal(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	w, err := openLog(dir, LogLimits{}, logMark{})
	if err != nil {
		t.Fatal(err)
	}
	w.journal = (&Journal{Socket: socket, Fields: map[string]string{"CONTAINER_NAME": "web", "TWO": "a\nb"}}).open()
	defer w.close()
	receive := func() string {
		t.Helper()
		b := make([]byte, 64<<10)
		l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	length := binary.LittleEndian.AppendUint64(nil, 3)
	fields := "CONTAINER_NAME=web\nTWO\n" + string(length) + "a\nb\n"
	writeAll(w, "hello world\npart")
	for _, want := range []string{"MESSAGE=hello world\n", "CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=part\n"} {
		got := receive()
		if !strings.HasPrefix(got, fields+"PRIORITY=6\nSYSLOG_TIMESTAMP=") || !strings.HasSuffix(got, want) {
			t.Errorf("got %q\nwant %q ... %q", got, fields, want)
		}
	}
	w.write("stderr", []byte("bad\n"), false, func(int, logMark) {})
	if got := receive(); !strings.Contains(got, "PRIORITY=3\n") {
		t.Errorf("standard error: %q", got)
	}
	// journald goes away: the log has everything, and nothing waits.
	l.Close()
	start := time.Now()
	writeAll(w, numbered(0, 1000))
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("writing without journald took %v", d)
	}
	if got := logText(t, dir); !bytes.HasSuffix(got, []byte(numbered(0, 1000))) {
		t.Errorf("the log ends in %.100q", got[max(0, len(got)-100):])
	}
}

func TestJournalName(t *testing.T) {
	for name, want := range map[string]string{"com.example/a-b": "COM_EXAMPLE_A_B", "_hidden": "HIDDEN", "9lives": "LIVES", "é": "", "A1": "A1"} {
		if got := JournalName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestEntryTime(t *testing.T) {
	for range 1000 {
		want := time.Unix(rand.Int64N(1<<33), rand.Int64N(1e9)).UTC()
		if got, ok := EntryTime([]byte(want.Format(LogTime) + " stdout F x")); !ok || !got.Equal(want) {
			t.Fatalf("%v: %v, %v", want, got, ok)
		}
	}
	for _, bad := range []string{
		"", "2026-01-02T03:04:05Z stdout F a long line that goes on", "2026-01-02T03:04:05.000000000+00:00",
		"2026-13-02T03:04:05.000000000Z", "2026-00-02T03:04:05.000000000Z", "2026-01-32T03:04:05.000000000Z", "2026-01-02T24:04:05.000000000Z",
		"2026-01-02 03:04:05.000000000Z", "x026-01-02T03:04:05.000000000Z", "2026-01-02T03:04:05.00000000xZ",
	} {
		if got, ok := EntryTime([]byte(bad)); ok {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
