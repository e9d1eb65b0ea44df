package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const hello = `package main

import "fmt"

func main() { fmt.Println("hello") }
`

// measureBinary looks at what every call of tug pays before it does anything.
func measureBinary(ctx context.Context, l *lab, c config) (chapter, error) {
	src, bin := l.path("hello.go"), l.path("hello")
	if err := os.WriteFile(src, []byte(hello), 0o644); err != nil {
		return chapter{}, err
	}
	build := command{args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, src}, env: []string{"CGO_ENABLED=0", "GOWORK=off"}, dir: l.dir}
	if _, err := build.run(ctx); err != nil {
		return chapter{}, err
	}
	tugBin, initBin := filepath.Join(l.bin, "tug"), filepath.Join(l.bin, "tug-init")
	got, err := l.interleave(ctx, 2*c.rounds, 0, []subject{
		commandSubject("hello", command{args: []string{bin}}),
		commandSubject("tug", command{args: []string{tugBin, "--version"}}),
		commandSubject("tug-init", command{args: []string{initBin, "--version"}}),
	})
	if err != nil {
		return chapter{}, err
	}
	tugInit, tugTop, err := inits(ctx, tugBin, c.rounds)
	if err != nil {
		return chapter{}, err
	}
	initInit, initTop, err := inits(ctx, initBin, c.rounds)
	if err != nil {
		return chapter{}, err
	}
	return chapter{
		title: "The binaries",
		text: "`--version`, from fork to exit, and the package initialisation before `main` as `GODEBUG=inittrace=1` sums it up, without the runtime's own. " +
			"Most of it, in microseconds: tug " + tugTop + "; tug-init " + initTop + ". Sizes: tug " + size(tugBin) + ", tug-init " + size(initBin) + ".",
		unit: "ms",
		figures: []figure{
			{what: "`tug --version`", s: got["tug"], budgets: []budget{{"1.5 × hello world", 1.5 * got["hello"].median()}}},
			{what: "`tug-init --version`", s: got["tug-init"]},
			{what: "hello world in Go", s: got["hello"]},
			{what: "package init of tug", s: tugInit, budgets: []budget{{"1.2 ms", 1.2}}},
			{what: "package init of tug-init", s: initInit, budgets: []budget{{"0.3 ms", 0.3}}},
		},
	}, nil
}

// inits returns the sums of package initialisation in milliseconds, and the
// most expensive packages of the best run.
func inits(ctx context.Context, bin string, runs int) (series, string, error) {
	var s series
	best := map[string]float64{}
	for range runs {
		cmd := command{args: []string{bin, "--version"}, env: []string{"GODEBUG=inittrace=1"}}.cmd(ctx)
		var trace strings.Builder
		cmd.Stderr = &trace
		if err := cmd.Run(); err != nil {
			return nil, "", fmt.Errorf("%s: %w", bin, err)
		}
		sum := 0.0
		for scan := bufio.NewScanner(strings.NewReader(trace.String())); scan.Scan(); {
			// init PACKAGE @T ms, D ms clock, ...
			f := strings.Fields(scan.Text())
			if len(f) < 6 || f[0] != "init" || f[1] == "runtime" {
				continue
			}
			took, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				return nil, "", fmt.Errorf("inittrace line %q", scan.Text())
			}
			sum += took
			if old, ok := best[f[1]]; !ok || took < old {
				best[f[1]] = took
			}
		}
		s = append(s, sum)
	}
	names := make([]string, 0, len(best))
	for n := range best {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int { return int(1e6 * (best[b] - best[a])) })
	var top []string
	for _, n := range names[:min(5, len(names))] {
		top = append(top, fmt.Sprintf("`%s` %.0f", n, 1000*best[n]))
	}
	return s, strings.Join(top, ", "), nil
}

func size(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
}
