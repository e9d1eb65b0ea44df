package sys

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// sleeper starts a process whose name tries to fool readers of /proc/PID/stat.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a) Z 1 (b")
	sleep, err := exec.LookPath("sleep")
	if err == nil {
		var b []byte
		if b, err = os.ReadFile(sleep); err == nil {
			err = os.WriteFile(path, b, 0o700)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "1000")
	cmd.Args[0] = "sleep" // also where one program has many names
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestProcessIdentity(t *testing.T) {
	cmd := sleeper(t)
	pid := cmd.Process.Pid
	ticks, err := StartTicks(pid)
	own, oerr := StartTicks(os.Getpid())
	if err != nil || oerr != nil || ticks < own {
		t.Fatalf("started at %d (%v), this process at %d (%v)", ticks, err, own, oerr)
	}
	if !Alive(pid, ticks) || Alive(pid, ticks+1) {
		t.Error("alive is told wrongly")
	}
	// Never signal one that has got the pid of another.
	if err := SignalProcess(pid, ticks+1, syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to another: %v", err)
	}
	if !Alive(pid, ticks) {
		t.Fatal("another process was killed")
	}
	if err := SignalProcess(pid, ticks, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); NextZombie() != pid && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if Alive(pid, ticks) {
		t.Error("a zombie counts as alive")
	}
	if code, err := Reap(pid); code != 128+15 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := SignalProcess(pid, ticks, syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestSealedCopy(t *testing.T) {
	f, err := SealedCopy("x", bytes.NewReader([]byte("#!/bin/sh\n")))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("y"), 0); err == nil {
		t.Error("written through the descriptor")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("truncated")
	}
	if w, err := os.OpenFile(FdPath(f), os.O_WRONLY, 0); err == nil {
		if _, err := w.Write([]byte("y")); err == nil {
			t.Error("written by its path")
		}
		w.Close()
	}
}

// TestMessages: packets keep their borders, bring their descriptors, and the
// end of the other side is io.EOF.
func TestMessages(t *testing.T) {
	a, b, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := Pipe(false, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := SendMsg(a, []byte("one"), w); err != nil {
		t.Fatal(err)
	}
	if err := SendMsg(a, []byte("two")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	a.Close()
	buf := make([]byte, 16)
	n, files, err := RecvMsg(b, buf)
	if err != nil || string(buf[:n]) != "one" || len(files) != 1 {
		t.Fatalf("%q, %d files, %v", buf[:n], len(files), err)
	}
	if _, err := files[0].WriteString("through"); err != nil {
		t.Fatal(err)
	}
	CloseAll(files)
	if got, err := io.ReadAll(r); string(got) != "through" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if n, files, err := RecvMsg(b, buf); err != nil || string(buf[:n]) != "two" || len(files) != 0 {
		t.Errorf("%q, %d files, %v", buf[:n], len(files), err)
	}
	if _, _, err := RecvMsg(b, buf); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	b.Close()
}

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	a, b := open(), open()
	if err := Lock(a, true); err != nil {
		t.Fatal(err)
	}
	if had, err := TryLock(b, false); had || err != nil {
		t.Errorf("shared beside exclusive: %v, %v", had, err)
	}
	a.Close()
	c := open()
	for _, f := range []*os.File{b, c} {
		if had, err := TryLock(f, false); !had || err != nil {
			t.Errorf("shared: %v, %v", had, err)
		}
	}
	if had, err := TryLock(c, true); had || err != nil {
		t.Errorf("exclusive beside shared: %v, %v", had, err)
	}
}

// TestSplice moves what is in a pipe to an offset of a file and tells waiting,
// empty and ended apart.
func TestSplice(t *testing.T) {
	mem, err := Memfd("x")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	r, w, err := Pipe(true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := SpliceToFile(r, mem, 0, 100, false); n != 0 || err != nil {
		t.Errorf("empty: %d, %v", n, err)
	}
	if _, err := w.WriteString("0123456789"); err != nil {
		t.Fatal(err)
	}
	if n, err := SpliceToFile(r, mem, 5, 4, true); n != 4 || err != nil {
		t.Errorf("four of ten: %d, %v", n, err)
	}
	w.Close()
	if n, err := SpliceToFile(r, mem, 9, 100, true); n != 6 || err != nil {
		t.Errorf("the rest: %d, %v", n, err)
	}
	if n, err := SpliceToFile(r, mem, 15, 100, true); n != 0 || err != io.EOF {
		t.Errorf("the end: %d, %v", n, err)
	}
	b := make([]byte, 15)
	if _, err := mem.ReadAt(b, 0); err != nil || string(b) != "\x00\x00\x00\x00\x000123456789" {
		t.Errorf("%q, %v", b, err)
	}
}
