package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"tug/errs"
)

// setupPort shows which of a container's ports are published. None is yet, so
// a list is empty, and a port that is asked for has no answer.
func setupPort(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		_, err = e.Containers.Find(args[0])
		if err != nil || len(args) == 1 {
			return err
		}
		port, err := parsePort(args[1])
		if err != nil {
			return err
		}
		return errs.New(errs.NotFound, "no public port '%s' published for %s", port, args[0])
	}
}

// parsePort parses PORT[/PROTOCOL].
func parsePort(s string) (string, error) {
	number, proto, given := strings.Cut(s, "/")
	if !given {
		proto = "tcp"
	}
	if n, err := strconv.ParseUint(number, 10, 16); err != nil {
		return "", fmt.Errorf("invalid port '%s': want a number up to 65535", number)
	} else if number = strconv.FormatUint(n, 10); given && proto == "" {
		proto = "tcp"
	}
	switch proto = strings.ToLower(proto); proto {
	case "tcp", "udp", "sctp":
		return number + "/" + proto, nil
	}
	return "", fmt.Errorf("invalid port '%s': want tcp, udp or sctp after the slash", s)
}
