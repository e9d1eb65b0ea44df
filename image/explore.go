package image

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"tug/layer"
	"tug/spec"
)

// Explored is an image looked into: its layers with what each does to those
// below. Its files can be read until Close.
type Explored struct {
	Image  *Image
	Layers []ExploredLayer // lowest first
	Tree   *layer.Node     // what a container would see
	Data   int64           // file data of all layers
	Wasted int64           // of it, what no container sees
	Files  int             // names a container sees, without directories

	merged *layer.Merged
}

// ExploredLayer is one layer of an image.
type ExploredLayer struct {
	layer.Stacked
	Created   *time.Time
	CreatedBy string // the instruction that made it; "" when the image does not say
	Comment   string
}

// Waste is one path of which lower layers hold data that nobody sees.
type Waste struct {
	Path     string
	Bytes    int64
	Versions int // layers that replaced or removed it
}

// Explore looks into the image that name means.
func (s *Images) Explore(ctx context.Context, name string) (*Explored, error) {
	img, err := s.Resolve(name)
	if err != nil {
		return nil, err
	}
	m, err := s.layers.Merge(ctx, img.Layers(), img.Stack)
	if err != nil {
		if _, gone := s.readRecord(img.ID); errors.Is(gone, fs.ErrNotExist) {
			return nil, noImage(name)
		}
		return nil, err
	}
	x := &Explored{Image: img, Tree: m.Root, merged: m}
	rows := layerHistory(img.Config.History, len(m.Layers))
	for i, l := range m.Layers {
		e := ExploredLayer{Stacked: l}
		if rows != nil {
			e.Created, e.CreatedBy, e.Comment = rows[i].Created, rows[i].CreatedBy, rows[i].Comment
		}
		x.Layers = append(x.Layers, e)
		x.Data += l.Data
		x.Wasted += l.Wasted
	}
	x.Files = countFiles(m.Root)
	return x, nil
}

// Close lets go of the image's layers.
func (x *Explored) Close() { x.merged.Close() }

// Efficiency is the share of the layers' data that a container sees.
func (x *Explored) Efficiency() float64 {
	if x.Data == 0 {
		return 1
	}
	return 1 - float64(x.Wasted)/float64(x.Data)
}

// Waste lists the paths that waste most, largest first.
func (x *Explored) Waste() []Waste {
	by := map[string]*Waste{}
	var all []*Waste
	for _, l := range x.Layers {
		for _, c := range l.Changes {
			if c.Wasted == 0 {
				continue
			}
			w := by[c.Path]
			if w == nil {
				w = &Waste{Path: c.Path}
				by[c.Path] = w
				all = append(all, w)
			}
			w.Bytes += c.Wasted
			w.Versions++
		}
	}
	slices.SortFunc(all, func(a, b *Waste) int {
		if a.Bytes != b.Bytes {
			return int(min(1, max(-1, b.Bytes-a.Bytes)))
		}
		return strings.Compare(a.Path, b.Path)
	})
	out := make([]Waste, len(all))
	for i, w := range all {
		out[i] = *w
	}
	return out
}

// layerHistory returns the rows of a config's history that made layers, lowest
// first; nil when there are not as many as layers, so that none can be told.
func layerHistory(rows []spec.HistoryRow, layers int) []spec.HistoryRow {
	var out []spec.HistoryRow
	for _, r := range rows {
		if !r.EmptyLayer {
			out = append(out, r)
		}
	}
	if len(out) != layers {
		return nil
	}
	return out
}

func countFiles(n *layer.Node) int {
	if !n.IsDir() {
		return 1
	}
	sum := 0
	for _, c := range n.Children {
		sum += countFiles(c)
	}
	return sum
}

// EachFile calls f for every name of a tree, parents first, without the root.
func EachFile(root *layer.Node, f func(path string, n *layer.Node)) {
	var walk func(dir string, n *layer.Node)
	walk = func(dir string, n *layer.Node) {
		for _, c := range n.Children {
			p := path.Join(dir, c.Name)
			f(p, c)
			walk(p, c)
		}
	}
	walk("", root)
}
