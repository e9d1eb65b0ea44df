// Package boot is the inside of a container's start: what tug-init does
// between clone(2) and execve(2). The supervisor's side is package runtime,
// their words are package plan. It knows one process and one root directory,
// no images, no containers, no store.
//
// The surprising rule: everything that the container's image or a process in
// it can influence is hostile. Paths inside the root are resolved by the kernel
// with RESOLVE_IN_ROOT, files are read bounded and only when regular, /proc is
// our own mount, and no descriptor but 0, 1 and 2 lives past execve.
//
// All work happens on one locked thread, since credentials, namespaces and
// seccomp filters belong to threads; execve from it ends all others.
package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"tug/runtime/plan"
	"tug/runtime/user"
)

// Descriptors tug-init inherits from the supervisor.
const (
	sockFd = 3
	selfFd = 4 // tug-init's own sealed memfd, for `reap`
	joinFd = 5 // of init, with plan.JoinIPC: pidfd of the process whose IPC namespace to join
	rootFd = 5 // of exec: the container's root directory

	enterFd = 5 // of enter: pidfd of the process whose pid namespace to join; then init's joinFd
)

// failure is an error with the exit code that Docker gives it.
type failure struct {
	code int
	msg  string
}

func (f *failure) Error() string { return f.msg }

func failf(code int, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...)}
}

// replyOf turns err into the answer for the supervisor: 125, the engine's own
// failure, unless the error says better.
func replyOf(err error) *plan.Reply {
	var f *failure
	if errors.As(err, &f) {
		return &plan.Reply{Code: f.code, Msg: f.msg}
	}
	return &plan.Reply{Code: 125, Msg: err.Error()}
}

// starter is the state of one start, used by `init` and `exec` alike.
type starter struct {
	sock   *os.File
	self   *os.File // nil for exec
	box    *os.File // tug-box, when that is the program
	plan   *plan.Plan
	layout string // of the cgroups, see mountCgroups

	inUserNS bool // where the host's root is nobody

	hooks  func() error // before the program is executed; nil for none
	procfs *os.File     // of our own, on which nothing can be mounted; nil where it is not needed

	user     user.User
	env      []string
	program  string // resolved path of Args[0]
	warnings []string
}

func (s *starter) warnf(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

// protect keeps the process from being looked into and from dying without a
// word: a panic is answered like an error.
func protect(sock *os.File) {
	if r := recover(); r != nil {
		stack := strings.ReplaceAll(string(debug.Stack()), "\n", "; ")
		_ = plan.SendReply(sock, &plan.Reply{Code: 125, Msg: fmt.Sprintf("tug-init: %v: %.2000s", r, stack)})
		os.Exit(125)
	}
}

// Init is `tug-init init LAYOUT [hostnet] [hostcgroup] [hostipc] [joinipc]
// [userns]`: it becomes the first process of a container. It parks, with all
// done that does not depend on the container, until a plan comes; it executes
// the program when told to.
func Init(args []string) int {
	runtime.LockOSThread()
	sock := os.NewFile(sockFd, "supervisor")
	defer protect(sock)
	syscall.CloseOnExec(sockFd)
	syscall.CloseOnExec(selfFd)
	if len(args) < 1 {
		return 125
	}
	s := &starter{sock: sock, self: os.NewFile(selfFd, "tug-init"), layout: args[0], inUserNS: slices.Contains(args[1:], plan.UserNS)}
	parkErr := park(s.layout, args[1:])
	p, files, err := plan.ReceivePlan(sock)
	if errors.Is(err, io.EOF) {
		return 0 // never needed
	}
	if err == nil {
		err = parkErr
	}
	var console *os.File
	if err == nil {
		s.plan = p
		console, err = s.prepare(files)
	}
	return s.finish(console, err)
}

// finish answers the plan, waits for the word to go and executes the program.
// It returns only when it fails or is not wanted any more.
func (s *starter) finish(console *os.File, err error) int {
	if err != nil {
		r := replyOf(err)
		_ = plan.SendReply(s.sock, r)
		return r.Code
	}
	var out []*os.File
	if console != nil {
		out = append(out, console)
	}
	if err := plan.SendReply(s.sock, &plan.Reply{Warnings: s.warnings}, out...); err != nil {
		return 125
	}
	if console != nil {
		console.Close()
	}
	if err := plan.ReceiveGo(s.sock); err != nil {
		return 125 // the supervisor died
	}
	r := replyOf(s.run())
	_ = plan.SendReply(s.sock, r)
	return r.Code
}
