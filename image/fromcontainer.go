package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// CommitOptions describe the image that Commit makes.
type CommitOptions struct {
	Parent   spec.Digest   // the image that it is made from
	Layers   []spec.Digest // what was mounted for that, should it not be there any more
	Platform spec.Platform // likewise

	Config                     spec.RunConfig
	CreatedBy, Author, Message string
	Name                       *spec.Reference // that the image gets; nil: none
}

// Commit makes an image of the layers of another one and the layer whose tar r
// is. A layer that changes nothing is left out, as Docker does: then the image
// has but one more row of history.
func (s *Images) Commit(ctx context.Context, r io.Reader, o CommitOptions) (spec.Digest, error) {
	cfg, err := s.parent(&o)
	if err != nil {
		return "", err
	}
	if len(cfg.RootFS.DiffIDs) >= maxLayers {
		return "", errs.New(errs.Unsupported, "its image has %d layers, and none can have more than %d", len(cfg.RootFS.DiffIDs), maxLayers)
	}
	var held []*layer.Layer
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	size := int64(0)
	for _, d := range cfg.RootFS.DiffIDs {
		l, err := s.layers.Get(d)
		if err != nil {
			return "", err
		}
		held, size = append(held, l), size+l.Content
	}
	l, err := s.layers.Add(ctx, r, layer.Expect{BlobSize: -1, Source: "commit"})
	if err != nil {
		return "", err
	}
	row := spec.HistoryRow{CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Message}
	if held = append(held, l); l.Entries > 0 {
		cfg.RootFS.DiffIDs, size = append(cfg.RootFS.DiffIDs, l.DiffID), size+l.Content
	} else {
		row.EmptyLayer = true
	}
	id, err := s.recordCommit(ctx, cfg, row, size, &o)
	if err != nil || row.EmptyLayer {
		l.Close()
		held = held[:len(held)-1]
		s.dropUnused([]spec.Digest{l.DiffID})
	}
	return id, err
}

// recordCommit completes the description and records the image. Its layers are
// held.
func (s *Images) recordCommit(ctx context.Context, cfg *spec.ImageConfig, row spec.HistoryRow, size int64, o *CommitOptions) (spec.Digest, error) {
	now := time.Now().UTC()
	row.Created = &now
	cfg.RootFS.Type = "layers"
	cfg.Created, cfg.Author, cfg.Comment, cfg.Config = &now, o.Author, o.Message, o.Config
	cfg.DockerVersion = ""
	cfg.History = append(cfg.History, row)
	b, err := json.Marshal(cfg)
	if err != nil {
		return "", err
	}
	if len(b) > maxConfig {
		return "", errs.New(errs.Unsupported, "the image's description would be larger than %d MiB", maxConfig>>20)
	}
	id := spec.DigestOf(b)
	img := &incoming{id: id, blobs: map[spec.Digest][]byte{id: b}, layers: cfg.RootFS.DiffIDs, size: size}
	if o.Name != nil {
		img.names = []spec.Reference{o.Name.WithDefaultTag()}
	}
	if _, err := s.commit(ctx, []*incoming{img}); err != nil {
		return "", err
	}
	for _, n := range img.names {
		s.didID("tag", id, n.Familiar())
	}
	return id, nil
}

// parent returns the description of the image that a commit goes on from. When
// that was removed by force the container still has the layers, and its image
// is described by them alone.
func (s *Images) parent(o *CommitOptions) (*spec.ImageConfig, error) {
	_, err := s.readRecord(o.Parent)
	if err == nil {
		var b []byte
		if b, err = s.readBlob(o.Parent); err == nil {
			return parseConfig(b)
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &spec.ImageConfig{
		Platform: o.Platform, RootFS: spec.RootFS{DiffIDs: append([]spec.Digest{}, o.Layers...)},
		History: make([]spec.HistoryRow, len(o.Layers)),
	}, nil
}
