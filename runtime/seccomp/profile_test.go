package seccomp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
)

func parse(t *testing.T, text, arch string, caps []string, kernel [2]int) *Profile {
	t.Helper()
	p, err := ParseProfile([]byte(text), arch, caps, kernel)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func names(p *Profile) string {
	var out []string
	for _, r := range p.Rules {
		out = append(out, r.Names...)
	}
	return strings.Join(out, " ")
}

const conditional = `{
 "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13,
 "archMap": [
  {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
  {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
  {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]}],
 "syscalls": [
  {"names": ["always"], "action": "SCMP_ACT_ALLOW"},
  {"name": "old-style", "action": "SCMP_ACT_TRACE", "errnoRet": 300},
  null,
  {"names": ["inarm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64", "arm"]}},
  {"names": ["exarm"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64", "arm"]}},
  {"names": ["in86"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["x86"]}},
  {"names": ["needs2"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_A", "CAP_B"]}},
  {"names": ["lacks2"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_A", "CAP_B"]}},
  {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.4"}},
  {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "5.4"}}
 ]}`

func TestConditions(t *testing.T) {
	for _, tt := range []struct {
		arch   string
		caps   []string
		kernel [2]int
		want   string
		compat []string
	}{
		{"amd64", nil, [2]int{5, 4}, "always old-style exarm lacks2 new", []string{"386", "x32"}},
		{"amd64", []string{"CAP_A"}, [2]int{5, 3}, "always old-style exarm old", []string{"386", "x32"}},
		{"arm64", []string{"CAP_B", "CAP_A"}, [2]int{4, 19}, "always old-style inarm needs2 old", []string{"arm"}},
		{"386", nil, [2]int{6, 0}, "always old-style exarm in86 lacks2 new", nil},
	} {
		p := parse(t, conditional, tt.arch, tt.caps, tt.kernel)
		if got := names(p); got != tt.want {
			t.Errorf("%s %v %v: rules %s, want %s", tt.arch, tt.caps, tt.kernel, got, tt.want)
		}
		if diff := cmp.Diff(tt.compat, p.Compat); diff != "" {
			t.Errorf("%s: %s", tt.arch, diff)
		}
		if p.Default != Errno(13) || p.Rules[1].Action != Trace(300) || p.Flags != flagSpecAllow {
			t.Errorf("%s: default %v, trace %v, flags %d", tt.arch, p.Default, p.Rules[1].Action, p.Flags)
		}
	}
}

func TestParse(t *testing.T) {
	p := parse(t, `{"defaultAction": "SCMP_ACT_ALLOW",
	 "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_X86"],
	 "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
	 "syscalls": [{"names": ["a", "b"], "action": "SCMP_ACT_KILL_PROCESS", "comment": "x", "unknown": 1, "args": [
	  {"index": 5, "value": 18446744073709551615, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"},
	  {"index": 0, "value": 1, "op": "SCMP_CMP_NE"}, {"index": 1, "value": 1, "op": "SCMP_CMP_LT"},
	  {"index": 1, "value": 1, "op": "SCMP_CMP_LE"}, {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"},
	  {"index": 1, "value": 1, "op": "SCMP_CMP_GE"}, {"index": 1, "value": 1, "op": "SCMP_CMP_GT"}]}]}`,
		"amd64", nil, [2]int{6, 1})
	want := &Profile{
		Default: Allow, Arch: "amd64", Compat: []string{"386"}, Flags: flagLog,
		Rules: []Rule{{Names: []string{"a", "b"}, Action: KillProcess, Args: []Arg{
			{5, MaskedEqual, 1<<64 - 1, 3},
			{0, NotEqual, 1, 0},
			{1, Less, 1, 0},
			{1, LessEqual, 1, 0},
			{1, Equal, 1, 0},
			{1, GreaterEqual, 1, 0},
			{1, Greater, 1, 0},
		}}},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
}

func TestActions(t *testing.T) {
	for name, want := range map[string]Action{
		"SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x30000,
		"SCMP_ACT_ERRNO": 0x50001, "SCMP_ACT_TRACE": 0x7ff00001, "SCMP_ACT_LOG": 0x7ffc0000, "SCMP_ACT_ALLOW": 0x7fff0000,
		"SCMP_ACT_NOTIFY": 0x7fc00000,
	} {
		p := parse(t, `{"defaultAction": "SCMP_ACT_TRAP", "syscalls": [{"names": ["read"], "action": "`+name+`"}]}`, "amd64", nil, [2]int{})
		if got := p.Rules[0].Action; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestBadProfiles(t *testing.T) {
	const ok = `"defaultAction": "SCMP_ACT_ALLOW"`
	for text, want := range map[string]string{
		``:              "is not valid JSON: it is empty",
		`{`:             "is not valid JSON",
		`[]`:            "is not valid JSON",
		`{` + ok + `}x`: "is not valid JSON",
		`{}`:            "has no defaultAction",
		`{"syscalls": [{"names": ["x"], "action": "SCMP_ACT_ALLOW"}]}`:                                                                             "has no defaultAction",
		`{"defaultAction": "ALLOW"}`:                                                                                                               `default action: unknown action "ALLOW"`,
		`{"defaultAction": "SCMP_ACT_NOTIFY"}`:                                                                                                     "cannot be the default action",
		`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}`:                                                                             "no error number",
		`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}`:                                                                               "is not valid JSON",
		`{` + ok + `, "architectures": ["x86_64"]}`:                                                                                                `unknown architecture "x86_64"`,
		`{` + ok + `, "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]}`:                                         "both architectures and archMap",
		`{` + ok + `, "flags": ["SECCOMP_FILTER_FLAG_NEW"]}`:                                                                                       "unknown flag",
		`{` + ok + `, "syscalls": [{"names": ["x"], "name": "y", "action": "SCMP_ACT_LOG"}]}`:                                                      "syscalls[0]: it has both name and names",
		`{` + ok + `, "syscalls": [{"names": [""], "action": "SCMP_ACT_LOG"}]}`:                                                                    "syscalls[0]: a name is empty",
		`{` + ok + `, "syscalls": [{"names": ["x"]}]}`:                                                                                             `syscalls[0]: unknown action ""`,
		`{` + ok + `, "syscalls": [{"names": ["x"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]}`:                      "args[0]: index 6",
		`{` + ok + `, "syscalls": [{"names": ["x"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "op": "=="}]}]}`:                               `args[0]: unknown op "=="`,
		`{` + ok + `, "syscalls": [{"names": ["x"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "5"}}]}`:                                   "invalid kernel version",
		`{` + ok + `, "syscalls": [{"names": ["x"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 18446744073709551616, "op": "x"}]}]}`: "is not valid JSON",
		strings.Repeat(" ", maxProfile+1):                                                                                                          "too big",
	} {
		_, err := ParseProfile([]byte(text), "amd64", nil, [2]int{6, 1})
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.80s: error %q, want %q", text, err, want)
		}
	}
	if _, err := Default("riscv64", nil, [2]int{}); !errs.Is(err, errs.Unsupported) {
		t.Errorf("riscv64: %v", err)
	}
}

// TestPrecedence states which of several rules for one call counts.
func TestPrecedence(t *testing.T) {
	always := func(a Action) Rule { return Rule{Names: []string{"read"}, Action: a} }
	when := func(v uint64, a Action) Rule {
		return Rule{Names: []string{"read"}, Action: a, Args: []Arg{{0, Equal, v, 0}}}
	}
	for what, tt := range map[string]struct {
		rules []Rule
		arg   uint64
		want  Action
	}{
		"first unconditional":                    {[]Rule{always(Allow), always(Trap)}, 0, Allow},
		"unconditional before conditional":       {[]Rule{always(Allow), when(0, KillProcess)}, 0, Allow},
		"unconditional after conditional":        {[]Rule{when(0, KillProcess), always(Allow)}, 0, Allow},
		"the default action is no rule":          {[]Rule{always(Errno(1)), when(0, Allow)}, 0, Allow},
		"alternatives":                           {[]Rule{when(1, Allow), when(2, Allow)}, 2, Allow},
		"no alternative":                         {[]Rule{when(1, Allow), when(2, Allow)}, 3, Errno(1)},
		"strictest of conditional":               {[]Rule{when(1, Allow), when(1, Trap), when(1, Log)}, 1, Trap},
		"kill the process beats kill the thread": {[]Rule{when(1, KillThread), when(1, KillProcess)}, 1, KillProcess},
		"same argument twice is either": {[]Rule{{Names: []string{"read"}, Action: Allow, Args: []Arg{
			{0, Equal, 1, 0},
			{0, Equal, 2, 0},
		}}}, 2, Allow},
		"different arguments are both": {[]Rule{{Names: []string{"read"}, Action: Allow, Args: []Arg{
			{0, Equal, 1, 0},
			{1, Equal, 2, 0},
		}}}, 1, Errno(1)},
	} {
		prog, err := Compile(&Profile{Arch: "amd64", Default: Errno(1), Rules: tt.rules})
		if err != nil {
			t.Fatal(err)
		}
		d := data{nr: 0, arch: audits["amd64"], args: [6]uint64{tt.arg}}
		if got := mustRun(t, prog, &d); got != tt.want {
			t.Errorf("%s: %v, want %v", what, got, tt.want)
		}
	}
}

// FuzzParseProfile: whatever the text, there is a profile whose program gives
// a verdict on every call, or one line of error.
func FuzzParseProfile(f *testing.F) {
	f.Add(conditional)
	f.Add(`{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["read", "socket"], "action": "SCMP_ACT_KILL", "args": [{"index": 1, "value": 4294967296, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, arch := range []string{"amd64", "arm64"} {
			p, err := ParseProfile([]byte(text), arch, dockerCaps, [2]int{6, 1})
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("error of two lines: %q", err)
				}
				continue
			}
			prog, err := Compile(p)
			if err != nil {
				continue
			}
			ref := newReference(p)
			for name := range audits {
				for _, nr := range []uint32{0, 41, 56, 102, 435, 900, 1 << 30, 1<<32 - 1} {
					compare(t, ref, prog, &data{nr: nr, arch: audits[name], args: [6]uint64{1, 1 << 32, 5}})
				}
			}
		}
	})
}

// ToSpec is the same profile: compiled from it, the filter is that of the
// profile itself.
func TestToSpec(t *testing.T) {
	caps, kernel := []string{"CAP_SYS_ADMIN"}, [2]int{6, 1}
	custom := `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"flags":["SECCOMP_FILTER_FLAG_LOG"],
		"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},{"name":"write","action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
		{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},{"names":["reboot"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_BOOT"]}}]}`
	for name, text := range map[string][]byte{"default": nil, "custom": []byte(custom)} {
		out, err := ToSpec(text, "amd64", caps, kernel)
		if err != nil {
			t.Fatal(err)
		}
		got, err := FromSpec(out, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		want, err := Default("amd64", caps, kernel)
		if text != nil {
			want, err = ParseProfile(text, "amd64", caps, kernel)
		}
		if err != nil {
			t.Fatal(err)
		}
		a, err1 := Compile(got)
		b, err2 := Compile(want)
		if diff := cmp.Diff(b, a); diff != "" || err1 != nil || err2 != nil || got.Flags != want.Flags {
			t.Errorf("%s: %v %v flags %x %x %.500s", name, err1, err2, got.Flags, want.Flags, diff)
		}
	}
	for _, bad := range []string{"", "{}", `{"defaultAction":"X"}`, "{} {}"} {
		if _, err := ToSpec([]byte(bad), "amd64", caps, kernel); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
