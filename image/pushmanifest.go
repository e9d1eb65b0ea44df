package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// manifest is a manifest or an index as the bytes that a registry gets.
type manifest struct {
	raw    []byte
	desc   spec.Descriptor // MediaType, Digest, Size
	parsed *spec.Manifest  // nil for an index
}

func newManifest(raw []byte, mediaType string, parsed *spec.Manifest) *manifest {
	return &manifest{raw, spec.Descriptor{MediaType: mediaType, Digest: spec.DigestOf(raw), Size: int64(len(raw))}, parsed}
}

// readManifest returns the image manifest with digest d from the store.
func (s *Images) readManifest(d spec.Digest) (*manifest, error) {
	raw, err := s.readBlob(d)
	if err != nil {
		return nil, err
	}
	m, _, err := parseManifest(raw, "")
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errs.New(errs.Corrupt, "%s is no image's manifest", d)
	}
	t := m.MediaType
	if t == "" {
		t = spec.TypeOCIManifest // the only one that may leave it out
	}
	return newManifest(raw, t, m), nil
}

// image uploads the layers and the config of an image and returns its manifest:
// the one with digest d, if there is one and all its layers could be kept.
func (p *push) image(ctx context.Context, rec *record, d spec.Digest) (*manifest, error) {
	var old *manifest
	if d != "" {
		m, err := p.s.readManifest(d)
		if err == nil && len(m.parsed.Layers) == len(rec.Layers) && m.parsed.Config.Digest == rec.ID {
			old = m
		}
	}
	config, err := p.s.readBlob(rec.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, p.s.lost(rec, err)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", rec.ID.Short(), err)
	}
	if err := p.hold(rec); err != nil {
		return nil, err
	}
	layers, err := p.layers(ctx, rec, old)
	if err != nil {
		return nil, err
	}
	if err := p.config(ctx, rec.ID, config); err != nil {
		return nil, err
	}
	switch {
	case old == nil:
		return makeManifest(rec.ID, int64(len(config)), layers)
	case slices.EqualFunc(layers, old.parsed.Layers, func(a, b spec.Descriptor) bool { return a.Digest == b.Digest }):
		return old, nil
	}
	return changeManifest(old, layers)
}

// hold takes the image's layers, so that nobody removes them meanwhile.
func (p *push) hold(rec *record) error {
	for _, d := range rec.Layers {
		if p.held[d] != nil {
			continue
		}
		l, err := p.s.layers.Get(d)
		if errs.Is(err, errs.NotFound) {
			return p.s.lost(rec, err)
		}
		if err != nil {
			return err
		}
		p.held[d] = l
	}
	return nil
}

func (p *push) config(ctx context.Context, d spec.Digest, b []byte) error {
	desc := spec.Descriptor{Digest: d, Size: int64(len(b))}
	if has, err := p.s.reg.HasBlob(ctx, p.repo, desc); has || err != nil {
		return err
	}
	_, err := p.s.reg.Upload(ctx, p.repo, desc, func(context.Context) (io.ReadCloser, error) { return bytesReader(b), nil })
	return err
}

// makeManifest describes an image that came without a manifest, as `docker
// push` describes one that was built here.
func makeManifest(config spec.Digest, size int64, layers []spec.Descriptor) (*manifest, error) {
	m := &spec.Manifest{
		SchemaVersion: 2, MediaType: spec.TypeDockerManifest,
		Config: spec.Descriptor{MediaType: spec.TypeDockerConfig, Digest: config, Size: size},
		Layers: append([]spec.Descriptor{}, layers...),
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return newManifest(raw, m.MediaType, m), nil
}

// changeManifest is old with other layers. All else stays as it is, also what
// tug does not know.
func changeManifest(old *manifest, layers []spec.Descriptor) (*manifest, error) {
	var descs []json.RawMessage
	raw, err := rewrite(old.raw, "layers", &descs, func() (err error) {
		for i, d := range layers {
			if d.Digest == old.parsed.Layers[i].Digest {
				continue
			}
			if descs[i], err = json.Marshal(d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m, _, err := parseManifest(raw, old.desc.MediaType)
	if err != nil {
		return nil, err
	}
	return newManifest(raw, old.desc.MediaType, m), nil
}

// changeIndex is old with other manifests in the places of those that changed.
func changeIndex(old *manifest, changed map[spec.Digest]spec.Descriptor) (*manifest, error) {
	var entries []map[string]json.RawMessage
	raw, err := rewrite(old.raw, "manifests", &entries, func() error {
		for _, e := range entries {
			var d spec.Digest
			if err := json.Unmarshal(e["digest"], &d); err != nil {
				return err
			}
			to, ok := changed[d]
			if !ok {
				continue
			}
			e["digest"], e["size"] = json.RawMessage(`"`+string(to.Digest)+`"`), json.RawMessage(fmt.Sprint(to.Size))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newManifest(raw, old.desc.MediaType, nil), nil
}

// rewrite changes one field of a JSON object, which it reads into v for f to
// change, and keeps all others.
func rewrite(raw []byte, field string, v any, f func() error) ([]byte, error) {
	var all map[string]json.RawMessage
	err := json.Unmarshal(raw, &all)
	if err == nil {
		err = json.Unmarshal(all[field], v)
	}
	if err == nil {
		err = f()
	}
	if err == nil {
		all[field], err = json.Marshal(v)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// layerType is the media type of a gzip layer in a manifest like old.
func layerType(old *manifest) string {
	if old == nil || old.desc.MediaType == spec.TypeDockerManifest {
		return spec.TypeDockerLayer
	}
	return spec.TypeOCILayerGzip
}

// forms are the compressed forms of a layer that a manifest like old may name,
// as it names them.
func forms(l *layer.Layer, old *manifest) []spec.Descriptor {
	var out []spec.Descriptor
	for _, d := range l.Blobs {
		if d.Size <= 0 {
			continue
		}
		switch {
		case d.MediaType == spec.TypeOCILayerGzip:
			out = append(out, spec.Descriptor{MediaType: layerType(old), Digest: d.Digest, Size: d.Size})
		case d.MediaType == spec.TypeOCILayerZstd && layerType(old) == spec.TypeOCILayerGzip:
			out = append(out, d)
		}
	}
	return out
}
