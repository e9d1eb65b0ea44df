//go:build root

package runtime

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tug/spec"
)

// probe starts a script as a health check and returns when it says something.
func (r *running) probe(script string) *Parked {
	r.t.Helper()
	e := execSh(script)
	pl, err := MakeExecPlan(r.c, &e)
	if err != nil {
		r.t.Fatal(err)
	}
	pl.Probe = true
	p, err := r.r.Exec(r.p.Process, pl)
	if err != nil {
		r.t.Fatal(err)
	}
	out, _, err := r.finish(p, "", pl)
	if err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-out:
	case <-time.After(20 * time.Second):
		r.t.Fatal("the output stays open")
	}
	return p
}

// sleeping returns how long the container's other processes sleep.
func (r *running) sleeping() string {
	r.t.Helper()
	o := r.exec(spec.ExecSpec{Args: []string{"sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done"}})
	if o.err != nil {
		r.t.Fatal(o.err)
	}
	var all []string
	for line := range strings.Lines(o.out) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "sleep "); ok {
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// KillProbe finds what a probe has started, wherever it went, and nothing else.
// What EndProbe lets go is none of it.
func TestProbe(t *testing.T) {
	f := newFixture(t)
	r := f.running(nil)
	const away = "exec >/dev/null 2>&1 </dev/null; trap '' TERM HUP; (setsid sh -c '(sleep %1 &) ; sleep %2; true' &); sleep 0.2; "
	script := func(a, b, then string) string {
		return strings.NewReplacer("%1", a, "%2", b).Replace(away) + then
	}
	done := r.probe(script("2001", "2002", "true"))
	waitExit(t, done.Pid)
	done.Pidfd.Close()
	if got := r.sleeping(); got != "1000 2001 2002" {
		t.Errorf("after the first: %q", got)
	}
	f.r.EndProbe(r.p.Cgroup)
	f.r.KillProbe(r.p.Cgroup)
	if got := r.sleeping(); got != "1000 2001 2002" {
		t.Errorf("let go: %q", got)
	}
	hangs := r.probe(script("3001", "3002", "while :; do sleep 3003; done"))
	for end := time.Now().Add(20 * time.Second); r.sleeping() != "1000 2001 2002 3001 3002 3003"; {
		if time.Now().After(end) {
			t.Fatal(r.sleeping())
		}
	}
	f.r.KillProbe(r.p.Cgroup)
	if code := waitExit(t, hangs.Pid); code != 137 {
		t.Errorf("it ended with %d", code)
	}
	hangs.Pidfd.Close()
	if got := r.sleeping(); got != "1000 2001 2002" {
		t.Errorf("killed: %q", got)
	}
	f.r.KillProbe(r.p.Cgroup) // there is nothing left to do
	f.r.KillProbe("/tug-other/12")
}
