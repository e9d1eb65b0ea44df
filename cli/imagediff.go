package cli

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"tug/image"
	"tug/layer"
	"tug/spec"
)

func setupImageDiff(a *app, fs *pflag.FlagSet) func([]string) error {
	times := fs.Bool("times", false, "Also show files that differ only in their modification time")
	format := fs.String("format", "", inspectFormatUsage)
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		c, err := e.Images.Compare(a.ctx, args[0], args[1], *times)
		if err != nil {
			return err
		}
		if *format != "" {
			return printFormatted(a.Out, *format, toDiffJSON(c))
		}
		var b bytes.Buffer
		writeComparison(&b, c)
		_, err = a.Out.Write(b.Bytes())
		return err
	}
}

// writeComparison prints a line for each path, as docker diff does, with what
// differs, and then one for each value of the config.
func writeComparison(b *bytes.Buffer, c *image.Comparison) {
	for _, d := range c.Files {
		fmt.Fprintf(b, "%s /%s%s\n", d.Kind, printable(d.Path), differenceNote(&d))
	}
	if len(c.Config) == 0 {
		return
	}
	if len(c.Files) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString("Config:\n")
	for _, v := range c.Config {
		name := v.Field
		if v.Key != "" {
			name += " " + v.Key
		}
		text := v.Before + v.After
		if v.Kind == layer.Changed {
			text = v.Before + " -> " + v.After
		}
		line := v.Kind.String() + " " + name
		if text != "" {
			line += ": " + text
		}
		fmt.Fprintln(b, printable(line))
	}
}

func differenceNote(d *layer.Difference) string {
	switch {
	case d.Kind == layer.Added && d.B.IsRegular():
		return "  (" + size3(d.B.Size) + ")"
	case d.Kind == layer.Removed && d.A.IsRegular():
		return "  (" + size3(d.A.Size) + ")"
	case d.Kind != layer.Changed:
		return ""
	}
	var notes []string
	note := func(bit layer.Detail, format string, args ...any) {
		if d.Detail&bit != 0 {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	a, b := d.A, d.B
	note(layer.DiffType, "%s -> %s", typeWord(a.Mode), typeWord(b.Mode))
	if a.Size != b.Size {
		note(layer.DiffContent, "content %s -> %s", size3(a.Size), size3(b.Size))
	} else {
		note(layer.DiffContent, "content %s", size3(a.Size))
	}
	note(layer.DiffMode, "mode %04o -> %04o", a.Mode&0o7777, b.Mode&0o7777)
	note(layer.DiffOwner, "owner %d:%d -> %d:%d", a.UID, a.GID, b.UID, b.GID)
	note(layer.DiffTarget, "target %s -> %s", printable(a.Target), printable(b.Target))
	note(layer.DiffDevice, "device %d:%d -> %d:%d", a.Major, a.Minor, b.Major, b.Minor)
	note(layer.DiffXattrs, "extended attributes")
	note(layer.DiffTimes, "time %s -> %s", a.Mtime.UTC().Format(timesLayout), b.Mtime.UTC().Format(timesLayout))
	return "  (" + strings.Join(notes, ", ") + ")"
}

const timesLayout = "2006-01-02T15:04:05.999999999Z"

// diffJSON is image diff --format json.
type diffJSON struct {
	A       spec.Digest      `json:"a"`
	B       spec.Digest      `json:"b"`
	Common  int              `json:"commonLayers"`
	Added   int              `json:"added"`
	Changed int              `json:"changed"`
	Removed int              `json:"removed"`
	Files   []fileDiffJSON   `json:"files"`
	Config  []configDiffJSON `json:"config"`
}

type fileDiffJSON struct {
	Kind   string    `json:"kind"`
	Path   string    `json:"path"`
	Detail []string  `json:"detail,omitempty"`
	A      *fileJSON `json:"a,omitempty"`
	B      *fileJSON `json:"b,omitempty"`
}

type fileJSON struct {
	Type   string            `json:"type"`
	Mode   string            `json:"mode"`
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Size   int64             `json:"size"`
	Mtime  string            `json:"mtime"`
	Target string            `json:"target,omitempty"`
	Device string            `json:"device,omitempty"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

type configDiffJSON struct {
	Kind   string `json:"kind"`
	Field  string `json:"field"`
	Key    string `json:"key,omitempty"`
	Before string `json:"before"`
	After  string `json:"after"`
}

func toDiffJSON(c *image.Comparison) *diffJSON {
	j := &diffJSON{A: c.A.ID, B: c.B.ID, Common: c.Common, Files: []fileDiffJSON{}, Config: []configDiffJSON{}}
	for _, d := range c.Files {
		switch d.Kind {
		case layer.Added:
			j.Added++
		case layer.Changed:
			j.Changed++
		case layer.Removed:
			j.Removed++
		}
		j.Files = append(j.Files, fileDiffJSON{Kind: d.Kind.Word(), Path: d.Path, Detail: d.Detail.Words(), A: toFileJSON(d.A), B: toFileJSON(d.B)})
	}
	for _, v := range c.Config {
		j.Config = append(j.Config, configDiffJSON{v.Kind.Word(), v.Field, v.Key, v.Before, v.After})
	}
	return j
}

func toFileJSON(f *layer.File) *fileJSON {
	if f == nil {
		return nil
	}
	j := &fileJSON{
		Type: typeWord(f.Mode), Mode: fmt.Sprintf("%04o", f.Mode&0o7777), UID: f.UID, GID: f.GID, Size: f.Size,
		Mtime: f.Mtime.UTC().Format(timesLayout), Target: f.Target,
	}
	if j.Type == "char device" || j.Type == "block device" {
		j.Device = fmt.Sprintf("%d:%d", f.Major, f.Minor)
	}
	for k, v := range f.Xattrs {
		if j.Xattrs == nil {
			j.Xattrs = map[string][]byte{}
		}
		j.Xattrs[k] = []byte(v)
	}
	return j
}
