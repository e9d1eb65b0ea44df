package cli

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"tug/engine"
	"tug/image"
	"tug/test/fixture"
)

// explored is an image with a layer of hostile names.
func explored(t *testing.T) *image.Explored {
	t.Helper()
	dir := t.TempDir()
	e, err := engine.Open(engine.Options{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Storage: "erofs"})
	if err != nil {
		t.Fatal(err)
	}
	low := fixture.NewLayer().Dir("etc", 0o755).File("etc/conf", 0o644, "old").File("etc/big", 0o644, strings.Repeat("x", 5000)).Dir("usr", 0o755)
	for _, name := range []string{"\x1b[31mred", "new\nline", "turn\u202earound", "\xff\xfe", strings.Repeat("ü", 100)} {
		low.File("usr/"+name, 0o644, "12")
	}
	i := &fixture.Image{Name: "test:screen", Layers: [][]byte{low.Bytes(), fixture.NewLayer().File("etc/conf", 0o644, "new").File("etc/.wh.big", 0, "").Bytes()}}
	if _, err := e.Images.Load(t.Context(), bytes.NewReader(fixture.DockerArchive(i).Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	x, err := e.Images.Explore(t.Context(), "test:screen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return x
}

// visible strips the sequences that draw itself makes.
func visible(s string) string {
	for _, seq := range []string{"\x1b[H", "\x1b[K", "\x1b[J", "\x1b[7m", "\x1b[0m"} {
		s = strings.ReplaceAll(s, seq, "")
	}
	return s
}

func checkDrawn(t *testing.T, s *browser, rows, cols int) string {
	t.Helper()
	text := visible(s.draw(rows, cols))
	lines := strings.Split(text, "\r\n")
	if len(lines) != max(rows, 4) {
		t.Fatalf("%dx%d: %d lines", cols, rows, len(lines))
	}
	for _, l := range lines {
		if n := utf8.RuneCountInString(l); n > max(cols, 20) {
			t.Fatalf("%dx%d: a line of %d: %q", cols, rows, n, l)
		}
		if printable(l) != l {
			t.Fatalf("not printable: %q", l)
		}
		if s.ascii && strings.ContainsFunc(l, func(r rune) bool { return r >= 0x80 }) {
			t.Fatalf("not ASCII: %q", l)
		}
	}
	return text
}

func TestBrowser(t *testing.T) {
	s := newBrowser(explored(t), false)
	has := func(want bool, words ...string) {
		t.Helper()
		text := checkDrawn(t, s, 24, 80)
		for _, w := range words {
			if strings.Contains(text, w) != want {
				t.Errorf("%q is there: %v\n%s", w, !want, text)
			}
		}
	}
	keys := func(all ...string) {
		t.Helper()
		for _, k := range all {
			if !s.key(k) {
				t.Fatalf("%q ended it", k)
			}
		}
	}
	has(true, "test:screen", "conf", "big", "?[31mred", "turn?around", "q quit")
	keys("down")
	has(true, "C ", "conf  (content, 3B wasted)", "D ", "big  (5kB wasted)")
	has(false, "red")
	keys("d")
	has(false, "big")
	keys("d", "c")
	has(false, "conf  (")
	keys("c", "down")
	has(true, "the image", "conf", "red")
	has(false, "big")
	keys("/", "c", "o", "n")
	has(true, "search: con", "conf")
	has(false, "red")
	keys("\r", "\x1b")
	has(true, "red")
	keys("home", "\r")
	has(false, "conf")
	keys("e", "w")
	has(true, "/etc/big  (1x)", "/etc/conf  (1x)")
	keys("w", "home")
	for _, k := range []string{"q", "\x03"} {
		if s.key(k) {
			t.Errorf("%q did not end it", k)
		}
	}
}

// Any keys at any size draw what fits.
func TestBrowserAnyKeys(t *testing.T) {
	x := explored(t)
	all := []string{"up", "down", "left", "right", "pgup", "pgdn", "home", "end", "\t", "\r", " ", "/", "x", "c", "a", "d", "e", "w", "\x1b", "\x7f", "unknown", "\x00", "ü", "\xff", "g", "G"}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newBrowser(x, seed%2 == 0)
		for range 100 {
			s.key(all[r.IntN(len(all))])
			checkDrawn(t, s, r.IntN(60), r.IntN(220))
		}
	}
}

func TestNextKey(t *testing.T) {
	var got []string
	for b := []byte("a\x1b[A\x1bOB\x1b[5~\x1b[1;5Cü\x1b[\xff\x1b\x1b"); len(b) > 0; {
		var k string
		k, b = nextKey(b)
		got = append(got, k)
	}
	if s := strings.Join(got, " "); s != "a up down pgup unknown ü unknown" {
		t.Errorf("%q", s)
	}
}
