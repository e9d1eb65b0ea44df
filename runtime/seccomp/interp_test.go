package seccomp

import (
	"fmt"
	"testing"
)

// data is struct seccomp_data without the instruction pointer.
type data struct {
	nr, arch uint32
	args     [6]uint64
}

func (d *data) word(off uint32) (uint32, bool) {
	switch {
	case off == offNr:
		return d.nr, true
	case off == offArch:
		return d.arch, true
	case off >= offArgs && off < offArgs+48 && off%8 == 0:
		return uint32(d.args[(off-offArgs)/8]), true
	case off >= offArgs && off < offArgs+48 && off%8 == 4:
		return uint32(d.args[(off-offArgs)/8] >> 32), true
	}
	return 0, false
}

// interpret runs a filter as the kernel does and returns its verdict and the
// number of instructions executed. It knows what libseccomp generates, too.
func interpret(prog []Instruction, d *data) (Action, int, error) {
	var acc, x uint32
	var mem [16]uint32
	steps := 0
	for pc := 0; pc < len(prog); pc++ {
		steps++
		i := prog[pc]
		cond := false
		switch i.Code {
		case opLoad:
			w, ok := d.word(i.K)
			if !ok {
				return 0, steps, fmt.Errorf("instruction %d loads from offset %d", pc, i.K)
			}
			acc = w
			continue
		case opRet:
			return Action(i.K), steps, nil
		case opAnd:
			acc &= i.K
			continue
		case 0x02: // ST
			mem[i.K] = acc
			continue
		case 0x60: // LD MEM
			acc = mem[i.K]
			continue
		case 0x07: // TAX
			x = acc
			continue
		case 0x87: // TXA
			acc = x
			continue
		case opJA:
			pc += int(i.K)
			continue
		case opJEQ:
			cond = acc == i.K
		case opJGT:
			cond = acc > i.K
		case opJGE:
			cond = acc >= i.K
		case opJSET:
			cond = acc&i.K != 0
		default:
			return 0, steps, fmt.Errorf("instruction %d has code %#x", pc, i.Code)
		}
		if cond {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	return 0, steps, fmt.Errorf("the program runs off its end")
}

// mustRun is interpret for programs that have to be right.
func mustRun(t testing.TB, prog []Instruction, d *data) Action {
	t.Helper()
	a, _, err := interpret(prog, d)
	if err != nil {
		t.Fatalf("%+v: %v", *d, err)
	}
	return a
}

func (a Action) String() string {
	switch a & actionMask {
	case KillProcess:
		return "kill_process"
	case KillThread:
		return "kill_thread"
	case Trap:
		return "trap"
	case errnoBase:
		return fmt.Sprintf("errno(%d)", a&0xffff)
	case Notify:
		return "notify"
	case traceBase:
		return fmt.Sprintf("trace(%d)", a&0xffff)
	case Log:
		return "log"
	case Allow:
		return "allow"
	}
	return fmt.Sprintf("%#x", uint32(a))
}
