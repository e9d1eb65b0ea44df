package runtime

import (
	"errors"
	"io"
	"os"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// Socket returns the connection to the prepared process. Whoever holds a copy
// of it can finish the start with Resume should this process die.
func (p *Parked) Socket() *os.File { return p.sock }

// Resume does what Go does, for a process that a dead supervisor prepared and
// perhaps already let go. A second word to go is never heard: the program
// replaced the process that would read it.
func Resume(sock *os.File) error {
	if err := plan.SendGo(sock); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	reply, files, err := plan.ReceiveReply(sock)
	sys.CloseAll(files)
	switch {
	case err == nil:
		return &StartError{Code: reply.Code, Msg: reply.Msg}
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}
