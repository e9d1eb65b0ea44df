package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"tug/engine"
	"tug/errs"
	"tug/volume"
)

// optValue is -o of volumes, repeated or not: NAME=VALUE.
type optValue map[string]string

func (v *optValue) String() string { return fmt.Sprint(map[string]string(*v)) }
func (v *optValue) Type() string   { return "map" }

func (v *optValue) Set(s string) error {
	if *v == nil {
		*v = optValue{}
	}
	name, value, _ := strings.Cut(s, "=")
	(*v)[name] = value
	return nil
}

func setupVolumeCreate(a *app, fs *pflag.FlagSet) func([]string) error {
	driver := fs.StringP("driver", "d", volume.Local, "Specify volume driver name")
	name := fs.String("name", "", "Specify volume name")
	hide(fs, "name")
	labels := &list{check: checkLabel}
	fs.Var(labels, "label", "Set metadata for a volume")
	options := &optValue{}
	fs.VarP(options, "opt", "o", "Set driver specific options")
	// Those of clusters, which tug is no part of.
	absentFlags(fs, "availability:string:active", "group:string:-", "limit-bytes:bytes:0", "required-bytes:bytes:0", "scope:string:single",
		"secret:map", "sharing:string:none", "topology-preferred:list", "topology-required:list", "type:string:block")
	return func(args []string) error {
		if len(args) > 0 && *name != "" {
			return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
		}
		if len(args) > 0 {
			*name = args[0]
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		vol, _, err := e.Volumes.Ensure(*name, volume.Options{Driver: *driver, Labels: pairs(labels.values), Options: *options})
		if err != nil {
			return err
		}
		return a.printf("%s\n", vol.Name)
	}
}

// pairs makes a map of NAME=VALUE words; of a name that is given twice the last
// value counts.
func pairs(words []string) map[string]string {
	var m map[string]string
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		if m == nil {
			m = map[string]string{}
		}
		m[name] = value
	}
	return m
}

// volumeJSON is a volume as inspect shows it, Docker's.
type volumeJSON struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

func toVolumeJSON(e *engine.Engine, vol *volume.Volume) *volumeJSON {
	return &volumeJSON{
		CreatedAt: vol.Created.Local().Format(time.RFC3339), Driver: vol.Driver, Labels: vol.Labels,
		Mountpoint: e.Volumes.Data(vol.Name), Name: vol.Name, Options: vol.Options, Scope: "local",
	}
}

func setupVolumeInspect(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &inspectOptions{typ: "volume"}
	fs.StringVarP(&o.format, "format", "f", "", inspectFormatUsage)
	return func(args []string) error { return a.inspect(o, args) }
}

func (o *inspectOptions) findVolume(a *app, e *engine.Engine, name string) (any, error) {
	vol, err := e.Volumes.Get(name)
	if err != nil {
		return nil, err
	}
	if o.size {
		a.warn("--size ignored for volumes")
	}
	return toVolumeJSON(e, vol), nil
}

func setupVolumeRm(a *app, fs *pflag.FlagSet) func([]string) error {
	force := fs.BoolP("force", "f", false, "Force the removal of one or more volumes")
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			err := e.Volumes.Remove(name, *force)
			if err != nil && !(*force && errs.Is(err, errs.NotFound)) {
				return err
			}
			return a.printf("%s\n", oneLine(name))
		})
	}
}

// volumeRow is a volume in a list.
type volumeRow struct {
	*volume.Volume
	mountpoint  string
	links, size string
}

const notKnown = "N/A"

func volumeColumns() []column[*volumeRow] {
	none := func(*volumeRow) string { return notKnown }
	return []column[*volumeRow]{
		{"Availability", "AVAILABILITY", none},
		{"Driver", "DRIVER", func(r *volumeRow) string { return r.Driver }},
		{"Group", "GROUP", none},
		{"Labels", "LABELS", func(r *volumeRow) string { return labelText(r.Labels) }},
		{"Links", "LINKS", func(r *volumeRow) string { return r.links }},
		{"Mountpoint", "MOUNTPOINT", func(r *volumeRow) string { return r.mountpoint }},
		{"Name", "VOLUME NAME", func(r *volumeRow) string { return r.Name }},
		{"Scope", "SCOPE", func(*volumeRow) string { return "local" }},
		{"Size", "SIZE", func(r *volumeRow) string { return r.size }},
		{"Status", "STATUS", none},
	}
}

type volumeLsOptions struct {
	format string
	quiet  bool
	filter filterValue
}

func setupVolumeLs(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &volumeLsOptions{}
	o.filter.flag(fs)
	fs.Lookup("filter").Usage = `Provide filter values (e.g. "dangling=true")`
	fs.StringVar(&o.format, "format", "", formatUsage)
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display volume names")
	absentFlags(fs, "cluster:bool")
	return func([]string) error {
		if err := o.filter.known([]string{"dangling", "driver", "label", "name"}, nil); err != nil {
			return err
		}
		if o.format == "" && !o.quiet {
			o.format = a.userConfig().VolumesFormat
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		all, broken, err := e.Volumes.List()
		if err != nil {
			return err
		}
		for _, err := range broken {
			a.warn(err.Error())
		}
		if all, err = o.choose(e, all); err != nil {
			return err
		}
		rows := make([]*volumeRow, len(all))
		for i, vol := range all {
			rows[i] = &volumeRow{vol, e.Volumes.Data(vol.Name), notKnown, notKnown}
		}
		return o.write(a, rows)
	}
}

// choose applies the filters.
func (o *volumeLsOptions) choose(e *engine.Engine, all []*volume.Volume) ([]*volume.Volume, error) {
	dangling, given, err := o.filter.bool("dangling")
	if err != nil {
		return nil, err
	}
	var uses map[string][]volume.Use
	if given {
		if uses, err = e.Containers.VolumeUses(); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(all, func(vol *volume.Volume) bool {
		return given && dangling != (len(uses[vol.Name]) == 0) ||
			!o.filter.any("driver", func(v string) bool { return v == vol.Driver }) ||
			!o.filter.any("name", func(v string) bool { return strings.Contains(vol.Name, v) }) ||
			!o.filter.labels(vol.Labels)
	}), nil
}

func (o *volumeLsOptions) write(a *app, rows []*volumeRow) error {
	format := o.format
	switch {
	case format == "raw" && o.quiet:
		format = "name: {{.Name}}"
	case format == "raw":
		format = "name: {{.Name}}\ndriver: {{.Driver}}\n"
	case o.quiet:
		format = "{{.Name}}"
	}
	return writeTable(a.Out, format, volumeColumns(), []string{"Driver", "Name"}, rows, func(r *volumeRow) map[string]string { return r.Labels })
}

func setupVolumePrune(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &pruneOptions{}
	fs.BoolVarP(&o.all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	o.flags(fs)
	fs.Lookup("filter").Usage = `Provide filter values (e.g. "label=<label>")`
	return func([]string) error {
		c, err := o.conditions("all")
		if err != nil {
			return err
		}
		if len(o.filter["until"]) > 0 {
			return errors.New("invalid filter 'until'; there are all, label, label!")
		}
		all, given, err := o.filter.bool("all")
		if err != nil {
			return err
		}
		if o.all && given {
			return errors.New("conflicting options: cannot specify both --all and --filter all=1")
		}
		o.all = o.all || all
		e, err := a.engine()
		if err != nil {
			return err
		}
		warning := "WARNING! This will remove anonymous local volumes not used by at least one container.\n"
		if o.all {
			warning = "WARNING! This will remove all local volumes not used by at least one container.\n"
		}
		if ok, err := a.confirm(o, warning+sure); !ok {
			return err
		}
		space, err := a.pruneVolumes(e, o, o.all, c)
		return firstError(err, a.reclaimed(o, space))
	}
}

func (a *app) pruneVolumes(e *engine.Engine, o *pruneOptions, all bool, c *conditions, gone ...string) (int64, error) {
	names, space, err := e.Volumes.Prune(volume.PruneOptions{
		All: all, DryRun: o.dryRun, Gone: gone,
		Match: func(vol *volume.Volume) bool { return c.match(&vol.Created, vol.Labels) },
	})
	if len(names) > 0 {
		heading := "Deleted Volumes:"
		if o.dryRun {
			heading = "Volumes that would be deleted:"
		}
		err = firstError(err, a.printf("%s\n%s\n\n", heading, strings.Join(names, "\n")))
	}
	return space, err
}
