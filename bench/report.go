package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"
)

// notes is what a person has to say about the figures: why a budget is missed
// and what the time goes into.
//
//go:embed notes.md
var notes string

type report struct {
	machine  string
	sections map[string]string // by part
}

// mark begins a part's section in the file.
func mark(part string) string { return "<!-- part " + part + " -->\n" }

// keep takes over the sections of a report that was written before.
func (r *report) keep(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, p := range parts {
		_, section, ok := strings.Cut(string(text), mark(p.name))
		if ok {
			section, _, _ = strings.Cut(section, endMark)
			r.sections[p.name] = section
		}
	}
	return err
}

const endMark = "<!-- end -->\n"

// chapter is one table.
type chapter struct {
	title, text string
	unit        string
	figures     []figure
	after       string
}

type figure struct {
	what    string
	s       series
	budgets []budget
}

// budget is a limit on the median, in the chapter's unit.
type budget struct {
	text  string
	limit float64
}

func (r report) markdown() string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by `make bench`; do not edit. The budgets are the design's; they bind the median.\n\n")
	b.WriteString(r.machine)
	var missing []string
	for _, p := range parts {
		if r.sections[p.name] == "" {
			missing = append(missing, p.name)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintf(&b, "- not measured yet: %s\n", strings.Join(missing, ", "))
	}
	for _, p := range parts {
		if section := r.sections[p.name]; section != "" {
			b.WriteString("\n" + mark(p.name) + section + endMark)
		}
	}
	if strings.TrimSpace(notes) != "" {
		b.WriteString("\n" + notes)
	}
	return b.String()
}

// markdown is the chapter's section; when says when it was measured, and of
// what.
func (c chapter) markdown(when string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%s\n\n*%s*\n\n", c.title, c.text, when)
	fmt.Fprintf(&b, "| what | runs | min, %s | median, %s | budget | |\n|---|---:|---:|---:|---|---|\n", c.unit, c.unit)
	for _, f := range c.figures {
		f.write(&b)
	}
	if c.after != "" {
		b.WriteString("\n" + c.after + "\n")
	}
	return b.String()
}

func (f figure) write(b *strings.Builder) {
	if len(f.s) == 0 {
		return
	}
	fmt.Fprintf(b, "| %s | %d | %s | %s |", f.what, len(f.s), number(f.s.min()), number(f.s.median()))
	if len(f.budgets) == 0 {
		b.WriteString(" | |\n")
		return
	}
	for i, g := range f.budgets {
		if i > 0 {
			b.WriteString("| | | | |")
		}
		verdict := "met"
		if m := f.s.median(); m > g.limit {
			verdict = fmt.Sprintf("**missed**: %.2f × the budget", m/g.limit)
		}
		fmt.Fprintf(b, " ≤ %s (%s) | %s |\n", number(g.limit), g.text, verdict)
	}
}

// number has three significant digits or all before the point.
func number(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// firstLine is the first line that a command prints.
func firstLine(ctx context.Context, args ...string) string {
	out, err := command{args: args}.output(ctx)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(out, "\n")
	return line
}

// when describes a measurement that begins now.
func (l *lab) when(ctx context.Context) string {
	return fmt.Sprintf("Measured %s; %s; load before %s.", time.Now().UTC().Format("2006-01-02 15:04 UTC"), firstLine(ctx, l.bin+"/tug", "--version"), loadAverage())
}

// machine describes where the figures come from.
func (l *lab) machine(ctx context.Context) string {
	grep := func(file, key string) string {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
				return strings.TrimSpace(v)
			}
		}
		return "unknown"
	}
	cgroups := "v2"
	if mounts, _ := os.ReadFile("/proc/mounts"); strings.Contains(string(mounts), " cgroup rw") {
		cgroups = "v1"
		if strings.Contains(string(mounts), " cgroup2 rw") {
			cgroups = "hybrid (v1 controllers, v2 mounted)"
		}
	}
	var b strings.Builder
	for _, row := range [][2]string{
		{"machine", fmt.Sprintf("%s, %d cores, %s memory", grep("/proc/cpuinfo", "model name"), runtime.NumCPU(), grep("/proc/meminfo", "MemTotal"))},
		{"kernel", firstLine(ctx, "uname", "-srm") + ", cgroups " + cgroups},
		{"file system", firstLine(ctx, "stat", "-f", "-c", "%T", l.dir)},
		{"versions", strings.Join([]string{firstLine(ctx, "podman", "--version"), firstLine(ctx, "runc", "--version"), firstLine(ctx, "go", "version")}, "; ")},
	} {
		fmt.Fprintf(&b, "- %s: %s\n", row[0], row[1])
	}
	return b.String()
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	if len(f) == 0 {
		return "unknown"
	}
	return f[0]
}
