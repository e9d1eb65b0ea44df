package container

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"tug/errs"
	"tug/runtime"
	"tug/spec"
)

// Processes is a table of processes, a row for each.
type Processes struct {
	Titles []string
	Rows   [][]string
}

// Top lists the processes of a running container, execs too, with their ids on
// the host. The columns are those of ps -ef; with options, those of the host's
// ps(1), which is asked about all processes, since not every ps can be asked
// about some.
func (c *Containers) Top(ctx context.Context, name string, options []string) (*Processes, error) {
	s, err := c.Find(name)
	if err != nil {
		return nil, err
	}
	if s.State.Status != spec.StatusRunning {
		return nil, errNotRunning(s.ID)
	}
	args := strings.Fields(strings.Join(options, " "))
	if err := checkPsOptions(strings.Join(args, " ")); err != nil {
		return nil, err
	}
	if len(args) == 0 || len(args) == 1 && args[0] == "-ef" {
		pids, err := runtime.Pids(s.State.Cgroup)
		if err != nil {
			return nil, fmt.Errorf("list the processes of container %s: %w", s.Name, err)
		}
		return hostProcesses(pids), nil
	}
	out, err := runPs(ctx, args)
	if err != nil {
		return nil, err
	}
	// After ps has looked: what came meanwhile is not in it, what went is in
	// neither.
	pids, err := runtime.Pids(s.State.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("list the processes of container %s: %w", s.Name, err)
	}
	return parsePs(out, pids)
}

// checkPsOptions refuses another title for PID, by which processes are found:
// "-o x=PID" makes a column of something else look like it.
func checkPsOptions(args string) error {
	for _, word := range strings.FieldsFunc(" "+args, func(r rune) bool { return r == ' ' || r == ',' }) {
		name, title, ok := strings.Cut(strings.TrimLeft(word, "-o"), "=")
		if ok && strings.HasPrefix(title, "PID") {
			return errs.New(errs.Invalid, `specifying "%s=%s" is not allowed`, name, title)
		}
	}
	return nil
}

// maxPs bounds what is read of ps.
const maxPs = 64 << 20

func runPs(ctx context.Context, args []string) ([]byte, error) {
	path, err := exec.LookPath("ps")
	if err != nil {
		return nil, errs.New(errs.Unsupported, "there is no ps on this host, which options need").WithHint("leave them out, or install it (Debian: procps)")
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var out, complaint limited
	out.left, complaint.left = maxPs, 4<<10
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	if out.left < 0 {
		return nil, errs.New(errs.Unsupported, "ps writes more than %d bytes", maxPs)
	}
	if err != nil {
		text, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		if text == "" {
			text = err.Error()
		}
		return nil, errs.New(errs.Invalid, "ps: %s", strings.TrimPrefix(text, "error: "))
	}
	return out.Bytes(), nil
}

// limited is a buffer that keeps the first bytes alone.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left >= 0 {
		l.Buffer.Write(p[:min(len(p), l.left)])
		l.left -= len(p)
	}
	return len(p), nil
}

// parsePs picks the lines about pids from what ps wrote. The last column is the
// rest of the line. Lines of threads, which have no pid, belong to the process
// above them.
func parsePs(out []byte, pids []int) (*Processes, error) {
	head, rest, _ := strings.Cut(string(out), "\n")
	p := &Processes{Titles: strings.Fields(head)}
	at := slices.Index(p.Titles, "PID")
	if at < 0 {
		return nil, errs.New(errs.Invalid, "Couldn't find PID field in ps output").WithHint("have it print the column PID")
	}
	within := false
	for line := range strings.Lines(rest) {
		row := columns(line, len(p.Titles))
		if len(row) <= at {
			continue
		}
		if row[at] != "-" {
			pid, err := strconv.Atoi(row[at])
			if err != nil {
				return nil, errs.New(errs.Invalid, "Unexpected pid '%s': %w", row[at], err)
			}
			_, within = slices.BinarySearch(pids, pid)
		}
		if within {
			p.Rows = append(p.Rows, row)
		}
	}
	return p, nil
}

// columns splits a line into at most n; blanks in the last one stay.
func columns(line string, n int) []string {
	var all []string
	line = strings.TrimSpace(line)
	for len(all) < n-1 && line != "" {
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			break
		}
		all, line = append(all, line[:i]), strings.TrimLeft(line[i:], " \t")
	}
	if line != "" {
		all = append(all, line)
	}
	return all
}

// hostProcesses is ps -ef for pids, in their order. Those that have ended are
// left out.
func hostProcesses(pids []int) *Processes {
	p := &Processes{Titles: strings.Fields("UID PID PPID C STIME TTY TIME CMD")}
	v := newProcView()
	for _, pid := range pids {
		if row, err := v.row(pid); err == nil {
			p.Rows = append(p.Rows, row)
		}
	}
	return p
}
