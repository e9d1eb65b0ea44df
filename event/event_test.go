package event

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func read(t *testing.T, l *Log, q Query) (all []string) {
	t.Helper()
	if q.Until.IsZero() {
		q.Until = time.Now()
	}
	err := l.Read(t.Context(), q, func(e *Event) error {
		all = append(all, e.Action)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAddAndRead(t *testing.T) {
	l := Open(filepath.Join(t.TempDir(), "events"), "tug test")
	long := Query{Since: time.Now().Add(-time.Hour)}
	if got := read(t, l, long); len(got) > 0 {
		t.Errorf("nothing happened, and there is %q", got)
	}
	l.Add(Event{Type: Image, Action: "pull", ID: "a", Attributes: map[string]string{"name": "a\nb"}})
	l.Add(Event{Type: Container, Action: "start", ID: "b", Cause: Cause{By: "somebody"}})
	var all []*Event
	if err := Open(l.dir, "other").Read(t.Context(), Query{Since: long.Since, Until: time.Now()}, func(e *Event) error {
		all = append(all, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Attributes["name"] != "a\nb" || all[0].Cause.String() != fmt.Sprintf("tug test, process %d of user %d", os.Getpid(), os.Getuid()) ||
		all[1].Cause.String() != "somebody" || time.Since(all[1].Time) > time.Minute {
		t.Errorf("%+v", all)
	}
	if got := read(t, l, Query{Since: time.Now().Add(time.Hour), Until: time.Now().Add(-time.Hour)}); len(got) > 0 {
		t.Errorf("in no time: %q", got)
	}
	var none *Log
	none.Add(Event{}) // has no effect, and none on the caller
}

// What a crash tore, and what is no event at all, does not take others along.
func TestTorn(t *testing.T) {
	l := Open(t.TempDir(), "tug")
	l.Add(Event{Action: "one"})
	name := l.f.Name()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("\n{\"action\":\"tor")
	l.Add(Event{Action: "two"})
	f.WriteString("no JSON\n[]\n\x00\x00\n")
	l.Add(Event{Action: "three"})
	f.Close()
	if got := read(t, l, Query{Since: time.Now().Add(-time.Hour)}); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%q", got)
	}
}

// Many writers, each with a descriptor of its own, as processes have: every
// event is there once, and each writer's are in order. A reader that was there
// from the beginning sees the same.
func TestManyWriters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	const writers, each = 8, 200
	ctx, cancel := context.WithCancel(t.Context())
	var live []string
	var once sync.Once
	begun, over := make(chan bool), make(chan error)
	go func() {
		over <- Open(dir, "r").Read(ctx, Query{}, func(e *Event) error {
			if e.Action == "first" {
				once.Do(func() { close(begun) })
				return nil
			}
			if live = append(live, e.ID+" "+e.Action); len(live) == writers*each {
				cancel()
			}
			return nil
		})
	}()
	first := Open(dir, "w")
	for waiting := true; waiting; { // the reader begins at some moment
		first.Add(Event{Action: "first"})
		select {
		case <-begun:
			waiting = false
		case <-time.After(5 * time.Millisecond):
		}
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			l := Open(dir, "w")
			for n := range each {
				l.Add(Event{ID: fmt.Sprint(w), Action: fmt.Sprint(n), Attributes: map[string]string{"x": strings.Repeat("x", n*20)}})
			}
		})
	}
	wg.Wait()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	next := map[string]int{}
	for _, s := range live {
		id, n, _ := strings.Cut(s, " ")
		if fmt.Sprint(next[id]) != n {
			t.Fatalf("writer %s: %s came, want %d", id, n, next[id])
		}
		next[id]++
	}
}

// A file that is large enough is left for the next one; readers go on over the
// seam, and old files go.
func TestSegments(t *testing.T) {
	dir := t.TempDir()
	l := Open(dir, "tug")
	old := time.Now().Add(-2 * keepFor)
	for n := range 3 {
		at := old.Add(time.Duration(n) * time.Hour)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d%s", at.UnixNano(), suffix)), []byte("{\"action\":\"old\"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "note.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Add(Event{Action: "before"})
	if err := os.Truncate(l.f.Name(), segmentSize); err != nil {
		t.Fatal(err)
	}
	l.Add(Event{Action: "after"})
	all, err := segments(dir)
	if err != nil || len(all) != 2 || all[0].start.Before(old.Add(time.Hour)) {
		t.Errorf("%v %v", all, err)
	}
	if got := read(t, l, Query{Since: time.Now().Add(-time.Hour)}); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("%q", got)
	}
	for n := range segmentsMax + 3 {
		if err := os.Truncate(l.f.Name(), segmentSize); err != nil {
			t.Fatal(err)
		}
		l.Add(Event{Action: fmt.Sprint(n)})
	}
	if all, err := segments(dir); err != nil || len(all) > segmentsMax {
		t.Errorf("%d files, %v", len(all), err)
	}
}

// A supervisor that is killed between telling of a beginning or an end and noting
// that it did has its successor tell it again.
func TestTwice(t *testing.T) {
	l := Open(t.TempDir(), "tug")
	for _, e := range []Event{
		{ID: "a", Action: "start", Run: 1},
		{ID: "a", Action: "die", Run: 1},
		{ID: "a", Action: "die", Run: 1},
		{ID: "b", Action: "die", Run: 1},
		{ID: "a", Action: "start", Run: 2},
		{ID: "a", Action: "start", Run: 2},
		{ID: "a", Action: "die", Run: 2},
		{ID: "a", Action: "destroy"},
		{ID: "a", Action: "start", Run: 2},
	} {
		e.Type = Container
		l.Add(e)
	}
	if got := read(t, l, Query{Since: time.Now().Add(-time.Hour)}); !slices.Equal(got, []string{"start", "die", "die", "start", "die", "destroy", "start"}) {
		t.Errorf("%q", got)
	}
}

// Read ends at its end time, without an event.
func TestUntil(t *testing.T) {
	l := Open(filepath.Join(t.TempDir(), "events"), "tug")
	until := time.Now().Add(50 * time.Millisecond)
	go func() {
		time.Sleep(20 * time.Millisecond)
		l.Add(Event{Action: "in time"})
	}()
	if got := read(t, l, Query{Until: until}); !slices.Equal(got, []string{"in time"}) {
		t.Errorf("%q", got)
	}
	if time.Now().Before(until) {
		t.Error("it ended early")
	}
}
