//go:build root

package e2e

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killsEach is how often each command on images is killed.
const killsEach = 8

// kill -9 at any moment of pull, load, tag, rmi, import, push and prune leaves
// what a power failure there would leave, at most: see TestPowerLoss.
func TestImagesKilled(t *testing.T) {
	t.Parallel()
	p := &powerLoss{tug: newTug(t), registry: startRegistry(t)}
	p.mnt = p.dir
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p.random = rand.New(rand.NewPCG(seed, 0))
	saved := func(n int) string { return filepath.Join(p.dir, "before-"+strconv.Itoa(n)) }
	now := p.names(t)
	var lasts []time.Duration
	for n, args := range p.commands(t) {
		mustRun(t, "cp", "-a", p.root(), saved(n))
		start := time.Now()
		p.ok(args...)
		lasts = append(lasts, time.Since(start))
		s := powerStep{args: args, before: now}
		now = p.names(t)
		s.after = now
		p.steps = append(p.steps, s)
	}
	killed := 0
	for n := range p.steps {
		for range killsEach {
			mustRun(t, "rm", "-rf", p.root())
			mustRun(t, "cp", "-a", saved(n), p.root())
			delay := time.Duration(p.random.Float64() * 1.1 * float64(lasts[n]))
			if p.killAfter(t, delay, p.steps[n].args) {
				killed++
			}
			if problems := p.look(t, n, &p.steps[n]); len(problems) > 0 {
				t.Fatalf("%q killed after %v of %v:\n\t%s", p.steps[n].args, delay, lasts[n], strings.Join(problems, "\n\t"))
			}
		}
	}
	t.Logf("%d of %d were killed before they ended", killed, len(p.steps)*killsEach)
	if killed < len(p.steps) {
		t.Errorf("only %d commands were killed before they ended", killed)
	}
}

// killAfter gives a command, kills it after a while, and tells whether it had
// not ended by itself.
func (g *tug) killAfter(t *testing.T, delay time.Duration, args []string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := g.command(ctx, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(delay)
	_ = cmd.Process.Kill()
	return cmd.Wait() != nil
}
