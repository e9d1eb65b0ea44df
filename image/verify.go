package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// Verified is what Verify found out about one image.
type Verified struct {
	Image  *Image
	Blobs  int // compared with their digests
	Layers int
	Bytes  int64 // read of blobs and layers' tars
	Faults []Fault
}

// Fault is one thing that is wrong in the store.
type Fault struct {
	Object string // store, blob, layer, image, name, container, volume, leftover
	ID     string // which
	Path   string // the file it is about
	What   string // what is wrong
	Effect string // what does not work because of it
	Mended string // what was done about it; "" is nothing
	Left   string // why nothing could be done
}

func (f *Fault) String() string {
	s := fmt.Sprintf("%s %s: %s %s", f.Object, f.ID, f.Path, f.What)
	if f.ID == "" {
		s = fmt.Sprintf("%s: %s %s", f.Object, f.Path, f.What)
	}
	if f.Effect != "" {
		s += "; " + f.Effect
	}
	return s
}

// Verify proves that what is on disk of an image is what its digests say: every
// layer's tar, what was made from it, config, manifest and indexes; and that the
// record agrees with the config.
func (s *Images) Verify(ctx context.Context, name string) (*Verified, error) {
	id, _, err := s.find(name)
	if err != nil {
		return nil, err
	}
	r, err := s.readRecord(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noImage(name)
	}
	v := &Verified{Image: &Image{ID: id}}
	if errs.Is(err, errs.Corrupt) {
		v.Faults = append(v.Faults, recordFault(s, id, "is not the record of this image"))
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := s.names()
	if err != nil {
		return nil, err
	}
	v.Image, _ = s.image(r, all) // a broken config is found below
	faults, cfg := s.checkRecord(r)
	v.Faults = faults
	v.Blobs = len(r.Blobs)
	layers := r.Layers
	if cfg != nil {
		layers = cfg.RootFS.DiffIDs
	}
	layers = slices.Concat(layers, r.Stack)
	found, err := s.checkLayers(ctx, layers, false)
	if err != nil {
		return nil, err
	}
	seen := map[spec.Digest]bool{}
	for _, d := range layers {
		if seen[d] {
			continue
		}
		seen[d] = true
		v.Layers++
		if info, err := s.layers.Info(d); err == nil {
			v.Bytes += info.Size
		}
		for _, f := range s.layerFaults(d, found[d]) {
			if f.Object != Leftover { // which says nothing about the image
				v.Faults = append(v.Faults, f)
			}
		}
	}
	if cfg != nil && len(v.Faults) == 0 {
		if stack, ok := s.expectedStack(ctx, cfg.RootFS.DiffIDs); ok && !slices.Equal(stack, r.stack()) {
			v.Faults = append(v.Faults, stackFault(s, id))
		}
	}
	return v, nil
}

func recordFault(s *Images, id spec.Digest, what string) Fault {
	return Fault{Object: "image", ID: id.Short(), Path: s.st.Image(id.Hex()), What: what, Effect: "the image cannot be used"}
}

// checkRecord compares a record with the blobs it names. It returns the config
// when that is whole.
func (s *Images) checkRecord(r *record) ([]Fault, *spec.ImageConfig) {
	var faults []Fault
	add := func(what, effect string) {
		f := recordFault(s, r.ID, what)
		f.Effect = effect
		faults = append(faults, f)
	}
	for _, d := range r.Blobs {
		if f := s.checkBlob(d); f != nil {
			if d == r.ID {
				f.Effect = "image " + r.ID.Short() + " cannot be used"
			}
			faults = append(faults, *f)
		}
	}
	if !slices.Contains(r.Blobs, r.ID) {
		add("does not name the image's config as one of its blobs", "the config may be removed as unused")
	}
	for _, d := range []spec.Digest{r.Manifest, targetDigest(r)} {
		if d != "" && !slices.Contains(r.Blobs, d) {
			add("does not name manifest "+d.Short()+" as one of its blobs", "the image cannot be pushed as it came")
		}
	}
	b, err := s.readBlob(r.ID)
	if err != nil {
		return faults, nil
	}
	cfg, err := parseConfig(b)
	if err != nil {
		add("is of a config that cannot be used: "+err.Error(), "the image cannot be used")
		return faults, nil
	}
	if !slices.Equal(cfg.RootFS.DiffIDs, r.Layers) {
		add("names other layers than the image's config", "containers would see other files")
	}
	return faults, cfg
}

func stackFault(s *Images, id spec.Digest) Fault {
	f := recordFault(s, id, "says that something else is mounted than follows from the image's layers")
	f.Effect = "containers would see other files"
	return f
}

// expectedStack returns what has to be mounted for layers; ok is false when
// that cannot be found out, because one is missing or damaged.
func (s *Images) expectedStack(ctx context.Context, layers []spec.Digest) (stack []spec.Digest, ok bool) {
	for _, d := range layers {
		l, err := s.layers.Get(d)
		if err != nil {
			return nil, false
		}
		defer l.Close()
	}
	stack, made, err := s.layers.Stack(ctx, layers)
	for _, l := range made {
		l.Close()
	}
	return stack, err == nil
}

func targetDigest(r *record) spec.Digest {
	if r.Target == nil {
		return ""
	}
	return r.Target.Digest
}

// checkBlob returns what is wrong with a blob, or nil.
func (s *Images) checkBlob(d spec.Digest) *Fault {
	_, err := s.readBlob(d)
	f := &Fault{Object: "blob", ID: d.Short(), Path: s.st.Blob(d.Hex()), Effect: "images that need it cannot be used or pushed"}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		f.What = "is missing"
	case errs.Is(err, errs.Corrupt):
		f.What = "has other bytes than its digest says"
	default:
		f.What = "cannot be read: " + err.Error()
	}
	return f
}

// layerMissing is the fault of a layer that is not there at all.
var layerMissing = layer.Fault{Kind: layer.FaultTar, What: "is missing"}

// checkLayers checks layers, on all processors. A layer that is not there is a
// fault of the kind FaultTar.
func (s *Images) checkLayers(ctx context.Context, layers []spec.Digest, quick bool) (map[spec.Digest][]layer.Fault, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan spec.Digest)
	found := map[spec.Digest][]layer.Fault{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for d := range queue {
				faults, err := s.layers.Check(ctx, d, quick)
				if errs.Is(err, errs.NotFound) {
					faults, err = []layer.Fault{layerMissing}, nil
				}
				if err != nil {
					cancel(err)
				}
				mu.Lock()
				found[d] = faults
				mu.Unlock()
			}
		})
	}
	seen := map[spec.Digest]bool{}
	for _, d := range layers {
		if !seen[d] && ctx.Err() == nil {
			seen[d] = true
			queue <- d
		}
	}
	close(queue)
	wg.Wait()
	return found, context.Cause(ctx)
}

// layerFaults describes faults of a layer.
func (s *Images) layerFaults(d spec.Digest, faults []layer.Fault) []Fault {
	var out []Fault
	for _, f := range faults {
		path := s.st.Layer(d.Hex())
		if f.File != "" {
			path += "/" + f.File
		}
		object := "layer"
		if f.Kind == layer.FaultLeft {
			object = Leftover
		}
		out = append(out, Fault{Object: object, ID: d.Short(), Path: path, What: f.What, Effect: layerEffect(f.Kind)})
	}
	return out
}

func layerEffect(k layer.FaultKind) string {
	switch k {
	case layer.FaultTar:
		return "containers that use the layer fail or see wrong files"
	case layer.FaultMeta:
		return "the layer cannot be used, or is listed wrongly"
	case layer.FaultIndex, layer.FaultTree:
		return "containers may see wrong files"
	case layer.FaultMode:
		return "others on this machine may read the image"
	}
	return "it only takes space"
}
