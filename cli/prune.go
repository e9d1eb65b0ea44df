package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/container"
	"tug/engine"
	"tug/image"
)

// pruneOptions are those of all prune commands.
type pruneOptions struct {
	all, force, dryRun, volumes bool
	filter                      filterValue
}

func (o *pruneOptions) flags(fs *pflag.FlagSet) {
	fs.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&o.filter, "filter", `Provide filter values (for example "label=<key>=<value>", "until=24h")`)
	fs.BoolVar(&o.dryRun, "dry-run", false, "Only show what would be removed")
}

// conditions are the filters until, label and label! as one.
type conditions struct {
	until  time.Time
	filter filterValue
}

// conditions parses the filters, of which more are known besides these three.
func (o *pruneOptions) conditions(more ...string) (*conditions, error) {
	f := o.filter
	if err := f.known(append([]string{"label", "label!", "until"}, more...), nil); err != nil {
		return nil, err
	}
	c := &conditions{filter: f}
	if len(f["until"]) > 1 {
		return nil, errors.New("more than one until filter specified")
	}
	for _, s := range f["until"] {
		var err error
		if c.until, err = parseWhen(s, time.Now()); err != nil {
			return nil, fmt.Errorf("invalid filter 'until=%s': %w", s, err)
		}
	}
	return c, nil
}

// any reports whether there is a condition at all.
func (c *conditions) any() bool {
	return !c.until.IsZero() || len(c.filter["label"]) > 0 || len(c.filter["label!"]) > 0
}

// match reports whether an object is as asked for. What says nothing of its
// age (nil) is not older than anything; the year 1, which tools write that make
// the same image from the same source, is older than all, as with Docker.
func (c *conditions) match(created *time.Time, labels map[string]string) bool {
	if !c.until.IsZero() && (created == nil || created.After(c.until)) {
		return false
	}
	for _, l := range c.filter["label!"] {
		if (filterValue{"label": {l}}).labels(labels) {
			return false
		}
	}
	return c.filter.labels(labels)
}

func (c *conditions) images() func(*image.Image) bool {
	if !c.any() {
		return nil
	}
	return func(img *image.Image) bool { return c.match(img.Config.Created, img.Config.Config.Labels) }
}

func (c *conditions) containers() func(*container.Summary) bool {
	if !c.any() {
		return nil
	}
	return func(s *container.Summary) bool { return c.match(&s.Created, s.Config.Labels) }
}

const sure = "Are you sure you want to continue?"

// confirm asks the user, unless -f or --dry-run make it needless.
func (a *app) confirm(o *pruneOptions, warning string) (bool, error) {
	if o.force || o.dryRun {
		return true, nil
	}
	if err := a.printf("%s [y/N] ", warning); err != nil {
		return false, err
	}
	line, err := bufio.NewReader(io.LimitReader(a.In, 1000)).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	if err == io.EOF {
		err = a.printf("\n")
	}
	return false, err
}

func setupContainerPrune(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &pruneOptions{}
	o.flags(fs)
	return func([]string) error {
		c, err := o.conditions()
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		if ok, err := a.confirm(o, "WARNING! This will remove all stopped containers.\n"+sure); !ok {
			return err
		}
		_, space, err := a.pruneContainers(e, o, c)
		return firstError(err, a.reclaimed(o, space))
	}
}

func setupImagePrune(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &pruneOptions{}
	fs.BoolVarP(&o.all, "all", "a", false, "Remove all unused images, not just dangling ones")
	o.flags(fs)
	return func([]string) error {
		c, err := o.conditions("dangling")
		if err != nil {
			return err
		}
		dangling, given, err := o.filter.bool("dangling")
		if err != nil {
			return err
		}
		o.all = o.all || given && !dangling
		e, err := a.engine()
		if err != nil {
			return err
		}
		warning := "WARNING! This will remove all dangling images.\n"
		if o.all {
			warning = "WARNING! This will remove all images without at least one container associated to them.\n"
		}
		if ok, err := a.confirm(o, warning+sure); !ok {
			return err
		}
		space, err := a.pruneImages(e, o, c)
		return firstError(err, a.reclaimed(o, space))
	}
}

func setupSystemPrune(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &pruneOptions{}
	fs.BoolVarP(&o.all, "all", "a", false, "Remove all unused images not just dangling ones")
	fs.BoolVar(&o.volumes, "volumes", false, "Prune anonymous volumes")
	o.flags(fs)
	return func([]string) error {
		c, err := o.conditions()
		if err != nil {
			return err
		}
		if o.volumes && !c.until.IsZero() {
			return errors.New(`ERROR: The "until" filter is not supported with "--volumes"`)
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		if ok, err := a.confirm(o, o.systemWarning()); !ok {
			return err
		}
		// Containers first: the images that only they used go then, too.
		gone, space, err := a.pruneContainers(e, o, c)
		if err == nil && o.volumes {
			var more int64
			more, err = a.pruneVolumes(e, o, false, c, gone...)
			space += more
		}
		if err == nil {
			var more int64
			more, err = a.pruneImages(e, o, c, gone...)
			space += more
		}
		return firstError(err, a.reclaimed(o, space))
	}
}

// systemWarning is Docker's, with what tug has.
func (o *pruneOptions) systemWarning() string {
	images := "all dangling images"
	if o.all {
		images = "all images without at least one container associated to them"
	}
	w := "WARNING! This will remove:\n  - all stopped containers\n"
	if o.volumes {
		w += "  - all anonymous volumes not used by at least one container\n"
	}
	w += "  - " + images + "\n"
	if len(o.filter) > 0 {
		w += "\n  Items to be pruned will be filtered with:\n"
		for _, name := range sortedKeys(o.filter) {
			for _, v := range o.filter[name] {
				w += "  - " + oneLine(name+"="+v) + "\n"
			}
		}
	}
	return w + "\n" + sure
}

func (a *app) pruneContainers(e *engine.Engine, o *pruneOptions, c *conditions) (ids []string, space int64, err error) {
	ids, space, err = e.PruneContainers(a.ctx, c.containers(), o.dryRun)
	if len(ids) > 0 {
		heading := "Deleted Containers:"
		if o.dryRun {
			heading = "Containers that would be deleted:"
		}
		err = firstError(err, a.printf("%s\n%s\n\n", heading, strings.Join(ids, "\n")))
	}
	return ids, space, err
}

func (a *app) pruneImages(e *engine.Engine, o *pruneOptions, c *conditions, gone ...string) (int64, error) {
	done, err := e.Images.Prune(image.PruneOptions{All: o.all, Match: c.images(), DryRun: o.dryRun, Gone: gone})
	if done == nil {
		return 0, err
	}
	if len(done.Removed) > 0 {
		var b strings.Builder
		b.WriteString("Deleted Images:\n")
		if o.dryRun {
			b.Reset()
			b.WriteString("Images that would be deleted:\n")
		}
		for _, r := range done.Removed {
			word, what, _ := strings.Cut(r.String(), ":")
			b.WriteString(strings.ToLower(word) + ":" + what + "\n")
		}
		err = firstError(err, a.printf("%s\n", b.String()))
	}
	return done.Space, err
}

func (a *app) reclaimed(o *pruneOptions, space int64) error {
	text := "Total reclaimed space"
	if o.dryRun {
		text = "Total space that would be reclaimed"
	}
	return a.printf("%s: %s\n", text, units.HumanSize(float64(space)))
}

// untilMatcher is the filter until of lists.
func untilMatcher(f filterValue) (func(*time.Time) bool, error) {
	c, err := (&pruneOptions{filter: filterValue{"until": f["until"]}}).conditions()
	if err != nil {
		return nil, err
	}
	return func(t *time.Time) bool { return c.match(t, nil) }, nil
}
