//go:build root

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tug/test/fixture"
)

// The README's tour, between its marks, is what a user gets to see. With
// TUG_UPDATE_README=1 the output in it is replaced by today's.
func TestReadme(t *testing.T) {
	t.Parallel()
	repo, err := fixture.Repo()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(repo, "README.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "<!-- tour -->\n")
	tour, after, ok2 := strings.Cut(rest, "<!-- end of tour -->\n")
	if !ok || !ok2 {
		t.Fatal("README.md: no tour between its marks")
	}
	got := newTour(t).follow(tour)
	if os.Getenv("TUG_UPDATE_README") != "" {
		text = []byte(before + "<!-- tour -->\n" + got + "<!-- end of tour -->\n" + after)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := timeless(tour); timeless(got) != want {
		t.Errorf("the README's tour printed today:\n%s\nTUG_UPDATE_README=1 writes this into it", got)
	}
}

// A tour has the program on its path and a registry with an image.
type tour struct {
	g        *tug
	registry *fixture.Registry
	bin      string
}

// As long as the address it stands for, so that tables stay straight.
const readmeRegistry = "localhost:50000"

func newTour(t *testing.T) *tour {
	g, r := newTug(t), startRegistry(t)
	i, err := fixture.Debian()
	if err != nil {
		t.Fatal(err)
	}
	i.Name = "debian:bookworm"
	push(t, r, i, fixture.Gzip)
	bin := t.TempDir()
	if err := os.Symlink(g.path, filepath.Join(bin, "tug")); err != nil {
		t.Fatal(err)
	}
	return &tour{g, r, bin}
}

// follow runs every command of the console blocks and returns text with the
// output after each.
func (r *tour) follow(text string) string {
	var out strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside
			out.WriteString(line)
		case !inside:
			out.WriteString(line)
		case strings.HasPrefix(line, "$ "):
			out.WriteString(line)
			out.WriteString(r.run(strings.TrimPrefix(line, "$ ")))
		}
	}
	return out.String()
}

func (r *tour) run(script string) string {
	script = strings.ReplaceAll(script, readmeRegistry, r.registry.Addr)
	cmd := exec.CommandContext(r.g.t.Context(), "bash", "-c", script)
	cmd.Env = append(r.g.command(r.g.t.Context()).Env, "PATH="+r.bin+":"+os.Getenv("PATH"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // how it ended is part of the tour where it matters
	return strings.ReplaceAll(out.String(), r.registry.Addr, readmeRegistry)
}

// What differs between two runs of the tour, in the order of replacement.
var changing = []struct{ from, to string }{
	{`\b[0-9a-f]{12,64}\b`, "<id>"},
	{`\b\d\d:\d\d:\d\d\b`, "<time>"},
	{`(Less than a|About an?|\d+) (second|minute|hour|day|week|month|year)s?( ago)?`, "<while>"},
	{`\b\d+(\.\d+)?[kMG]?B\b`, "<size>"},
	{`(?m)^(<id>: (Pulling fs layer|Waiting|Download complete|Pull complete)\n)+`, "<layers>\n"},
	{` {2,}`, " "},
}

func timeless(s string) string {
	for _, c := range changing {
		s = regexp.MustCompile(c.from).ReplaceAllString(s, c.to)
	}
	return s
}
