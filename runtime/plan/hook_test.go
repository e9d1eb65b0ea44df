package plan

import (
	"strings"
	"testing"
)

// What a hook leaves behind is no part of it, also when it has its output and
// lives for longer than the hook may.
func TestHook(t *testing.T) {
	for _, tt := range []struct{ script, err string }{
		{"read -r state; test \"$state\" = given", ""},
		{"sleep 3 &", ""},
		{"sleep 30", "it did not end in time"},
		{"echo why >&2; exit 3", "exit status 3: why"},
	} {
		t.Run(tt.script, func(t *testing.T) {
			t.Parallel()
			h := &Hook{Path: "/bin/sh", Args: []string{"sh", "-c", tt.script}, Timeout: 1}
			err := h.Run([]byte("given\n"))
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}
