package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"tug/image"
	"tug/spec"
	"tug/state"
)

func setupSave(a *app, fs *pflag.FlagSet) func([]string) error {
	output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
	var o image.SaveOptions
	fs.Var((*platformsValue)(&o.Platforms), "platform", `Save only the given platform variants, as "os[/arch[/variant]]" (for example "linux/amd64")`)
	format := fs.String("format", "docker", `Form of the archive: "docker" (docker load, podman and skopeo read it; an OCI layout as well) or "oci" (an OCI layout alone)`)
	return func(args []string) error {
		switch *format {
		case "docker", "docker-archive":
		case "oci", "oci-archive":
			o.OCI = true
		default:
			return fmt.Errorf("invalid --format %q: want docker or oci", *format)
		}
		if *output == "" && isTerminal(a.Out) {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return a.save(args, *output, o)
	}
}

func (a *app) save(names []string, output string, o image.SaveOptions) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	ctx, stop := a.untilSignal()
	defer stop()
	if output == "" || output == "-" {
		return a.signalled(ctx, e.Images.Save(ctx, a.Out, names, o))
	}
	out, err := state.CreateOutput(output)
	if err != nil {
		return fmt.Errorf("failed to save image: %w", err)
	}
	if err := e.Images.Save(ctx, out.File, names, o); err != nil {
		out.Discard()
		return a.signalled(ctx, err)
	}
	return out.Commit()
}

// signalError ends a context: the user asked to stop.
type signalError struct{ sig os.Signal }

func (e signalError) Error() string { return e.sig.String() }

// untilSignal returns a context that a signal to end ends, so that what was
// begun is cleaned up. A second signal kills.
func (a *app) untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(a.ctx)
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		select {
		case sig := <-c:
			signal.Stop(c)
			cancel(signalError{sig})
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(c); close(done); cancel(nil) }
}

// signalled turns the error of a command that a signal ended into the exit code
// that the signal stands for.
func (a *app) signalled(ctx context.Context, err error) error {
	var s signalError
	if err == nil || !errors.As(context.Cause(ctx), &s) {
		return err
	}
	if n, ok := s.sig.(syscall.Signal); ok {
		return &exitError{code: 128 + int(n)}
	}
	return err
}

// platformsValue is --platform of commands that take several, also separated
// by commas.
type platformsValue []spec.Platform

func (v *platformsValue) String() string { return "" }
func (v *platformsValue) Type() string   { return "stringSlice" }

func (v *platformsValue) Set(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		p, err := spec.ParsePlatform(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		*v = append(*v, p)
	}
	return nil
}
