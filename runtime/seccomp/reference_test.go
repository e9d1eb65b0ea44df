package seccomp

import (
	"math/rand/v2"
	"slices"
	"syscall"
)

// reference is the naive evaluator that compiled programs are compared with:
// it works on the profile for each call anew, number by number.
type reference struct {
	p      *Profile
	byNr   [abiCount]map[uint32]string // without x32Bit
	newest [abiCount]int64             // newest call the profile names; -1: none
	tail   bool                        // ENOSYS for newer calls
}

func newReference(p *Profile) *reference {
	r := &reference{p: p}
	for i := range r.byNr {
		r.byNr[i] = map[uint32]string{}
		r.newest[i] = -1
	}
	named := map[string]bool{}
	for _, rule := range p.Rules {
		for _, n := range rule.Names {
			named[n] = true
		}
	}
	for name, nrs := range table() {
		for i, nr := range nrs {
			if nr < 0 {
				continue
			}
			r.byNr[i][uint32(nr)] = name
			if named[name] && !(abi(i) == abiARM && nr >= armPrivate) {
				r.newest[i] = max(r.newest[i], int64(nr))
			}
		}
	}
	r.tail = !p.Default.permissive()
	return r
}

// abiOf returns the ABI of a call; ok is false for one the profile is not for.
func (r *reference) abiOf(d *data) (a abi, nr uint32, ok bool) {
	has := func(arch string) bool { return r.p.Arch == arch || slices.Contains(r.p.Compat, arch) }
	switch d.arch {
	case 0xc000003e:
		if d.nr&x32Bit != 0 || d.nr >= x32Bit {
			return abiX32, d.nr &^ x32Bit, has("x32")
		}
		return abiAMD64, d.nr, has("amd64")
	case 0x40000003:
		return abi386, d.nr, has("386")
	case 0xc00000b7:
		return abiARM64, d.nr, has("arm64")
	case 0x40000028:
		return abiARM, d.nr, has("arm")
	}
	return 0, 0, false
}

func (r *reference) verdict(d *data) Action {
	a, nr, ok := r.abiOf(d)
	if !ok {
		if r.p.Arch == "amd64" && d.arch == 0xc000003e && d.nr == 1<<32-1 {
			return r.p.Default // a tracer's way to skip a call
		}
		return KillThread
	}
	private := a == abiARM && nr >= armPrivate
	if r.tail && !private && r.newest[a] >= 0 && int64(nr) > r.newest[a] {
		return Errno(syscall.ENOSYS)
	}
	if private {
		newest := int64(-1)
		for n, name := range r.byNr[a] {
			if n >= armPrivate && r.names(name) {
				newest = max(newest, int64(n))
			}
		}
		if r.tail && newest >= 0 && int64(nr) > newest {
			return Errno(syscall.ENOSYS)
		}
	}
	name := r.byNr[a][nr]
	unconditional, matched := []Action{}, []Action{}
	consider := func(rule *Rule, args []Arg, first *uint64) {
		if rule.Action == r.p.Default {
			return
		}
		wide := a == abiAMD64 || a == abiARM64
		always, hit := first == nil, true
		if first != nil {
			hit = uint32(d.args[0]) == uint32(*first)
		}
		for _, arg := range args {
			if first != nil && arg.Index == 0 {
				continue
			}
			if !(arg.Op == MaskedEqual && (arg.Value == 0 || !wide && uint32(arg.Value) == 0)) {
				always = false
			}
			hit = hit && holds(arg, d.args[arg.Index], wide)
		}
		if always {
			unconditional = append(unconditional, rule.Action)
		} else if hit {
			matched = append(matched, rule.Action)
		}
	}
	each := func(rule *Rule, first *uint64) {
		if !repeats(rule.Args) {
			consider(rule, rule.Args, first)
			return
		}
		for _, arg := range rule.Args {
			consider(rule, []Arg{arg}, first)
		}
	}
	for i := range r.p.Rules {
		rule := &r.p.Rules[i]
		for _, n := range rule.Names {
			if n == name {
				each(rule, nil)
			}
			if a == abi386 {
				if mux, sel, ok := multiplexed(n); ok && uint32(mux) == nr {
					each(rule, &sel)
				}
			}
		}
	}
	if len(unconditional) > 0 {
		return unconditional[0]
	}
	verdict, found := r.p.Default, false
	for _, m := range matched {
		if !found || strictness(m) < strictness(verdict) {
			verdict, found = m, true
		}
	}
	return verdict
}

func (r *reference) names(name string) bool {
	for _, rule := range r.p.Rules {
		if slices.Contains(rule.Names, name) {
			return true
		}
	}
	return false
}

// strictness orders actions as seccomp(2) lists them, lower data first.
func strictness(a Action) int {
	order := []Action{KillProcess, KillThread, Trap, errnoBase, Notify, traceBase, Log, Allow}
	return slices.Index(order, a&actionMask)<<16 + int(a&0xffff)
}

func holds(c Arg, v uint64, wide bool) bool {
	x, y := c.Value, c.ValueTwo
	if !wide {
		v, x, y = uint64(uint32(v)), uint64(uint32(x)), uint64(uint32(y))
	}
	switch c.Op {
	case NotEqual:
		return v != x
	case Less:
		return v < x
	case LessEqual:
		return v <= x
	case Equal:
		return v == x
	case GreaterEqual:
		return v >= x
	case Greater:
		return v > x
	}
	return v&x == y&x
}

var audits = map[string]uint32{"amd64": 0xc000003e, "386": 0x40000003, "arm64": 0xc00000b7, "arm": 0x40000028, "alien": 0xc00000f3}

// numbersOf returns call numbers worth asking a program of the arch about:
// every known one, the gaps, the ends, and with x32's for amd64.
func numbersOf(arch string) []uint32 {
	var out []uint32
	for nr := uint32(0); nr < 600; nr++ {
		out = append(out, nr)
		if arch == "amd64" {
			out = append(out, nr|x32Bit)
		}
	}
	if arch == "arm" {
		for nr := uint32(armPrivate - 2); nr < armPrivate+10; nr++ {
			out = append(out, nr)
		}
	}
	return append(out, 1<<16, x32Bit-1, 1<<31-1, 1<<31, 1<<32-2, 1<<32-1)
}

// interesting returns values at which a condition of p can change its mind.
func interesting(p *Profile) []uint64 {
	vals := []uint64{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	for i := range 21 {
		vals = append(vals, uint64(i)) // selectors of socketcall and ipc
	}
	for _, r := range p.Rules {
		for _, a := range r.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo, a.Value ^ 1<<32, a.Value&0xffffffff | 1<<40, a.Value << 32, a.ValueTwo ^ 1, ^a.Value} {
				vals = append(vals, v-1, v, v+1)
			}
		}
	}
	slices.Sort(vals)
	return slices.Compact(vals)
}

// randomProfile makes a profile over few calls, so that rules meet.
func randomProfile(r *rand.Rand, arch string, mixed bool) *Profile {
	actions := []Action{Allow, Errno(1), Errno(38), Errno(4094), KillProcess, KillThread, Trap, Trace(7), Log, Notify}
	pick := func() Action { return actions[r.IntN(len(actions))] }
	p := &Profile{Arch: arch, Default: actions[r.IntN(len(actions)-1)]}
	switch arch {
	case "amd64":
		p.Compat = [][]string{nil, {"386"}, {"x32"}, {"386", "x32"}}[r.IntN(4)]
	case "arm64":
		p.Compat = [][]string{nil, {"arm"}}[r.IntN(2)]
	}
	names := []string{"read", "write", "socket", "clone", "personality", "semop", "shmget", "accept", "socketcall", "ipc", "cacheflush", "execve", "mmap", "recvmmsg", "nonesuch"}
	for range r.IntN(5) {
		for name := range table() { // a random run of names, for big programs
			if r.IntN(60) == 0 {
				names = append(names, name)
			}
		}
	}
	value := func() uint64 {
		pool := []uint64{0, 1, 2, 5, 38, 40, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 5, 0x7e020000, 1<<63 + 3, 1<<64 - 1}
		return pool[r.IntN(len(pool))]
	}
	fixed := map[string]Action{}
	for range 1 + r.IntN(40) {
		rule := Rule{Action: pick()}
		for range 1 + r.IntN(3) {
			rule.Names = append(rule.Names, names[r.IntN(len(names))])
		}
		if !mixed { // one action per call
			rule.Names = rule.Names[:1]
			if a, ok := fixed[rule.Names[0]]; ok {
				rule.Action = a
			}
			fixed[rule.Names[0]] = rule.Action
		}
		if r.IntN(4) != 0 {
			for range 1 + r.IntN(3) {
				rule.Args = append(rule.Args, Arg{uint8(r.IntN(6)) & uint8(r.IntN(8)), Op(r.IntN(7)), value(), value()})
			}
			for i := range rule.Args {
				rule.Args[i].Index %= 6
			}
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}
