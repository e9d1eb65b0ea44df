package boot

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"tug/sys"
)

// Reap is `tug-init reap -- PROGRAM ARG0 ARG...`, process 1 of a container run
// with --init, where an empty PROGRAM is looked up by ARG0: it starts the program as its child, passes signals on, reaps
// whatever is orphaned into it and ends with the program's exit code.
func Reap(args []string) int {
	if len(args) < 3 || args[0] != "--" {
		fmt.Fprintln(os.Stderr, "tug-init reap: want -- PROGRAM ARG0 ARG...")
		return 125
	}
	program, argv := args[1], args[2:]
	if program == "" {
		var err error
		if program, err = lookProgram(argv[0], os.Getenv("PATH")); err != nil {
			fmt.Fprintln(os.Stderr, "tug-init reap:", err)
			return replyOf(err).Code
		}
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if sys.IsTerminal(0) {
		// A group of its own in the foreground, so that ^C reaches the program
		// once, from the terminal, and not again from here.
		attr.Sys.Foreground, attr.Sys.Ctty = true, 0
	}
	pid, err := syscall.ForkExec(program, argv, attr)
	if err != nil {
		execFailed(program, err)
	}
	for sig := range signals {
		switch sig {
		case syscall.SIGCHLD:
			if code, done := reapAll(pid); done {
				return code
			}
		case syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU:
			// The Go runtime's own, or this process's own doing.
		default:
			_ = syscall.Kill(pid, sig.(syscall.Signal))
		}
	}
	return 0
}

// reapAll reaps every child that has ended. done is set, with the code to exit
// with, when the program was one of them.
func reapAll(pid int) (code int, done bool) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || got <= 0 {
			return code, done
		}
		if got != pid {
			continue
		}
		done = true
		if code = ws.ExitStatus(); ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	}
}
