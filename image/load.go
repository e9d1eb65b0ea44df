package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// Loaded is one name that Load gave, or one image that has none.
type Loaded struct {
	Name string // familiar name:tag; empty for an image without one
	ID   spec.Digest
}

func (l Loaded) String() string {
	if l.Name != "" {
		return "Loaded image: " + l.Name
	}
	return "Loaded image ID: " + string(l.ID)
}

// Load reads images from r: a docker-archive (docker save, podman save, skopeo)
// or the tar of an OCI layout, plain or compressed with gzip, bzip2, xz or zstd. Either all
// its images are recorded or none. r is read once, front to back: what looks
// like a layer goes straight into the store as it comes by, long before it is
// known whether an image wants it; what none wants is removed at the end.
func (s *Images) Load(ctx context.Context, r io.Reader, p Progress) ([]Loaded, error) {
	return s.LoadWith(ctx, r, LoadOptions{Progress: p})
}

// LoadOptions modify a Load.
type LoadOptions struct {
	Platforms []spec.Platform // only images for these; none: all, and of an index the host's
	Progress  Progress        // may be nil
}

// LoadWith is Load with options.
func (s *Images) LoadWith(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	return s.load(ctx, o, func(a *archive) error { return a.readStream(ctx, r) })
}

// LoadDir is LoadWith of a directory that holds what would be in the archive.
func (s *Images) LoadDir(ctx context.Context, dir string, o LoadOptions) ([]Loaded, error) {
	return s.load(ctx, o, func(a *archive) error { return a.readDir(ctx, dir) })
}

func (s *Images) load(ctx context.Context, o LoadOptions, read func(*archive) error) ([]Loaded, error) {
	a := newArchive(s, newEvents(o.Progress))
	a.want = o.Platforms
	var imgs []*incoming
	var loaded []Loaded
	err := read(a)
	if err == nil {
		imgs, loaded, err = a.images()
	}
	if err == nil {
		var moved map[string]spec.Digest
		moved, err = s.commit(ctx, imgs)
		for name, old := range moved {
			a.events.message(fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string", name, old))
		}
	}
	a.release()
	s.dropUnused(a.added)
	if err != nil {
		return nil, err
	}
	for _, in := range imgs {
		s.didID("load", in.id, string(in.id))
	}
	return loaded, nil
}

// readStream takes in an archive.
func (a *archive) readStream(ctx context.Context, r io.Reader) error {
	plain, err := inflate(r)
	if err != nil {
		return err
	}
	defer plain.close()
	err = a.scan(ctx, plain)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// images works out which images the archive holds.
func (a *archive) images() ([]*incoming, []Loaded, error) {
	var imgs []*incoming
	var err error
	switch {
	case a.has("manifest.json"):
		imgs, err = a.dockerImages()
	case a.has("index.json"):
		imgs, err = a.ociImages()
	case a.has("repositories"):
		err = errs.New(errs.Unsupported, "archive has no manifest.json: it was made by Docker before 1.10").
			WithHint("load and save it with a newer tool first")
	default:
		err = errs.New(errs.Invalid, "this is no image archive: it has neither manifest.json nor index.json").
			WithHint("load reads what docker save, podman save or skopeo copy wrote; for the tar of a file system there is import")
	}
	if err != nil {
		return nil, nil, err
	}
	if imgs = a.wanted(imgs); len(imgs) == 0 && len(a.want) > 0 {
		return nil, nil, errs.New(errs.NotFound, "the archive holds no image for %s", a.want[0])
	}
	if len(imgs) == 0 {
		return nil, nil, errs.New(errs.Invalid, "the archive holds no image")
	}
	var loaded []Loaded
	for _, in := range imgs {
		for _, ref := range in.names {
			loaded = append(loaded, Loaded{Name: ref.Familiar(), ID: in.id})
		}
		if len(in.names) == 0 {
			loaded = append(loaded, Loaded{ID: in.id})
		}
	}
	return imgs, loaded, nil
}

// wanted leaves out what is for other platforms than those asked for.
func (a *archive) wanted(imgs []*incoming) []*incoming {
	if len(a.want) == 0 {
		return imgs
	}
	return slices.DeleteFunc(imgs, func(in *incoming) bool {
		return !slices.ContainsFunc(a.want, func(p spec.Platform) bool { return fits(in.platform, p) })
	})
}

// part is a layer as an archive's metadata names it.
type part struct {
	member string
	size   int64 // -1: not said
}

// assemble makes an image of its config and its layers, lowest first.
func (a *archive) assemble(config []byte, parts []part) (*incoming, error) {
	cfg, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	id := spec.DigestOf(config)
	if len(cfg.RootFS.DiffIDs) != len(parts) {
		return nil, errs.New(errs.Corrupt, "image %s: its config names %d layers, the archive %d", id.Short(), len(cfg.RootFS.DiffIDs), len(parts))
	}
	in := &incoming{id: id, loaded: true, platform: cfg.Platform, blobs: map[spec.Digest][]byte{id: config}, layers: cfg.RootFS.DiffIDs}
	for i, p := range parts {
		l, err := a.layer(p)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", id.Short(), err)
		}
		if want := cfg.RootFS.DiffIDs[i]; l.DiffID != want {
			return nil, errs.New(errs.Corrupt, "image %s: layer %d (%.200q) has digest %s, the config says %s", id.Short(), i+1, p.member, l.DiffID, want)
		}
		in.size += l.Content
	}
	return in, nil
}

// dropUnused removes layers that this process added and that no image got.
func (s *Images) dropUnused(added []spec.Digest) {
	if len(added) == 0 {
		return
	}
	// Mostly all are used, which needs no exclusive lock to see.
	if keep, err := s.needed(); err != nil || !slices.ContainsFunc(added, func(d spec.Digest) bool { return !keep.layers[d] }) {
		return
	}
	lock, err := s.st.Refs(true)
	if err != nil {
		return
	}
	defer lock.Close()
	keep, err := s.needed()
	if err != nil {
		return
	}
	for _, d := range added {
		if !keep.layers[d] {
			s.layers.Remove(d) // or a later Sweep
		}
	}
}

// layer returns a layer of the archive, as loaded or as found in the store.
func (a *archive) layer(p part) (*layer.Layer, error) {
	name, err := a.resolve(p.member)
	if err != nil {
		return nil, err
	}
	what := "layer " + strconv.Quote(p.member[:min(len(p.member), 200)])
	if d, blob := nameDigest(p.member); blob {
		what = "layer " + d.Short()
	}
	m, ok := a.members[name]
	switch {
	case !ok:
		return nil, errs.New(errs.Corrupt, "the archive lacks the %s", what).WithHint("it may be cut short; make it again")
	case m.err != nil:
		return nil, fmt.Errorf("%s: %w", what, m.err)
	case m.layer == nil:
		return nil, errs.New(errs.Unsupported, "%s is no tar, plain or compressed with gzip, bzip2, xz or zstd", what)
	case p.size >= 0:
		return m.layer, checkSize(what, m.size, "manifest", p.size)
	}
	return m.layer, nil
}

// deferred reports whether an error with one layer may be kept until it is
// known that an image needs that layer; others end the Load at once.
func deferred(err error) bool {
	if errors.Is(err, errArchive) {
		return false
	}
	switch errs.ClassOf(err) {
	case errs.Corrupt, errs.Invalid, errs.Unsupported:
		return true
	}
	return false
}
