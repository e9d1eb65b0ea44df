package container

import (
	"testing"
	"time"

	"tug/spec"
)

func TestNextWait(t *testing.T) {
	wait := time.Duration(0)
	var got []time.Duration
	for range 12 {
		wait = nextWait(wait, 9*time.Second)
		got = append(got, wait)
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000} {
		if got[i] != want*time.Millisecond {
			t.Errorf("wait %d is %v, want %v", i+1, got[i], want*time.Millisecond)
		}
	}
	if got := nextWait(wait, 10*time.Second); got != 100*time.Millisecond {
		t.Errorf("after a long run it waits %v", got)
	}
}

func TestWants(t *testing.T) {
	for _, tt := range []struct {
		policy         string
		restarts, code int
		want           bool
	}{
		{"no", 0, 0, false},
		{"no", 0, 1, false},
		{"always", 0, 0, true},
		{"always", 1000, 1, true},
		{"unless-stopped", 0, 0, true},
		{"unless-stopped", 5, 255, true},
		{"on-failure", 0, 0, false},
		{"on-failure", 1000, 1, true},
		{"on-failure:2", 0, 1, true},
		{"on-failure:2", 1, 1, true},
		{"on-failure:2", 2, 1, false},
		{"on-failure:2", 1, 0, false},
		{"on-failure:0", 7, 3, true},
	} {
		p, err := spec.ParseRestartPolicy(tt.policy)
		if err != nil {
			t.Fatal(err)
		}
		if got := wants(p, tt.restarts, tt.code); got != tt.want {
			t.Errorf("%s after %d restarts and code %d: %v", tt.policy, tt.restarts, tt.code, got)
		}
	}
}
