package cli

import (
	"bytes"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"tug/container"
)

func setupTop(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		p, err := e.Containers.Top(a.ctx, args[0], args[1:])
		if err != nil {
			return err
		}
		return a.writeProcesses(p)
	}
}

// writeProcesses prints Docker's table. Command lines are the container's: they
// must not do anything to the terminal.
func (a *app) writeProcesses(p *container.Processes) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 20, 1, 3, ' ', 0)
	w.Write([]byte(strings.Join(p.Titles, "\t") + "\n"))
	for _, row := range p.Rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = printable(c)
		}
		w.Write([]byte(strings.Join(cells, "\t") + "\n"))
	}
	w.Flush()
	_, err := a.Out.Write(b.Bytes())
	return err
}
