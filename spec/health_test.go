package spec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const second = time.Second

func TestHealthcheckOver(t *testing.T) {
	image := &Healthcheck{Test: []string{"CMD", "a"}, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5}
	for name, tt := range map[string]struct{ user, image, want *Healthcheck }{
		"neither":       {nil, nil, nil},
		"image alone":   {nil, image, image},
		"user alone":    {image, nil, image},
		"nothing given": {&Healthcheck{}, image, image},
		"command": {
			&Healthcheck{Test: []string{"CMD-SHELL", "b"}}, image,
			&Healthcheck{Test: []string{"CMD-SHELL", "b"}, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5},
		},
		"all but the command": {
			&Healthcheck{Interval: 11, Timeout: 12, StartPeriod: 13, StartInterval: 14, Retries: 15}, image,
			&Healthcheck{Test: []string{"CMD", "a"}, Interval: 11, Timeout: 12, StartPeriod: 13, StartInterval: 14, Retries: 15},
		},
		"none": {
			&Healthcheck{Test: []string{"NONE"}}, image,
			&Healthcheck{Test: []string{"NONE"}, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5},
		},
	} {
		if diff := cmp.Diff(tt.want, tt.user.Over(tt.image)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestHealthcheckValid(t *testing.T) {
	for want, h := range map[string]*Healthcheck{
		"":              nil,
		"Interval in":   {Interval: time.Millisecond - 1},
		"Timeout in":    {Timeout: -1},
		"StartPeriod":   {StartPeriod: -second},
		"StartInterval": {StartInterval: 1},
		"Retries in":    {Retries: -1},
	} {
		if err := h.Valid(); (err != nil) != (want != "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", h, err, want)
		}
	}
	h := &Healthcheck{Interval: time.Millisecond, Timeout: time.Millisecond, StartPeriod: time.Millisecond, StartInterval: time.Millisecond}
	if err := h.Valid(); err != nil {
		t.Error(err)
	}
}

func TestHealthcheckCommand(t *testing.T) {
	for _, tt := range []struct {
		test, shell, want string // words; "-" is off
	}{
		{"", "", "-"},
		{"NONE", "", "-"},
		{"NONE x", "", "-"},
		{"WHAT x", "", "-"},
		{"CMD a b", "/bin/bash -c", "a b"},
		{"CMD", "", ""},
		{"CMD-SHELL a", "", "/bin/sh -c a"},
		{"CMD-SHELL a", "/bin/bash -ec", "/bin/bash -ec a"},
	} {
		h := &Healthcheck{Test: strings.Fields(tt.test)}
		got := "-"
		if h.On() {
			got = strings.Join(h.Command(strings.Fields(tt.shell)), " ")
		}
		if got != tt.want {
			t.Errorf("%q with %q: %q, want %q", tt.test, tt.shell, got, tt.want)
		}
	}
	if (*Healthcheck)(nil).On() {
		t.Error("no check is on")
	}
}

// probing plays a container's checks on a clock of its own. Results are a
// letter each: . healthy, x not, T too long; each takes one second, T as long
// as the timeout. What is returned is, for each, the second in which it began
// and what was known afterwards.
func probing(c Healthcheck, results string) (begun []int, states []string) {
	c = c.WithDefaults()
	started := time.Unix(1000, 0)
	h := &Health{Status: HealthStarting}
	at := h.Next(&c, started, started)
	for _, letter := range results {
		r := HealthResult{Start: at, End: at.Add(second), Output: string(letter)}
		switch letter {
		case 'x':
			r.ExitCode = 1
		case 'T':
			r.ExitCode, r.End = -1, at.Add(c.Timeout)
		}
		begun = append(begun, int(at.Sub(started)/second))
		h.Add(&c, started, r)
		states = append(states, strings.Repeat("!", h.FailingStreak)+h.Status)
		at = h.Next(&c, started, r.End)
	}
	return begun, states
}

func TestHealth(t *testing.T) {
	for _, tt := range []struct {
		name    string
		c       Healthcheck
		results string
		begun   []int
		states  string
	}{
		{
			"by default",
			Healthcheck{},
			"x.xxTx.",
			[]int{30, 61, 92, 123, 154, 214, 245},
			"!starting healthy !healthy !!healthy !!!unhealthy !!!!unhealthy healthy",
		},
		{
			"never healthy",
			Healthcheck{Interval: 10 * second, Retries: 2},
			"xxx",
			[]int{10, 21, 32},
			"!starting !!unhealthy !!!unhealthy",
		},
		{
			// Begun at 5, 11, 17, 23: the last one after the start period.
			"start period",
			Healthcheck{Interval: 10 * second, StartPeriod: 20 * second, Retries: 1},
			"xxxx.",
			[]int{5, 11, 17, 23, 34},
			"starting starting starting !unhealthy healthy",
		},
		{
			"a success ends it",
			Healthcheck{Interval: 10 * second, StartPeriod: 100 * second, StartInterval: 2 * second, Retries: 2},
			"x.xxx.",
			[]int{2, 5, 16, 27, 38, 49},
			"starting healthy !healthy !!unhealthy !!!unhealthy healthy",
		},
		{
			"one retry",
			Healthcheck{Interval: second, Timeout: 3 * second, Retries: 1},
			".T.",
			[]int{1, 3, 7},
			"healthy !unhealthy healthy",
		},
	} {
		begun, states := probing(tt.c, tt.results)
		if !slices.Equal(begun, tt.begun) || strings.Join(states, " ") != tt.states {
			t.Errorf("%s:\n got %v %v\nwant %v %v", tt.name, begun, states, tt.begun, tt.states)
		}
	}
}

// The log keeps the last five results.
func TestHealthLog(t *testing.T) {
	c := Healthcheck{}.WithDefaults()
	h := &Health{Status: HealthStarting}
	shown := h.Log
	for _, s := range strings.Split("abcdefgh", "") {
		h.Add(&c, time.Time{}, HealthResult{Output: s})
		var all string
		for _, r := range h.Log {
			all += r.Output
		}
		if want := "abcdefgh"[:strings.Index("abcdefgh", s)+1]; all != want[max(0, len(want)-5):] {
			t.Errorf("after %s: %s", s, all)
		}
		if len(shown) == 5 && shown[0].Output == h.Log[0].Output {
			t.Error("a log that others may have has changed")
		}
		shown = h.Log
	}
}
