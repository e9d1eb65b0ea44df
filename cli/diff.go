package cli

import (
	"bytes"

	"github.com/spf13/pflag"
)

func setupDiff(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		ctx, stop := a.untilSignal()
		defer stop()
		changes, err := e.Containers.Diff(ctx, args[0])
		if err != nil {
			return a.signalled(ctx, err)
		}
		var b bytes.Buffer
		for _, c := range changes {
			b.WriteString(c.Kind.String() + " " + printable(c.Path) + "\n")
		}
		_, err = a.Out.Write(b.Bytes())
		return err
	}
}
