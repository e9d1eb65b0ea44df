package cli

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// screen is what a terminal shows after text, of the escape sequences that
// progress uses: up, clear line, carriage return.
func screen(t *testing.T, text string, width int) []string {
	t.Helper()
	lines, y := []string{""}, 0
	for len(text) > 0 {
		if m := regexp.MustCompile(`^\x1b\[(\d+)([AK])`).FindStringSubmatch(text); m != nil {
			var n int
			fmt.Sscan(m[1], &n)
			if m[2] == "K" {
				lines[y] = ""
			} else if y -= n; y < 0 {
				t.Fatal("the cursor left the top of the screen")
			}
			text = text[len(m[0]):]
			continue
		}
		switch c := text[0]; c {
		case '\n':
			if y++; y == len(lines) {
				lines = append(lines, "")
			}
		case '\r':
			if !strings.HasPrefix(text, "\r\x1b[2K") {
				t.Fatal("a carriage return without clearing the line")
			}
		default:
			if lines[y] += string(c); len(lines[y]) > width {
				t.Fatalf("a line is wider than %d: %q", width, lines[y])
			}
		}
		text = text[1:]
	}
	return lines[:len(lines)-1]
}

func TestProgressOnTerminal(t *testing.T) {
	var out bytes.Buffer
	now := testNow
	p := newProgress(&out, 80)
	p.live, p.now = true, func() time.Time { return now }
	p.Message("1: Pulling from big")
	for _, id := range []string{"aaa", "bbb"} {
		p.Layer(id, "Pulling fs layer", 0, 0)
	}
	p.Layer("aaa", "Downloading", 1e6, 4e6)
	p.Layer("aaa", "Downloading", 2e6, 4e6) // too soon to be drawn
	want := "1: Pulling from big|aaa: Downloading [=======>                      ]      1MB/4MB|bbb: Pulling fs layer"
	if got := strings.Join(screen(t, out.String(), 80), "|"); !sameBar(got, want) {
		t.Errorf("the screen shows\n%s\nwant\n%s", got, want)
	}
	now = now.Add(time.Second)
	p.Layer("aaa", "Downloading", 3e6, 4e6)
	if got := screen(t, out.String(), 80)[1]; !strings.Contains(got, "3MB/4MB") {
		t.Errorf("after a second: %q", got)
	}
	p.Layer("bbb", "Already exists", 0, 0)
	p.Layer("aaa", "Pull complete", 0, 0)
	p.close()
	want = "1: Pulling from big|aaa: Pull complete|bbb: Already exists"
	if got := strings.Join(screen(t, out.String(), 80), "|"); got != want {
		t.Errorf("at the end the screen shows\n%s\nwant\n%s", got, want)
	}
}

// sameBar compares without the bars' lengths.
func sameBar(a, b string) bool {
	bars := regexp.MustCompile(`\[=*>? *\] +`)
	return bars.ReplaceAllString(a, "[] ") == bars.ReplaceAllString(b, "[] ")
}

// More layers than the terminal has rows are no reason to leave the screen.
func TestProgressOnSmallTerminal(t *testing.T) {
	for width := 1; width < 60; width += 7 {
		var out bytes.Buffer
		p := newProgress(&out, width)
		p.live, p.rows = true, 4
		for i := range 10 {
			for status := range strings.FieldsSeq("Waiting Downloading Extracting") {
				p.Layer(fmt.Sprint("layer", i), status, 5, 10)
			}
		}
		p.close()
		if ups := regexp.MustCompile(`\x1b\[([4-9]|\d\d+)A`).FindString(out.String()); ups != "" {
			t.Errorf("the cursor goes up %q on 4 rows", ups)
		}
		screen(t, out.String(), max(width, 2))
	}
}

func TestProgressAsLines(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, 80)
	p.Message("1: Pulling from big")
	p.Layer("aaa", "Pulling fs layer", 0, 0)
	for n := range int64(100) {
		p.Layer("aaa", "Downloading", n, 100)
	}
	p.Layer("aaa", "Download complete", 0, 0)
	p.Layer("aaa", "Download complete", 0, 0)
	p.Layer("b\x1b[2Jb\nb", "Already exists", 0, 0) // an archive may call a layer so
	p.close()
	want := "1: Pulling from big\naaa: Pulling fs layer\naaa: Download complete\nb?[2Jb b: Already exists\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestBar(t *testing.T) {
	for _, tt := range []struct {
		current, total int64
		room           int
		want           string
	}{
		{0, 10, 80, "[>                                                 ]       0B/10B"},
		{5, 10, 80, "[=========================>                         ]       5B/10B"},
		{10, 10, 80, "[==================================================]      10B/10B"},
		{11, 10, 80, "[==================================================]      10B/10B"},
		{-1, 10, 80, "[>                                                 ]       0B/10B"},
		{5, 10, 30, "[=======>      ] 5B/10B"},
		{5, 10, 20, "5B/10B"},
	} {
		got := bar(tt.current, tt.total, tt.room)
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(tt.want), " ") {
			t.Errorf("bar(%d, %d, %d) = %q, want %q", tt.current, tt.total, tt.room, got, tt.want)
		}
	}
}
