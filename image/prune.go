package image

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"tug/errs"
	"tug/spec"
	"tug/state"
)

// PruneOptions say what Prune removes.
type PruneOptions struct {
	All    bool              // also images that have a tag
	Match  func(*Image) bool // further conditions; nil: none
	DryRun bool              // only tell
	Gone   []string          // in a dry run: containers to take as removed already
}

// Pruned is what Prune removed, or would.
type Pruned struct {
	Removed []Removed
	Space   int64 // bytes on the disk
}

// Prune removes the images that no container was made from and that have no
// tag, or, with All, whether they have one or not. Without conditions All takes
// layers along that belong to no image, such as interrupted pulls leave, unless
// some command is about to use them.
//
// The exclusive reference lock is held throughout, so no pull, tag or create
// comes in between; where a record or a container cannot be read nothing is
// removed, as it may need anything. On error what was done so far is returned,
// too.
func (s *Images) Prune(o PruneOptions) (*Pruned, error) {
	lock, err := s.st.Refs(!o.DryRun)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	p := &pruning{s: s, o: o}
	if err := p.choose(); err != nil {
		return nil, err
	}
	switch {
	case len(p.victims) == 0 && !(o.All && o.Match == nil): // there is nothing to do
	case o.DryRun:
		p.tell()
		err = p.free()
	default:
		if err = p.forget(); err == nil {
			err = p.free()
		}
	}
	if !o.DryRun {
		s.pruned(p.out.Space)
	}
	return &p.out, err
}

// pruning is one run of Prune.
type pruning struct {
	s       *Images
	o       PruneOptions
	names   []name
	victims []*record
	keep    references // what the others need
	out     Pruned
}

// choose finds the images to remove and what the others need.
func (p *pruning) choose() error {
	var err error
	if p.names, err = p.s.names(); err != nil {
		return err
	}
	containers, err := p.s.containers()
	if err != nil {
		return err
	}
	if p.o.DryRun {
		containers = slices.DeleteFunc(containers, func(c containerUse) bool { return slices.Contains(p.o.Gone, c.ID) })
	}
	busy := map[spec.Digest]bool{}
	for _, c := range containers {
		for _, id := range c.images() {
			busy[id] = true
		}
	}
	recs, err := p.s.records()
	if err != nil {
		return err
	}
	var stay []*record
	for _, r := range recs {
		img, err := p.s.image(r, p.names)
		if busy[r.ID] || !p.o.All && len(img.Names) > 0 || p.o.Match != nil && (err != nil || !p.o.Match(img)) {
			stay = append(stay, r)
		} else {
			p.victims = append(p.victims, r)
		}
	}
	p.keep = neededBy(stay, containers)
	return nil
}

func (p *pruning) isVictim(id spec.Digest) bool {
	return slices.ContainsFunc(p.victims, func(r *record) bool { return r.ID == id })
}

// tell notes what forget would do.
func (p *pruning) tell() {
	for _, r := range p.victims {
		for _, n := range p.names {
			if n.Image == r.ID {
				p.out.Removed = append(p.out.Removed, Removed{Untagged: n.ref.Familiar()})
			}
		}
		p.out.Removed = append(p.out.Removed, Removed{Deleted: string(r.ID)})
	}
}

// forget removes names, then records; each kind is durable before the next
// step, as in Remove.
func (p *pruning) forget() error {
	for _, n := range p.names {
		if !p.isVictim(n.Image) {
			continue
		}
		if err := os.Remove(p.s.namePath(n.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.s.untagged(n.Image)
	}
	if err := state.SyncDir(p.s.st.Names()); err != nil {
		return err
	}
	for _, r := range p.victims {
		if err := os.Remove(p.s.st.Image(r.ID.Hex())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.s.deleted(r.ID)
	}
	p.tell()
	return state.SyncDir(p.s.st.Images())
}

// free removes the layers and blobs that nobody needs any more.
func (p *pruning) free() error {
	s := p.s
	sizes, err := s.onDisk()
	if err != nil {
		return err
	}
	gone := map[spec.Digest]bool{}
	drop := func(d spec.Digest, line string) error {
		if gone[d] || p.keep.layers[d] {
			return nil
		}
		gone[d] = true
		if !p.o.DryRun {
			if err := s.layers.Remove(d); errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if line != "" {
			p.out.Removed = append(p.out.Removed, Removed{Deleted: line})
		}
		p.out.Space += sizes[d]
		return nil
	}
	for _, r := range p.victims {
		chains := chainIDs(r.Layers)
		for i := len(r.Layers) - 1; i >= 0; i-- {
			if err := drop(r.Layers[i], string(chains[i])); err != nil {
				return err
			}
		}
		for _, d := range r.Stack { // those made for the image, of which no config speaks
			if err := drop(d, ""); err != nil {
				return err
			}
		}
	}
	if p.o.All && p.o.Match == nil {
		all, err := s.layers.DiffIDs()
		if err != nil {
			return err
		}
		for _, d := range all {
			if err := drop(d, string(d)); err != nil {
				return err
			}
		}
	}
	p.blobs()
	if !p.o.DryRun {
		s.sweep(p.keep)
	}
	return nil
}

// blobs counts the blobs that only the victims needed; the sweep removes them.
func (p *pruning) blobs() {
	seen := map[spec.Digest]bool{}
	for _, r := range p.victims {
		for _, d := range r.Blobs {
			if seen[d] || p.keep.blobs[d] {
				continue
			}
			seen[d] = true
			if fi, err := os.Lstat(p.s.st.Blob(d.Hex())); err == nil {
				p.out.Space += fi.Size()
			}
		}
	}
}
