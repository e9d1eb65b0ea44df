package runtime

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Usage is what a container has used so far, and what it holds now. What this
// machine does not count is 0.
type Usage struct {
	CPU         uint64 // nanoseconds
	Memory      uint64 // bytes, without the cache that can go at once
	MemoryLimit uint64 // bytes; the machine's memory without a limit
	Read        uint64 // bytes, from block devices
	Written     uint64
	Pids        uint64 // threads, as limits count them
}

// UsageOf reads what a container's cgroup counts: a handful of small files.
func UsageOf(cgroup string) (Usage, error) {
	c, err := machine()
	if err != nil || cgroup == "" {
		return Usage{}, err
	}
	u := c.usage(cgroup)
	if total := machineMemory(); u.MemoryLimit == 0 || u.MemoryLimit > total {
		u.MemoryLimit = total
	}
	return u, nil
}

func (c *cgroups) usage(slot string) (u Usage) {
	if c.v2 != "" {
		u.CPU = keyed(c.file(slot, "cpu", "cpu.stat"), "usage_usec") * 1000
		u.Memory = less(number(c.file(slot, "memory", "memory.current")), keyed(c.file(slot, "memory", "memory.stat"), "inactive_file"))
		u.MemoryLimit = number(c.file(slot, "memory", "memory.max"))
		u.Read, u.Written = ioStat(readFile(c.file(slot, "io", "io.stat")))
	} else {
		u.CPU = number(c.file(slot, "cpuacct", "cpuacct.usage"))
		u.Memory = less(number(c.file(slot, "memory", "memory.usage_in_bytes")), keyed(c.file(slot, "memory", "memory.stat"), "total_inactive_file"))
		u.MemoryLimit = number(c.file(slot, "memory", "memory.limit_in_bytes"))
		u.Read, u.Written = blkioBytes(readFile(c.file(slot, "blkio", "blkio.throttle.io_service_bytes_recursive")))
	}
	u.Pids = number(c.file(slot, "pids", "pids.current"))
	return u
}

// less is a - b; b is left out when it is not smaller, as it was read later.
func less(a, b uint64) uint64 {
	if b < a {
		return a - b
	}
	return a
}

func readFile(path string) string {
	if path == "" {
		return ""
	}
	b, _ := os.ReadFile(path)
	return string(b)
}

// number is a file's only value, 0 for "max".
func number(path string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(readFile(path)), 10, 64)
	return n
}

// keyed is the value of a line "key value".
func keyed(path, key string) uint64 {
	for line := range strings.Lines(readFile(path)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == key {
			n, _ := strconv.ParseUint(value, 10, 64)
			return n
		}
	}
	return 0
}

// ioStat sums up lines "8:0 rbytes=1 wbytes=2 rios=3 ...".
func ioStat(text string) (read, written uint64) {
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch name {
		case "rbytes":
			read += n
		case "wbytes":
			written += n
		}
	}
	return read, written
}

// blkioBytes sums up lines "8:0 Read 1".
func blkioBytes(text string) (read, written uint64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		n, _ := strconv.ParseUint(f[2], 10, 64)
		switch f[1] {
		case "Read":
			read += n
		case "Write":
			written += n
		}
	}
	return read, written
}

// machineMemory is all memory of this machine, in bytes.
var machineMemory = sync.OnceValue(func() uint64 {
	kb, _, _ := strings.Cut(strings.TrimSpace(line("/proc/meminfo", "MemTotal:")), " ")
	n, _ := strconv.ParseUint(kb, 10, 64)
	return n << 10
})

// userHz is the unit of the times in /proc/stat, the same on all machines.
const userHz = 100

// MachineCPU is how long the machine's processors have been there, busy or idle,
// in nanoseconds, added up over all of them, and how many there are.
func MachineCPU() (nanoseconds uint64, processors int) {
	text := readFile("/proc/stat")
	for l := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(l, "cpu")
		if !ok {
			break
		}
		if rest[0] != ' ' {
			processors++
			continue
		}
		for i, f := range strings.Fields(rest) {
			n, _ := strconv.ParseUint(f, 10, 64)
			if i < 8 { // guests' time is in user and nice already
				nanoseconds += n * (1e9 / userHz)
			}
		}
	}
	return nanoseconds, processors
}

// line is the rest of a file's line that begins with prefix.
func line(path, prefix string) string {
	for l := range strings.Lines(readFile(path)) {
		if rest, ok := strings.CutPrefix(l, prefix); ok {
			return rest
		}
	}
	return ""
}

// NetworkBytes is what the interfaces of a process's network namespace have
// received and sent, without the loopback.
func NetworkBytes(pid int) (received, sent uint64) {
	for l := range strings.Lines(readFile("/proc/" + strconv.Itoa(pid) + "/net/dev")) {
		name, rest, ok := strings.Cut(l, ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		r, _ := strconv.ParseUint(f[0], 10, 64)
		s, _ := strconv.ParseUint(f[8], 10, 64)
		received, sent = received+r, sent+s
	}
	return received, sent
}

// Pids lists the processes of a container's cgroup and of those below it, in
// order, with their ids as this process sees them.
func Pids(cgroup string) ([]int, error) {
	c, err := machine()
	if err != nil {
		return nil, err
	}
	pids, err := pidsBelow(c.roots()[0] + cgroup)
	slices.Sort(pids)
	return slices.Compact(pids), err
}

func pidsBelow(dir string) ([]int, error) {
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // it has just gone
		}
		return nil, err
	}
	var pids []int
	for word := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return pids, nil
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		more, err := pidsBelow(dir + "/" + e.Name())
		if err != nil {
			return pids, err
		}
		pids = append(pids, more...)
	}
	return pids, err
}
