package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// measureMemory sums the proportional set sizes of every engine process while
// containers run; the programs in the containers do not count.
func measureMemory(ctx context.Context, l *lab, c config) (chapter, error) {
	t := l.newTug("memory", "2s")
	pod, err := l.newPodman("podman-memory")
	if err != nil {
		return chapter{}, err
	}
	for _, load := range []command{t.command("load", "-i", l.busyboxA), pod.command("load", "-i", l.busyboxA)} {
		if _, err := load.run(ctx); err != nil {
			return chapter{}, err
		}
	}
	args := []string{"run", "-d", "--pull", "never", "--network", "none", image, "sleep", "1000"}
	var starts series
	for range c.containers {
		took, err := t.command(args...).run(ctx)
		if err != nil {
			return chapter{}, err
		}
		starts = append(starts, milliseconds(took))
	}
	tugPSS, tugProcs, err := settled(ctx, t.root)
	if err != nil {
		return chapter{}, err
	}
	l.say("memory: %d containers of tug, %.0f KiB in %d processes", c.containers, tugPSS, tugProcs)
	for range c.conmons {
		if _, err := pod.command(args...).run(ctx); err != nil {
			return chapter{}, err
		}
	}
	conmonPSS, conmonProcs, err := settled(ctx, l.path("podman-memory"))
	if err != nil {
		return chapter{}, err
	}
	begin := time.Now()
	if err := t.clean(); err != nil {
		return chapter{}, err
	}
	removed := time.Since(begin)
	begin = time.Now()
	left := "no process of tug is left"
	if err := l.gone(t.root, 30*time.Second); err != nil {
		left = "**processes of tug are left**"
	}
	each := series{tugPSS / 1024 / float64(c.containers)}
	ch := chapter{
		title: "Memory",
		text: fmt.Sprintf("Proportional set size (/proc/PID/smaps_rollup) of all engine processes per running container `sleep 1000`: "+
			"%d of tug's (%d processes, %.1f MB in all), %d of podman's (%d conmon).", c.containers, tugProcs, tugPSS/1024, c.conmons, conmonProcs),
		unit: "MB",
		figures: []figure{
			{what: fmt.Sprintf("tug, per container at %d", c.containers), s: each, budgets: []budget{{"0.2 MB", 0.2}}},
			{what: fmt.Sprintf("conmon, per container at %d", c.conmons), s: series{conmonPSS / 1024 / float64(c.conmons)}},
		},
		after: fmt.Sprintf("After `rm -f` of the %d containers (%.1f s) and a quiet time of 2 s, %s (%.1f s).", c.containers, removed.Seconds(), left, time.Since(begin).Seconds()),
	}
	if n := len(starts); n >= 40 {
		first, last := starts[5:25], starts[n-20:]
		ch.after += fmt.Sprintf("\n\nStarts one after the other with `run -d`: median %s ms of the 6th to the 25th, %s ms of the last 20 (%.2f ×).",
			number(first.median()), number(last.median()), last.median()/first.median())
	}
	return ch, nil
}

// settled returns the summed PSS in KiB of the processes with mark on their
// command line, when two looks a second apart agree within 2 %.
func settled(ctx context.Context, mark string) (kib float64, procs int, err error) {
	last := -1.0
	for range 30 {
		kib, procs, err = pss(mark)
		if err != nil || last > 0 && kib > 0.98*last && kib < 1.02*last {
			return kib, procs, err
		}
		last = kib
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	return kib, procs, nil
}

func pss(mark string) (kib float64, procs int, err error) {
	for _, pid := range processes(mark) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if os.IsNotExist(err) {
			continue // ended meanwhile
		}
		if err != nil {
			return 0, 0, err
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				v, err := strconv.ParseFloat(f[1], 64)
				if err != nil {
					return 0, 0, err
				}
				kib += v
				procs++
			}
		}
	}
	if procs == 0 {
		return 0, 0, fmt.Errorf("no process with %q on its command line", mark)
	}
	return kib, procs, nil
}
