// Command bench measures tug against its peers and against the raw work of the
// kernel, and writes docs/benchmarks.md. `make bench` runs it; it needs root,
// podman, runc and busybox, and a quiet machine.
//
// Rules. What is compared runs in the same loop, one after the other in every
// round, so that a disturbance hits all; the file shows minimum and median.
// Budgets are printed with the figures and nothing fails when one is missed:
// these are measurements, not tests. Everything it makes lies below one
// temporary directory or carries that directory's name, and goes away again,
// also after an error or an interrupt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// config is what the flags say.
type config struct {
	bin        string
	out        string
	only       string
	rounds     int
	loads      int
	containers int
	conmons    int
	files      int
	images     int
	dense      int
	logs       int
	dir        string
}

func main() {
	var c config
	flag.StringVar(&c.bin, "bin", "bin", "directory of tug and tug-init")
	flag.StringVar(&c.out, "o", "docs/benchmarks.md", "file to write; - is standard output")
	flag.StringVar(&c.only, "only", "", "comma-separated parts, the others stay as they are in the file: start, load, pull, ship, many, binary, memory, dense, logs, change (default all)")
	flag.IntVar(&c.rounds, "rounds", 30, "rounds of start latency")
	flag.IntVar(&c.loads, "loads", 3, "rounds of load, pull, save and push")
	flag.IntVar(&c.containers, "containers", 200, "running containers of tug, for memory")
	flag.IntVar(&c.conmons, "conmons", 20, "running containers of podman, for memory")
	flag.IntVar(&c.files, "files", 50000, "files in the layer to load")
	flag.IntVar(&c.images, "images", 1000, "images in the store to list")
	flag.IntVar(&c.dense, "dense", 1000, "largest number of running containers to measure beside: 200, 500 or 1000")
	flag.IntVar(&c.logs, "logs", 1_000_000_000, "bytes to write into a log")
	flag.StringVar(&c.dir, "dir", "", "where to work (default the system's temporary directory)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parts are the chapters of the report.
var parts = []struct {
	name    string
	measure func(context.Context, *lab, config) (chapter, error)
}{
	{"start", measureStart},
	{"load", measureLoad},
	{"pull", measurePull},
	{"ship", measureShip},
	{"many", measureMany},
	{"binary", measureBinary},
	{"memory", measureMemory},
	{"dense", measureDense},
	{"logs", measureLogs},
	{"change", measureChange},
}

func run(ctx context.Context, c config) (err error) {
	if os.Getuid() != 0 {
		return errors.New("containers with peers' default settings need root")
	}
	l, err := newLab(c)
	if err != nil {
		return err
	}
	// A panic cleans up, too.
	defer func() { err = errors.Join(err, l.close()) }()
	r := report{machine: l.machine(ctx), sections: map[string]string{}}
	if c.only != "" && c.out != "-" {
		if err := r.keep(c.out); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if c.only != "" && !strings.Contains(","+c.only+",", ","+p.name+",") {
			continue
		}
		l.say("%s", p.name)
		when := l.when(ctx)
		ch, err := p.measure(ctx, l, c)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		r.sections[p.name] = ch.markdown(when)
		// After each chapter, because a whole run takes an hour and may be
		// broken off.
		if c.out != "-" {
			if err := os.WriteFile(c.out, []byte(r.markdown()), 0o644); err != nil {
				return err
			}
		}
	}
	if c.out == "-" {
		_, err = os.Stdout.WriteString(r.markdown())
	}
	return err
}
