package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/container"
	"tug/engine"
	"tug/image"
	"tug/spec"
)

const formatUsage = "Format output using a custom template:\n" +
	"'table':            Print output in table format with column headers (default)\n" +
	"'table TEMPLATE':   Print output in table format using the given Go template\n" +
	"'json':             Print in JSON format\n" +
	"'TEMPLATE':         Print output using the given Go template"

type psOptions struct {
	all, noTrunc, quiet, latest, size bool
	last                              int
	format                            string
	filter                            filterValue
}

func setupPs(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &psOptions{}
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	o.filter.flag(fs)
	fs.StringVar(&o.format, "format", "", formatUsage)
	fs.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	return func([]string) error {
		if o.format == "" && !o.quiet {
			o.format = a.userConfig().PsFormat
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		return a.ps(e, o)
	}
}

func (a *app) ps(e *engine.Engine, o *psOptions) error {
	if o.latest && o.last <= 0 {
		o.last = 1
	}
	list, err := e.Containers.List()
	if err != nil {
		return err
	}
	names := &imageNames{images: e.Images}
	if list, err = o.choose(list, names); err != nil {
		return err
	}
	rows := make([]*psRow, len(list))
	for i, c := range list {
		rows[i] = &psRow{Summary: c, now: time.Now(), noTrunc: o.noTrunc, image: names.shown(c), size: sizeText(0, 0)}
	}
	// Sizes cost a walk through each writable layer.
	if o.size || strings.Contains(o.format, ".Size") {
		for _, r := range rows {
			rw, rootfs, err := e.Sizes(r.Summary)
			if err != nil {
				return err
			}
			r.size = sizeText(rw, rootfs)
		}
	}
	return o.write(a, rows)
}

func (o *psOptions) write(a *app, rows []*psRow) error {
	if o.quiet && o.format != "" {
		a.warn("Ignoring custom format, because both --format and --quiet are set.")
	}
	format := o.format
	switch {
	case format == "raw":
		format = psRaw(o.quiet, o.size)
	case o.quiet:
		format = "{{.ID}}"
	}
	defaults := []string{"ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"}
	if o.size {
		defaults = append(defaults, "Size")
	}
	return writeTable(a.Out, format, psColumns(), defaults, rows, func(r *psRow) map[string]string { return r.Config.Labels })
}

// psRaw is what Docker calls the raw format: a line per column.
func psRaw(quiet, size bool) string {
	if quiet {
		return "container_id: {{.ID}}"
	}
	text := "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n" +
		"state: {{.State}}\nstatus: {{.Status}}\nnames: {{.Names}}\nlabels:{{pad .Labels 1 0}}\nports:{{pad .Ports 1 0}}\n"
	if size {
		text += "size: {{.Size}}\n"
	}
	return text
}

// psFilters are the filters that there are, and Docker's others.
func psFilters() (names, later []string) {
	return strings.Fields("id name label status exited health ancestor before since network is-task volume"),
		strings.Fields("annotation expose isolation publish")
}

// choose applies -a, -n and the filters. Docker's -n counts what the filters
// leave; a filter by status looks at all containers.
func (o *psOptions) choose(list []*container.Summary, names *imageNames) ([]*container.Summary, error) {
	match, err := o.matcher(list, names)
	if err != nil {
		return nil, err
	}
	all := o.all || o.last > 0 || len(o.filter["status"]) > 0
	var out []*container.Summary
	for _, c := range list {
		if (all || isRunning(c) || isRestarting(c)) && match(c) {
			out = append(out, c)
		}
		if o.last > 0 && len(out) == o.last {
			break
		}
	}
	return out, nil
}

func (o *psOptions) matcher(list []*container.Summary, names *imageNames) (func(*container.Summary) bool, error) {
	f := o.filter
	if err := f.known(psFilters()); err != nil {
		return nil, err
	}
	tasks, isTask, err := f.bool("is-task")
	if err != nil {
		return nil, err
	}
	if err := checkStatuses(f["status"], f["exited"]); err != nil {
		return nil, err
	}
	if err := checkHealths(f["health"]); err != nil {
		return nil, err
	}
	name, err := regexps(f["name"])
	if err != nil {
		return nil, err
	}
	before, since, err := createdBetween(f, list)
	if err != nil {
		return nil, err
	}
	ancestors := map[spec.Digest]bool{}
	for _, a := range f["ancestor"] {
		if img, err := names.images.Resolve(a); err == nil {
			ancestors[img.ID] = true
		}
	}
	return func(c *container.Summary) bool {
		return f.any("id", func(v string) bool { return strings.HasPrefix(c.ID, v) }) &&
			name(c.Name) && f.labels(c.Config.Labels) &&
			f.any("status", func(v string) bool { return strings.EqualFold(v, c.State.Word()) }) &&
			f.any("exited", func(v string) bool {
				return v == strconv.Itoa(c.State.ExitCode) && c.State.Status == spec.StatusExited
			}) &&
			f.any("health", func(v string) bool { return v == c.State.HealthWord() }) &&
			(len(f["ancestor"]) == 0 || ancestors[c.ImageID]) &&
			f.any("volume", func(v string) bool { return hasVolume(&c.Container, v) }) &&
			f.any("network", func(v string) bool { return v == c.Host.NetworkMode }) &&
			(!isTask || !tasks) && // no container is one of a swarm
			(before.IsZero() || c.Created.Before(before)) && (since.IsZero() || c.Created.After(since))
	}, nil
}

func checkStatuses(statuses, codes []string) error {
	for _, s := range statuses {
		switch strings.ToLower(s) {
		case spec.StatusCreated, spec.StatusRunning, spec.StatusExited, spec.StatusDead, spec.StatusPaused, spec.StatusRestarting, "removing":
		default:
			return fmt.Errorf("invalid filter 'status=%s'", s)
		}
	}
	for _, c := range codes {
		if _, err := strconv.Atoi(c); err != nil {
			return fmt.Errorf("invalid filter 'exited=%s': want an exit code", c)
		}
	}
	return nil
}

func checkHealths(words []string) error {
	for _, w := range words {
		switch w {
		case spec.HealthNone, spec.HealthStarting, spec.HealthHealthy, spec.HealthFailing:
		default:
			return fmt.Errorf("invalid filter 'health=%s': want %s, %s, %s or %s", oneLine(w), spec.HealthStarting, spec.HealthHealthy, spec.HealthFailing, spec.HealthNone)
		}
	}
	return nil
}

// regexps returns a match for any of the patterns, as Docker's name filter:
// parts of names, with an optional leading slash.
func regexps(patterns []string) (func(string) bool, error) {
	var all []*regexp.Regexp
	for _, p := range patterns {
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, fmt.Errorf("invalid filter 'name=%s': %w", p, err)
		}
		all = append(all, re)
	}
	return func(s string) bool {
		for _, re := range all {
			if re.MatchString(s) || re.MatchString("/"+s) {
				return true
			}
		}
		return len(all) == 0
	}, nil
}

// createdBetween are the creation times of the containers that the filters
// before and since name.
func createdBetween(f filterValue, list []*container.Summary) (before, since time.Time, err error) {
	find := func(filter string) (t time.Time, err error) {
		for _, name := range f[filter] {
			found := false
			for _, c := range list {
				if c.Name == strings.TrimPrefix(name, "/") || len(name) > 0 && strings.HasPrefix(c.ID, name) {
					t, found = c.Created, true
					break
				}
			}
			if !found {
				return t, fmt.Errorf("No such container: %s", name)
			}
		}
		return t, nil
	}
	if before, err = find("before"); err == nil {
		since, err = find("since")
	}
	return before, since, err
}

// imageNames finds out what containers' images are called now. It asks once
// per name.
type imageNames struct {
	images *image.Images
	known  map[string]spec.Digest
}

// shown is the image a container was made from: the name that the user wrote,
// or the id when that name now stands for something else.
func (n *imageNames) shown(c *container.Summary) string {
	if n.known == nil {
		n.known = map[string]spec.Digest{}
	}
	id, ok := n.known[c.Image]
	if !ok {
		if img, err := n.images.Resolve(c.Image); err == nil {
			id = img.ID
		}
		n.known[c.Image] = id
	}
	if id == c.ImageID {
		return c.Image
	}
	return c.ImageID.String()
}

// psRow is one line of ps.
type psRow struct {
	*container.Summary
	now     time.Time
	noTrunc bool
	image   string
	size    string
}

func psColumns() []column[*psRow] {
	none := func(*psRow) string { return "" }
	return []column[*psRow]{
		{"ID", "CONTAINER ID", (*psRow).id},
		{"Image", "IMAGE", (*psRow).imageText},
		{"Command", "COMMAND", (*psRow).command},
		{"CreatedAt", "CREATED AT", func(r *psRow) string { return r.Created.Local().Format(createdLayout) }},
		{"RunningFor", "CREATED", func(r *psRow) string { return ago(r.now, r.Created) }},
		{"State", "STATE", func(r *psRow) string { return r.Summary.State.Word() }},
		{"Status", "STATUS", func(r *psRow) string { return statusText(&r.Summary.State, r.now) }},
		{"Ports", "PORTS", none},
		{"Names", "NAMES", func(r *psRow) string { return r.Name }},
		{"Size", "SIZE", func(r *psRow) string { return r.size }},
		{"Labels", "LABELS", func(r *psRow) string { return labelText(r.Config.Labels) }},
		{"Mounts", "MOUNTS", (*psRow).mounts},
		{"LocalVolumes", "LOCAL VOLUMES", func(r *psRow) string { return strconv.Itoa(localVolumes(&r.Container)) }},
		{"Networks", "NETWORKS", func(r *psRow) string { return r.Host.NetworkMode }},
		{"Platform", "PLATFORM", func(r *psRow) string { return r.Summary.Platform.String() }},
	}
}

// createdLayout is Docker's for the creation time, time.Time's String.
const createdLayout = "2006-01-02 15:04:05 -0700 MST"

func (r *psRow) id() string {
	if r.noTrunc {
		return r.ID
	}
	return r.ID[:min(12, len(r.ID))]
}

// mounts cuts each name to 15 characters, as Docker does.
func (r *psRow) mounts() string {
	names := mountNames(&r.Container)
	for i, n := range names {
		if names[i] = oneLine(n); !r.noTrunc {
			names[i] = ellipsis(names[i], 15)
		}
	}
	return strings.Join(names, ",")
}

func (r *psRow) imageText() string {
	if r.noTrunc || spec.Digest(r.image) != r.ImageID && r.image != r.ImageID.Hex() {
		return oneLine(r.image)
	}
	return r.ImageID.Short()
}

// command is the program with its arguments, in quotes; arguments with blanks
// are in single ones.
func (r *psRow) command() string {
	words := []string{r.Path}
	for _, a := range r.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	s := strings.Join(words, " ")
	if !r.noTrunc {
		s = ellipsis(s, 20)
	}
	return strconv.Quote(s)
}

// ago is how long ago t was, in words.
func ago(now, t time.Time) string { return units.HumanDuration(max(0, now.Sub(t))) + " ago" }

// statusText is Docker's STATUS column.
func statusText(s *spec.State, now time.Time) string {
	switch s.Status {
	case spec.StatusRunning:
		text := "Up " + units.HumanDuration(max(0, now.Sub(s.StartedAt)))
		switch {
		case s.Paused:
			text += " (Paused)"
		case s.HealthWord() == spec.HealthStarting:
			text += " (health: starting)"
		case s.Health != nil:
			text += " (" + s.Health.Status + ")"
		}
		return text
	case spec.StatusRestarting:
		return fmt.Sprintf("Restarting (%d) %s", s.ExitCode, ago(now, s.FinishedAt))
	case spec.StatusCreated:
		return "Created"
	case spec.StatusDead:
		return "Dead"
	}
	if s.FinishedAt.IsZero() {
		return fmt.Sprintf("Exited (%d)", s.ExitCode)
	}
	return fmt.Sprintf("Exited (%d) %s", s.ExitCode, ago(now, s.FinishedAt))
}

func sizeText(rw, rootfs int64) string {
	s := units.HumanSizeWithPrecision(float64(rw), 3)
	if rootfs > 0 {
		s += " (virtual " + units.HumanSizeWithPrecision(float64(rootfs), 3) + ")"
	}
	return s
}
