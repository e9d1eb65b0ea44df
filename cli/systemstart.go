package cli

import (
	"github.com/spf13/pflag"

	"tug/engine"
)

// setupSystemStart starts what was running when the machine went down, as far
// as the restart policies say so, and prints it. What runs is left alone.
func setupSystemStart(a *app, _ *pflag.FlagSet) func([]string) error {
	return func([]string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		list, err := e.Containers.Absent(a.ctx)
		if err != nil {
			return err
		}
		names := make([]string, len(list))
		for i, c := range list {
			names[i] = c.Name
		}
		return a.together(names, "start", nil, func(e *engine.Engine, id string) error {
			_, err := e.Containers.Start(a.ctx, id)
			return err
		})
	}
}
