package image

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

const (
	parallelUploads = 5 // layers, as with Docker
	parallelGzips   = 2 // of them; one alone keeps all processors busy
	maxMounts       = 3 // repositories that are tried
	maxRelays       = 3
)

// sentKey is a layer, the blob that it should be in the registry, and the media
// type that it gets otherwise.
type sentKey struct {
	diffID, blob spec.Digest
	mediaType    string
}

// An upload is one layer to have in the registry.
type upload struct {
	l     *layer.Layer
	short string
	old   *manifest        // of the image; nil for none
	orig  *spec.Descriptor // what old says; nil without it
}

func (u *upload) key() sentKey {
	k := sentKey{diffID: u.l.DiffID, mediaType: layerType(u.old)}
	if u.orig != nil {
		k.blob = u.orig.Digest
	}
	return k
}

// layers has the registry have all layers of the image, five at a time and the
// topmost first, and returns their descriptors, the lowest first.
func (p *push) layers(ctx context.Context, rec *record, old *manifest) ([]spec.Descriptor, error) {
	uploads := make([]*upload, len(rec.Layers))
	var todo []*upload
	seen := map[sentKey]bool{}
	for i, d := range slices.Backward(rec.Layers) {
		u := &upload{l: p.held[d], short: d.Short(), old: old}
		if old != nil {
			u.orig = &old.parsed.Layers[i]
		}
		uploads[i] = u
		if !seen[u.key()] {
			p.events.layer(u.short, "Preparing", 0, 0)
			todo = append(todo, u)
		}
		seen[u.key()] = true
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan *upload, len(todo))
	for i, u := range todo {
		if i >= parallelUploads {
			p.events.layer(u.short, "Waiting", 0, 0)
		}
		queue <- u
	}
	close(queue)
	var wg sync.WaitGroup
	for range min(parallelUploads, len(todo)) {
		wg.Go(func() {
			for u := range queue {
				if ctx.Err() != nil {
					return
				}
				if err := p.layer(ctx, u); err != nil {
					cancel(err) // the first one counts
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	descs := make([]spec.Descriptor, len(uploads))
	for i, u := range uploads {
		descs[i] = p.sent[u.key()]
	}
	return descs, nil
}

// layer has the registry have one layer.
func (p *push) layer(ctx context.Context, u *upload) error {
	p.mu.Lock()
	_, there := p.sent[u.key()]
	p.mu.Unlock()
	if there {
		p.events.layer(u.short, "Layer already exists", 0, 0)
		return nil
	}
	d, status, err := p.bring(ctx, u)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.sent[u.key()] = d
	p.mu.Unlock()
	p.events.layer(u.short, status, 0, 0)
	return nil
}

// bring tries the ways in the order of what they cost and keep. It returns what
// the registry has then, and Docker's word for how that came.
func (p *push) bring(ctx context.Context, u *upload) (d spec.Descriptor, status string, err error) {
	if u.orig != nil {
		if status, err = p.there(ctx, u, *u.orig); status != "" || err != nil {
			return *u.orig, status, err
		}
		if u.orig.Digest == u.l.DiffID {
			return *u.orig, "Pushed", p.plain(ctx, u)
		}
		relayed, err := p.relay(ctx, u)
		if relayed || err != nil {
			return *u.orig, "Pushed", err
		}
	}
	for _, form := range forms(u.l, u.old) {
		if u.orig != nil && form.Digest == u.orig.Digest {
			continue
		}
		if status, err = p.there(ctx, u, form); status != "" || err != nil {
			return form, status, err
		}
	}
	d, err = p.squeeze(ctx, u)
	return d, "Pushed", err
}

// there reports by its status that the registry has blob d, or has mounted it
// from another of its repositories; "" is no.
func (p *push) there(ctx context.Context, u *upload, d spec.Descriptor) (status string, err error) {
	has, err := p.s.reg.HasBlob(ctx, p.repo, d)
	if err != nil {
		return "", err
	}
	if has {
		return "Layer already exists", nil
	}
	tried := 0
	for _, repo := range p.sources(u, d.Digest) {
		if repo.Domain != p.repo.Domain || tried == maxMounts {
			continue
		}
		tried++
		// A repository that is not for us to read is no error of the push.
		mounted, err := p.s.reg.Mount(ctx, p.repo, d.Digest, repo.Path)
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err == nil && mounted:
			return "Mounted from " + repo.Path, nil
		}
	}
	return "", nil
}

// sources are the other repositories that are known to have blob d.
func (p *push) sources(u *upload, d spec.Digest) []spec.Reference {
	all := slices.Clone(p.origins()[d])
	if ref, ok := sourceOf(u.l); ok && ref.Digest == d {
		ref.Digest = ""
		if !slices.Contains(all, ref) {
			all = append(all, ref)
		}
	}
	return slices.DeleteFunc(all, func(r spec.Reference) bool { return r == p.repo })
}

// plain uploads the layer's tar as it is.
func (p *push) plain(ctx context.Context, u *upload) error {
	_, err := p.s.reg.Upload(ctx, p.repo, *u.orig, func(context.Context) (io.ReadCloser, error) {
		f, err := p.s.layers.Tar(u.l.DiffID)
		if err != nil {
			return nil, err
		}
		return p.pushing(u, f, u.orig.Size), nil
	})
	return err
}

// relay passes the layer's original blob through from where it came, or from
// elsewhere. False: nobody has it or gives it.
func (p *push) relay(ctx context.Context, u *upload) (bool, error) {
	tried := 0
	for _, repo := range p.sources(u, u.orig.Digest) {
		p.mu.Lock()
		dead := p.dead[repo.Domain]
		p.mu.Unlock()
		if dead || tried == maxRelays {
			continue
		}
		tried++
		src := &watched{}
		_, err := p.s.reg.Upload(ctx, p.repo, *u.orig, func(ctx context.Context) (io.ReadCloser, error) {
			rc, err := p.s.reg.Blob(ctx, repo, *u.orig)
			if err != nil {
				src.failed(err)
				return nil, err
			}
			return &watchedReader{p.pushing(u, rc, u.orig.Size), src}, nil
		})
		cause := src.err()
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case cause == nil && !errs.Is(err, errs.Corrupt):
			return false, err // the target's fault
		case errs.Is(cause, errs.Unavailable) || errs.Is(cause, errs.Denied):
			p.mu.Lock()
			p.dead[repo.Domain] = true
			p.mu.Unlock()
		}
	}
	return false, nil
}

// squeeze compresses the layer into the registry, and remembers as what.
func (p *push) squeeze(ctx context.Context, u *upload) (spec.Descriptor, error) {
	select {
	case p.compress <- struct{}{}:
		defer func() { <-p.compress }()
	case <-ctx.Done():
		return spec.Descriptor{}, context.Cause(ctx)
	}
	d, err := p.s.reg.Upload(ctx, p.repo, spec.Descriptor{}, func(ctx context.Context) (io.ReadCloser, error) {
		return p.s.layers.Gzip(ctx, u.l, func(n int64) { p.events.layer(u.short, "Pushing", n, u.l.Size) })
	})
	if err != nil {
		return d, err
	}
	d.MediaType = spec.TypeOCILayerGzip
	if _, err := p.s.layers.Remember(u.l.DiffID, d); err != nil {
		return d, p.s.storeError(err)
	}
	if u.orig != nil && u.orig.Digest == d.Digest {
		return *u.orig, nil
	}
	d.MediaType = layerType(u.old)
	return d, nil
}

// pushing tells how much of size has been read of rc.
func (p *push) pushing(u *upload, rc io.ReadCloser, size int64) io.ReadCloser {
	r := &countingReader{r: rc, total: size, event: func(n int64) { p.events.layer(u.short, "Pushing", n, size) }}
	return struct {
		io.Reader
		io.Closer
	}{r, rc}
}

// watched notes what a source's reader failed with.
type watched struct {
	mu    sync.Mutex
	cause error
}

func (w *watched) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause = err
}

func (w *watched) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
}

type watchedReader struct {
	io.ReadCloser
	w *watched
}

func (r *watchedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		r.w.failed(err)
	}
	return n, err
}

func bytesReader(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
