package image

import (
	"cmp"
	"slices"
	"strings"

	"tug/spec"
)

// Node is one layer in the tree of all images: those below it begin with the
// same layers, up to this one.
type Node struct {
	Layer     spec.Digest // diffID; empty at the root
	Size      int64       // of the files in the layer
	CreatedBy string      // the instruction that made it, of the first image that has it here
	Images    []Leaf      // that end here
	Below     []*Node
}

// Leaf is an image in the tree.
type Leaf struct {
	Image *Image
	Usage
}

// Forest is the images by the layers that they have in common.
type Forest struct {
	Root  *Node
	Total int64 // bytes of the files in all layers, each once
	Sum   int64 // of the images' sizes, as if nothing were shared
}

// Forest makes the tree of imgs, or of all images when there are none.
func (s *Images) Forest(imgs []*Image) (*Forest, error) {
	if len(imgs) == 0 {
		var err error
		if imgs, err = s.List(); err != nil {
			return nil, err
		}
	}
	used, err := s.Usages(imgs)
	if err != nil {
		return nil, err
	}
	f := &Forest{Root: &Node{}}
	counted := map[spec.Digest]bool{}
	for _, img := range imgs {
		n := f.Root
		steps := s.History(img)
		slices.Reverse(steps)
		steps = slices.DeleteFunc(steps, func(st Step) bool { return st.Layer == "" })
		for _, st := range steps {
			n = n.child(st)
			if st.Size > 0 && !counted[st.Layer] {
				f.Total += st.Size
			}
			counted[st.Layer] = true
		}
		n.Images = append(n.Images, Leaf{img, used[img.ID]})
		f.Sum += img.Size
	}
	f.Root.sort()
	return f, nil
}

func (n *Node) child(st Step) *Node {
	for _, c := range n.Below {
		if c.Layer == st.Layer {
			return c
		}
	}
	c := &Node{Layer: st.Layer, Size: max(st.Size, 0), CreatedBy: st.CreatedBy}
	n.Below = append(n.Below, c)
	return c
}

// sort orders by names, so that a tree looks the same every time.
func (n *Node) sort() {
	slices.SortFunc(n.Images, func(a, b Leaf) int { return cmp.Compare(title(a.Image), title(b.Image)) })
	for _, c := range n.Below {
		c.sort()
	}
	slices.SortFunc(n.Below, func(a, b *Node) int { return cmp.Compare(a.first(), b.first()) })
}

// first is the first name below n.
func (n *Node) first() string {
	if len(n.Images) > 0 {
		return title(n.Images[0].Image)
	}
	for _, c := range n.Below {
		return c.first()
	}
	return string(n.Layer)
}

func title(img *Image) string {
	return strings.Join(append(slices.Clone(img.Names), string(img.ID)), " ")
}
