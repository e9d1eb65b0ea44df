package sys

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LoadDeviceFilter loads an eBPF program of type cgroup-device, 8 bytes per
// instruction (bpf(2), BPF_PROG_LOAD).
func LoadDeviceFilter(prog []byte) (*os.File, error) {
	license := []byte("Apache\x00")
	// No part of a stack, which may move: the kernel is given numbers.
	var pin runtime.Pinner
	pin.Pin(&prog[0])
	pin.Pin(&license[0])
	defer pin.Unpin()
	attr := struct {
		progType, insnCount uint32
		insns, license      uint64
		logLevel, logSize   uint32
		logBuf              uint64
		kernVersion, flags  uint32
	}{
		progType:  unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		insnCount: uint32(len(prog) / 8),
		insns:     uint64(uintptr(unsafe.Pointer(&prog[0]))),
		license:   uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	// The verifier gives up when a signal is pending (EAGAIN), and Go's
	// scheduler sends signals all the time.
	for try := 0; errno == unix.EAGAIN && try < 100; try++ {
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	if errno != 0 {
		return nil, wrap("bpf", "load device filter", errno)
	}
	return os.NewFile(fd, "bpf"), nil // bpf descriptors are close-on-exec
}

// AttachDeviceFilter makes prog decide about device access in cgroup, in
// addition to what others attached above.
func AttachDeviceFilter(cgroup, prog *os.File) error {
	attr := struct{ target, prog, attachType, flags uint32 }{
		target:     uint32(Fd(cgroup)),
		prog:       uint32(Fd(prog)),
		attachType: unix.BPF_CGROUP_DEVICE,
		flags:      unix.BPF_F_ALLOW_MULTI,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return wrap("bpf", "attach device filter", errno)
	}
	return nil
}
