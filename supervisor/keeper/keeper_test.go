package keeper

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tug/spec"
	"tug/sys"
)

// pair returns a keeper with no supervisor process, and the supervisor's end of
// its socket.
func pair(t *testing.T) (*keeper, *os.File) {
	t.Helper()
	ours, theirs, err := sys.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return &keeper{entries: map[string]*entry{}, early: map[process]Exit{}, sock: ours}, theirs
}

func (k *keeper) do(m *Message, files ...*os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.handle(m, files)
}

func exitOf(t *testing.T, sock *os.File) *Message {
	t.Helper()
	m, _, err := Receive(sock)
	if err != nil || m.Op != OpExit || m.Exit == nil {
		t.Fatalf("%+v, %v; want an exit", m, err)
	}
	return m
}

// TestExit: the record is on disk before the supervisor hears of it, whichever
// comes first, the end or the message that says what to do at the end.
func TestExit(t *testing.T) {
	for _, early := range []bool{false, true} {
		k, super := pair(t)
		record := filepath.Join(t.TempDir(), "exit.json")
		child := &Child{Pid: 7, Start: 70, Record: record, Sync: true}
		ended := Exit{Pid: 7, Start: 70, Code: 42, At: time.Now().UTC()}
		if early {
			k.childEnded(Exit{Pid: 7, Start: 69, Code: 1}) // one that had the pid before
			k.childEnded(ended)
		}
		k.do(&Message{Op: OpHold, Key: "c:x", Child: child})
		if !early {
			k.childEnded(Exit{Pid: 7, Start: 69, Code: 1})
			k.childEnded(ended)
		}
		m := exitOf(t, super)
		var got Exit
		b, err := os.ReadFile(record)
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || got != ended || m.Key != "c:x" || m.Exit.Code != 42 {
			t.Errorf("early %v: record %+v, told %+v, %v", early, got, m, err)
		}
		if k.busy() {
			t.Error("an ended child keeps the keeper busy")
		}
	}
}

// TestExitOfParked: a parked process becomes a container's by a drop and a hold.
// Its end is recorded wherever between them it is seen.
func TestExitOfParked(t *testing.T) {
	for at := range 4 {
		k, super := pair(t)
		record := filepath.Join(t.TempDir(), "exit.json")
		ended := Exit{Pid: 7, Start: 70, Code: 42, At: time.Now().UTC()}
		for i, m := range []*Message{
			{Op: OpHold, Key: "p:7.70", Child: &Child{Pid: 7, Start: 70}},
			{Op: OpDrop, Key: "p:7.70"},
			{Op: OpHold, Key: "c:x", Child: &Child{Pid: 7, Start: 70, Record: record}},
			{Op: OpUp},
		} {
			if i == at {
				k.childEnded(ended)
			}
			k.do(m)
		}
		m := exitOf(t, super)
		if m.Key == "p:7.70" {
			m = exitOf(t, super)
		}
		if b, err := os.ReadFile(record); err != nil || m.Key != "c:x" || m.Exit.Code != 42 {
			t.Errorf("ended before message %d: told %+v, record %s %v", at, m, b, err)
		}
	}
}

// TestExitOfUnseen: a process that has ended before anybody could see when it
// was started is the last one of its pid.
func TestExitOfUnseen(t *testing.T) {
	for _, early := range []bool{true, false} {
		k, super := pair(t)
		now := time.Now()
		k.childEnded(Exit{Pid: 8, Start: 71, Code: 1, At: now})
		if early {
			for n, start := range []uint64{60, 70, 50} { // the pid was used again and again
				k.childEnded(Exit{Pid: 7, Start: start, Code: n, At: now.Add(time.Duration(start) * time.Second / 10)})
			}
		}
		k.do(&Message{Op: OpHold, Key: "e:x", Child: &Child{Pid: 7}})
		if !early {
			k.childEnded(Exit{Pid: 7, Start: 70, Code: 1, At: now})
		}
		if m := exitOf(t, super); m.Key != "e:x" || m.Exit.Code != 1 || m.Exit.Start != 70 {
			t.Errorf("early %v: told %+v %+v", early, m, m.Exit)
		}
	}
}

// TestHoldAgain: a newer hold takes the place of the older one, closes its
// descriptors, and keeps the exit.
func TestHoldAgain(t *testing.T) {
	k, super := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	child := Child{Pid: 7, Start: 70}
	k.do(&Message{Op: OpHold, Key: "c:x", Child: &child, Names: []string{"stdin"}}, w)
	if !k.busy() {
		t.Error("a running child does not count")
	}
	k.childEnded(Exit{Pid: 7, Start: 70, Code: 3})
	exitOf(t, super)
	again := child
	k.do(&Message{Op: OpHold, Key: "c:x", Child: &again})
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the older hold's descriptor is open: %d, %v", n, err)
	}
	if e := k.entries["c:x"]; e.msg.Exit == nil || e.msg.Exit.Code != 3 {
		t.Errorf("the exit was lost: %+v", e.msg)
	}
	k.do(&Message{Op: OpDrop, Key: "c:x"})
	k.do(&Message{Op: OpDrop, Key: "c:x"})
	if len(k.entries) != 0 {
		t.Errorf("left %v", k.entries)
	}
}

// TestRecordOfRemoved: nobody wants the record of what is gone, but the exit is
// told.
func TestRecordOfRemoved(t *testing.T) {
	k, super := pair(t)
	gone := filepath.Join(t.TempDir(), "gone", "exit.json")
	k.do(&Message{Op: OpHold, Key: "c:x", Child: &Child{Pid: 7, Start: 70, Record: gone}})
	k.childEnded(Exit{Pid: 7, Start: 70})
	exitOf(t, super)
	if _, err := os.Stat(filepath.Dir(gone)); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestOOMKilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events")
	for text, want := range map[string]bool{
		"low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n":            true, // version 2
		"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n":        true, // version 1
		"low 0\noom 5\noom_kill 0\noom_group_kill 0\n":         false,
		"oom_kill_disable 1\nunder_oom 0\n":                    false,
		"":                                                     false,
		"oom_kill many\n":                                      false,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 0\nx 1\n\n": false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := oomKilled(file); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if oomKilled(file + "-gone") {
		t.Error("a file that is gone tells of a kill")
	}
}

func TestMessages(t *testing.T) {
	a, b, err := sys.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	sent := Message{Op: OpHold, Key: "k", Names: []string{"x"}, Child: &Child{Pid: 1, Start: 1 << 60}, Data: "\x00\"note"}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := Send(a, &sent, null); err != nil {
		t.Fatal(err)
	}
	got, files, err := Receive(b)
	if err != nil || len(files) != 1 || *got.Child != *sent.Child || got.Data != sent.Data || got.Names[0] != "x" {
		t.Errorf("%+v, %d files, %v", got, len(files), err)
	}
	sys.CloseAll(files)
	if err := Send(a, &Message{Op: OpHold, Data: strings.Repeat("x", maxMessage)}); err == nil {
		t.Error("a packet that does not fit was sent")
	}
	if err := sys.SendMsg(a, []byte("no json"), null); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Receive(b); err == nil {
		t.Error("what is no JSON was taken")
	}
	a.Close()
	if _, _, err := Receive(b); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}

func TestRunning(t *testing.T) {
	dir := t.TempDir()
	if Running(dir, 1) {
		t.Error("runs without a lock file")
	}
	lock, err := os.OpenFile(filepath.Join(dir, "keeper.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if Running(dir, 1) {
		t.Error("runs though nobody holds the lock")
	}
	if !takeLock(lock) || !Running(dir, 1) || !Running(dir, 1) {
		t.Error("a held lock does not count")
	}
	own, err := sys.StartTicks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.WriteString("12345678901234567890"); err != nil {
		t.Fatal(err)
	}
	if err := sign(lock); err != nil {
		t.Fatal(err)
	}
	if !Running(dir, own) || !Running(dir, own+1) || Running(dir, own-1) {
		t.Error("which processes are this keeper's is not known")
	}
	lock.Close()
	if Running(dir, own) {
		t.Error("runs on after its end")
	}
}

func TestRefuses(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"--run", "x"},
		{"--version", spec.Version + "x", "--run", t.TempDir(), "--socket", "s", "--", "true"},
		{"--version", spec.Version, "--run", t.TempDir(), "--socket", "s", "true", "true"},
	} {
		if code := Main(args); code != 1 {
			t.Errorf("%q: %d", args, code)
		}
	}
}

// Exits that nobody asks for, of starts that failed, do not pile up.
func TestEarlyExitsAreForgotten(t *testing.T) {
	k := &keeper{entries: map[string]*entry{}, early: map[process]Exit{}}
	now := time.Now()
	for pid := range 5000 {
		k.childEnded(Exit{Pid: pid + 1, Start: 1, At: now.Add(time.Duration(pid) * time.Second)})
		if _, ok := k.early[process{pid + 1, 1}]; !ok {
			t.Fatal("one that has just come is gone")
		}
	}
	if n := len(k.early); n > 61 {
		t.Errorf("%d are kept", n)
	}
}
