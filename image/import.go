package image

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// ImportOptions modify an Import.
type ImportOptions struct {
	Name     *spec.Reference // that the image gets; nil: none
	Changes  []string        // Dockerfile instructions, see ApplyChanges
	Message  string          // default "Imported from SOURCE"
	Source   string          // where the tar comes from, in words; "-" for standard input
	Platform *spec.Platform  // nil: the host's
	Progress Progress        // may be nil
}

// Import makes an image of one layer of the tar of a file system, plain or
// compressed with gzip, bzip2, xz or zstd.
func (s *Images) Import(ctx context.Context, r io.Reader, o ImportOptions) (spec.Digest, error) {
	now := time.Now().UTC()
	if o.Message == "" {
		o.Message = "Imported from " + o.Source
	}
	cfg := spec.ImageConfig{Platform: spec.HostPlatform(), Created: &now, Comment: o.Message}
	if o.Platform != nil {
		cfg.Platform = o.Platform.Normalize()
	}
	if cfg.OS != "linux" {
		return "", errs.New(errs.Unsupported, "operating system %.40q is not supported", cfg.OS).WithHint("only images for linux can be made")
	}
	if err := ApplyChanges(&cfg.Config, o.Changes); err != nil {
		return "", err
	}
	plain, err := inflate(r)
	if err != nil {
		return "", err
	}
	defer plain.close()
	ev := newEvents(o.Progress)
	src := &memberReader{r: &archiveReader{ctx: ctx, r: plain}}
	in := &countingReader{r: src, event: func(n int64) { ev.layer("import", "Importing", n, 0) }}
	l, err := s.layers.Add(ctx, in, layer.Expect{BlobSize: -1, Source: "import"})
	switch {
	case ctx.Err() != nil:
		if err == nil {
			l.Close()
		}
		return "", context.Cause(ctx)
	case src.err != nil:
		return "", archiveError(src.err)
	case err != nil:
		return "", err
	}
	defer l.Close()
	cfg.RootFS = spec.RootFS{Type: "layers", DiffIDs: []spec.Digest{l.DiffID}}
	cfg.History = []spec.HistoryRow{{Created: &now, Comment: o.Message}}
	b, err := json.Marshal(cfg)
	if err != nil {
		return "", err
	}
	id := spec.DigestOf(b)
	img := &incoming{id: id, blobs: map[spec.Digest][]byte{id: b}, layers: cfg.RootFS.DiffIDs, size: l.Content}
	if o.Name != nil {
		img.names = []spec.Reference{o.Name.WithDefaultTag()}
	}
	if _, err = s.commit(ctx, []*incoming{img}); err == nil {
		s.didID("import", id, string(id))
	}
	return id, err
}

// Fetch opens what a URL names, for Import.
func (s *Images) Fetch(ctx context.Context, url string) (io.ReadCloser, error) {
	return s.reg.Fetch(ctx, url)
}
