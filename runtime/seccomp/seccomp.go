// Package seccomp turns seccomp profiles in Docker's JSON format into classic
// BPF programs for seccomp(2). It is pure Go, knows the ABIs amd64, 386, x32,
// arm64 and arm, and compiles any of them on any machine.
//
// It installs nothing: the program goes to tug-init, which loads it between
// its last preparation and execve. Only the supervisor compiles, so nothing
// here happens before Default, ParseProfile or Compile is called.
//
// The verdicts are those of runc with libseccomp, and the tests hold them to
// it. What may surprise:
//
//   - A rule whose action is the default action does nothing.
//   - An unconditional rule for a call beats all rules with arguments for it,
//     wherever it stands; of several unconditional ones the first counts.
//   - Two conditions on the same argument in one rule are alternatives, not a
//     conjunction.
//   - On 32-bit ABIs, x32 included, only the low half of arguments and values
//     is compared.
//   - Calls newer than every call the profile names get ENOSYS instead of the
//     default action, unless that lets calls through, so that programs fall
//     back to older calls as on an older kernel.
//
// Where libseccomp refuses a profile or answers by the order of its internal
// tree, namely when rules with different actions and different arguments
// match the same call, the strictest action wins, as it does in the kernel
// between several filters.
package seccomp

import (
	"encoding/binary"
	"slices"
	"strconv"
	"syscall"

	"tug/errs"
)

// Instruction is one classic BPF instruction, struct sock_filter.
type Instruction struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// Bytes returns prog as the kernel of this machine reads it, 8 bytes per
// instruction.
func Bytes(prog []Instruction) []byte {
	b := make([]byte, 0, 8*len(prog))
	for _, i := range prog {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}

// Action is what the kernel does with a call: a SECCOMP_RET_* value of
// linux/seccomp.h, with its data in the low 16 bits.
type Action uint32

// The kernel's actions. Errno and Trace make those that carry data. Without a
// listener, which tug does not offer, the kernel answers Notify with ENOSYS.
const (
	KillProcess Action = 0x80000000
	KillThread  Action = 0x00000000
	Trap        Action = 0x00030000
	errnoBase   Action = 0x00050000
	Notify      Action = 0x7fc00000
	traceBase   Action = 0x7ff00000
	Log         Action = 0x7ffc0000
	Allow       Action = 0x7fff0000

	actionMask Action = 0xffff0000
)

// Errno makes the call fail with e.
func Errno(e syscall.Errno) Action { return errnoBase | Action(e)&0xffff }

// Trace hands the call to a tracer, with data; without tracer it is ENOSYS.
func Trace(data uint16) Action { return traceBase | Action(data) }

// stricter reports whether a goes before b when both apply (seccomp(2),
// "Return values": kill, trap, errno, notify, trace, log, allow).
func stricter(a, b Action) bool {
	// KillProcess is the one value below zero when read as signed.
	if x, y := int32(a&actionMask), int32(b&actionMask); x != y {
		return x < y
	}
	return a < b
}

// permissive reports whether calls with this action may reach the kernel.
func (a Action) permissive() bool {
	switch a & actionMask {
	case Allow, Log, traceBase:
		return true
	}
	return false
}

// Op compares a call's argument with a value.
type Op uint8

// The operators, all on unsigned numbers.
const (
	NotEqual Op = iota
	Less
	LessEqual
	Equal
	GreaterEqual
	Greater
	MaskedEqual // argument & Value == ValueTwo & Value
)

// Arg is a condition on one argument.
type Arg struct {
	Index    uint8 // 0 to 5
	Op       Op
	Value    uint64
	ValueTwo uint64 // for MaskedEqual only
}

// Rule says what happens to the named calls when all Args hold.
type Rule struct {
	Names  []string // unknown names are ignored
	Action Action
	Args   []Arg
}

// Profile is a profile resolved for one machine and one set of capabilities.
type Profile struct {
	Default Action
	Arch    string   // the machine's, as Go names it
	Compat  []string // further ABIs it may use: 386 and x32 on amd64, arm on arm64
	Rules   []Rule
	Flags   uint // SECCOMP_FILTER_FLAG_* for seccomp(2)
}

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

// machine is how the kernel tells an ABI to a filter.
type machine struct {
	audit  uint32 // AUDIT_ARCH_*, linux/audit.h
	native abi
}

func machineOf(arch string) (machine, bool) {
	switch arch {
	case "amd64":
		return machine{0xc000003e, abiAMD64}, true
	case "386":
		return machine{0x40000003, abi386}, true
	case "arm64":
		return machine{0xc00000b7, abiARM64}, true
	case "arm":
		return machine{0x40000028, abiARM}, true
	}
	return machine{}, false
}

// Compile makes the BPF program for p. The program answers for p.Arch and
// p.Compat; a call of any other ABI kills the thread.
func Compile(p *Profile) ([]Instruction, error) {
	if _, ok := machineOf(p.Arch); !ok {
		return nil, unsupported(p.Arch)
	}
	byName := p.index()
	a := &assembler{}
	bad := a.ret(KillThread)
	// The assembler works backwards, so what is asked first comes last.
	entry := bad
	for i := len(p.Compat) - 1; i >= 0; i-- {
		if m, ok := machineOf(p.Compat[i]); ok && p.Compat[i] != p.Arch {
			entry = a.section(m.audit, spans(p, byName, m.native, false), entry)
		}
	}
	m, _ := machineOf(p.Arch)
	entry = a.section(m.audit, spans(p, byName, m.native, slices.Contains(p.Compat, "x32")), entry)
	a.straight(opLoad, offArch, entry)
	prog := a.program()
	if len(prog) > maxInstructions {
		return nil, errs.New(errs.Invalid, "seccomp profile is too big: it needs more than the kernel's limit of %d BPF instructions", maxInstructions).
			WithHint("use fewer rules with arguments")
	}
	return prog, nil
}

// index sorts the rules by call, in their order.
func (p *Profile) index() map[string][]*Rule {
	byName := make(map[string][]*Rule, 512)
	for i := range p.Rules {
		r := &p.Rules[i]
		for _, name := range r.Names {
			byName[name] = append(byName[name], r)
		}
	}
	return byName
}

func unsupported(arch string) error {
	return errs.New(errs.Unsupported, "seccomp on %s is not supported", strconv.Quote(arch)).
		WithHint("use --security-opt seccomp=unconfined")
}
