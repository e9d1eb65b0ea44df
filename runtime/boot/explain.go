package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// execFailed ends the process after execve refused a program that is there. As
// with Docker the container counts as started by then: why it ends stands in its
// own output, and the code is 255.
func execFailed(program string, err error) {
	fmt.Fprintf(os.Stderr, "exec %s: %v%s\n", program, err, reason(head(program), err))
	os.Exit(255)
}

// head is the beginning of a file, empty when it cannot be read.
func head(program string) []byte {
	f, err := os.Open(program)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, 256)
	n, _ := io.ReadFull(f, b)
	return b[:n]
}

func reason(head []byte, err error) string {
	switch {
	case len(head) == 0:
	case errors.Is(err, syscall.ENOEXEC):
		if m, ok := machine(head); ok {
			own, _ := ownMachine()
			if m == own {
				return ""
			}
			return ": a program for " + machineName(m) + ", this machine is " + machineName(own)
		}
		return ": neither a program for this machine nor a script that begins with #!"
	case errors.Is(err, syscall.ENOENT):
		if script, ok := bytes.CutPrefix(head, []byte("#!")); ok {
			line, _, _ := strings.Cut(string(script), "\n")
			if f := strings.Fields(line); len(f) > 0 {
				return ": its interpreter " + f[0] + " is missing"
			}
		}
		return ": its dynamic linker is missing"
	}
	return ""
}

// machine returns e_machine of an ELF header (elf(5)).
func machine(head []byte) (uint16, bool) {
	if len(head) < 20 || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return 0, false
	}
	if head[5] == 2 {
		return binary.BigEndian.Uint16(head[18:]), true
	}
	return binary.LittleEndian.Uint16(head[18:]), true
}

func ownMachine() (uint16, bool) {
	switch runtime.GOARCH {
	case "amd64":
		return 62, true
	case "arm64":
		return 183, true
	}
	return 0, false
}

func machineName(m uint16) string {
	switch m {
	case 3:
		return "i386"
	case 21:
		return "ppc64"
	case 22:
		return "s390x"
	case 40:
		return "arm"
	case 62:
		return "x86_64 (amd64)"
	case 183:
		return "aarch64 (arm64)"
	case 243:
		return "riscv"
	case 258:
		return "loongarch"
	}
	return "another machine"
}
