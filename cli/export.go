package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"tug/state"
)

func setupExport(a *app, fs *pflag.FlagSet) func([]string) error {
	output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
	return func(args []string) error {
		if *output == "" && isTerminal(a.Out) {
			return errors.New("cowardly refusing to export to a terminal. Use the -o flag or redirect")
		}
		return a.export(args[0], *output)
	}
}

func (a *app) export(name, output string) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	ctx, stop := a.untilSignal()
	defer stop()
	if output == "" || output == "-" {
		return a.signalled(ctx, e.Containers.Export(ctx, name, a.Out))
	}
	if _, err := e.Containers.Find(name); err != nil {
		return err
	}
	out, err := state.CreateOutput(output)
	if err != nil {
		return fmt.Errorf("failed to export container: %w", err)
	}
	if err := e.Containers.Export(ctx, name, out.File); err != nil {
		out.Discard()
		return a.signalled(ctx, err)
	}
	return out.Commit()
}
