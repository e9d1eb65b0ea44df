package cli

import (
	"github.com/spf13/pflag"

	"tug/engine"
)

func setupPause(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		return a.together(args, "", nil, func(e *engine.Engine, id string) error {
			return e.Containers.Pause(a.ctx, id)
		})
	}
}

func setupUnpause(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		return a.together(args, "", nil, func(e *engine.Engine, id string) error {
			return e.Containers.Unpause(id)
		})
	}
}
