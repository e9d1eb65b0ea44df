package seccomp

import (
	_ "embed"
	"iter"
	"strconv"
	"strings"
)

//go:generate go run ./gen

// syscalls is one line per system call: its name and its number in each ABI,
// in the order of the abi constants. It stays text: it is read once per
// compilation, and a map would have to be built at every start of tug.
//
//go:embed syscalls.txt
var syscalls string

// abi is a way to make system calls: a table of numbers and a width of the
// arguments. The values are columns of syscalls.txt.
type abi int

const (
	abiAMD64 abi = iota
	abi386
	abiX32
	abiARM64
	abiARM
	abiCount
)

// numbers is one system call's number in each ABI; -1 where it has none. x32
// numbers are without x32Bit.
type numbers [abiCount]int32

// table iterates over all system calls by name.
func table() iter.Seq2[string, numbers] {
	return func(yield func(string, numbers) bool) {
		for line := range strings.Lines(syscalls) {
			if line[0] == '#' {
				continue
			}
			name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			var nrs numbers
			for i := range nrs {
				var field string
				field, rest, _ = strings.Cut(rest, " ")
				nrs[i] = -1
				if nr, err := strconv.ParseInt(field, 10, 32); err == nil {
					nrs[i] = int32(nr)
				}
			}
			if !yield(name, nrs) {
				return
			}
		}
	}
}

// On 386 the socket and System V IPC calls exist twice: with a number of
// their own, since Linux 4.3 and 5.1, and behind socketcall(2) and ipc(2)
// whose first argument says which is meant. A rule for such a call has to
// cover both ways.
const (
	socketcall386 = 102
	ipc386        = 117
)

// multiplexed returns the 386 call behind which the named call is to be had
// too, and the first argument that selects it.
func multiplexed(name string) (nr int32, selector uint64, ok bool) {
	for i, s := range socketcalls {
		if s == name {
			return socketcall386, uint64(i + 1), true
		}
	}
	for i, s := range ipccalls {
		if s != "" && s == name {
			return ipc386, uint64(i + 1), true
		}
	}
	return 0, 0, false
}

// socketcalls and ipccalls hold the names of the selectors 1, 2, ... as in
// linux/net.h and linux/ipc.h.
var (
	socketcalls = [...]string{
		"socket", "bind", "connect", "listen", "accept", "getsockname",
		"getpeername", "socketpair", "send", "recv", "sendto", "recvfrom",
		"shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg",
		"accept4", "recvmmsg", "sendmmsg",
	}
	ipccalls = [...]string{
		0: "semop", 1: "semget", 2: "semctl", 3: "semtimedop",
		10: "msgsnd", 11: "msgrcv", 12: "msgget", 13: "msgctl",
		20: "shmat", 21: "shmdt", 22: "shmget", 23: "shmctl",
	}
)
