package cli

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/engine"
	"tug/image"
	"tug/spec"
)

type imagesOptions struct {
	all, digests, noTrunc, quiet, tree bool
	format                             string
	filter                             filterValue

	usageWanted bool // SharedSize, UniqueSize and Containers are asked for
	usage       map[spec.Digest]image.Usage
}

func setupImages(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &imagesOptions{}
	fs.BoolVarP(&o.all, "all", "a", false, "Show all images (there are no intermediate images to hide)")
	fs.BoolVar(&o.digests, "digests", false, "Show digests")
	o.filter.flag(fs)
	fs.StringVar(&o.format, "format", "", formatUsage)
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&o.tree, "tree", false, "List multi-platform images as a tree")
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			o.filter.Set("reference=" + args[0])
		}
		if err := o.checkTree(); err != nil {
			return err
		}
		if o.format == "" && !o.quiet && !o.tree {
			o.format = a.userConfig().ImagesFormat
		}
		return a.images(e, o)
	}
}

func (a *app) images(e *engine.Engine, o *imagesOptions) error {
	lists := e.Images.List
	if isDefaultTable(o.format) && !o.tree && len(o.filter["label"]) == 0 {
		lists = e.Images.ListBrief // labels are all that a line needs of the config
	}
	list, err := lists()
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(a, b *image.Image) int { return createdOf(b).Compare(createdOf(a)) })
	match, err := o.matcher(e.Images)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(img *image.Image) bool { return !match(img) })
	if o.tree {
		return a.platformTree(e, o, list)
	}
	for _, f := range []string{"SharedSize", "UniqueSize", "Containers"} {
		o.usageWanted = o.usageWanted || strings.Contains(o.format, "."+f)
	}
	if err := o.usages(e, list); err != nil {
		return err
	}
	return o.write(a, list, time.Now())
}

// checkTree refuses what --tree cannot show, in Docker's words.
func (o *imagesOptions) checkTree() error {
	if !o.tree {
		return nil
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"--quiet", o.quiet}, {"--no-trunc", o.noTrunc}, {"--digest", o.digests}, {"--format", o.format != ""}} {
		if f.set {
			return fmt.Errorf("%s is not yet supported with --tree", f.name)
		}
	}
	return nil
}

// usages finds out what the images share, where that is wanted.
func (o *imagesOptions) usages(e *engine.Engine, list []*image.Image) (err error) {
	if o.usageWanted {
		o.usage, err = e.Images.Usages(list)
	}
	return err
}

func (o *imagesOptions) write(a *app, list []*image.Image, now time.Time) error {
	var rows []*imageRow
	for _, img := range list {
		rows = append(rows, o.rows(img, now)...)
	}
	format := o.format
	switch {
	case format == "raw":
		format = imagesRaw(o.quiet, o.digests)
	case o.quiet && isDefaultTable(format):
		format = "{{.ID}}"
	case !isDefaultTable(format) && strings.HasPrefix(format, "table") && o.digests && !strings.Contains(format, "{{.Digest}}"):
		format += "\t{{.Digest}}"
	}
	defaults := []string{"Repository", "Tag", "ID", "Since", "Size"}
	if o.digests {
		defaults = []string{"Repository", "Tag", "Digest", "ID", "Since", "Size"}
	}
	columns := imageColumns()
	if !isDefaultTable(format) {
		columns = columns[1:] // Since is for the default table only
	}
	return writeTable(a.Out, format, columns, defaults, rows, func(r *imageRow) map[string]string { return r.img.Config.Config.Labels })
}

// imagesRaw is Docker's raw format: a line per column.
func imagesRaw(quiet, digests bool) string {
	if quiet {
		return "image_id: {{.ID}}"
	}
	digest := ""
	if digests {
		digest = "digest: {{.Digest}}\n"
	}
	return "repository: {{.Repository}}\ntag: {{.Tag}}\n" + digest + "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
}

func createdOf(img *image.Image) time.Time {
	if img.Config.Created == nil {
		return time.Time{}
	}
	return *img.Config.Created
}

func (o *imagesOptions) matcher(images *image.Images) (func(*image.Image) bool, error) {
	f := o.filter
	if err := f.known(strings.Fields("reference dangling label before since until"), nil); err != nil {
		return nil, err
	}
	dangling, isDangling, err := f.bool("dangling")
	if err != nil {
		return nil, err
	}
	for _, p := range f["reference"] {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("invalid filter 'reference=%s': %w", p, err)
		}
	}
	until, err := untilMatcher(f)
	if err != nil {
		return nil, err
	}
	between, err := betweenImages(f, images.Resolve)
	if err != nil {
		return nil, err
	}
	return func(img *image.Image) bool {
		return (!isDangling || dangling == (len(img.Names) == 0)) &&
			f.any("reference", func(p string) bool {
				return slices.ContainsFunc(slices.Concat(img.Names, img.Digests), func(n string) bool { return matchReference(p, n) })
			}) &&
			f.labels(img.Config.Config.Labels) && until(img.Config.Created) && between(img.Config.Created)
	}, nil
}

// betweenImages is the filters before and since: created before the oldest
// image that one names, and after the newest of the other. What says nothing of
// its age is neither; nor is there anything before or since it, where Docker
// would show everything, and rmi $(images -qf before=X) remove it.
func betweenImages(f filterValue, resolve func(string) (*image.Image, error)) (func(*time.Time) bool, error) {
	var before, since []*time.Time
	for name, to := range map[string]*[]*time.Time{"before": &before, "since": &since} {
		for _, ref := range f[name] {
			img, err := resolve(ref)
			if err != nil {
				return nil, err
			}
			*to = append(*to, img.Config.Created)
		}
	}
	return func(t *time.Time) bool {
		for _, b := range before {
			if t == nil || b == nil || !t.Before(*b) {
				return false
			}
		}
		for _, s := range since {
			if t == nil || s == nil || !t.After(*s) {
				return false
			}
		}
		return true
	}, nil
}

// matchReference reports whether pattern (path.Match) stands for an image's
// short name: its repository, or repository and tag.
func matchReference(pattern, name string) bool {
	ref, err := spec.ParseReference(name)
	if err != nil {
		return false
	}
	for _, n := range []string{ref.Familiar(), ref.FamiliarName()} {
		if ok, _ := path.Match(pattern, n); ok {
			return true
		}
	}
	// A pattern that is itself a reference in its full form, or without tag.
	p, err := spec.ParseReference(pattern)
	return err == nil && (p.Tag == "" && p.Digest == "" && p.Name() == ref.Name() || p.String() == ref.String())
}

// imageRow is one line of images: an image by one of its names.
type imageRow struct {
	img              *image.Image
	repo, tag        string
	digest           string
	now              time.Time
	noTrunc, digests bool
	usage            *image.Usage // nil: not asked for
}

const noneText = "<none>"

// rows are the lines of one image: a line per tag, and a repository known only
// by digest as a line without one.
func (o *imagesOptions) rows(img *image.Image, now time.Time) []*imageRow {
	row := func(repo, tag, digest string) *imageRow {
		r := &imageRow{img: img, repo: repo, tag: tag, digest: digest, now: now, noTrunc: o.noTrunc, digests: o.digests}
		if u, ok := o.usage[img.ID]; ok {
			r.usage = &u
		}
		return r
	}
	digests := map[string]string{} // repository -> digest
	for _, d := range img.Digests {
		repo, digest, _ := strings.Cut(d, "@")
		digests[repo] = digest
	}
	var rows []*imageRow
	for _, n := range img.Names {
		if !o.wanted(n) {
			continue
		}
		i := strings.LastIndexByte(n, ':')
		repo, tag := n[:max(i, 0)], n[i+1:]
		d := noneText
		if digests[repo] != "" {
			d = digests[repo]
		}
		rows = append(rows, row(repo, tag, d))
	}
	for _, repo := range sortedKeys(digests) {
		tagged := slices.ContainsFunc(img.Names, func(n string) bool { return strings.HasPrefix(n, repo+":") })
		if !tagged && o.wanted(repo+"@"+digests[repo]) {
			rows = append(rows, row(repo, noneText, digests[repo]))
		}
	}
	if len(img.Names) == 0 && len(rows) == 0 && len(o.filter["reference"]) == 0 {
		rows = append(rows, row(noneText, noneText, noneText))
	}
	return rows
}

func (o *imagesOptions) wanted(name string) bool {
	return o.filter.any("reference", func(p string) bool { return matchReference(p, name) })
}

func imageColumns() []column[*imageRow] {
	used := func(f func(image.Usage) string) func(*imageRow) string {
		return func(r *imageRow) string {
			if r.usage == nil {
				return "N/A"
			}
			return f(*r.usage)
		}
	}
	return []column[*imageRow]{
		{"Since", "CREATED", func(r *imageRow) string {
			if s := r.since(); s != "" {
				return s
			}
			return "N/A"
		}},
		{"ID", "IMAGE ID", (*imageRow).id},
		{"Repository", "REPOSITORY", func(r *imageRow) string { return r.repo }},
		{"Tag", "TAG", func(r *imageRow) string { return r.tag }},
		{"Digest", "DIGEST", func(r *imageRow) string { return r.digest }},
		{"CreatedSince", "CREATED", (*imageRow).since},
		{"CreatedAt", "CREATED AT", func(r *imageRow) string { return createdOf(r.img).Local().Format(createdLayout) }},
		{"Size", "SIZE", (*imageRow).size},
		{"Containers", "CONTAINERS", used(func(u image.Usage) string { return itoa(u.Containers) })},
		{"VirtualSize", "SIZE", func(r *imageRow) string { return units.HumanSize(float64(r.img.Size)) }},
		{"SharedSize", "SHARED SIZE", used(func(u image.Usage) string { return units.HumanSize(float64(u.Shared)) })},
		{"UniqueSize", "UNIQUE SIZE", used(func(u image.Usage) string { return units.HumanSize(float64(u.Unique)) })},
	}
}

func (r *imageRow) id() string {
	if r.noTrunc {
		return r.img.ID.String()
	}
	return r.img.ID.Short()
}

func (r *imageRow) since() string {
	if t := createdOf(r.img); !t.IsZero() {
		return ago(r.now, t)
	}
	return ""
}

func (r *imageRow) size() string { return units.HumanSizeWithPrecision(float64(r.img.Size), 3) }
