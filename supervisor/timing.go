package supervisor

import "time"

// Timing collects what was done when in a start, by the command and by the
// supervisor: one clock serves both. A nil one collects nothing.
type Timing struct{ Phases []Phase }

// Phase is one step of a start.
type Phase struct {
	Done string
	At   time.Time
}

// Done notes that something is done now.
func (t *Timing) Done(what string) {
	if t != nil {
		t.Phases = append(t.Phases, Phase{what, time.Now()})
	}
}

func (t *Timing) add(more []Phase) {
	if t != nil {
		t.Phases = append(t.Phases, more...)
	}
}
