package boot

import (
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Hello is the program of the built-in image: it tells a newcomer what an
// image and a container are, by what it finds out about itself from inside.
// It reads everything from root ("/" but in tests).
func Hello(w io.Writer, root string) int {
	in := inside{root}
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	lower, writable := in.layers()
	status := in.status()

	p("Hello from inside a container.")
	p("")
	p("This program came in an image: a file tree in read-only layers, named by")
	p("their digests, plus a few defaults such as which program to run.")
	for i, note := range in.layerNotes() {
		p("  layer %d       %s", i+1, note)
	}
	if lower > 0 {
		p("  layers        %d, each stored once however many images and containers use it", lower)
	}
	p("  files         %d", in.countFiles())
	p("")
	p("A container is a process that runs on such a tree with its own view of the")
	p("machine. This one:")
	p("  writes to     %s", writable)
	p("  process       %d of its pid namespace; it sees %s", os.Getpid(), plural(in.processes(), "process", "processes"))
	p("  host name     %s", in.hostname())
	p("  network       %s", in.network())
	p("  namespaces    %s", in.namespaces())
	p("  user          uid %d, gid %d", os.Getuid(), os.Getgid())
	p("  capabilities  %s", capabilities(status["CapEff"]))
	p("  system calls  %s", seccompState(status["Seccomp"]))
	p("  limits        memory %s, cpus %s, processes %s", in.memoryLimit(), in.cpuLimit(), in.pidsLimit())
	p("")
	p("Try next, with an image of yours (tug pull, or tug load -i FILE):")
	p("  tug run --rm -it IMAGE sh              a shell in a container of your own")
	p("  tug run --rm -m 64m --cpus 0.5 tug.local/hello   the same with limits")
	p("  tug images        tug ps -a        tug --help")
	return 0
}

// inside reads facts about the container it runs in.
type inside struct{ root string }

func (in inside) read(path string) string {
	b, err := os.ReadFile(filepath.Join(in.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// layers counts the read-only layers below the root and says where writes go.
// On a root that is no overlay nothing can be told but whether it is writable.
func (in inside) layers() (lower int, writable string) {
	writable = "its root file system"
	for line := range strings.Lines(in.read("/proc/self/mountinfo")) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 6 || left[4] != "/" || len(right) < 3 {
			continue
		}
		// The last mount on "/" is the one in use.
		lower = 0
		readOnly := strings.HasPrefix(left[5]+",", "ro,")
		upper := false
		for opt := range strings.SplitSeq(right[2], ",") {
			switch key, value, _ := strings.Cut(opt, "="); key {
			case "lowerdir", "lowerdir+":
				lower += len(strings.Split(value, ":"))
			case "upperdir":
				upper = true
			}
		}
		switch {
		case readOnly:
			writable = "nothing, its root file system is read-only"
		case upper:
			writable = "a writable layer of its own, on top; removed with the container"
		default:
			writable = "its root file system"
		}
	}
	return lower, writable
}

// layerNotes are what the image says about its layers: the first lines of the
// files in /layers, if it has any.
func (in inside) layerNotes() []string {
	names, _ := filepath.Glob(filepath.Join(in.root, "layers", "*"))
	var notes []string
	for _, name := range names {
		b, err := os.ReadFile(name)
		line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		if err == nil && line != "" && len(notes) < 8 {
			notes = append(notes, line)
		}
	}
	return notes
}

// countFiles counts what the image brought, so not the kernel's file systems.
func (in inside) countFiles() int {
	n := 0
	_ = filepath.WalkDir(in.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		switch strings.TrimPrefix(path, strings.TrimSuffix(in.root, "/")) {
		case "/proc", "/sys", "/dev":
			return filepath.SkipDir
		}
		if !e.IsDir() {
			n++
		}
		return nil
	})
	return n
}

func (in inside) processes() int {
	names, _ := filepath.Glob(filepath.Join(in.root, "proc", "[0-9]*"))
	return len(names)
}

func (in inside) hostname() string {
	if h := in.read("/proc/sys/kernel/hostname"); h != "" {
		return h
	}
	return "unknown"
}

func (in inside) network() string {
	names, _ := filepath.Glob(filepath.Join(in.root, "sys/class/net/*"))
	for i, n := range names {
		names[i] = filepath.Base(n)
	}
	switch {
	case len(names) == 0:
		return "unknown"
	case len(names) == 1 && names[0] == "lo":
		return "only itself (lo)"
	case len(names) > 6:
		return plural(len(names), "interface", "interfaces")
	}
	return strings.Join(names, " ")
}

// namespaces lists the process's namespaces by kind and kernel number, which
// differ from container to container.
func (in inside) namespaces() string {
	var out []string
	for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		link, err := os.Readlink(filepath.Join(in.root, "/proc/self/ns", kind))
		_, id, ok := strings.Cut(link, ":")
		if err == nil && ok {
			out = append(out, kind+" "+strings.Trim(id, "[]"))
		}
	}
	if len(out) > 3 {
		return strings.Join(out[:3], ", ") + ",\n                " + strings.Join(out[3:], ", ")
	}
	return strings.Join(out, ", ")
}

func (in inside) status() map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(in.read("/proc/self/status")) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields
}

func capabilities(hex string) string {
	set, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return "unknown"
	}
	n := bits.OnesCount64(set)
	return fmt.Sprintf("%d of root's 41 privileges", n)
}

func seccompState(mode string) string {
	switch mode {
	case "0":
		return "all allowed (no seccomp filter)"
	case "2":
		return "dangerous ones refused by a seccomp filter"
	}
	return "unknown"
}

func (in inside) memoryLimit() string {
	v := in.read("/sys/fs/cgroup/memory.max")
	if v == "" {
		v = in.read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
	}
	n, err := strconv.ParseUint(v, 10, 64)
	// "max" in version 2; version 1 has a number beyond all memory.
	if err != nil || n >= 1<<60 {
		return "unlimited"
	}
	return strconv.FormatUint(n>>20, 10) + " MiB"
}

func (in inside) cpuLimit() string {
	f := strings.Fields(in.read("/sys/fs/cgroup/cpu.max"))
	if len(f) != 2 {
		f = []string{in.read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), in.read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")}
	}
	quota, err1 := strconv.ParseFloat(f[0], 64)
	period, err2 := strconv.ParseFloat(f[1], 64)
	if err1 != nil || err2 != nil || quota <= 0 || period <= 0 {
		return "unlimited"
	}
	return strconv.FormatFloat(quota/period, 'g', 3, 64)
}

func (in inside) pidsLimit() string {
	v := in.read("/sys/fs/cgroup/pids.max")
	if v == "" {
		v = in.read("/sys/fs/cgroup/pids/pids.max")
	}
	if v == "" || v == "max" {
		return "unlimited"
	}
	return v
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
