package main

import (
	"context"
	"slices"
	"time"
)

// subject is one of several things that are compared.
type subject struct {
	name   string
	before func(context.Context) error // not measured; may be nil
	run    func(context.Context) (time.Duration, error)
}

func commandSubject(name string, c command) subject { return subject{name: name, run: c.run} }

// series is the measurements of one subject, in any unit.
type series []float64

func (s series) sorted() series {
	c := slices.Clone(s)
	slices.Sort(c)
	return c
}

func (s series) min() float64 { return s.sorted()[0] }

func (s series) median() float64 {
	c := s.sorted()
	if n := len(c); n%2 == 0 {
		return (c[n/2-1] + c[n/2]) / 2
	}
	return c[len(c)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// interleave runs every subject once per round, in turn, and returns their
// times in milliseconds. The first two rounds do not count, or the first one of
// a few long ones: they fill caches and pools. pause lets what a subject does after its end, like refilling a
// pool, not count for the next.
func (l *lab) interleave(ctx context.Context, rounds int, pause time.Duration, subjects []subject) (map[string]series, error) {
	warmup := 2
	if rounds < 10 {
		warmup = 1
	}
	all := map[string]series{}
	for round := range rounds + warmup {
		for _, s := range subjects {
			if s.before != nil {
				if err := s.before(ctx); err != nil {
					return nil, err
				}
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			took, err := s.run(ctx)
			if err != nil {
				return nil, err
			}
			if round >= warmup {
				all[s.name] = append(all[s.name], milliseconds(took))
			}
		}
	}
	return all, nil
}
