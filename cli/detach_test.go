package cli

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDetachKeys(t *testing.T) {
	for in, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-@": "\x00", "ctrl-[,x": "\x1bx",
		"ctrl-\\": "\x1c", "ctrl-_": "\x1f", "CTRL-a": "\x01", "a,b,c": "abc",
	} {
		got, err := parseDetachKeys(in)
		if err != nil || string(got) != want {
			t.Errorf("parseDetachKeys(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"foo", "ctrl-", "ctrl-1", "a,", ",", "ctrl-aa", "\u00e9"} {
		if got, err := parseDetachKeys(in); err == nil {
			t.Errorf("parseDetachKeys(%q) = %q, want an error", in, got)
		}
	}
}

func TestDetacher(t *testing.T) {
	for _, tt := range []struct {
		keys     string
		in       []string
		want     string
		detached bool
	}{
		{"\x10\x11", []string{"ls\n"}, "ls\n", false},
		{"\x10\x11", []string{"a\x10\x11b"}, "a", true},
		{"\x10\x11", []string{"\x10", "\x11"}, "", true},
		// A beginning that turns out to be something else is passed on.
		{"\x10\x11", []string{"\x10", "x"}, "\x10x", false},
		{"\x10\x11", []string{"\x10\x10\x11"}, "\x10", true},
		// What could still be a beginning is held back.
		{"\x10\x11", []string{"a\x10"}, "a", false},
		{"aab", []string{"aaab"}, "a", true},
		{"aab", []string{"aa", "aa", "c"}, "aaaac", false},
		{"abab", []string{"ababab"}, "", true},
		{"abac", []string{"ababac"}, "ab", true},
		{"", []string{"x\x10\x11"}, "x\x10\x11", false},
	} {
		d := detacher{keys: []byte(tt.keys)}
		var out []byte
		detached := false
		for _, in := range tt.in {
			if out, detached = d.feed(out, []byte(in)); detached {
				break
			}
		}
		if string(out) != tt.want || detached != tt.detached {
			t.Errorf("keys %q, in %q: got %q, %v; want %q, %v", tt.keys, tt.in, out, detached, tt.want, tt.detached)
		}
	}
}

// Whatever is typed in whatever pieces: detaching happens exactly at the first
// occurrence of the keys, and all before it has been passed on.
func FuzzDetacher(f *testing.F) {
	f.Add([]byte("\x10\x11"), []byte("abc\x10\x10\x11d"), 2)
	f.Add([]byte("aab"), []byte("aaaab"), 1)
	f.Add([]byte("abab"), []byte("abaabab"), 3)
	f.Fuzz(func(t *testing.T, keys, in []byte, step int) {
		if len(keys) == 0 || len(keys) > 64 || step < 1 {
			return
		}
		d := detacher{keys: keys}
		var out []byte
		detached := false
		for rest := in; len(rest) > 0 && !detached; {
			n := min(step, len(rest))
			out, detached = d.feed(out, rest[:n])
			rest = rest[n:]
		}
		at := bytes.Index(in, keys)
		if detached != (at >= 0) {
			t.Fatalf("detached %v, keys %q are at %d of %q", detached, keys, at, in)
		}
		want := in[:max(at, 0)]
		if at < 0 {
			want = in[:len(in)-d.held]
			if !bytes.HasPrefix(keys, in[len(in)-d.held:]) {
				t.Fatalf("held back %q, no beginning of %q", in[len(in)-d.held:], keys)
			}
		}
		if !bytes.Equal(out, want) {
			t.Fatal(cmp.Diff(string(want), string(out)))
		}
	})
}
