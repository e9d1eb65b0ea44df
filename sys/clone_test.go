package sys

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
)

func TestCloneExec(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// One that would be inherited.
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, r.Fd(), syscall.F_SETFD, 0); errno != 0 {
		t.Fatal(errno)
	}
	pid, pidfd, err := CloneExec(Clone{
		Path: "/bin/sh", Args: []string{"sh", "-c", "echo $A; test -e /proc/self/fd/0 || echo closed; set -- /proc/self/fd/*; echo $#; exit 7"},
		Env: []string{"A=b"}, Files: []*os.File{nil, w, w},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil || string(out) != "b\nclosed\n3\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if code, err := Reap(pid); code != 7 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := PidfdSignal(pidfd, 0); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a reaped process: %v", err)
	}
	pidfd.Close()
}

func TestCloneExecFails(t *testing.T) {
	_, _, err := CloneExec(Clone{Path: "/nowhere", Args: []string{"x"}})
	if !errors.Is(err, syscall.ENOENT) {
		t.Errorf("got %v, want ENOENT", err)
	}
	_, _, err = CloneExec(Clone{Path: "/bin/sh", Args: []string{"x"}, Flags: ^uintptr(0) &^ 0xff})
	if err == nil {
		t.Error("impossible flags are accepted")
	}
	if pid := NextZombie(); pid != 0 {
		t.Errorf("process %d is left", pid)
	}
}

// TestCloneExecStress makes processes while the rest of the program works, to
// find what the child breaks in memory it shares with the parent.
func TestCloneExecStress(t *testing.T) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					_ = make([]byte, n%100_000)
				}
			}
		})
	}
	var clones sync.WaitGroup
	for range 4 {
		clones.Go(func() {
			for range 50 {
				pid, pidfd, err := CloneExec(Clone{Path: "/bin/true", Args: []string{"true"}})
				if err != nil {
					t.Error(err)
					return
				}
				pidfd.Close()
				if code, err := Reap(pid); code != 0 || err != nil {
					t.Errorf("exit code %d, %v", code, err)
				}
			}
		})
	}
	clones.Wait()
	close(stop)
	wg.Wait()
}
