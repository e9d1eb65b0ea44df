package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// tidyUp is how long an interrupted command may take to clear up.
const tidyUp = 3 * time.Second

// interruptible does f, whose context SIGINT and SIGTERM end. The command ends
// then as Docker's do: without a word, with 128 + the signal's number. A second
// signal kills it. Signals that are ignored, as by nohup, stay ignored.
func (a *app) interruptible(f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case sig := <-signals:
		signal.Stop(signals)
		cancel()
		select {
		case <-done:
		case <-time.After(tidyUp): // what it leaves, a sweep finds
		}
		return &exitError{code: 128 + int(sig.(syscall.Signal))}
	}
}
