package boot

import (
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func elf(machine byte, order byte) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02")
	b[5] = order
	b[18], b[19] = machine, 0
	if order == 2 {
		b[18], b[19] = 0, machine
	}
	return b
}

func TestReason(t *testing.T) {
	own, ok := ownMachine()
	if !ok {
		t.Skipf("no name for %s", runtime.GOARCH)
	}
	for _, tt := range []struct {
		head string
		err  error
		want string
	}{
		{string(elf(22, 2)), syscall.ENOEXEC, "for s390x, this machine is"},
		{string(elf(40, 1)), syscall.ENOEXEC, "for arm, this machine is"},
		{string(elf(byte(own), 1)), syscall.ENOEXEC, ""},
		{"\x7fELF", syscall.ENOEXEC, "neither a program"},
		{"echo hi\n", syscall.ENOEXEC, "neither a program"},
		{"#! /no/such -x\nfoo", syscall.ENOENT, "interpreter /no/such is"},
		{"#!", syscall.ENOENT, "is missing"},
		{string(elf(byte(own), 1)), syscall.ENOENT, "dynamic linker"},
		{"", syscall.ENOEXEC, ""},
		{"#!/x", syscall.EACCES, ""},
	} {
		got := reason([]byte(tt.head), tt.err)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%.8q, %v: %q, want %q", tt.head, tt.err, got, tt.want)
		}
	}
}
