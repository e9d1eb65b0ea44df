package seccomp

import "slices"

// Classic BPF opcodes used here (linux/bpf_common.h): exactly those that the
// kernel's seccomp_is_const_allow understands, so that calls which are always
// allowed are answered from its bitmap without running the program at all.
const (
	opLoad = 0x20 // A = seccomp_data[k], a 32-bit word
	opJA   = 0x05 // skip k
	opJEQ  = 0x15
	opJGT  = 0x25
	opJGE  = 0x35
	opJSET = 0x45
	opRet  = 0x06
	opAnd  = 0x54
)

// Offsets in struct seccomp_data. All ABIs here are little-endian.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// An assembler builds a program from its end to its start: jumps only go
// forward, so every target exists, at a known distance, before the jump to it
// is written. code is in that reversed order, and a label is an index into it.
type assembler struct {
	code []Instruction
	rets map[Action]label
}

type label int

func (a *assembler) program() []Instruction {
	slices.Reverse(a.code)
	return a.code
}

// emit puts an instruction before all others. Past the limit it only pretends
// to: Compile reports the length.
func (a *assembler) emit(i Instruction) label {
	if len(a.code) <= maxInstructions {
		a.code = append(a.code, i)
	}
	return label(len(a.code) - 1)
}

// distance is the number of instructions between l and one written now.
func (a *assembler) distance(l label) uint32 { return uint32(len(a.code) - 1 - int(l)) }

// ret returns a place that ends the program with the action.
func (a *assembler) ret(action Action) label {
	if l, ok := a.rets[action]; ok {
		return l
	}
	if a.rets == nil {
		a.rets = map[Action]label{}
	}
	l := a.emit(Instruction{Code: opRet, K: uint32(action)})
	a.rets[action] = l
	return l
}

// near returns a place with the effect of l that a conditional jump, whose
// distances have 8 bits, can reach even after one more near: l itself, a copy
// of the ret there, or a long jump.
func (a *assembler) near(l label) label {
	if a.distance(l) <= 253 {
		return l
	}
	if i := a.code[l]; i.Code == opRet {
		action := Action(i.K)
		if n := a.rets[action]; a.distance(n) <= 253 {
			return n
		}
		a.rets[action] = a.emit(i)
		return a.rets[action]
	}
	return a.emit(Instruction{Code: opJA, K: a.distance(l)})
}

// jump goes to yes or no after comparing the accumulator with k.
func (a *assembler) jump(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	yes, no = a.near(yes), a.near(no)
	return a.emit(Instruction{Code: op, Jt: uint8(a.distance(yes)), Jf: uint8(a.distance(no)), K: k})
}

// straight writes an instruction that goes on at next.
func (a *assembler) straight(op uint16, k uint32, next label) label {
	if a.distance(next) != 0 {
		a.emit(Instruction{Code: opJA, K: a.distance(next)})
	}
	return a.emit(Instruction{Code: op, K: k})
}

// section answers for one AUDIT_ARCH value, expected in the accumulator.
func (a *assembler) section(audit uint32, s []span, otherwise label) label {
	body := a.straight(opLoad, offNr, a.search(s))
	return a.jump(opJEQ, audit, body, otherwise)
}

// search finds the span of the call number in the accumulator by halving.
func (a *assembler) search(s []span) label {
	if len(s) == 1 {
		return a.verdict(s[0].v)
	}
	if one := len(s) == 3 && s[2].from == s[1].from+1 && s[0].v.same(s[2].v); one {
		around := a.verdict(s[0].v)
		return a.jump(opJEQ, s[1].from, a.verdict(s[1].v), around)
	}
	half := len(s) / 2
	high := a.search(s[half:])
	low := a.search(s[:half])
	return a.jump(opJGE, s[half].from, high, low)
}

func (a *assembler) verdict(v verdict) label {
	next := a.ret(v.otherwise)
	for _, c := range slices.Backward(v.clauses) {
		hit := a.ret(c.action)
		for _, cond := range slices.Backward(c.conds) {
			hit = a.cond(cond, c.wide, hit, next)
		}
		next = hit
	}
	return next
}

// cond tests an argument. The low word is tested last, so it is written first.
func (a *assembler) cond(c Arg, wide bool, yes, no label) label {
	switch c.Op {
	case NotEqual:
		c.Op, yes, no = Equal, no, yes
	case Less:
		c.Op, yes, no = GreaterEqual, no, yes
	case LessEqual:
		c.Op, yes, no = Greater, no, yes
	}
	offset := uint32(offArgs + 8*uint32(c.Index))
	low, high := uint32(c.Value), uint32(c.Value>>32)
	if c.Op == MaskedEqual {
		start := yes
		if low != 0 {
			start = a.masked(offset, low, uint32(c.ValueTwo), start, no)
		}
		if wide && high != 0 {
			start = a.masked(offset+4, high, uint32(c.ValueTwo>>32), start, no)
		}
		return start
	}
	op := uint16(opJEQ)
	switch c.Op {
	case GreaterEqual:
		op = opJGE
	case Greater:
		op = opJGT
	}
	start := a.straight(opLoad, offset, a.jump(op, low, yes, no))
	if !wide {
		return start
	}
	switch {
	case c.Op == Equal:
		start = a.jump(opJEQ, high, start, no)
	case high == 0: // any bit in the high word makes the argument greater
		start = a.jump(opJEQ, 0, start, yes)
	default:
		start = a.jump(opJEQ, high, start, no)
		start = a.jump(opJGT, high, yes, start)
	}
	return a.straight(opLoad, offset+4, start)
}

// masked tests one word under a mask.
func (a *assembler) masked(offset, mask, value uint32, yes, no label) label {
	var test label
	switch {
	case value == 0:
		test = a.jump(opJSET, mask, no, yes)
	case mask == 0xffffffff:
		test = a.jump(opJEQ, value, yes, no)
	default:
		test = a.straight(opAnd, mask, a.jump(opJEQ, value, yes, no))
	}
	return a.straight(opLoad, offset, test)
}
