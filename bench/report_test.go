package main

import (
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
	r := report{machine: "- a machine\n", chapters: []chapter{{
		title: "T", text: "About.", unit: "ms", after: "After.",
		figures: []figure{
			{what: "a", s: series{12.34, 100, 9}, budgets: []budget{{"half of b", 10}, {"twice b", 40}}},
			{what: "b", s: series{1.5}},
			{what: "not measured"},
		},
	}}}
	want := "| a | 3 | 9.00 | 12.3 | ≤ 10.0 (half of b) | **missed**: 1.23 × the budget |\n" +
		"| | | | | ≤ 40.0 (twice b) | met |\n" +
		"| b | 1 | 1.50 | 1.50 | | |\n" +
		"\nAfter.\n"
	if got := r.markdown(); !strings.Contains(got, want) || strings.Contains(got, "not measured") {
		t.Errorf("report:\n%s", got)
	}
}
