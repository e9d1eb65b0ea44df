//go:build root

package runtime

import (
	"testing"
	"time"

	"tug/spec"
	"tug/sys"
)

// BenchmarkStart tells where the time of a start goes, in microseconds: park is
// the call; idle the wait until the parked process is ready, which a pool
// hides; prepare and go are what a warm start costs; exit is until the keeper
// knows that `true` has ended.
func BenchmarkStart(b *testing.B) {
	f := newFixture(b)
	dir := busybox(b)
	pl, _, err := MakePlan(container("true"))
	if err != nil {
		b.Fatal(err)
	}
	var park, prepare, run, exit time.Duration
	for b.Loop() {
		start := time.Now()
		p, err := f.r.Park(Namespaces{})
		if err != nil {
			b.Fatal(err)
		}
		park += time.Since(start)
		time.Sleep(15 * time.Millisecond)
		root, err := sys.CloneTree(nil, dir, false)
		if err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		_, _, err = p.Prepare(pl, Files{RootFS: root})
		if err != nil {
			b.Fatal(err)
		}
		prepare += time.Since(start)
		start = time.Now()
		if err := p.Go(); err != nil {
			b.Fatal(err)
		}
		run += time.Since(start)
		start = time.Now()
		waitExit(b, p.Pid)
		exit += time.Since(start)
		root.Close()
		p.Pidfd.Close()
		f.r.Remove(p.Cgroup)
	}
	us := func(d time.Duration, name string) {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), name)
	}
	us(park, "park-us")
	us(prepare, "prepare-us")
	us(run, "go-us")
	us(exit, "exit-us")
}

// BenchmarkColdStart is a start with no parked process at hand, from Park to
// the known end of `true`.
func BenchmarkColdStart(b *testing.B) {
	f := newFixture(b)
	dir := busybox(b)
	for b.Loop() {
		if o := f.run(dir, container("true")); o.err != nil || o.code != 0 {
			b.Fatal(o)
		}
	}
}

// BenchmarkExec is an exec of `true`, from Exec to its known end.
func BenchmarkExec(b *testing.B) {
	f := newFixture(b)
	r := f.running(nil)
	for b.Loop() {
		if o := r.exec(spec.ExecSpec{Args: []string{"true"}}); o.err != nil || o.code != 0 {
			b.Fatal(o)
		}
	}
}
