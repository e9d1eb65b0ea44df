package supervisor

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tug/sys"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TUG_TEST_PUMP"); dir != "" {
		pumpInChild(dir)
		return
	}
	os.Exit(m.Run())
}

// pumpInChild is one life of a supervisor: it takes over the pipe (3) and the
// spool (4) and pumps into the log until the end of the pipe.
func pumpInChild(dir string) {
	src, err := sys.NonBlocking(os.NewFile(3, "pipe"))
	if err != nil {
		panic(err)
	}
	s := newSpool("stdout", src, os.NewFile(4, "spool"), [2]*os.File{})
	if err := s.recover(); err != nil {
		panic(err)
	}
	log, err := openLog(dir, LogLimits{}, s.mark)
	if err != nil {
		panic(err)
	}
	s.pump(log, make(chan struct{}))
	os.Exit(42)
}

// TestKilledSupervisorLosesNoByte kills the pumping process at random moments
// while output is written, and compares the log with what was written.
func TestKilledSupervisorLosesNoByte(t *testing.T) {
	dir := t.TempDir()
	r, w, err := sys.Pipe(false, false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := makeSpool("stdout", r, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var want bytes.Buffer
	written := make(chan struct{})
	begin := time.Now()
	var kills atomic.Int32
	const enough = 10
	// On a slow machine it takes longer until there were enough.
	over := func() bool {
		d := time.Since(begin)
		return d > 3*time.Second && kills.Load() >= enough || d > time.Minute
	}
	go func() {
		defer close(written)
		defer w.Close()
		for i := 0; !over() && want.Len() < 60<<20; i++ {
			line := fmt.Sprintf("%d %s", i, strings.Repeat("x", rand.IntN(300)))
			if i%7 != 0 {
				line += "\n"
			}
			if i%1000 == 0 {
				line = strings.Repeat("long", 10000)
			}
			want.WriteString(line)
			if _, err := io.WriteString(w, line); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for ; ; kills.Add(1) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TUG_TEST_PUMP="+dir)
		cmd.ExtraFiles = []*os.File{r, s.mem}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(5+rand.IntN(40))*time.Millisecond, func() {
			if !over() {
				cmd.Process.Kill()
			}
		})
		err := cmd.Wait()
		timer.Stop()
		if cmd.ProcessState.ExitCode() == 42 {
			break
		}
		if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("child: %v", err)
		}
	}
	<-written
	if got := logText(t, dir); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("after %d kills the log holds %d bytes, %d were written; first difference at %d", kills.Load(), len(got), want.Len(), differ(got, want.Bytes()))
	}
	if n := kills.Load(); n < enough {
		t.Errorf("only %d kills", n)
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// logText puts the output back together from a log.
func logText(t *testing.T, dir string) []byte {
	t.Helper()
	gens, err := LogGenerations(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, g := range gens {
		b, err := os.ReadFile(LogFile(dir, g))
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			f := bytes.SplitN(line, []byte(" "), 4)
			if len(f) != 4 || len(f[2]) != 1 {
				t.Fatalf("not a CRI line: %q", line)
			}
			text := f[3]
			if f[2][0] == 'P' {
				text = text[:len(text)-1]
			}
			out = append(out, text...)
		}
	}
	return out
}

func TestLogFormat(t *testing.T) {
	dir := t.TempDir()
	w, err := openLog(dir, LogLimits{}, logMark{})
	if err != nil {
		t.Fatal(err)
	}
	commit := func(used int, end logMark) {
		if fi, err := os.Stat(LogFile(dir, 1)); err != nil || used == 0 || end != (logMark{1, fi.Size()}) {
			t.Errorf("committed %d bytes up to %v: %v", used, end, err)
		}
	}
	if n := w.write("stdout", []byte("one\ntwo\nthr"), false, commit); n != 8 {
		t.Errorf("took %d bytes, want the 8 of whole lines", n)
	}
	if n := w.write("stderr", []byte("no newline"), true, commit); n != 10 {
		t.Errorf("took %d bytes, want all 10", n)
	}
	long := bytes.Repeat([]byte("a"), lineMax+5)
	if n := w.write("stdout", append(long, '\n'), false, commit); n != lineMax+6 {
		t.Errorf("took %d bytes of a long line, want %d", n, lineMax+6)
	}
	w.close()
	b, err := os.ReadFile(LogFile(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if len(rest) > 20 {
			rest = rest[:12] + fmt.Sprint(len(rest))
		}
		got = append(got, rest)
	}
	want := []string{"stdout F one", "stdout F two", "stderr P no newline", fmt.Sprintf("stdout P aaa%d", lineMax+9), "stdout F aaaaa"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestSlowClientGetsAll has a client that is slower than the process, whose
// output is much more than the spool holds.
func TestSlowClientGetsAll(t *testing.T) {
	r, w, err := sys.Pipe(true, false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := makeSpool("stdout", r, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	c := &session{}
	s.attach(c, -1)
	const total = 5 << 20
	go func() {
		defer w.Close()
		for i := 0; i < total; i += 1 << 10 {
			w.Write(bytes.Repeat([]byte{byte(i >> 10)}, 1<<10))
		}
	}()
	go s.pump(nil, make(chan struct{}))
	buf := make([]byte, 7000)
	for got := 0; ; {
		n, err := s.next(c, buf)
		if err == io.EOF {
			if got != total {
				t.Errorf("got %d bytes, want %d", got, total)
			}
			return
		}
		for i, b := range buf[:n] {
			if b != byte((got+i)>>10) {
				t.Fatalf("byte %d is %d, want %d", got+i, b, byte((got+i)>>10))
			}
		}
		got += n
		s.delivered(c, n)
	}
}

// TestRecoverBetweenCutAndHeader leaves the state of a kill between the two
// steps of cut.
func TestRecoverBetweenCutAndHeader(t *testing.T) {
	s, err := makeSpool("stdout", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.mem.Close()
	s.base, s.end, s.logged, s.mark = 100, 5100, 5100, logMark{1, 77}
	if err := s.writeHeader(); err != nil {
		t.Fatal(err)
	}
	if err := s.mem.Truncate(spoolHeader); err != nil {
		t.Fatal(err)
	}
	again := newSpool("stdout", nil, s.mem, [2]*os.File{})
	if err := again.recover(); err != nil {
		t.Fatal(err)
	}
	if again.base != 5100 || again.end != 5100 || again.logged != 5100 || again.mark != (logMark{1, 77}) {
		t.Errorf("recovered base %d end %d logged %d mark %v", again.base, again.end, again.logged, again.mark)
	}

	// The next one is killed, too, once it has taken more than was cut.
	if err := s.mem.Truncate(spoolHeader + 6000); err != nil {
		t.Fatal(err)
	}
	third := newSpool("stdout", nil, s.mem, [2]*os.File{})
	if err := third.recover(); err != nil {
		t.Fatal(err)
	}
	if third.base != 5100 || third.end != 11100 || third.logged != 5100 {
		t.Errorf("then recovered base %d end %d logged %d", third.base, third.end, third.logged)
	}
}
