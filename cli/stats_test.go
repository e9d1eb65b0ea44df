package cli

import (
	"bytes"
	"strings"
	"testing"

	"tug/container"
	"tug/runtime"
)

func testStats(noTrunc bool) []*statsRow {
	var rows []*statsRow
	for i, r := range testRows(false)[:3] {
		st := &container.Stats{Summary: r.Summary}
		if i == 1 {
			st.CPUPercent, st.Received, st.Sent = 123.456, 1234567, 89
			st.Usage = runtime.Usage{Memory: 50 << 20, MemoryLimit: 2 << 30, Read: 4096, Written: 12 << 20, Pids: 3}
		}
		rows = append(rows, &statsRow{Stats: st, noTrunc: noTrunc})
	}
	rows[0].called = "fre"
	return rows
}

func TestStatsOutput(t *testing.T) {
	for _, tt := range []struct {
		name   string
		o      statsOptions
		sparks []string
	}{
		{"stats", statsOptions{}, nil},
		{"stats-sparks", statsOptions{}, []string{"", sparkline([]float64{0, 1, 50, 100}), " "}},
		{"stats-no-trunc", statsOptions{noTrunc: true}, nil},
		{"stats-json", statsOptions{format: "json"}, nil},
		{"stats-table", statsOptions{format: `table {{.Container}}\t{{.ID}}\t{{.CPUPerc}}`}, nil},
		{"stats-template", statsOptions{format: `{{.Name}}: {{.MemPerc}} {{.PIDs}}`}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := tt.o.write(&b, testStats(tt.o.noTrunc), tt.sparks); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name, b.String())
		})
	}
}

func TestSparkline(t *testing.T) {
	for want, values := range map[string][]float64{
		"":         nil,
		" ▁▂▅█":    {0, 0.1, 10, 50, 100},
		"▅█▃ ":     {100, 200, 50, 0},
		"▁▁▁▁▁▁▁▁": {1, 1, 1, 1, 1, 1, 1, 1},
	} {
		if got := sparkline(values); got != want {
			t.Errorf("%v: %q, want %q", values, got, want)
		}
	}
}

func TestOverdraw(t *testing.T) {
	got := string(overdraw("HEAD\nälong\nc\nd\ne\n", 4, 3))
	if want := "\x1b[HHEA\x1b[K\nälo\x1b[K\n...\x1b[K\n\x1b[J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := string(overdraw("a\nb\n", 0, 0)); strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
}

func TestParsePort(t *testing.T) {
	for s, want := range map[string]string{"80": "80/tcp", "080/UDP": "80/udp", "80/": "80/tcp", "65535/sctp": "65535/sctp", "x": "", "": "", "65536": "", "-1": "", "80/x": ""} {
		if got, err := parsePort(s); got != want || (err == nil) == (want == "") {
			t.Errorf("%q: %q %v, want %q", s, got, err, want)
		}
	}
}
