package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// incoming is an image that is about to be recorded: everything verified, its
// layers held by their locks.
type incoming struct {
	id       spec.Digest
	manifest spec.Digest
	target   *spec.Descriptor
	platform spec.Platform // of an image from an archive
	blobs    map[spec.Digest][]byte
	layers   []spec.Digest
	stack    []spec.Digest // what to mount; set by commit
	size     int64
	names    []spec.Reference
	source   string
	loaded   bool // from an archive: a manifest that is there already is better, it names compressed layers
}

// commit records images and their names. It returns for each name the image
// that it pointed at before. When it fails, as on a full disk, none shows; blobs
// may be left over.
func (s *Images) commit(ctx context.Context, imgs []*incoming) (moved map[string]spec.Digest, err error) {
	held, err := s.stackLayers(ctx, imgs)
	if err == nil {
		moved, err = s.record(imgs)
	}
	var made []spec.Digest
	for _, l := range held {
		made = append(made, l.DiffID)
		l.Close()
	}
	if err != nil {
		s.dropUnused(made)
		return nil, err
	}
	return moved, nil
}

// record is commit with the layers there, under the shared reference lock.
func (s *Images) record(imgs []*incoming) (moved map[string]spec.Digest, err error) {
	lock, err := s.st.Refs(false)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	var blobs, records, names stage
	defer func() { blobs.discard(); records.discard(); names.discard() }()
	for _, in := range imgs {
		if err := s.stageBlobs(&blobs, in); err != nil {
			return nil, s.storeError(err)
		}
		if err := s.stageRecord(&records, in); err != nil {
			return nil, s.storeError(err)
		}
	}
	if moved, err = s.stageNames(&names, imgs); err != nil {
		return nil, s.storeError(err)
	}
	for _, g := range []*stage{&blobs, &records, &names} {
		if err := g.publish(); err != nil {
			return nil, s.storeError(err)
		}
	}
	return moved, nil
}

// stackLayers finds out what to mount for images. Layers that were made for that
// come back held, also when it fails.
func (s *Images) stackLayers(ctx context.Context, imgs []*incoming) (held []*layer.Layer, err error) {
	for _, in := range imgs {
		if again := s.holdStack(in); again != nil {
			held = append(held, again...)
			continue
		}
		stack, made, err := s.layers.Stack(ctx, in.layers)
		if err != nil {
			return held, fmt.Errorf("image %s: %w", in.id.Short(), err)
		}
		in.stack, held = stack, append(held, made...)
	}
	return held, nil
}

// holdStack uses what was found out when the image came before: finding it out
// may mean reading all its layers. nil when there is no such thing, or not all
// of it any more.
func (s *Images) holdStack(in *incoming) (held []*layer.Layer) {
	old, err := s.readRecord(in.id)
	if err != nil || !slices.Equal(old.Layers, in.layers) {
		return nil
	}
	held = []*layer.Layer{}
	for _, d := range old.stack() {
		l, err := s.layers.Get(d)
		if err != nil {
			for _, l := range held {
				l.Close()
			}
			return nil
		}
		held = append(held, l)
	}
	in.stack = old.stack()
	return held
}

// recorded returns the image that was recorded just now. Another command may
// have removed it again; then it is what it was, and who uses it finds out.
func (s *Images) recorded(in *incoming) (*Image, error) {
	img, err := s.byID(in.id)
	if !errors.Is(err, fs.ErrNotExist) {
		return img, err
	}
	cfg, err := parseConfig(in.blobs[in.id])
	if err != nil {
		return nil, err
	}
	r := &record{ID: in.id, Manifest: in.manifest, Target: in.target, Layers: in.layers, Stack: in.stack, Size: in.size}
	img = r.image(nil)
	img.Config = *cfg
	return img, nil
}

// storeError gives a full disk its class and says which.
func (s *Images) storeError(err error) error {
	if sys.IsNoSpace(err) {
		return errs.New(errs.NoSpace, "no space left on the disk of %s", s.st.Root).
			WithHint("free some space there, for example by removing images, and try again")
	}
	return err
}

// stageBlobs stages those of in that are not there, or not as they should be.
func (s *Images) stageBlobs(g *stage, in *incoming) error {
	for d, b := range in.blobs {
		if _, err := s.readBlob(d); err == nil {
			continue
		}
		if err := g.add(s.st.Blob(d.Hex()), b); err != nil {
			return err
		}
	}
	return nil
}

// stageRecord stages the record of in, with what the one that is there has.
func (s *Images) stageRecord(g *stage, in *incoming) error {
	r := &record{
		ID: in.id, Manifest: in.manifest, Target: in.target, Layers: in.layers, Size: in.size,
		Pulled: time.Now().UTC(), Source: in.source, Created: createdIn(in.blobs[in.id]),
	}
	if !slices.Equal(in.stack, in.layers) {
		r.Stack = in.stack
	}
	if old, err := s.readRecord(in.id); err == nil {
		r.Pulled, r.Blobs = old.Pulled, old.Blobs
		if r.Target == nil || in.loaded && old.Target != nil {
			r.Manifest, r.Target = old.Manifest, old.Target
		}
	}
	for d := range in.blobs {
		if !slices.Contains(r.Blobs, d) {
			r.Blobs = append(r.Blobs, d)
		}
	}
	slices.Sort(r.Blobs)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := s.st.Image(in.id.Hex())
	if now, err := os.ReadFile(path); err == nil && string(now) == string(b)+"\n" {
		return nil
	}
	return g.add(path, append(b, '\n'))
}

// createdIn returns when an image was made, by its config.
func createdIn(config []byte) *time.Time {
	var c struct{ Created *time.Time }
	if json.Unmarshal(config, &c) != nil {
		return nil
	}
	return c.Created
}

// stageNames stages the names of all images; where two have one name, the last
// of them gets it. It returns where moved names point now.
func (s *Images) stageNames(g *stage, imgs []*incoming) (moved map[string]spec.Digest, err error) {
	final := map[spec.Reference]spec.Digest{}
	for _, in := range imgs {
		for _, ref := range in.names {
			final[ref] = in.id
		}
	}
	moved = map[string]spec.Digest{}
	for _, in := range imgs {
		for _, ref := range in.names {
			if final[ref] != in.id {
				continue
			}
			old, err := s.stageName(g, ref, in.id)
			if err != nil {
				return nil, err
			}
			if old != "" && old != in.id {
				moved[ref.Familiar()] = old
			}
		}
	}
	return moved, nil
}

// stageName has ref point at image id and returns where it points now. A name
// that is right already is left alone.
func (s *Images) stageName(g *stage, ref spec.Reference, id spec.Digest) (old spec.Digest, err error) {
	n, err := s.readName(ref)
	if err == nil && n.Image == id {
		return id, nil
	}
	b, err := json.Marshal(name{Name: ref.String(), Image: id, Time: time.Now().UTC()})
	if err != nil {
		return "", err
	}
	return n.Image, g.add(s.namePath(ref.String()), append(b, '\n'))
}

// writeName is stageName of one name, published.
func (s *Images) writeName(ref spec.Reference, id spec.Digest) error {
	var g stage
	defer g.discard()
	if _, err := s.stageName(&g, ref, id); err != nil {
		return err
	}
	return g.publish()
}

// A stage is files that are written and synced under temporary names beside
// their places, and then renamed into these together: a disk that fills up does
// so before any of them shows.
type stage struct{ files []staged }

type staged struct{ temp, path string }

func (g *stage) add(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	g.files = append(g.files, staged{f.Name(), path})
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// publish renames the files, in their order, and makes that durable. All are
// in one directory.
func (g *stage) publish() error {
	if len(g.files) == 0 {
		return nil
	}
	dir := filepath.Dir(g.files[0].path)
	for len(g.files) > 0 {
		if err := os.Rename(g.files[0].temp, g.files[0].path); err != nil {
			return err
		}
		g.files = g.files[1:]
	}
	return state.SyncDir(dir)
}

// discard removes what was not published.
func (g *stage) discard() {
	for _, f := range g.files {
		os.Remove(f.temp)
	}
}
