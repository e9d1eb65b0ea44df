package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
)

// maxProfile bounds a profile file; Docker's default has 16 KiB.
const maxProfile = 1 << 20

// Default returns Docker's default profile as it applies on a machine of
// architecture arch (as Go names it) and the given kernel version, to a
// container whose bounding set is caps (CAP_SYS_ADMIN, ...).
func Default(arch string, caps []string, kernel [2]int) (*Profile, error) {
	return resolve(moby.DefaultProfile(), host{arch, caps, kernel})
}

// ParseProfile is Default for a profile in Docker's JSON format. A profile
// that Docker would take for "no seccomp", because it has neither default
// action nor rules, is an error.
func ParseProfile(text []byte, arch string, caps []string, kernel [2]int) (*Profile, error) {
	if len(text) > maxProfile {
		return nil, errs.New(errs.Invalid, "seccomp profile is too big: %d bytes, at most %d are read", len(text), maxProfile)
	}
	var src moby.Seccomp
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&src); err != nil {
		return nil, errs.New(errs.Invalid, "seccomp profile is not valid JSON: %w", oneLine(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "seccomp profile is not valid JSON: something follows the profile")
	}
	return resolve(&src, host{arch, caps, kernel})
}

// ToSpec returns what of a profile in Docker's format, the default one where
// text is nil, applies on a machine, as linux.seccomp of an OCI configuration.
// What ParseProfile refuses is refused here, too.
func ToSpec(text []byte, arch string, caps []string, kernel [2]int) (*specs.LinuxSeccomp, error) {
	src := moby.DefaultProfile()
	if text != nil {
		if _, err := ParseProfile(text, arch, caps, kernel); err != nil {
			return nil, err
		}
		src = new(moby.Seccomp)
		if err := json.Unmarshal(text, src); err != nil {
			return nil, errs.New(errs.Invalid, "seccomp profile is not valid JSON: %w", oneLine(err))
		}
	}
	out := src.LinuxSeccomp
	out.Syscalls = nil
	for _, m := range src.ArchMap {
		if name, _ := archName(m.Arch); name == arch {
			out.Architectures = append([]specs.Arch{m.Arch}, m.SubArches...)
			break
		}
	}
	h := host{arch, caps, kernel}
	for _, call := range src.Syscalls {
		if call == nil || !h.applies(call) {
			continue
		}
		one := call.LinuxSyscall
		//lint:ignore SA1019 profiles of the old form, with one name, are still about
		if old := call.Name; old != "" {
			one.Names = []string{old}
		}
		out.Syscalls = append(out.Syscalls, one)
	}
	return &out, nil
}

// FromSpec is ParseProfile for linux.seccomp of an OCI configuration, which has
// no conditions.
func FromSpec(s *specs.LinuxSeccomp, arch string) (*Profile, error) {
	src := &moby.Seccomp{LinuxSeccomp: *s}
	for i := range s.Syscalls {
		src.Syscalls = append(src.Syscalls, &moby.Syscall{LinuxSyscall: s.Syscalls[i]})
	}
	p, err := resolve(src, host{arch: arch})
	if err == nil && s.ListenerPath != "" && slices.Contains(s.Flags, specs.LinuxSeccompFlagWaitKillableRecv) {
		p.Flags |= flagWaitKillable
	}
	return p, err
}

func oneLine(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	}
	return err
}

// host is what the conditions of a profile are about.
type host struct {
	arch   string
	caps   []string
	kernel [2]int
}

func resolve(src *moby.Seccomp, h host) (*Profile, error) {
	if _, ok := machineOf(h.arch); !ok {
		return nil, unsupported(h.arch)
	}
	if src.DefaultAction == "" {
		return nil, errs.New(errs.Invalid, "seccomp profile has no defaultAction").
			WithHint("to run without seccomp, use --security-opt seccomp=unconfined")
	}
	p := &Profile{Arch: h.arch}
	var err error
	if p.Default, err = parseAction(src.DefaultAction, src.DefaultErrnoRet); err != nil {
		return nil, errs.New(errs.Invalid, "seccomp profile: default action: %w", err)
	}
	if p.Default == Notify {
		return nil, errs.New(errs.Invalid, "seccomp profile: %s cannot be the default action", src.DefaultAction)
	}
	if p.Compat, err = compat(src, h.arch); err != nil {
		return nil, err
	}
	if p.Flags, err = parseFlags(src.Flags); err != nil {
		return nil, err
	}
	for i, call := range src.Syscalls {
		if call == nil {
			continue
		}
		rule, err := parseRule(call)
		if err != nil {
			return nil, errs.New(errs.Invalid, "seccomp profile: syscalls[%d]: %w", i, err)
		}
		if h.applies(call) {
			p.Rules = append(p.Rules, rule)
		}
	}
	return p, nil
}

// applies evaluates includes and excludes. All conditions of includes must
// hold, and none of excludes may; several arches are alternatives, of several
// caps includes wants all and excludes any.
func (h host) applies(call *moby.Syscall) bool {
	if f := call.Excludes; f != nil {
		if slices.Contains(f.Arches, h.profileArch()) || slices.ContainsFunc(f.Caps, h.hasCap) ||
			f.MinKernel != nil && h.atLeast(f.MinKernel) {
			return false
		}
	}
	if f := call.Includes; f != nil {
		lacks := func(c string) bool { return !h.hasCap(c) }
		if len(f.Arches) > 0 && !slices.Contains(f.Arches, h.profileArch()) || slices.ContainsFunc(f.Caps, lacks) ||
			f.MinKernel != nil && !h.atLeast(f.MinKernel) {
			return false
		}
	}
	return true
}

// profileArch is the architecture's name in includes and excludes.
func (h host) profileArch() string {
	if h.arch == "386" {
		return "x86"
	}
	return h.arch
}

func (h host) hasCap(c string) bool { return slices.Contains(h.caps, c) }

func (h host) atLeast(v *moby.KernelVersion) bool {
	major, minor := uint64(h.kernel[0]), uint64(h.kernel[1])
	return major > v.Kernel || major == v.Kernel && minor >= v.Major
}

func parseRule(call *moby.Syscall) (Rule, error) {
	names := call.Names
	//lint:ignore SA1019 profiles of the old form, with one name, are still about
	if old := call.Name; old != "" {
		if len(names) != 0 {
			return Rule{}, errors.New("it has both name and names")
		}
		names = []string{old}
	}
	if slices.Contains(names, "") {
		return Rule{}, errors.New("a name is empty")
	}
	action, err := parseAction(call.Action, call.ErrnoRet)
	if err != nil {
		return Rule{}, err
	}
	rule := Rule{Names: names, Action: action}
	for i, a := range call.Args {
		op, ok := parseOp(a.Op)
		if !ok {
			return Rule{}, errs.New(errs.Invalid, "args[%d]: unknown op %q", i, a.Op)
		}
		if a.Index > 5 {
			return Rule{}, errs.New(errs.Invalid, "args[%d]: index %d, but a call has the arguments 0 to 5", i, a.Index)
		}
		rule.Args = append(rule.Args, Arg{Index: uint8(a.Index), Op: op, Value: a.Value, ValueTwo: a.ValueTwo})
	}
	return rule, nil
}

// maxErrno is the kernel's MAX_ERRNO; it cuts larger values down to it.
const maxErrno = 4095

func parseAction(a specs.LinuxSeccompAction, errnoRet *uint) (Action, error) {
	data := uint(syscall.EPERM)
	if errnoRet != nil {
		data = *errnoRet
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return KillThread, nil
	case specs.ActKillProcess:
		return KillProcess, nil
	case specs.ActTrap:
		return Trap, nil
	case specs.ActErrno:
		if data > maxErrno {
			return 0, errs.New(errs.Invalid, "errnoRet %d is no error number (0 to %d)", data, maxErrno)
		}
		return Errno(syscall.Errno(data)), nil
	case specs.ActTrace:
		if data > 0xffff {
			return 0, errs.New(errs.Invalid, "errnoRet %d is too big for %s (0 to 65535)", data, a)
		}
		return Trace(uint16(data)), nil
	case specs.ActLog:
		return Log, nil
	case specs.ActNotify:
		return Notify, nil
	case specs.ActAllow:
		return Allow, nil
	}
	return 0, errs.New(errs.Invalid, "unknown action %q", a)
}

func parseOp(op specs.LinuxSeccompOperator) (Op, bool) {
	switch op {
	case specs.OpNotEqual:
		return NotEqual, true
	case specs.OpLessThan:
		return Less, true
	case specs.OpLessEqual:
		return LessEqual, true
	case specs.OpEqualTo:
		return Equal, true
	case specs.OpGreaterEqual:
		return GreaterEqual, true
	case specs.OpGreaterThan:
		return Greater, true
	case specs.OpMaskedEqual:
		return MaskedEqual, true
	}
	return 0, false
}

// compat returns the ABIs besides the machine's own that the profile speaks
// about. Architectures that are known but cannot occur on this machine's
// kernel are left out: their part of the filter could never be reached.
func compat(src *moby.Seccomp, arch string) ([]string, error) {
	listed := src.Architectures
	if len(listed) != 0 && len(src.ArchMap) != 0 {
		return nil, errs.New(errs.Invalid, "seccomp profile has both architectures and archMap")
	}
	for _, m := range src.ArchMap {
		if name, _ := archName(m.Arch); name == arch {
			listed = m.SubArches
			break
		}
	}
	var also []string
	for _, a := range listed {
		name, known := archName(a)
		if !known {
			return nil, errs.New(errs.Invalid, "seccomp profile: unknown architecture %q", a)
		}
		possible := arch == "amd64" && (name == "386" || name == "x32") || arch == "arm64" && name == "arm"
		if possible && !slices.Contains(also, name) {
			also = append(also, name)
		}
	}
	return also, nil
}

// archName translates an OCI architecture; the name is empty when it is known
// but not one of ours.
func archName(a specs.Arch) (name string, known bool) {
	switch a {
	case specs.ArchX86_64:
		return "amd64", true
	case specs.ArchX86:
		return "386", true
	case specs.ArchX32:
		return "x32", true
	case specs.ArchAARCH64:
		return "arm64", true
	case specs.ArchARM:
		return "arm", true
	case specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64,
		specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return "", true
	}
	return "", false
}

// SECCOMP_FILTER_FLAG_* of linux/seccomp.h.
const (
	flagLog          = 1 << 1
	flagSpecAllow    = 1 << 2
	flagWaitKillable = 1 << 5
)

// parseFlags translates flags. A profile that names none gets SPEC_ALLOW: the
// mitigation it switches off costs much and is off by default since Linux 5.16.
func parseFlags(names []specs.LinuxSeccompFlag) (uint, error) {
	if names == nil {
		return flagSpecAllow, nil
	}
	var flags uint
	for _, f := range names {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC": // the program is loaded by a thread that is about to execve
		case specs.LinuxSeccompFlagLog:
			flags |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv: // has a meaning with a listener only, and is refused without
		default:
			return 0, errs.New(errs.Invalid, "seccomp profile: unknown flag %q", strings.ToValidUTF8(string(f), "?"))
		}
	}
	return flags, nil
}
