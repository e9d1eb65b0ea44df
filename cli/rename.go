package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

func setupRename(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		name, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
		if name == "" || to == "" {
			return errors.New("Error: Neither old nor new names may be empty")
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		if err := e.Containers.Rename(name, to); err != nil {
			return fmt.Errorf("failed to rename container named %s: %w", name, err)
		}
		return nil
	}
}
