package image

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"time"

	"tug/errs"
	"tug/spec"
)

// Sheet is one read-only layer of a stack, and who else has it.
type Sheet struct {
	Layer     spec.Digest // diffID
	Size      int64       // of its files; -1: not known
	Entries   int         // of its tar
	Created   *time.Time
	CreatedBy string // the instruction that made it; "" when no image says
	Comment   string
	Made      bool // made here, to lie above the layer below it (see layer.Layers.Stack)

	Images     []*Image // others that have it, by name
	Containers []Holder // that have it
}

// Holder is a container that uses an image or a layer.
type Holder struct {
	ID, Name string
	Image    spec.Digest
}

// Sheets describes a stack of layers, lowest first. own is the image that it is
// of, which is not among those that share them; nil when that is not known any
// more: then another image with the same layers tells how they were made.
func (s *Images) Sheets(stack []spec.Digest, own *Image) ([]Sheet, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *Image) int { return cmp.Compare(title(a), title(b)) })
	users, err := s.containers()
	if err != nil {
		return nil, err
	}
	teller := own
	if teller == nil {
		teller = tellerOf(all, stack)
	}
	sheets := make([]Sheet, len(stack))
	for i, d := range stack {
		h := &sheets[i]
		h.Layer, h.Size = d, -1
		if info, err := s.layers.Info(d); err == nil {
			h.Size, h.Entries = info.Content, info.Entries
		}
		for _, img := range all {
			if (own == nil || img.ID != own.ID) && (slices.Contains(img.Layers(), d) || slices.Contains(img.Stack, d)) {
				h.Images = append(h.Images, img)
			}
		}
		for _, c := range users {
			if slices.Contains(c.Layers, d) {
				h.Containers = append(h.Containers, Holder{c.ID, c.Name, c.ImageID})
			}
		}
	}
	if teller != nil {
		tell(sheets, teller)
	}
	return sheets, nil
}

// tellerOf returns an image whose layers a stack begins with, the more the
// better.
func tellerOf(all []*Image, stack []spec.Digest) *Image {
	var best *Image
	for _, img := range all {
		n := len(img.Stack)
		if n <= len(stack) && n > 0 && slices.Equal(img.Stack, stack[:n]) && (best == nil || n > len(best.Stack)) {
			best = img
		}
	}
	return best
}

// tell writes down what made the layers, as far as img's history says so.
func tell(sheets []Sheet, img *Image) {
	layers := img.Layers()
	rows := layerHistory(img.Config.History, len(layers))
	n := 0
	for i := range sheets {
		h := &sheets[i]
		if n == len(layers) || h.Layer != layers[n] {
			h.Made = n > 0 && slices.Contains(img.Stack, h.Layer)
			continue
		}
		if rows != nil {
			h.Created, h.CreatedBy, h.Comment = rows[n].Created, rows[n].CreatedBy, rows[n].Comment
		}
		n++
	}
}

// Holders returns the containers that were made from image id or have it mounted.
func (s *Images) Holders(id spec.Digest) ([]Holder, error) {
	users, err := s.containers()
	if err != nil {
		return nil, err
	}
	var out []Holder
	for _, c := range users {
		if slices.Contains(c.images(), id) {
			out = append(out, Holder{c.ID, c.Name, c.ImageID})
		}
	}
	return out, nil
}

// ByID returns the image with that ID, nil when it is not there any more.
func (s *Images) ByID(id spec.Digest) (*Image, error) {
	img, err := s.byID(id)
	if errs.Is(err, errs.NotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return img, err
}
