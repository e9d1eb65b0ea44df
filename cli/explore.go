package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/image"
	"tug/layer"
	"tug/spec"
)

type exploreOptions struct {
	layer, top int
	all, plain bool
	format     string
}

func setupExplore(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &exploreOptions{}
	fs.IntVar(&o.layer, "layer", 0, "List all changes of one layer; 1 is the lowest")
	fs.BoolVar(&o.all, "all", false, "List all changes of all layers")
	fs.IntVar(&o.top, "top", 5, "How many of the largest changes to list for each layer")
	fs.BoolVar(&o.plain, "plain", false, "Print text also on a terminal")
	fs.StringVar(&o.format, "format", "", inspectFormatUsage)
	return func(args []string) error { return a.explore(o, args[0]) }
}

func (a *app) explore(o *exploreOptions, name string) error {
	if o.top < 0 || o.layer < 0 {
		return errors.New("--top and --layer must not be negative")
	}
	e, err := a.engine()
	if err != nil {
		return err
	}
	x, err := e.Images.Explore(a.ctx, name)
	if err != nil {
		return err
	}
	defer x.Close()
	if o.layer > len(x.Layers) {
		return fmt.Errorf("image %s has no layer %d, only %d", name, o.layer, len(x.Layers))
	}
	if o.format != "" {
		return printFormatted(a.Out, o.format, toExploreJSON(x))
	}
	if !o.plain && !o.all && o.layer == 0 && a.canBrowse() {
		return a.browse(x)
	}
	return o.write(a.Out, x)
}

// printFormatted prints one object as JSON, or by a template.
func printFormatted(out io.Writer, format string, v any) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	tmpl, err := parseTemplate(format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := executeEither(&b, tmpl.Execute, v); err != nil {
		return templateError(err)
	}
	b.WriteByte('\n')
	_, err = out.Write(b.Bytes())
	return err
}

// write prints a summary, then the largest changes of each layer, then what
// wastes most.
func (o *exploreOptions) write(out io.Writer, x *image.Explored) error {
	var b bytes.Buffer
	waste := x.Waste()
	fmt.Fprintf(&b, "Image:       %s\n", oneLine(imageTitle(x.Image)))
	fmt.Fprintf(&b, "Files:       %d in %s\n", x.Files, counted(len(x.Layers), "layer"))
	fmt.Fprintf(&b, "Data:        %s\n", size3(x.Data))
	fmt.Fprintf(&b, "Wasted:      %s in %s\n", size3(x.Wasted), counted(len(waste), "path"))
	fmt.Fprintf(&b, "Efficiency:  %s\n\n", percent(x.Efficiency()))
	w := newTabWriter(&b)
	fmt.Fprintln(w, "LAYER\tSIZE\tADDED\tCHANGED\tREMOVED\tWASTED\tCREATED BY")
	for i, l := range x.Layers {
		added, changed, removed := countChanges(l.Changes)
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%s\t%s\n", i+1, size3(l.Data), added, changed, removed, size3(l.Wasted), instruction(l.CreatedBy, 60))
	}
	w.Flush()
	for i := range x.Layers {
		if o.layer == 0 || o.layer == i+1 {
			o.writeLayer(&b, i, &x.Layers[i])
		}
	}
	if len(waste) > 0 && o.layer == 0 {
		n := len(waste)
		if !o.all {
			n = min(n, max(o.top, 1))
		}
		fmt.Fprintf(&b, "\nWasted by replacing and removing%s:\n", shownOf(n, len(waste)))
		for _, v := range waste[:n] {
			fmt.Fprintf(&b, "  %8s  %3dx  /%s\n", size3(v.Bytes), v.Versions, printable(v.Path))
		}
	}
	_, err := out.Write(b.Bytes())
	return err
}

func shownOf(n, all int) string {
	if n == all {
		return ""
	}
	return fmt.Sprintf(" (%d of %d)", n, all)
}

func (o *exploreOptions) writeLayer(b *bytes.Buffer, i int, l *image.ExploredLayer) {
	list := l.Changes
	if o.layer == 0 && !o.all {
		list = largest(list, o.top)
		if o.top == 0 {
			return
		}
	}
	fmt.Fprintf(b, "\nLayer %d: %s\n", i+1, l.DiffID)
	if by := instruction(l.CreatedBy, 0); by != "" {
		fmt.Fprintf(b, "  %s\n", by)
	}
	for _, c := range list {
		fmt.Fprintf(b, "  %s %8s  /%s%s\n", c.Kind, size3(c.Size), printable(c.Path), changeNote(&c))
	}
	if n := len(l.Changes) - len(list); n > 0 {
		fmt.Fprintf(b, "  ... and %d more\n", n)
	}
}

// largest returns the n changes of most bytes, directories only when there is
// nothing else.
func largest(list []layer.Change, n int) []layer.Change {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b layer.Change) int { return cmp.Compare(b.Size, a.Size) })
	return list[:min(n, len(list))]
}

func countChanges(list []layer.Change) (added, changed, removed int) {
	for i := range list {
		switch list[i].Kind {
		case layer.Added:
			added++
		case layer.Changed:
			changed++
		case layer.Removed:
			removed += 1 + list[i].Files
		}
	}
	return added, changed, removed
}

// changeNote says in brackets what is special about a change.
func changeNote(c *layer.Change) string {
	var notes []string
	switch c.Kind {
	case layer.Changed:
		if notes = c.Detail.Words(); len(notes) == 0 {
			notes = []string{"identical copy"}
		}
	case layer.Removed:
		if c.Files > 0 {
			notes = append(notes, fmt.Sprintf("with %d names in it", c.Files))
		}
	}
	if c.Wasted > 0 {
		notes = append(notes, size3(c.Wasted)+" wasted")
	}
	if len(notes) == 0 {
		return ""
	}
	return "  (" + strings.Join(notes, ", ") + ")"
}

// imageTitle is an image's names and ID.
func imageTitle(img *image.Image) string {
	if len(img.Names) == 0 {
		return img.ID.Short()
	}
	return strings.Join(img.Names, ", ") + " (" + img.ID.Short() + ")"
}

// instruction is what made a layer, as written in the Dockerfile; max cuts it.
func instruction(s string, max int) string {
	s = strings.TrimPrefix(s, "/bin/sh -c #(nop) ")
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c "); ok {
		s = "RUN " + rest
	}
	s = printable(strings.Join(strings.Fields(s), " "))
	if max > 0 {
		s = ellipsis(s, max)
	}
	return s
}

// printable is oneLine for file names: also what turns text around, or is no
// character, becomes a question mark.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

func size3(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

func percent(f float64) string { return fmt.Sprintf("%.1f%%", 100*f) }

// exploreJSON is explore --format json.
type exploreJSON struct {
	ID         spec.Digest        `json:"id"`
	Names      []string           `json:"names"`
	Platform   string             `json:"platform"`
	Files      int                `json:"files"`
	Data       int64              `json:"data"`
	Wasted     int64              `json:"wasted"`
	Efficiency float64            `json:"efficiency"`
	Layers     []exploreLayerJSON `json:"layers"`
	Waste      []wasteJSON        `json:"waste"`
}

type exploreLayerJSON struct {
	Layer     int          `json:"layer"`
	DiffID    spec.Digest  `json:"diffId"`
	TarSize   int64        `json:"tarSize"`
	Data      int64        `json:"data"`
	Files     int          `json:"files"`
	Added     int          `json:"added"`
	Changed   int          `json:"changed"`
	Removed   int          `json:"removed"`
	Wasted    int64        `json:"wasted"`
	Hides     int64        `json:"hides"`
	Created   *time.Time   `json:"created,omitempty"`
	CreatedBy string       `json:"createdBy"`
	Comment   string       `json:"comment,omitempty"`
	Changes   []changeJSON `json:"changes"`
}

type changeJSON struct {
	Kind   string   `json:"kind"`
	Path   string   `json:"path"`
	Type   string   `json:"type"`
	Mode   string   `json:"mode"`
	Size   int64    `json:"size"`
	Detail []string `json:"detail,omitempty"`
	Names  int      `json:"names,omitempty"`
	Wasted int64    `json:"wasted,omitempty"`
}

type wasteJSON struct {
	Path     string `json:"path"`
	Bytes    int64  `json:"bytes"`
	Versions int    `json:"versions"`
}

func toExploreJSON(x *image.Explored) *exploreJSON {
	j := &exploreJSON{
		ID: x.Image.ID, Names: append([]string{}, x.Image.Names...), Platform: x.Image.Config.Platform.String(),
		Files: x.Files, Data: x.Data, Wasted: x.Wasted, Efficiency: x.Efficiency(), Layers: []exploreLayerJSON{}, Waste: []wasteJSON{},
	}
	for i, l := range x.Layers {
		lj := exploreLayerJSON{
			Layer: i + 1, DiffID: l.DiffID, TarSize: l.Size, Data: l.Data, Files: l.Files, Wasted: l.Wasted, Hides: l.Hides,
			Created: l.Created, CreatedBy: l.CreatedBy, Comment: l.Comment, Changes: []changeJSON{},
		}
		lj.Added, lj.Changed, lj.Removed = countChanges(l.Changes)
		for _, c := range l.Changes {
			lj.Changes = append(lj.Changes, changeJSON{
				Kind: c.Kind.Word(), Path: c.Path, Type: typeWord(c.Mode), Mode: fmt.Sprintf("%04o", c.Mode&0o7777), Size: c.Size,
				Detail: c.Detail.Words(), Names: c.Files, Wasted: c.Wasted,
			})
		}
		j.Layers = append(j.Layers, lj)
	}
	for _, w := range x.Waste() {
		j.Waste = append(j.Waste, wasteJSON(w))
	}
	return j
}

// typeWord names the kind of a file by its st_mode.
func typeWord(mode uint32) string {
	switch mode & 0o170000 {
	case 0o040000:
		return "directory"
	case 0o100000:
		return "file"
	case 0o120000:
		return "symlink"
	case 0o010000:
		return "fifo"
	case 0o020000:
		return "char device"
	case 0o060000:
		return "block device"
	}
	return "unknown"
}
