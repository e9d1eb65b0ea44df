package cli

import (
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/image"
)

type historyOptions struct {
	format                string
	human, noTrunc, quiet bool
}

func setupHistory(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &historyOptions{}
	fs.StringVar(&o.format, "format", "", formatUsage)
	fs.BoolVarP(&o.human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	platform := fs.String("platform", "", `Show history for the given platform, as "os[/arch[/variant]]" (for example "linux/amd64")`)
	return func(args []string) error {
		p, err := parsePlatform(*platform)
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		img, err := e.Images.ResolveFor(args[0], p)
		if err != nil {
			return err
		}
		return o.write(a, e.Images.History(img), time.Now())
	}
}

// historyRow is one line of history.
type historyRow struct {
	image.Step
	o   *historyOptions
	now time.Time
}

func (o *historyOptions) write(a *app, steps []image.Step, now time.Time) error {
	var rows []*historyRow
	for _, s := range steps {
		rows = append(rows, &historyRow{s, o, now})
	}
	format := o.format
	if o.quiet && isDefaultTable(format) {
		format = "{{.ID}}"
	}
	columns, when := historyColumns(), "CreatedSince"
	if !o.human {
		when = "CreatedAt"
	}
	return writeTable(a.Out, format, columns, []string{"ID", when, "CreatedBy", "Size", "Comment"}, rows, nil)
}

func historyColumns() []column[*historyRow] {
	return []column[*historyRow]{
		{"ID", "IMAGE", (*historyRow).id},
		{"CreatedSince", "CREATED", func(r *historyRow) string {
			switch {
			case !r.o.human:
				return r.at()
			case r.Created.IsZero() || r.Created.Unix() == 0:
				return "N/A"
			}
			return ago(r.now, r.Created)
		}},
		{"CreatedAt", "CREATED AT", (*historyRow).at},
		{"CreatedBy", "CREATED BY", (*historyRow).by},
		{"Size", "SIZE", func(r *historyRow) string {
			switch {
			case r.Step.Size < 0:
				return "N/A"
			case !r.o.human:
				return strconv.FormatInt(r.Step.Size, 10)
			}
			return units.HumanSizeWithPrecision(float64(r.Step.Size), 3)
		}},
		{"Comment", "COMMENT", func(r *historyRow) string { return oneLine(r.Comment) }},
	}
}

func (r *historyRow) id() string {
	switch {
	case r.ID == "":
		return "<missing>"
	case r.o.noTrunc:
		return r.ID.String()
	}
	return r.ID.Short()
}

func (r *historyRow) at() string { return r.Created.Local().Format(time.RFC3339) }

// createdByWidth is how much of an instruction shows.
const createdByWidth = 45

func (r *historyRow) by() string {
	by := oneLine(r.CreatedBy)
	if r.o.format != "" && !strings.HasPrefix(r.o.format, "table") {
		// What reads a Dockerfile out of an image needs the lines of an instruction.
		lines := strings.Split(r.CreatedBy, "\n")
		for i := range lines {
			lines[i] = oneLine(lines[i])
		}
		by = strings.Join(lines, "\n")
	}
	if r.o.noTrunc {
		return by
	}
	return ellipsis(by, createdByWidth)
}
