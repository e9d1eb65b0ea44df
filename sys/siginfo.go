package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPid reads si_pid from what waitid(2) filled in: on 64-bit
// architectures the union starts 16 bytes into siginfo_t and begins with it.
func siginfoPid(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}
