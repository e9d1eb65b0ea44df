package runtime

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tug/runtime/plan"
)

// deviceRule allows access to devices; everything no rule allows is denied.
type deviceRule struct {
	kind         byte  // 'c' or 'b'
	major, minor int32 // -1 is any
	access       string
}

// String is the rule as cgroup v1 wants it.
func (r deviceRule) String() string {
	number := func(n int32) string {
		if n < 0 {
			return "*"
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%c %s:%s %s", r.kind, number(r.major), number(r.minor), r.access)
}

// defaultDeviceRules are Docker's: nodes of any kind may be made (CAP_MKNOD
// decides), but only the harmless ones opened.
func defaultDeviceRules() []deviceRule {
	rules := []deviceRule{{'c', -1, -1, "m"}, {'b', -1, -1, "m"}}
	for _, d := range plan.StandardDevices() {
		rules = append(rules, deviceRule{d.Kind, int32(d.Major), int32(d.Minor), "rwm"})
	}
	return append(rules,
		deviceRule{'c', 5, 1, "rwm"},    // console
		deviceRule{'c', 5, 2, "rwm"},    // ptmx
		deviceRule{'c', 136, -1, "rwm"}, // pts
	)
}

// eBPF opcodes, as far as needed (Documentation/bpf/standardization/instruction-set.rst).
const (
	bpfLoad32   = 0x61 // dst = *(u32 *)(src + off)
	bpfMov64    = 0xbf // dst = src
	bpfMovImm64 = 0xb7 // dst = imm
	bpfAndImm32 = 0x54
	bpfRsh32    = 0x74
	bpfJneImm32 = 0x56 // if (u32)dst != imm goto off
	bpfJeqImm32 = 0x16
	bpfExit     = 0x95
)

// bits of access_type in struct bpf_cgroup_dev_ctx
const (
	devBlock, devChar         = 1, 2
	devMknod, devRead, devWri = 1, 2, 4
)

// deviceProgram compiles rules to an eBPF cgroup-device program: it returns 1
// at the first rule that allows the access, else 0.
func deviceProgram(rules []deviceRule) []byte { return exceptProgram(rules, false) }

// exceptProgram is deviceProgram or, with everything else allowed, a program
// that returns 0 at the first rule that has one of the wanted kinds of access.
func exceptProgram(rules []deviceRule, allowed bool) []byte {
	var p []byte
	emit := func(op, dst, src byte, off int16, imm int32) {
		p = append(p, op, src<<4|dst)
		p = binary.NativeEndian.AppendUint16(p, uint16(off))
		p = binary.NativeEndian.AppendUint32(p, uint32(imm))
	}
	otherwise := int32(0)
	if allowed {
		otherwise = 1
	}
	// r2 = type, r3 = access, r4 = major, r5 = minor
	emit(bpfLoad32, 2, 1, 0, 0)
	emit(bpfMov64, 3, 2, 0, 0)
	emit(bpfAndImm32, 2, 0, 0, 0xffff)
	emit(bpfRsh32, 3, 0, 0, 16)
	emit(bpfLoad32, 4, 1, 4, 0)
	emit(bpfLoad32, 5, 1, 8, 0)
	for _, r := range rules {
		var conds [][2]int32 // register, value; a mismatch skips the rule
		kind, access := int32(devChar), int32(0)
		if r.kind == 'b' {
			kind = devBlock
		}
		for i, bit := range []int32{devMknod, devRead, devWri} {
			if strings.IndexByte(r.access, "mrw"[i]) >= 0 {
				access |= bit
			}
		}
		conds = append(conds, [2]int32{2, kind})
		if r.major >= 0 {
			conds = append(conds, [2]int32{4, r.major})
		}
		if r.minor >= 0 {
			conds = append(conds, [2]int32{5, r.minor})
		}
		// left is how many instructions of this rule follow the current one.
		left := int16(len(conds)) + 5
		for _, c := range conds {
			left--
			emit(bpfJneImm32, byte(c[0]), 0, left, c[1])
		}
		emit(bpfMov64, 6, 3, 0, 0)
		if allowed {
			emit(bpfAndImm32, 6, 0, 0, access)
			emit(bpfJeqImm32, 6, 0, 2, 0) // nothing asked for that is denied
		} else {
			emit(bpfAndImm32, 6, 0, 0, ^access)
			emit(bpfJneImm32, 6, 0, 2, 0) // something asked for that is not allowed
		}
		emit(bpfMovImm64, 0, 0, 0, otherwise^1)
		emit(bpfExit, 0, 0, 0, 0)
	}
	emit(bpfMovImm64, 0, 0, 0, otherwise)
	emit(bpfExit, 0, 0, 0, 0)
	return p
}

// hostDevices lists the host's device nodes, for a privileged container. What
// every container has of its own is left out.
func hostDevices() []plan.Device {
	own := map[string]bool{"/dev/console": true, "/dev/ptmx": true}
	for _, d := range plan.StandardDevices() {
		own[d.Path] = true
	}
	var all []plan.Device
	_ = filepath.WalkDir("/dev", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or not for us
		}
		switch path {
		case "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.udev", "/dev/hugepages":
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil // SkipDir for a link would skip all that follows it
		}
		if e.Type()&os.ModeDevice == 0 || own[path] {
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return nil
		}
		d, ok := describeDevice(fi)
		if !ok {
			return nil
		}
		d.Path = path
		all = append(all, d)
		return nil
	})
	return all
}
