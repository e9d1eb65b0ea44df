package container

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// filtered is what a filter for "x" passes on of entries "STREAM TEXT"; "|" in
// place of the end of the past.
func filtered(t *testing.T, last int, entries ...string) string {
	t.Helper()
	var b strings.Builder
	f := newLogFilter(func(line []byte) bool { return bytes.Contains(line, []byte("x")) }, last, func(l LogLine) error {
		b.Write(l.Text)
		return nil
	})
	for _, e := range entries {
		stream, text, _ := strings.Cut(e, " ")
		err := error(nil)
		if e == "|" {
			err = f.settled()
			b.WriteByte('|')
		} else {
			buf := []byte(text)
			err = f.add(LogLine{Stream: stream, Text: buf})
			copy(buf, "?????") // it was valid until emit returned
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.rest(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGrep(t *testing.T) {
	var many []string
	for n := range 1000 {
		many = append(many, fmt.Sprintf("stdout %dx\n", n), "stdout no\n")
	}
	for _, c := range []struct {
		name    string
		last    int
		entries []string
		want    string
	}{
		{"lines", -1, []string{"stdout ax\n", "stdout b\n", "stderr xc\n"}, "ax\nxc\n"},
		{"pieces", -1, []string{"stdout a", "stdout b", "stdout x\n", "stdout c", "stdout d\n"}, "abx\n"},
		{"two streams", -1, []string{"stdout a", "stderr x\n", "stdout b\n"}, "x\n"},
		{"no end", -1, []string{"stdout a\n", "stdout x"}, "x"},
		{"the last", 2, []string{"stdout 1x\n", "stdout 2x\n", "stdout 3\n", "stdout 4x\n"}, "2x\n4x\n"},
		{"the last of many", 3, many, "997x\n998x\n999x\n"},
		{"none", 0, []string{"stdout 1x\n", "|", "stdout 2x\n"}, "|2x\n"},
		{"the last, then all", 1, []string{"stdout 1x\n", "stdout 2x\n", "|", "stdout 3\n", "stdout 4x\n", "stdout 5x\n"}, "2x\n|4x\n5x\n"},
		{"too long to keep", -1, []string{"stdout " + strings.Repeat("x", maxGrep), "stdout y", "stdout z\n", "stdout a\n"}, strings.Repeat("x", maxGrep) + "yz\n"},
		{"too long, and late", -1, []string{"stdout " + strings.Repeat("y", maxGrep), "stdout x\n", "stdout x\n"}, "x\n"},
	} {
		if got := filtered(t, c.last, c.entries...); got != c.want {
			t.Errorf("%s: %.100q, want %.100q", c.name, got, c.want)
		}
	}
}
