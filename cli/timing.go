package cli

import (
	"fmt"
	"strings"
	"time"

	"tug/supervisor"
	"tug/sys"
)

// startTiming is what `tug run --timing` prints: where the time of a start goes.
// A nil one does nothing.
type startTiming struct {
	supervisor.Timing
	loading time.Duration // processor time before main
	began   time.Time     // of main
}

// done notes that a step of the command's is done.
func (t *startTiming) done(what string) {
	if t != nil {
		t.Done(what)
	}
}

// ended notes the program's end, which the keeper saw.
func (t *startTiming) ended(at time.Time) {
	if t != nil && !at.IsZero() {
		t.Phases = append(t.Phases, supervisor.Phase{Done: "the program itself", At: at})
	}
}

// String is a table: for each step how long it took.
func (t *startTiming) String() string {
	var b strings.Builder
	line := func(d time.Duration, what string) {
		fmt.Fprintf(&b, "%9.2f ms  %s\n", float64(d)/float64(time.Millisecond), what)
	}
	line(t.loading, "tug loaded (processor time)")
	last := t.began
	for _, p := range t.Phases {
		// A process may be recorded to have ended before what came next was noted.
		line(max(0, p.At.Sub(last)), p.Done)
		last = p.At
	}
	line(t.loading+last.Sub(t.began), "in all")
	return b.String()
}

// timing begins the timing of this command's start.
func (a *app) timing() (*startTiming, error) {
	e, err := a.engine()
	if err != nil {
		return nil, err
	}
	t := &startTiming{began: a.began, loading: a.loading}
	e.Trace(&t.Timing)
	return t, nil
}

// loaded notes how main was reached.
func (a *app) loaded() { a.loading, a.began = sys.ProcessorTime(), time.Now() }

// tell prints the timing, when there is one.
func (a *app) tell(t *startTiming) {
	if t != nil {
		fmt.Fprint(a.Err, t)
	}
}
