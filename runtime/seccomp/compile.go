package seccomp

import (
	"maps"
	"slices"
	"syscall"
)

// A verdict is what happens to one system call: the first of clauses whose
// conditions hold decides, else otherwise.
type verdict struct {
	clauses   []clause
	otherwise Action
}

type clause struct {
	action Action
	conds  []Arg // never empty within a verdict
	wide   bool  // compare 64 bits
}

// constant reports whether v does not look at arguments.
func (v verdict) constant() bool { return len(v.clauses) == 0 }

func (v verdict) same(w verdict) bool {
	return v.constant() && w.constant() && v.otherwise == w.otherwise
}

// A span is a run of call numbers with one verdict; it ends where the next
// one begins. A list of spans starts at 0 and so covers all numbers.
type span struct {
	from uint32
	v    verdict
}

const (
	// x32Bit marks x32 calls, which share amd64's AUDIT_ARCH.
	x32Bit = 1 << 30
	// armPrivate is where the private calls of 32-bit arm begin.
	armPrivate = 0xf0000
)

// spans works out the verdicts for all call numbers of one AUDIT_ARCH value.
func spans(p *Profile, byName map[string][]*Rule, native abi, withX32 bool) []span {
	b := &spanBuilder{p: p, byName: byName}
	switch native {
	case abiAMD64:
		b.region(abiAMD64, 0, x32Bit)
		if withX32 {
			b.region(abiX32, x32Bit, 1<<32)
			break
		}
		// A foreign ABI, but for -1: that is how a tracer makes the kernel
		// skip a call, and filters see it.
		b.add(x32Bit, verdict{otherwise: KillThread})
		b.add(1<<32-1, verdict{otherwise: p.Default})
	case abiARM:
		// Two regions, each with its own end of the known: counted as one,
		// cacheflush and its like would hide that calls are missing below.
		b.region(abiARM, 0, armPrivate)
		b.region(abiARM, armPrivate, 1<<32)
	default:
		b.region(native, 0, 1<<32)
	}
	return b.out
}

type spanBuilder struct {
	p      *Profile
	byName map[string][]*Rule
	out    []span
}

func (b *spanBuilder) add(from uint32, v verdict) {
	n := len(b.out)
	switch {
	case n > 0 && b.out[n-1].v.same(v):
	case n > 0 && b.out[n-1].from == from:
		b.out[n-1].v = v
		if n > 1 && b.out[n-2].v.same(v) {
			b.out = b.out[:n-1]
		}
	default:
		b.out = append(b.out, span{from, v})
	}
}

// region adds the numbers from base to end, which belong to the ABI a.
func (b *spanBuilder) region(a abi, base, end uint64) {
	calls := b.calls(a, base, end)
	b.add(uint32(base), verdict{otherwise: b.p.Default})
	numbers := slices.Sorted(maps.Keys(calls))
	for _, nr := range numbers {
		b.add(nr, verdictOf(calls[nr], b.p.Default))
		if uint64(nr)+1 < end {
			b.add(nr+1, verdict{otherwise: b.p.Default})
		}
	}
	enosys := Errno(syscall.ENOSYS)
	if b.p.Default.permissive() || len(numbers) == 0 {
		return
	}
	if newest := numbers[len(numbers)-1]; uint64(newest)+1 < end {
		b.add(newest+1, verdict{otherwise: enosys})
	}
}

// calls collects what the profile says about the calls of one region, by
// number. A call that the profile names without effect is there too, empty.
func (b *spanBuilder) calls(a abi, base, end uint64) map[uint32][]clause {
	calls := map[uint32][]clause{}
	for name, numbers := range table() {
		rules := b.byName[name]
		if rules == nil {
			continue
		}
		if nr := numbers[a]; nr >= 0 {
			if a == abiX32 {
				nr |= x32Bit
			}
			if uint64(nr) >= base && uint64(nr) < end {
				calls[uint32(nr)] = b.clauses(rules, a)
			}
		}
	}
	if a == abi386 {
		b.multiplexed(calls)
	}
	return calls
}

// multiplexed adds to socketcall and ipc what the profile says about the calls
// behind them. The selector takes the place of a condition on the first
// argument; conditions on others stay as they are, although they then compare
// other things: libseccomp does the same.
func (b *spanBuilder) multiplexed(calls map[uint32][]clause) {
	for name, rules := range b.byName {
		nr, selector, ok := multiplexed(name)
		if !ok {
			continue
		}
		for _, c := range b.clauses(rules, abi386) {
			conds := []Arg{{Index: 0, Op: Equal, Value: selector}}
			for _, a := range c.conds {
				if a.Index != 0 {
					conds = append(conds, a)
				}
			}
			calls[uint32(nr)] = append(calls[uint32(nr)], clause{action: c.action, conds: conds})
		}
	}
}

// clauses lowers rules to an ABI's width and to conjunctions, in order.
func (b *spanBuilder) clauses(rules []*Rule, a abi) []clause {
	if len(rules) == 1 && len(rules[0].Args) == 0 && rules[0].Action == Allow && b.p.Default != Allow {
		return allowed // nearly always
	}
	var out []clause
	wide := a == abiAMD64 || a == abiARM64
	for _, r := range rules {
		if r.Action == b.p.Default {
			continue
		}
		if !repeats(r.Args) {
			out = append(out, clause{r.Action, narrow(r.Args, wide), wide})
			continue
		}
		for i := range r.Args {
			out = append(out, clause{r.Action, narrow(r.Args[i:i+1], wide), wide})
		}
	}
	return out
}

var allowed = []clause{{action: Allow}}

// repeats reports whether two conditions are on the same argument.
func repeats(args []Arg) bool {
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			return true
		}
		seen[a.Index] = true
	}
	return false
}

// narrow cuts values to the ABI's width and leaves out conditions that always
// hold because nothing is left of their mask.
func narrow(args []Arg, wide bool) []Arg {
	var out []Arg
	for _, a := range args {
		if !wide {
			a.Value &= 0xffffffff
			a.ValueTwo &= 0xffffffff
		}
		if a.Op == MaskedEqual {
			if a.Value == 0 {
				continue
			}
			a.ValueTwo &= a.Value
		}
		out = append(out, a)
	}
	return out
}

// verdictOf orders the clauses for one call: an unconditional one decides
// alone, else the strictest action is tried first.
func verdictOf(clauses []clause, otherwise Action) verdict {
	for _, c := range clauses {
		if len(c.conds) == 0 {
			return verdict{otherwise: c.action}
		}
	}
	slices.SortStableFunc(clauses, func(x, y clause) int {
		switch {
		case stricter(x.action, y.action):
			return -1
		case stricter(y.action, x.action):
			return 1
		}
		return 0
	})
	return verdict{clauses, otherwise}
}
