//go:build root

package seccomp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// oracle is testdata/oracle.c: libseccomp's answer to a profile. It needs gcc
// and libseccomp-dev, hence the build tag; root it does not need.
type oracle struct{ bin, dir string }

func buildOracle(t *testing.T) oracle {
	t.Helper()
	dir := t.TempDir()
	o := oracle{filepath.Join(dir, "oracle"), dir}
	out, err := exec.Command("gcc", "-O1", "-Wall", "-Werror", "-o", o.bin, "testdata/oracle.c", "-lseccomp").CombinedOutput()
	if err != nil {
		t.Fatalf("build the libseccomp helper (Debian: gcc, libseccomp-dev): %v\n%s", err, out)
	}
	return o
}

// ask returns libseccomp's program for p, the names it does not know, and the
// rules it refuses. The profile is taken apart as runc does.
func (o oracle) ask(t *testing.T, p *Profile) (prog []Instruction, unknown, refused []string) {
	t.Helper()
	var in strings.Builder
	fmt.Fprintf(&in, "default %x\n", uint32(p.Default))
	name := map[string]string{"amd64": "x86_64", "386": "x86", "x32": "x32", "arm64": "aarch64", "arm": "arm"}
	in.WriteString("arch " + name[p.Arch])
	for _, c := range p.Compat {
		in.WriteString(" " + name[c])
	}
	in.WriteByte('\n')
	op := map[Op]int{NotEqual: 1, Less: 2, LessEqual: 3, Equal: 4, GreaterEqual: 5, Greater: 6, MaskedEqual: 7}
	add := func(n string, r Rule, args []Arg) {
		fmt.Fprintf(&in, "rule %x %s", uint32(r.Action), n)
		for _, a := range args {
			fmt.Fprintf(&in, " %x %x %x %x", a.Index, op[a.Op], a.Value, a.ValueTwo)
		}
		in.WriteByte('\n')
	}
	for _, r := range p.Rules {
		if r.Action == p.Default {
			continue
		}
		for _, n := range r.Names {
			if !repeats(r.Args) {
				add(n, r, r.Args)
				continue
			}
			for i := range r.Args {
				add(n, r, r.Args[i:i+1])
			}
		}
	}
	file := filepath.Join(o.dir, "bpf")
	cmd := exec.Command(o.bin, file)
	cmd.Stdin = strings.NewReader(in.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("libseccomp helper: %v: %s\n%s", err, stderr.String(), in.String())
	}
	for line := range strings.Lines(string(out)) {
		switch f := strings.Fields(line); f[0] {
		case "unknown":
			unknown = append(unknown, f[1])
		case "refused":
			refused = append(refused, f[1])
		}
	}
	bin, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(bin) >= 8; bin = bin[8:] {
		prog = append(prog, Instruction{binary.NativeEndian.Uint16(bin), bin[2], bin[3], binary.NativeEndian.Uint32(bin[4:])})
	}
	return prog, unknown, refused
}

// without returns p without rules for the named calls.
func without(p *Profile, unknown []string) *Profile {
	q := &Profile{Default: p.Default, Arch: p.Arch, Compat: p.Compat}
	for _, r := range p.Rules {
		r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool { return slices.Contains(unknown, n) })
		q.Rules = append(q.Rules, r)
	}
	return q
}

// agree compares our program with libseccomp's for every call number of every
// architecture and every class of arguments. Where they differ it must be one
// of these, each checked for what exactly ours says:
//
//   - a call newer than all the profile names: ENOSYS, which runc puts in front
//     of libseccomp's program.
func agree(t *testing.T, p *Profile, ours, theirs []Instruction) (compared int) {
	t.Helper()
	ref := newReference(p)
	values := interesting(p)
	one := func(d *data) {
		got, want := mustRun(t, ours, d), mustRun(t, theirs, d)
		if ref.newer(d) {
			want = Errno(38)
		}
		if compared++; got != want {
			t.Fatalf("arch %#x call %d (%#x) args %#x: verdict %v, libseccomp %v", d.arch, d.nr, d.nr, d.args, got, want)
		}
	}
	for name, audit := range audits {
		for _, nr := range numbersOf(name) {
			d := data{nr: nr, arch: audit}
			one(&d)
			if a, bare, ok := ref.abiOf(&d); !ok || !looksAtArgs(ref, a, bare) {
				continue
			}
			for i := range d.args {
				for _, v := range values {
					d.args[i] = v
					one(&d)
				}
				d.args[i] = values[int(nr)%len(values)]
			}
		}
	}
	return compared
}

// newCalls checks the calls that this libseccomp does not know: where they
// exist, the profile allows them and so do we.
func newCalls(t *testing.T, p *Profile, unknown []string) {
	t.Helper()
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for name, nrs := range table() {
		if nr := nrs[machines(p.Arch)]; nr >= 0 && slices.Contains(unknown, name) {
			if got := mustRun(t, prog, &data{nr: uint32(nr), arch: audits[p.Arch]}); got != Allow {
				t.Errorf("%s: verdict %v", name, got)
			}
		}
	}
}

// newer reports whether the profile names no call of the ABI as new as this.
func (r *reference) newer(d *data) bool {
	a, nr, ok := r.abiOf(d)
	if !ok || !r.tail || r.newest[a] < 0 {
		return false
	}
	newest := r.newest[a]
	if a == abiARM && nr >= armPrivate {
		newest = -1
		for n, name := range r.byNr[a] {
			if n >= armPrivate && r.names(name) {
				newest = max(newest, int64(n))
			}
		}
		if newest < 0 {
			return false
		}
	}
	return int64(nr) > newest
}

func TestLibseccompDefault(t *testing.T) {
	o := buildOracle(t)
	for _, arch := range []string{"amd64", "arm64"} {
		for _, caps := range [][]string{nil, dockerCaps, {"CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_TIME"}} {
			p, _ := compileDefault(t, arch, caps)
			theirs, unknown, refused := o.ask(t, p)
			if len(refused) > 0 {
				t.Fatalf("libseccomp refuses %v", refused)
			}
			known := without(p, unknown)
			ours, err := Compile(known)
			if err != nil {
				t.Fatal(err)
			}
			n := agree(t, known, ours, theirs)
			newCalls(t, p, unknown)
			t.Logf("%s, %d capabilities: %d verdicts agree; libseccomp does not know %v; %d instructions, libseccomp %d",
				arch, len(caps), n, unknown, len(ours), len(theirs))
			if most := len(theirs); len(ours) > most {
				t.Errorf("%d instructions, libseccomp needs %d", len(ours), most)
			}
		}
	}
}

// tame takes out of a random profile what libseccomp gets wrong; each of these
// is shown in TestLibseccompFaults.
func tame(p *Profile) *Profile {
	q := &Profile{Default: p.Default, Arch: p.Arch, Compat: p.Compat}
	abis := []abi{machines(p.Arch)}
	for _, c := range p.Compat {
		abis = append(abis, machines(c))
	}
	exists := map[string]bool{}
	for name, nrs := range table() {
		exists[name] = !slices.ContainsFunc(abis, func(a abi) bool { return nrs[a] < 0 })
	}
	unequal := func(a Arg) bool { return a.Op != Equal && a.Op != MaskedEqual }
	alone := map[string]bool{} // calls whose one rule compares for more than equality
	seen := map[string]bool{}
	for _, r := range p.Rules {
		n := r.Names[0]
		single := slices.ContainsFunc(r.Args, unequal)
		if !exists[n] || alone[n] || single && (seen[n] || repeats(r.Args)) {
			continue
		}
		seen[n], alone[n] = true, single
		q.Rules = append(q.Rules, r)
	}
	return q
}

func machines(arch string) abi {
	if m, ok := machineOf(arch); ok {
		return m.native
	}
	return abiX32
}

// TestLibseccompRandom compares small profiles made at random, in which a call
// has rules with one action only: where actions conflict, libseccomp refuses
// the rule or follows the order of its internal tree.
func TestLibseccompRandom(t *testing.T) {
	o := buildOracle(t)
	compared := 0
	for seed := range 300 {
		r := rand.New(rand.NewPCG(2, uint64(seed)))
		p := tame(randomProfile(r, []string{"amd64", "arm64"}[seed%2], false))
		theirs, unknown, refused := o.ask(t, p)
		if len(refused) > 0 {
			t.Fatalf("seed %d: libseccomp refuses %v", seed, refused)
		}
		known := without(p, unknown)
		ours, err := Compile(known)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compared += agree(t, known, ours, theirs) })
	}
	t.Logf("%d verdicts agree", compared)
}

// TestLibseccompFaults holds the cases in which libseccomp 2.5.4 gives a
// verdict that its rules do not ask for, and we do not follow it. Newer versions may be right:
// then they have to say what we say. None of it touches Docker's profile.
func TestLibseccompFaults(t *testing.T) {
	o := buildOracle(t)
	arg := func(i uint8, op Op, v uint64) []Arg { return []Arg{{i, op, v, 0}} }
	for why, tt := range map[string]struct {
		p     *Profile
		arch  string
		nr    uint32
		args  [6]uint64
		want  Action
		fault Action
	}{
		"of two orderings on one argument the wider is lost when their high words differ": {
			&Profile{Arch: "amd64", Default: Errno(1), Rules: []Rule{
				{Names: []string{"personality"}, Action: Allow, Args: arg(0, Less, 40)},
				{Names: []string{"personality"}, Action: Allow, Args: arg(0, Less, 1<<32+5)},
			}},
			"amd64", 135,
			[6]uint64{40},
			Allow, Errno(1),
		},
		"greater and less meet in one node and become always": {
			&Profile{Arch: "amd64", Default: Errno(1), Rules: []Rule{
				{Names: []string{"close"}, Action: Allow, Args: arg(0, Greater, 1<<32+5)},
				{Names: []string{"close"}, Action: Allow, Args: arg(0, Less, 0)},
			}},
			"amd64", 3,
			[6]uint64{2},
			Errno(1), Allow,
		},
		"an alternative is not tried after another has failed half-way": {
			&Profile{Arch: "386", Default: Errno(1), Rules: []Rule{
				{Names: []string{"recvmmsg"}, Action: Allow, Args: []Arg{{0, NotEqual, 40, 0}, {4, NotEqual, 5, 0}}},
				{Names: []string{"recvmmsg"}, Action: Allow, Args: arg(0, NotEqual, 5)},
			}},
			"386", 337,
			[6]uint64{4, 0, 0, 0, 5},
			Allow, Errno(1),
		},
		"accept, send, recv, semop and semtimedop are not looked for behind socketcall and ipc": {
			&Profile{Arch: "386", Default: Errno(1), Rules: []Rule{{Names: []string{"accept"}, Action: Allow}}},
			"386", 102,
			[6]uint64{5},
			Allow, Errno(1),
		},
		"a rule for a call that the architecture lacks can disable the conditions of another call": {
			&Profile{Arch: "arm64", Default: Errno(1), Rules: []Rule{
				{Names: []string{"mq_open"}, Action: KillThread, Args: arg(0, Equal, 0)},
				{Names: []string{"inotify_init"}, Action: Allow},
			}},
			"arm64", 180,
			[6]uint64{},
			KillThread, Errno(1),
		},
	} {
		theirs, _, refused := o.ask(t, tt.p)
		if len(refused) > 0 {
			t.Errorf("%s: libseccomp refuses %v", why, refused)
			continue
		}
		ours, err := Compile(tt.p)
		if err != nil {
			t.Fatal(err)
		}
		d := data{nr: tt.nr, arch: audits[tt.arch], args: tt.args}
		if got := mustRun(t, ours, &d); got != tt.want {
			t.Errorf("%s: we say %v, want %v", why, got, tt.want)
		}
		switch got := mustRun(t, theirs, &d); got {
		case tt.fault:
		case tt.want:
			t.Logf("no longer true of this libseccomp: %s", why)
		default:
			t.Errorf("%s: libseccomp says %v", why, got)
		}
	}
}
