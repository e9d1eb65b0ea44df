package plan

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"
)

// Run runs the hook in the namespaces of the caller, with the container's state
// on its standard input. It has the environment that it is given and no other.
func (h *Hook) Run(state []byte) error {
	ctx, cancel := context.WithCancel(context.Background())
	if h.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(h.Timeout)*time.Second)
	}
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append(make([]string, 0, len(h.Env)), h.Env...)
	cmd.Stdin = bytes.NewReader(state)
	out := &head{}
	cmd.Stdout, cmd.Stderr = out, out
	// What it leaves behind may keep the pipes open.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // that it ended well is all that counts
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errors.New("it did not end in time")
	case len(out.b) > 0:
		return errors.New(err.Error() + ": " + strings.Join(strings.Fields(string(out.b)), " "))
	}
	return err
}

// head keeps the first bytes of an output.
type head struct{ b []byte }

func (h *head) Write(b []byte) (int, error) {
	h.b = append(h.b, b[:min(len(b), 500-len(h.b))]...)
	return len(b), nil
}
