package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/supervisor"
)

func TestTiming(t *testing.T) {
	at := func(us int) time.Time { return time.Unix(1000, int64(us)*1000) }
	timing := &startTiming{loading: 2 * time.Millisecond, began: at(0)}
	timing.Phases = []supervisor.Phase{{Done: "read", At: at(100)}, {Done: "made", At: at(1350)}, {Done: "early", At: at(1340)}, {Done: "gone", At: at(10_000)}}
	want := `     2.00 ms  tug loaded (processor time)
     0.10 ms  read
     1.25 ms  made
     0.00 ms  early
     8.66 ms  gone
    12.00 ms  in all
`
	if diff := cmp.Diff(want, timing.String()); diff != "" {
		t.Error(diff)
	}
	var none *startTiming
	none.done("nothing")
	none.ended(at(1))
}
