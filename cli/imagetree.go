package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"tug/image"
	"tug/spec"
)

func setupImageTree(a *app, fs *pflag.FlagSet) func([]string) error {
	format := fs.String("format", "", `Output format ("json")`)
	return func(args []string) error {
		if *format != "" && *format != "json" {
			return fmt.Errorf("invalid --format %q: want json", *format)
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		var imgs []*image.Image
		for _, name := range args {
			img, err := e.Images.Resolve(name)
			if err != nil {
				return err
			}
			imgs = append(imgs, img)
		}
		f, err := e.Images.Forest(imgs)
		if err != nil {
			return err
		}
		if *format == "json" {
			return a.treeJSON(f)
		}
		return a.drawForest(f)
	}
}

// drawForest draws which layers images have in common:
//
//	├─ 4fc242d58285  4.26MB  ADD busybox.tar /
//	│  ├─ busybox:latest (9ae97d36d263)  4.26MB, unique 0B, shared 4.26MB
//	│  └─ 89ab01c45d2e  12MB  COPY app /app
//	│     └─ app:1 (1a2b3c4d5e6f)  16.3MB, unique 12MB, shared 4.26MB
//
// A layer's line is cut at the width of the terminal.
func (a *app) drawForest(f *image.Forest) error {
	t := &treePainter{lines: newLines()}
	if isTerminal(a.Out) {
		t.width = a.width()
	}
	t.below(f.Root, "")
	fmt.Fprintf(&t.b, "%s in all; %s if nothing were shared\n", sizeOf(f.Total), sizeOf(f.Sum))
	_, err := io.WriteString(a.Out, t.b.String())
	return err
}

type treePainter struct {
	b     strings.Builder
	lines *treeLines
	width int // 0: as wide as needed
}

func (t *treePainter) below(n *image.Node, indent string) {
	left := len(n.Images) + len(n.Below)
	branch := func() (line, below string) {
		if left--; left == 0 {
			return indent + t.lines.corner + " ", indent + "   "
		}
		return indent + t.lines.tee + " ", indent + t.lines.bar + " "
	}
	for _, leaf := range n.Images {
		line, _ := branch()
		t.line(line + leafText(leaf))
	}
	for _, c := range n.Below {
		line, below := branch()
		t.line(strings.TrimRight(fmt.Sprintf("%s%s  %s  %s", line, c.Layer.Short(), sizeOf(c.Size), oneLine(c.CreatedBy)), " "))
		t.below(c, below)
	}
}

func leafText(l image.Leaf) string {
	name := strings.Join(l.Image.Names, ", ")
	if name == "" {
		name = noneText
	}
	s := fmt.Sprintf("%s (%s)  %s, unique %s, shared %s", name, l.Image.ID.Short(), sizeOf(l.Image.Size), sizeOf(l.Unique), sizeOf(l.Shared))
	if l.Containers == 1 {
		s += ", 1 container"
	} else if l.Containers > 1 {
		s += fmt.Sprintf(", %d containers", l.Containers)
	}
	return s
}

func (t *treePainter) line(s string) {
	if t.width > 0 {
		s = t.lines.fit(s, t.width)
	}
	t.b.WriteString(s + "\n")
}

// treeNode is one layer in the JSON of image tree.
type treeNode struct {
	Layer     spec.Digest `json:",omitempty"`
	Size      int64
	CreatedBy string `json:",omitempty"`
	Images    []treeLeaf
	Below     []treeNode
}

type treeLeaf struct {
	ID           spec.Digest
	Names        []string
	Size         int64
	Unique       int64
	Shared       int64
	Containers   int
	Architecture string
}

func (a *app) treeJSON(f *image.Forest) error {
	s, err := toJSON(struct {
		TotalSize  int64
		SumOfSizes int64
		Layers     []treeNode
		Images     []treeLeaf // without layers
	}{f.Total, f.Sum, treeNodes(f.Root.Below), treeLeaves(f.Root.Images)})
	if err != nil {
		return err
	}
	return a.printf("%s\n", s)
}

func treeNodes(all []*image.Node) []treeNode {
	out := []treeNode{}
	for _, n := range all {
		out = append(out, treeNode{n.Layer, n.Size, n.CreatedBy, treeLeaves(n.Images), treeNodes(n.Below)})
	}
	return out
}

func treeLeaves(all []image.Leaf) []treeLeaf {
	out := []treeLeaf{}
	for _, l := range all {
		out = append(out, treeLeaf{l.Image.ID, append([]string{}, l.Image.Names...), l.Image.Size, l.Unique, l.Shared, l.Containers, l.Image.Config.Architecture})
	}
	return out
}
