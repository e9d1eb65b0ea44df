package plan

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/spec"
	"tug/sys"
)

func pair(t *testing.T) (a, b *os.File) {
	t.Helper()
	a, b, err := sys.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestPlanTravels sends plans small enough for a message and too large for one.
func TestPlanTravels(t *testing.T) {
	for _, size := range []int{0, MaxMessage - 600, MaxMessage, 3 << 20} {
		a, b := pair(t)
		p := &Plan{Args: []string{"x"}, Env: []string{"A=" + strings.Repeat("y", size)}, Caps: 1 << 40, Seccomp: []byte("12345678")}
		if err := SendPlan(a, p, a, b); err != nil {
			t.Fatal(err)
		}
		got, files, err := ReceivePlan(b)
		if err != nil || len(files) != 2 {
			t.Fatalf("size %d: %d files, %v", size, len(files), err)
		}
		sys.CloseAll(files)
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("size %d: %s", size, diff)
		}
	}
}

// TestOtherVersion: half an upgrade is refused in words.
func TestOtherVersion(t *testing.T) {
	js := `{"Version":"v0.0.1","Args":["x"]}`
	_, err := parsePlan([]byte("P" + string([]byte{byte(len(js)), 0, 0, 0}) + js))
	if want := "tug is version v0.0.1, tug-init version " + spec.Version + ": install both of one version"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestConversation(t *testing.T) {
	a, b := pair(t)
	r := &Reply{Code: 127, Msg: "no", Warnings: []string{"w"}}
	if err := SendReply(b, r, a); err != nil {
		t.Fatal(err)
	}
	got, files, err := ReceiveReply(a)
	if err != nil || len(files) != 1 || cmp.Diff(r, got) != "" {
		t.Errorf("got %+v, %d files, %v", got, len(files), err)
	}
	sys.CloseAll(files)
	if err := SendGo(a); err != nil {
		t.Fatal(err)
	}
	if err := ReceiveGo(b); err != nil {
		t.Error(err)
	}
	a.Close()
	if err := ReceiveGo(b); !errors.Is(err, io.EOF) {
		t.Errorf("after the supervisor's death: %v", err)
	}
	if _, _, err := ReceivePlan(b); !errors.Is(err, io.EOF) {
		t.Errorf("after the supervisor's death: %v", err)
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte("P\x02\x00\x00\x00{}12345678"))
	f.Add([]byte("P\xff\xff\xff\xff{}"))
	f.Add([]byte("P"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if p, err := parsePlan(msg); (p == nil) == (err == nil) {
			t.Errorf("plan %v, error %v", p, err)
		}
	})
}

func TestSetOption(t *testing.T) {
	var m Mount
	m.Attr = sys.AttrNoExec | sys.AttrNoDev
	for _, o := range []string{"exec", "nosuid", "ro", "size=10%", "mode=0700", "relatime"} {
		if !m.SetOption(o) {
			t.Errorf("%s is refused", o)
		}
	}
	for _, o := range []string{"size", "size=", "nosuch", "source=x", "context=y", "="} {
		if m.SetOption(o) {
			t.Errorf("%s is accepted", o)
		}
	}
	want := Mount{Attr: sys.AttrNoSuid | sys.AttrNoDev, ReadOnly: true, Options: []Option{{"size", "10%"}, {"mode", "0700"}}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}
