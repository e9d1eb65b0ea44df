package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSeries(t *testing.T) {
	for _, tt := range []struct {
		s           series
		min, median float64
	}{
		{series{3}, 3, 3},
		{series{4, 1, 3}, 1, 3},
		{series{4, 1, 3, 2}, 1, 2.5},
	} {
		if tt.s.min() != tt.min || tt.s.median() != tt.median {
			t.Errorf("%v: min %v, median %v", tt.s, tt.s.min(), tt.s.median())
		}
	}
}

func TestReport(t *testing.T) {
	c := chapter{
		title: "T", text: "About.", unit: "ms", after: "After.",
		figures: []figure{
			{what: "a", s: series{12.34, 100, 9}, budgets: []budget{{"half of b", 10}, {"twice b", 40}}},
			{what: "b", s: series{1.5}},
			{what: "not measured"},
		},
	}
	r := report{machine: "- a machine\n", sections: map[string]string{"load": c.markdown("Today.")}}
	want := "| a | 3 | 9.00 | 12.3 | ≤ 10.0 (half of b) | **missed**: 1.23 × the budget |\n" +
		"| | | | | ≤ 40.0 (twice b) | met |\n" +
		"| b | 1 | 1.50 | 1.50 | | |\n" +
		"\nAfter.\n"
	got := r.markdown()
	if !strings.Contains(got, want) || strings.Contains(got, "| not measured") || !strings.Contains(got, "- not measured yet: start, pull,") {
		t.Errorf("report:\n%s", got)
	}
	// What was measured before stays when other parts are measured.
	path := filepath.Join(t.TempDir(), "report")
	if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
		t.Fatal(err)
	}
	again := report{machine: r.machine, sections: map[string]string{}}
	if err := again.keep(path); err != nil || again.markdown() != got {
		t.Errorf("%v\n%s", err, again.markdown())
	}
	if err := again.keep(path + ".none"); err != nil {
		t.Error(err)
	}
}
