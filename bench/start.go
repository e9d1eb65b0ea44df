package main

import (
	"context"
	"path/filepath"
	"time"
)

// measureStart compares `run --rm --network none IMAGE true`, from the
// command's fork to its end.
func measureStart(ctx context.Context, l *lab, c config) (chapter, error) {
	warm, cold := l.newTug("warm", "10m"), l.newTug("cold", "50ms")
	pod, err := l.newPodman("podman")
	if err != nil {
		return chapter{}, err
	}
	bundle, err := l.bundle(ctx)
	if err != nil {
		return chapter{}, err
	}
	for _, load := range []command{warm.command("load", "-i", l.busyboxA), cold.command("load", "-i", l.busyboxA), pod.command("load", "-i", l.busyboxA)} {
		if _, err := load.run(ctx); err != nil {
			return chapter{}, err
		}
	}
	args := []string{"run", "--rm", "--pull", "never", "--network", "none", image, "true"}
	isCold := func(context.Context) error { return l.gone(cold.root, 20*time.Second) }
	subjects := []subject{
		commandSubject("tug, warm", warm.command(args...)),
		{"tug, cold", isCold, cold.command(args...).run},
		commandSubject("podman", pod.command(args...)),
		commandSubject("runc", command{args: []string{"runc", "--root", l.path("runc"), "run", "--bundle", bundle, "tug-bench-" + filepath.Base(l.dir)}}),
		commandSubject("unshare", command{args: []string{"unshare", "-muipnfC", "true"}}),
		commandSubject("true", command{args: []string{"/bin/true"}}),
	}
	got, err := l.interleave(ctx, c.rounds, 150*time.Millisecond, subjects)
	if err != nil {
		return chapter{}, err
	}
	tight, err := l.interleave(ctx, c.rounds, 0, []subject{subjects[0]})
	if err != nil {
		return chapter{}, err
	}
	runc, unshare := got["runc"].median(), got["unshare"].median()
	ch := chapter{
		title: "Start latency",
		text: "`run --rm --network none IMAGE true` of a busybox image, from fork to exit of the command, output to /dev/null. " +
			"Warm: a supervisor is there. Cold: none is, and no process of tug at all. Between two runs there are 150 ms, " +
			"in which whoever prepares something for the next start can do so; *back to back* is without them.",
		unit: "ms",
		figures: []figure{
			{what: "`tug run`, warm", s: got["tug, warm"], budgets: []budget{
				{"0.3 × bare runc", 0.3 * runc},
				{"4 × unshare", 4 * unshare},
				{"0.06 × docker (139 ms, seen elsewhere)", 0.06 * 139},
			}},
			{what: "`tug run`, warm, back to back", s: tight["tug, warm"]},
			{what: "`tug run`, cold", s: got["tug, cold"], budgets: []budget{{"2 × warm", 2 * got["tug, warm"].median()}}},
			{what: "`podman run` with runc", s: got["podman"]},
			{what: "`runc run`, bare: no seccomp, no image", s: got["runc"]},
			{what: "`unshare -muipnfC true`", s: got["unshare"]},
			{what: "`/bin/true`: what measuring costs", s: got["true"]},
		},
	}
	return ch, nil
}
