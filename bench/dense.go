package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"tug/test/fixture"
)

// crowd is an engine with containers that run.
type crowd struct {
	name    string // of the engine
	command func(...string) command
	remove  []string // the command that ends and removes a container at once
	running []string // ids
}

// runArgs begin a container of the small image.
func runArgs(flags ...string) []string {
	return append(append([]string{"run", "--pull", "never", "--network", "none"}, flags...), image)
}

// grow starts containers until n run.
func (c *crowd) grow(ctx context.Context, n int) error {
	for len(c.running) < n {
		id, err := c.command(append(runArgs("-d", "--rm"), "sleep", "100000")...).output(ctx)
		if err != nil {
			return err
		}
		c.running = append(c.running, id)
	}
	return nil
}

// subjects are what is done beside those that run.
func (c *crowd) subjects() []subject {
	victim := ""
	another := func(ctx context.Context) (err error) {
		victim, err = c.command(append(runArgs("-d"), "sleep", "100000")...).output(ctx)
		return err
	}
	return []subject{
		commandSubject(c.name+" run", c.command(append(runArgs("--rm"), "true")...)),
		commandSubject(c.name+" exec", c.command("exec", c.running[0], "true")),
		{c.name + " rm -f", another, func(ctx context.Context) (time.Duration, error) {
			return c.command(append(slices.Clone(c.remove), victim)...).run(ctx)
		}},
	}
}

// parallel is a subject that makes n runs at once, until the last has ended.
func (c *crowd) parallel(n int) subject {
	return subject{fmt.Sprintf("%s %d runs", c.name, n), nil, func(ctx context.Context) (time.Duration, error) {
		errs := make(chan error, n)
		begin := time.Now()
		for range n {
			go func() {
				_, err := c.command(append(runArgs("--rm"), "true")...).run(ctx)
				errs <- err
			}()
		}
		for range n {
			if err := <-errs; err != nil {
				return 0, err
			}
		}
		return time.Since(begin), nil
	}}
}

// measureDense compares what is done beside few and many running containers.
func measureDense(ctx context.Context, l *lab, c config) (chapter, error) {
	crowds, t, err := l.crowds(ctx, "dense")
	if err != nil {
		return chapter{}, err
	}
	const atOnce = 16
	ch := chapter{
		title: "Beside running containers", unit: "ms",
		text: "Each line is one command, from fork to exit, while that many containers (`sleep`) run: `run --rm … true`, `exec C true`, and `rm -f` of a container that runs (podman: with `-t 0`). " +
			fmt.Sprintf("*%d at once* is the time until the last of %d `run --rm … true` has ended. Docker without a bridge network, podman with runc.", atOnce, atOnce),
	}
	const few, many = 10, 500
	var subjects []subject
	for _, o := range crowds {
		if err := o.grow(ctx, few); err != nil {
			return ch, err
		}
		subjects = append(append(subjects, o.subjects()...), o.parallel(atOnce))
	}
	first, err := l.interleave(ctx, c.rounds, 50*time.Millisecond, subjects)
	if err != nil {
		return ch, err
	}
	l.say("dense: %d", few)
	own := []string{"tug run", "tug exec", "tug rm -f"}
	for _, what := range []string{"run", "exec", "rm -f", fmt.Sprintf("%d runs", atOnce)} {
		for _, o := range crowds {
			name := o.name + " " + what
			f := figure{what: fmt.Sprintf("`%s` at %d", name, few), s: first[name]}
			if d := first["docker "+what]; o == t && what == "exec" && len(d) > 0 {
				f.budgets = []budget{{"0.1 × docker", 0.1 * d.median()}}
			}
			ch.figures = append(ch.figures, f)
		}
	}
	for _, n := range []int{200, many, 1000} {
		if n > c.dense {
			break
		}
		if err := t.grow(ctx, n); err != nil {
			return ch, err
		}
		got, err := l.interleave(ctx, c.rounds, 50*time.Millisecond, t.subjects())
		if err != nil {
			return ch, err
		}
		l.say("dense: %d", n)
		for _, name := range own {
			f := figure{what: fmt.Sprintf("`%s` at %d", name, n), s: got[name]}
			if n == many && name == "tug run" {
				f.budgets = []budget{{fmt.Sprintf("1.2 × at %d", few), 1.2 * first[name].median()}}
			}
			ch.figures = append(ch.figures, f)
		}
	}
	lists, err := l.interleave(ctx, c.rounds, 0, []subject{
		commandSubject("ps -a", t.command("ps", "-a")),
		commandSubject("ps -aq", t.command("ps", "-aq")),
		commandSubject("stats", t.command("stats", "--no-stream")),
	})
	if err != nil {
		return ch, err
	}
	ch.figures = append(ch.figures,
		figure{what: fmt.Sprintf("`tug ps -a` at %d", len(t.running)), s: lists["ps -a"], budgets: []budget{{"20 ms", 20}}},
		figure{what: fmt.Sprintf("`tug ps -aq` at %d", len(t.running)), s: lists["ps -aq"]},
		figure{what: fmt.Sprintf("`tug stats --no-stream` at %d", len(t.running)), s: lists["stats"]},
	)
	kib, procs, err := settled(ctx, l.path("dense", "root"))
	if err != nil {
		return ch, err
	}
	ch.after = fmt.Sprintf("%d running containers: %.0f kB of memory per container in %d processes of tug.", len(t.running), kib/float64(len(t.running)), procs)
	return ch, t.command(append([]string{"rm", "-f"}, t.running...)...).quiet(ctx)
}

// crowds are the engines that there are, tug's first, with the small image.
func (l *lab) crowds(ctx context.Context, part string) (all []*crowd, own *crowd, err error) {
	t := l.newTug(part, "10m")
	own = &crowd{name: "tug", command: t.command, remove: []string{"rm", "-f"}}
	all = append(all, own)
	pod, err := l.newPodman(part + "-podman")
	if err != nil {
		return nil, nil, err
	}
	all = append(all, &crowd{name: "podman", command: pod.command, remove: []string{"rm", "-f", "-t", "0"}})
	d, err := l.newDocker(ctx, part+"-docker")
	if err != nil {
		return nil, nil, err
	}
	if d != nil {
		all = append(all, &crowd{name: "docker", command: d.command, remove: []string{"rm", "-f"}})
		l.later(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			ids, err := d.command("ps", "-aq").output(ctx)
			if err != nil || ids == "" {
				return err
			}
			return d.command(append([]string{"rm", "-f"}, strings.Fields(ids)...)...).quiet(ctx)
		})
	}
	for _, o := range all {
		if err := o.command("load", "-i", l.busyboxA).quiet(ctx); err != nil {
			return nil, nil, err
		}
	}
	return all, own, nil
}

// quiet runs a command that is not measured.
func (c command) quiet(ctx context.Context) error {
	_, err := c.run(ctx)
	return err
}

// measureLogs compares how fast a program can write to its log, and how fast
// the log is found again.
func measureLogs(ctx context.Context, l *lab, c config) (chapter, error) {
	crowds, t, err := l.crowds(ctx, "logs")
	if err != nil {
		return chapter{}, err
	}
	const line = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" // and a newline
	write := fmt.Sprintf("yes %s | head -c %d", line, c.logs)
	var subjects []subject
	for _, o := range crowds {
		limit := "max-size=10g"
		if o.name == "podman" {
			limit = "max-size=10gb"
		}
		run := append(runArgs("-d", "--name", "writer", "--log-opt", limit), "sh", "-c", write)
		remove := func(ctx context.Context) error {
			_ = o.command("rm", "-f", "writer").quiet(ctx) // the first time there is none
			return syncDisks(ctx)
		}
		subjects = append(subjects, subject{o.name, remove, func(ctx context.Context) (time.Duration, error) {
			begin := time.Now()
			if err := o.command(run...).quiet(ctx); err != nil {
				return 0, err
			}
			err := o.command("wait", "writer").quiet(ctx)
			return time.Since(begin), err
		}})
	}
	raw := l.path("raw.log")
	subjects = append(subjects, subject{"file", syncDisks, command{args: []string{"sh", "-c", write + " > " + raw}}.run},
		subject{"pipe", nil, command{args: []string{"sh", "-c", write + " | cat > " + raw}}.run})
	got, err := l.interleave(ctx, c.loads, 0, subjects)
	if err != nil {
		return chapter{}, err
	}
	size := fmt.Sprintf("%.0f MB", float64(c.logs)/1e6)
	ch := chapter{
		title: "Logs", unit: "ms",
		text: "A container writes " + size + " in lines of 101 bytes to its log; the time is that of `run -d` and `wait`. Then that log is read.",
	}
	f := figure{what: "tug, writing " + size, s: got["tug"]}
	if d := got["docker"]; len(d) > 0 {
		f.budgets = []budget{{"0.1 × docker", 0.1 * d.median()}}
	}
	ch.figures = append(ch.figures, f,
		figure{what: "podman, writing it", s: got["podman"]}, figure{what: "docker, writing it", s: got["docker"]},
		figure{what: "the same on the host into a file", s: got["file"]}, figure{what: "the same on the host through a pipe into a file", s: got["pipe"]})
	var readers []subject
	for _, o := range crowds {
		readers = append(readers, commandSubject(o.name+" tail", o.command("logs", "--tail", "10", "writer")),
			commandSubject(o.name+" since", o.command("logs", "--since", time.Now().Add(time.Hour).Format(time.RFC3339), "writer")))
	}
	read, err := l.interleave(ctx, c.loads, 0, readers)
	if err != nil {
		return ch, err
	}
	for _, o := range crowds {
		f := figure{what: "`" + o.name + " logs --tail 10`", s: read[o.name+" tail"]}
		if o == t {
			f.budgets = []budget{{"5 ms", 5}}
		}
		ch.figures = append(ch.figures, f, figure{what: "`" + o.name + " logs --since` after the last line", s: read[o.name+" since"]})
	}
	for _, o := range crowds {
		if err := o.command("rm", "-f", "writer").quiet(ctx); err != nil {
			return ch, err
		}
	}
	return ch, nil
}

// measureChange compares diff and commit of a container that changed one file
// of an image with many.
func measureChange(ctx context.Context, l *lab, c config) (chapter, error) {
	crowds, _, err := l.crowds(ctx, "change")
	if err != nil {
		return chapter{}, err
	}
	files, err := l.packLayer(ctx, "change", c.files, smallFile, packGzip)
	if err != nil {
		return chapter{}, err
	}
	box, err := l.packBusybox()
	if err != nil {
		return chapter{}, err
	}
	const changeable = "bench.invalid/changeable:1"
	archive, err := l.packImage("changeable", changeable, files, box)
	if err != nil {
		return chapter{}, err
	}
	var subjects []subject
	for _, o := range crowds {
		if err := o.command("load", "-i", archive).quiet(ctx); err != nil {
			return chapter{}, err
		}
		if err := o.command("run", "--pull", "never", "--network", "none", "--name", "changed", changeable, "sh", "-c", "echo new > /etc/motd; rm /bin/wc").quiet(ctx); err != nil {
			return chapter{}, err
		}
		untag := func(ctx context.Context) error { return o.command("rmi", "-f", "committed:1").quiet(ctx) }
		subjects = append(subjects, commandSubject(o.name+" diff", o.command("diff", "changed")),
			subject{o.name + " commit", untag, o.command("commit", "-p=false", "changed", "committed:1").run})
	}
	got, err := l.interleave(ctx, c.loads, 0, subjects)
	if err != nil {
		return chapter{}, err
	}
	ch := chapter{
		title: "Changes", unit: "ms",
		text: fmt.Sprintf("A container of an image of %d files has written one file and removed one.", c.files),
	}
	for _, what := range []string{"diff", "commit"} {
		for _, o := range crowds {
			ch.figures = append(ch.figures, figure{what: "`" + o.name + " " + what + "`", s: got[o.name+" "+what]})
		}
	}
	return ch, nil
}

// packBusybox packs the small image's layer.
func (l *lab) packBusybox() (*packed, error) {
	i, err := fixture.Busybox()
	if err != nil {
		return nil, err
	}
	p := &packed{path: l.path("busybox.layer"), how: packGzip, diffID: fixture.Digest(i.Layers[0]), size: int64(len(i.Layers[0]))}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(i.Layers[0]); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	p.packed = int64(b.Len())
	return p, os.WriteFile(p.path, b.Bytes(), 0o644)
}
