package arch

// A row allows the packages below Dir (and Dir itself) to import the tug
// packages in May, and whatever those may import. The longest Dir that matches
// a package is its row; a package without a row fails the test. So the table
// reads as the direction of the house:
//
//	errs < spec
//	errs < sys < state < layer
//	       sys < event < image, supervisor
//	             layer, registry < image
//	spec, sys < runtime < supervisor
//	image, layer, runtime, supervisor < container < engine < cli < cmd/tug
//	runtime/boot, supervisor/keeper < cmd/tug-init
//	sys < box < cmd/tug-box
type row struct {
	Dir string
	May []string
}

var importTable = []row{
	// Vocabulary, no I/O.
	{"errs", nil},
	{"spec", []string{"errs"}},

	// The seams: kernel, and files and locks.
	{"sys", []string{"errs"}},
	{"state", []string{"sys"}},
	{"event", []string{"sys"}},

	// The nouns.
	{"layer", []string{"state", "spec"}},
	{"registry", []string{"spec", "state"}}, // state for edits of config files
	{"image", []string{"layer", "registry", "event"}},
	{"runtime", []string{"spec", "sys"}},
	{"runtime/oci", []string{"runtime", "state"}},
	{"runtime/plan", []string{"spec", "sys"}}, // what runtime and boot tell each other
	{"runtime/user", []string{"sys"}},
	{"runtime/seccomp", []string{"errs", "sys"}}, // sys for its test, which loads programs
	{"supervisor", []string{"runtime", "state", "event"}},
	{"volume", []string{"state", "spec", "event"}},
	{"container", []string{"image", "layer", "volume", "runtime", "supervisor", "event"}},

	// What runs as tug-init must stay small: not the packages that start it.
	{"runtime/boot", []string{"runtime/plan", "runtime/user", "sys"}},
	{"supervisor/keeper", []string{"spec", "state"}},

	// The userland of tug-box: no part of tug.
	{"box", []string{"sys"}},

	// Use cases and adapters.
	{"build", []string{"container"}},
	{"engine", []string{"container"}},
	{"cli", []string{"engine", "runtime/oci"}},

	// Thin mains.
	{"cmd/tug", []string{"cli"}},
	{"cmd/tug-init", []string{"runtime/boot", "supervisor/keeper"}},
	{"cmd/tug-box", []string{"box"}},

	// No part of any binary; may look at everything.
	{"internal/arch", nil},
	{"test", []string{"engine"}},
	{"test/fixture", nil}, // what tests are made of shares nothing with tug
	{"bench", []string{"engine", "test"}},
}

// A reserve keeps an import (a path, or everything below it with a trailing
// slash) to some packages, for a reason.
type reserve struct {
	Import string
	For    []string
	Tests  bool // tests are bound too
	Reason string
}

var reserved = []reserve{
	{
		"golang.org/x/sys/unix",
		[]string{"sys", "test"},
		true,
		"raw system calls go through one seam, which retries EINTR and sets close-on-exec",
	},
	{"unsafe", []string{"sys"}, true, "nothing outside the kernel seam needs it"},
	{"C", nil, true, "the binaries are static"},
	{"net/http", []string{"registry", "cli", "test", "box"}, false, "only registry dials out, and box's wget"},
	{"crypto/tls", []string{"registry", "box"}, false, "only registry dials out, and box's wget"},
	{"mvdan.cc/sh/v3/", []string{"box"}, false, "its init costs 0.6 ms, which tug has not to spare"},
	{"golang.org/x/term", []string{"box"}, false, "sys has what tug needs of terminals"},
	{
		"github.com/google/go-containerregistry/",
		[]string{"registry"},
		false,
		"its types stay out of everybody's signatures, so that another client is a change to one package",
	},
	{
		"github.com/distribution/reference", nil, false,
		"costs 0.6 ms at every process start; it is the oracle in tests of spec.ParseReference",
	},
	{"github.com/sirupsen/logrus", nil, true, "log/slog is here"},
	{"log", nil, false, "log/slog is here, and only cli prints"},
	{"reflect", nil, false, "say it with types"},
	{"testing", []string{"layer/layertest"}, false, "test code does not belong into a binary; suites have packages of their own"},
}

// Names that must not be used as directories: they say nothing about the domain.
var emptyNames = []string{"util", "utils", "common", "pkg", "manager", "helpers", "helper", "misc", "lib"}

// A use keeps package-level functions and variables of the standard library
// (import path, dot, name; a trailing * stands for any rest) to some packages.
type use struct {
	Names  []string
	For    []string
	Reason string
}

var usage = []use{
	{
		[]string{"fmt.Print*", "os.Stdout"},
		[]string{"cli", "cmd", "runtime/boot", "supervisor/keeper", "test", "internal/arch", "bench", "box"},
		"only cli prints (the verbs of tug-init have a container's output, the keeper hands its own to supervisors)",
	},
	{
		[]string{"os.Stderr", "os.Stdin"},
		[]string{"cli", "cmd", "runtime/boot", "supervisor", "container", "test", "internal/arch", "bench", "box"},
		"only cli prints; what runs in supervisor and keeper reports on the standard error that their log file is",
	},
	{
		[]string{"net.Dial", "net.DialTimeout", "net.DialTCP", "net.DialUDP", "net.DialIP", "net.Dialer", "net.ListenTCP", "net.Resolver"},
		[]string{"registry", "test", "bench", "box"},
		"only registry dials out, and box's programs for networks",
	},
	{
		[]string{"net.Lookup*"},
		[]string{"registry", "volume", "test", "bench", "box"},
		"as above; the kernel mounts nfs and cifs by address only, so volume looks up the server's name",
	},
	{
		[]string{"os.Exit"},
		[]string{"cli", "cmd", "runtime/boot", "supervisor/keeper", "test", "internal/arch", "bench", "box"},
		"a library returns errors",
	},
	{
		[]string{"syscall.Syscall*", "syscall.RawSyscall*", "syscall.Mount", "syscall.Unmount", "syscall.Open", "syscall.Read", "syscall.Write", "syscall.Close", "syscall.Mknod", "syscall.PtraceA*"},
		[]string{"sys"},
		"package syscall is for signal numbers, errno values and os/exec attributes; calls belong into sys",
	},
	{
		[]string{"syscall.Fork*", "syscall.Wait4"},
		[]string{"sys", "runtime/boot", "supervisor/keeper"},
		"os/exec everywhere else; a reaper waits for children it did not start",
	},
}

// Sizes beyond which a function or file needs an entry in oversized.
const (
	maxFunctionLines = 100
	maxFileLines     = 800
)

// oversized lists "file" and "file:function" beyond the sizes, with the reason.
var oversized = map[string]string{}

// starters lists "file" with an init function, and package-level maps of more
// than maxStartMap entries or regular expressions as "file:name", with the
// reason: each costs time at the start of every command.
var starters = map[string]string{}

const maxStartMap = 40
