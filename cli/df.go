package cli

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/container"
	"tug/engine"
	"tug/spec"
)

func setupSystemDf(a *app, fs *pflag.FlagSet) func([]string) error {
	format := fs.String("format", "", formatUsage)
	verbose := fs.BoolP("verbose", "v", false, "Show detailed information on space usage")
	return func([]string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		u, err := e.Usage()
		if err != nil {
			return err
		}
		if *verbose {
			return a.verboseDf(e, u, *format, time.Now())
		}
		if *format == "raw" {
			*format = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n"
		}
		return writeTable(a.Out, *format, dfColumns(), []string{"Type", "TotalCount", "Active", "Size", "Reclaimable"}, dfRows(u), nil)
	}
}

// dfRow is one kind of object.
type dfRow struct {
	kind              string
	total, active     int
	size, reclaimable int64
	percent           bool
}

func dfRows(u *engine.Usage) []*dfRow {
	c := &dfRow{kind: "Containers", total: len(u.Containers), percent: true}
	for _, s := range u.Containers {
		c.size += s.SizeRw
		if s.State.Status == spec.StatusRunning {
			c.active++
		} else {
			c.reclaimable += s.SizeRw
		}
	}
	v := &dfRow{kind: "Local Volumes", total: len(u.Volumes), percent: true}
	for _, vol := range u.Volumes {
		v.size += vol.Size
		if vol.Links > 0 {
			v.active++
		} else if !vol.Kept {
			v.reclaimable += vol.Size
		}
	}
	i := u.Images
	return []*dfRow{
		{"Images", i.Images, i.Active, i.Size, i.Reclaimable, true},
		c,
		v,
		// There are no builds yet.
		{kind: "Build Cache"},
	}
}

func dfColumns() []column[*dfRow] {
	return []column[*dfRow]{
		{"Type", "TYPE", func(r *dfRow) string { return r.kind }},
		{"TotalCount", "TOTAL", func(r *dfRow) string { return strconv.Itoa(r.total) }},
		{"Active", "ACTIVE", func(r *dfRow) string { return strconv.Itoa(r.active) }},
		{"Size", "SIZE", func(r *dfRow) string { return units.HumanSize(float64(r.size)) }},
		{"Reclaimable", "RECLAIMABLE", (*dfRow).reclaimableText},
	}
}

func (r *dfRow) reclaimableText() string {
	s := units.HumanSize(float64(r.reclaimable))
	if r.percent && r.size > 0 {
		s += fmt.Sprintf(" (%d%%)", r.reclaimable*100/r.size)
	}
	return s
}

// verboseDf lists every object with its size. A template gets all lists at
// once, with whole IDs: {{.Images}}, {{.Containers}}, {{.Volumes}} and
// {{.BuildCache}}.
func (a *app) verboseDf(e *engine.Engine, u *engine.Usage, format string, now time.Time) error {
	list, err := e.Images.List()
	if err != nil {
		return err
	}
	template := !isDefaultTable(format)
	images := &imagesOptions{usageWanted: true, noTrunc: !strings.HasPrefix(format, "table") && format != ""}
	if err := images.usages(e, list); err != nil {
		return err
	}
	var imageRows []*imageRow
	for _, img := range list {
		// One row each: more would count an image's size once per name.
		imageRows = append(imageRows, images.rows(img, now)[0])
	}
	containerRows := dfContainers(e, u.Containers, now)
	for _, r := range containerRows {
		r.noTrunc = images.noTrunc
	}
	volumeRows := dfVolumes(e, u.Volumes)
	if template {
		return a.templateDf(format, imageRows, containerRows, volumeRows)
	}
	var b bytes.Buffer
	fmt.Fprint(&b, "Images space usage:\n\n")
	err = writeColumns(&b, imageColumns(), []string{"Repository", "Tag", "ID", "Since", "Size", "SharedSize", "UniqueSize", "Containers"}, imageRows)
	fmt.Fprint(&b, "\nContainers space usage:\n\n")
	if err == nil {
		err = writeColumns(&b, psColumns(), []string{"ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"}, containerRows)
	}
	fmt.Fprint(&b, "\nLocal Volumes space usage:\n\n")
	if err == nil {
		err = writeColumns(&b, volumeColumns(), []string{"Name", "Links", "Size"}, volumeRows)
	}
	fmt.Fprint(&b, "\nBuild cache usage: 0B\n\nCACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n")
	if err == nil {
		_, err = a.Out.Write(b.Bytes())
	}
	return err
}

func dfContainers(e *engine.Engine, list []*container.Summary, now time.Time) []*psRow {
	names := &imageNames{images: e.Images}
	var rows []*psRow
	for _, s := range list {
		rows = append(rows, &psRow{Summary: s, now: now, image: names.shown(s), size: units.HumanSizeWithPrecision(float64(s.SizeRw), 3)})
	}
	return rows
}

func dfVolumes(e *engine.Engine, list []engine.VolumeUsage) []*volumeRow {
	var rows []*volumeRow
	for _, u := range list {
		rows = append(rows, &volumeRow{u.Volume, e.Volumes.Data(u.Name), strconv.Itoa(u.Links), units.HumanSize(float64(u.Size))})
	}
	return rows
}

// dfLists is what a template sees, in Docker's order.
type dfLists struct {
	Images, Containers, Volumes, BuildCache []fields
}

func (a *app) templateDf(format string, images []*imageRow, containers []*psRow, volumes []*volumeRow) error {
	switch format {
	case "json":
		format = "{{json .}}"
	case "raw":
		format = "{{range .Images}}type: Image\n" + imagesRaw(false, true) +
			"\n{{end -}}{{range .Containers}}type: Container\n" + psRaw(false, true) + "\n{{end -}}" +
			"{{range .Volumes}}type: Volume\nname: {{.Name}}\ndriver: {{.Driver}}\nsize: {{.Size}}\nlinks: {{.Links}}\n\n{{end -}}"
	}
	format = strings.Trim(strings.TrimPrefix(format, "table"), " ")
	tmpl, err := parseTemplate(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	err = tmpl.Execute(&b, dfLists{
		Images:     rowFields(imageColumns()[1:], images, nil),
		Containers: rowFields(psColumns(), containers, func(r *psRow) map[string]string { return r.Config.Labels }),
		Volumes:    rowFields(volumeColumns(), volumes, func(r *volumeRow) map[string]string { return r.Labels }),
		BuildCache: []fields{},
	})
	if err != nil {
		return templateError(err)
	}
	b.WriteByte('\n')
	_, err = a.Out.Write(b.Bytes())
	return err
}

// rowFields are rows as templates see them.
func rowFields[T any](columns []column[T], rows []T, labels func(T) map[string]string) []fields {
	out := []fields{}
	for _, r := range rows {
		f := fields{}
		if labels != nil {
			f[labelsKey] = labels(r)
		}
		for _, c := range columns {
			f[c.name] = c.get(r)
		}
		out = append(out, f)
	}
	return out
}
