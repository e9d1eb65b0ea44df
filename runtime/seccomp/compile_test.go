package seccomp

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"

	"tug/errs"
)

// dockerCaps is Docker's default capability set.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func compileDefault(t testing.TB, arch string, caps []string) (*Profile, []Instruction) {
	t.Helper()
	p, err := Default(arch, caps, [2]int{6, 18})
	if err != nil {
		t.Fatal(err)
	}
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return p, prog
}

// check compares prog with the reference for every call number of every ABI
// and, where the profile looks at arguments, every class of values in each.
func check(t *testing.T, p *Profile, prog []Instruction) {
	t.Helper()
	ref := newReference(p)
	values := interesting(p)
	for name, audit := range audits {
		for _, nr := range numbersOf(name) {
			d := data{nr: nr, arch: audit}
			compare(t, ref, prog, &d)
			if a, bare, ok := ref.abiOf(&d); !ok || !looksAtArgs(ref, a, bare) {
				continue
			}
			for i := range d.args {
				for _, v := range values {
					d.args[i] = v
					compare(t, ref, prog, &d)
				}
				d.args[i] = values[int(nr)%len(values)]
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

func compare(t *testing.T, ref *reference, prog []Instruction, d *data) {
	t.Helper()
	if got, want := mustRun(t, prog, d), ref.verdict(d); got != want {
		t.Errorf("arch %#x call %d (%#x) args %#x: verdict %v, want %v", d.arch, d.nr, d.nr, d.args, got, want)
	}
}

func looksAtArgs(ref *reference, a abi, nr uint32) bool {
	if a == abi386 && (nr == socketcall386 || nr == ipc386) {
		return true
	}
	name, ok := ref.byNr[a][nr]
	if !ok {
		return false
	}
	for _, r := range ref.p.Rules {
		if len(r.Args) == 0 {
			continue
		}
		for _, n := range r.Names {
			if n == name {
				return true
			}
		}
	}
	return false
}

func TestDefaultProfile(t *testing.T) {
	for _, arch := range []string{"amd64", "386", "arm64", "arm"} {
		for _, caps := range [][]string{nil, dockerCaps, {"CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE"}} {
			t.Run(fmt.Sprintf("%s/%d", arch, len(caps)), func(t *testing.T) {
				p, prog := compileDefault(t, arch, caps)
				check(t, p, prog)
			})
		}
	}
}

// TestKnownVerdicts states a few verdicts by hand, independent of any table.
func TestKnownVerdicts(t *testing.T) {
	_, prog := compileDefault(t, "amd64", dockerCaps)
	_, arm := compileDefault(t, "arm64", dockerCaps)
	eperm, enosys := Errno(syscall.EPERM), Errno(syscall.ENOSYS)
	for _, tt := range []struct {
		what string
		prog []Instruction
		arch string
		nr   uint32
		arg0 uint64
		want Action
	}{
		{"read", prog, "amd64", 0, 0, Allow},
		{"mount", prog, "amd64", 165, 0, eperm},
		{"clone of a thread", prog, "amd64", 56, 0x3d0f00, Allow},
		{"clone with CLONE_NEWUSER", prog, "amd64", 56, 0x10000000, eperm},
		{"clone3", prog, "amd64", 435, 0, enosys},
		{"socket AF_UNIX", prog, "amd64", 41, 1, Allow},
		{"socket AF_ALG", prog, "amd64", 41, 38, eperm},
		{"socket AF_VSOCK", prog, "amd64", 41, 40, eperm},
		{"socket AF_MAX", prog, "amd64", 41, 46, Allow},
		{"personality query", prog, "amd64", 135, 0xffffffff, Allow},
		{"personality ADDR_NO_RANDOMIZE", prog, "amd64", 135, 0x40000, eperm},
		{"keyctl", prog, "amd64", 250, 0, eperm},
		{"io_uring_setup", prog, "amd64", 425, 0, eperm},
		{"a call of the future", prog, "amd64", 900, 0, enosys},
		{"i386 read", prog, "386", 3, 0, Allow},
		{"i386 mount", prog, "386", 21, 0, eperm},
		{"i386 socketcall", prog, "386", 102, 1, Allow},
		{"x32 read", prog, "amd64", 1 << 30, 0, Allow},
		{"x32 execve", prog, "amd64", 1<<30 | 520, 0, Allow},
		{"x32 with amd64's execve", prog, "amd64", 1<<30 | 59, 0, eperm},
		{"a foreign architecture", prog, "arm64", 63, 0, KillThread},
		{"arm64 read", arm, "arm64", 63, 0, Allow},
		{"arm64 mount", arm, "arm64", 40, 0, eperm},
		{"arm64 clone with CLONE_NEWNET", arm, "arm64", 220, 0x40000000, eperm},
		{"arm read", arm, "arm", 3, 0, Allow},
		{"arm cacheflush", arm, "arm", 0xf0002, 0, Allow},
		{"arm get_tls", arm, "arm", 0xf0006, 0, enosys},
		{"an arm call of the future", arm, "arm", 900, 0, enosys},
		{"amd64 on arm64", arm, "amd64", 0, 0, KillThread},
	} {
		d := data{nr: tt.nr, arch: audits[tt.arch]}
		d.args[0] = tt.arg0
		if got := mustRun(t, tt.prog, &d); got != tt.want {
			t.Errorf("%s: verdict %v, want %v", tt.what, got, tt.want)
		}
	}
}

func TestRandomProfiles(t *testing.T) {
	n := 100
	if testing.Short() {
		n = 20
	}
	for seed := range n {
		r := rand.New(rand.NewPCG(1, uint64(seed)))
		p := randomProfile(r, []string{"amd64", "386", "arm64", "arm"}[seed%4], true)
		prog, err := Compile(p)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		check(t, p, prog)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestSecondOpinion runs the program in another interpreter, x/net's, which
// reads big-endian words.
func TestSecondOpinion(t *testing.T) {
	_, prog := compileDefault(t, "amd64", dockerCaps)
	ins := make([]bpf.Instruction, len(prog))
	for i, p := range prog {
		ins[i] = bpf.RawInstruction{Op: p.Code, Jt: p.Jt, Jf: p.Jf, K: p.K}.Disassemble()
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "386"} {
		for _, nr := range numbersOf(arch) {
			d := data{nr: nr, arch: audits[arch], args: [6]uint64{38, 1, 1 << 40}}
			buf := make([]byte, 64)
			for off := uint32(0); off < 64; off += 4 {
				w, _ := d.word(off)
				buf[off], buf[off+1], buf[off+2], buf[off+3] = byte(w>>24), byte(w>>16), byte(w>>8), byte(w)
			}
			got, err := vm.Run(buf)
			if err != nil {
				t.Fatal(err)
			}
			if want := mustRun(t, prog, &d); uint32(got) != uint32(want) {
				t.Errorf("%s call %d: x/net says %#x, we %v", arch, nr, uint32(got), want)
			}
		}
	}
}

// TestConstantForTheKernel repeats the kernel's seccomp_is_const_allow: for a
// call that is allowed whatever its arguments, the program must not load any.
func TestConstantForTheKernel(t *testing.T) {
	p, prog := compileDefault(t, "amd64", dockerCaps)
	ref := newReference(p)
	for nr := range uint32(470) {
		if looksAtArgs(ref, abiAMD64, nr) {
			continue
		}
		d := data{nr: nr, arch: audits["amd64"]}
		for pc := 0; pc < len(prog); pc++ {
			i := prog[pc]
			if i.Code == opRet {
				break
			}
			if i.Code == opLoad && i.K >= offArgs {
				t.Fatalf("call %d loads an argument", nr)
			}
			acc := d.nr
			if pc < 3 {
				acc = d.arch
			}
			switch i.Code {
			case opJA:
				pc += int(i.K)
			case opJEQ:
				pc += pick(acc == i.K, i)
			case opJGE:
				pc += pick(acc >= i.K, i)
			}
		}
	}
}

func pick(cond bool, i Instruction) int {
	if cond {
		return int(i.Jt)
	}
	return int(i.Jf)
}

// TestEfficiency keeps the size and the path lengths of Docker's profile from
// growing unnoticed: libseccomp's linear filter runs several hundred
// instructions for a late call.
func TestEfficiency(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		_, prog := compileDefault(t, arch, dockerCaps)
		most, sum, n := 0, 0, 0
		for nr := range uint32(470) {
			d := data{nr: nr, arch: audits[arch]}
			_, steps, err := interpret(prog, &d)
			if err != nil {
				t.Fatal(err)
			}
			most, sum, n = max(most, steps), sum+steps, n+1
		}
		t.Logf("%s: %d instructions; %d at most and %.1f on average are executed", arch, len(prog), most, float64(sum)/float64(n))
		if len(prog) > 600 || most > 40 || sum/n > 14 {
			t.Errorf("%s: %d instructions, at most %d executed, %d on average", arch, len(prog), most, sum/n)
		}
	}
}

// TestLongJumps makes blocks of argument tests longer than a conditional jump
// reaches.
func TestLongJumps(t *testing.T) {
	p := &Profile{Arch: "amd64", Compat: []string{"386", "x32"}, Default: Errno(1)}
	for i := range 60 {
		names := []string{"read", "mmap", "socket", "futex", "cachestat"}
		p.Rules = append(p.Rules, Rule{Names: names[i%3 : i%3+3], Action: []Action{Allow, Log, Trap}[i%3], Args: []Arg{{0, Equal, uint64(i) << 30, 0}, {5, Greater, uint64(i), 0}}})
	}
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(prog))
	check(t, p, prog)
}

func TestTooBig(t *testing.T) {
	p := &Profile{Arch: "amd64", Default: Errno(1)}
	for i := range 5000 {
		p.Rules = append(p.Rules, Rule{Names: []string{"read"}, Action: Allow, Args: []Arg{{0, Equal, uint64(i), 0}}})
	}
	_, err := Compile(p)
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "4096") {
		t.Fatalf("got %v", err)
	}
}

func TestTable(t *testing.T) {
	count := 0
	for name, nrs := range table() {
		count++
		if name == "execve" && nrs != (numbers{59, 11, 520, 221, 11}) {
			t.Errorf("execve is %v", nrs)
		}
	}
	if count < 450 {
		t.Errorf("%d calls in the table", count)
	}
}

func BenchmarkDefault(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		compileDefault(b, "amd64", dockerCaps)
	}
}
