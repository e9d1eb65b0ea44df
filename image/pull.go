package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// PullOptions modify a Pull.
type PullOptions struct {
	Platform *spec.Platform // nil: the host's, and whatever a lone manifest is for
	Progress Progress       // may be nil
}

// Pulled is what a Pull did.
type Pulled struct {
	Image  *Image
	Ref    spec.Reference // what was pulled: with a tag or a digest
	Digest spec.Digest    // of what the reference names: index or manifest
	Newer  bool           // the name is new or points at another image now
}

// Status is Docker's last line.
func (p *Pulled) Status() string {
	if p.Newer {
		return "Status: Downloaded newer image for " + p.Ref.Familiar()
	}
	return "Status: Image is up to date for " + p.Ref.Familiar()
}

const parallelLayers = 3

// Pull fetches the image that ref names (latest where it names neither tag nor
// digest) and points the name at it. Nothing lands that is not verified. When it
// fails or is killed, layers that were complete stay in the store, referenced by
// nobody, for the next pull of them; Sweep removes them when that does not come.
func (s *Images) Pull(ctx context.Context, ref spec.Reference, o PullOptions) (*Pulled, error) {
	ref = ref.WithDefaultTag()
	if ref.Digest != "" {
		ref.Tag = ""
	}
	p := &pull{s: s, ref: ref, events: newEvents(o.Progress), platform: spec.HostPlatform(), explicit: o.Platform != nil}
	if o.Platform != nil {
		p.platform = *o.Platform
	}
	if err := p.describe(ctx); err != nil {
		return nil, err
	}
	p.events.message(tagOrName(ref) + ": Pulling from " + ref.Path)
	old, err := s.readName(ref)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errs.Is(err, errs.Corrupt) {
		return nil, err
	}
	p.newer = err != nil || old.Image != p.manifest.Config.Digest
	_, err = s.readRecord(p.manifest.Config.Digest)
	p.known = err == nil
	defer p.release()
	if err := p.fetchLayers(ctx); err != nil {
		return nil, err
	}
	return p.finish(ctx)
}

func tagOrName(ref spec.Reference) string {
	if ref.Tag != "" {
		return ref.Tag
	}
	return ref.String()
}

type pull struct {
	s        *Images
	ref      spec.Reference
	platform spec.Platform
	explicit bool
	events   *events

	target   spec.Descriptor // what ref names
	chosen   spec.Descriptor // the manifest for the platform
	manifest *spec.Manifest
	cfg      *spec.ImageConfig
	newer    bool                   // the name does not point at the image yet
	known    bool                   // the image is here, by whatever name: nothing to tell of its layers
	blobs    map[spec.Digest][]byte // all that the image keeps

	mu     sync.Mutex
	layers map[spec.Digest]*layer.Layer // held until the image is recorded
}

// describe finds manifest and config. When what came makes no sense and may be
// a mirror's, the registry itself is asked.
func (p *pull) describe(ctx context.Context) error {
	for again := true; ; again = false {
		p.blobs, p.target = map[spec.Digest][]byte{}, spec.Descriptor{}
		err := p.resolve(ctx)
		if err == nil {
			err = p.config(ctx)
		}
		if !again || !errs.Is(err, errs.Corrupt) || !p.s.reg.AvoidMirrors(p.ref) {
			return err
		}
	}
}

// resolve follows ref through indexes to the manifest of the platform.
func (p *pull) resolve(ctx context.Context) error {
	at, want := p.ref, spec.Descriptor{Size: -1}
	for range maxNesting {
		desc, body, err := p.s.reg.Manifest(ctx, at)
		if err != nil {
			return err
		}
		if want.Size >= 0 && desc.Size != want.Size {
			return errs.New(errs.Corrupt, "%s: manifest %s has %d bytes, its index says %d", p.ref.Familiar(), desc.Digest.Short(), desc.Size, want.Size)
		}
		if desc.MediaType == "" {
			desc.MediaType = want.MediaType
		}
		m, x, err := parseManifest(body, desc.MediaType)
		if err != nil {
			return p.bad(err)
		}
		if desc.MediaType == "" {
			desc.MediaType = spec.TypeOCIManifest
		}
		p.blobs[desc.Digest] = body
		if p.target.Digest == "" {
			p.target = desc
		}
		if m != nil {
			p.manifest, p.chosen = m, desc
			return nil
		}
		if want, err = choose(x, p.platform); err != nil {
			return p.bad(err)
		}
		at = spec.Reference{Domain: p.ref.Domain, Path: p.ref.Path, Digest: want.Digest}
	}
	return p.bad(errs.New(errs.Unsupported, "indexes are nested more than %d deep", maxNesting))
}

// bad says which image err is about; the registry's errors do so themselves.
func (p *pull) bad(err error) error { return fmt.Errorf("%s: %w", p.ref.Familiar(), err) }

// config reads the image's config, from the store or the registry.
func (p *pull) config(ctx context.Context) error {
	d := p.manifest.Config
	b, err := p.s.readBlob(d.Digest)
	if err != nil {
		if b, err = p.fetchConfig(ctx, d); err != nil {
			return err
		}
	}
	if p.cfg, err = parseConfig(b); err != nil {
		return p.bad(err)
	}
	p.blobs[d.Digest] = b
	if got, want := len(p.cfg.RootFS.DiffIDs), len(p.manifest.Layers); got != want {
		return p.bad(errs.New(errs.Corrupt, "the image's config names %d layers, its manifest %d", got, want))
	}
	if p.explicit && p.cfg.Architecture != "" && !fits(p.cfg.Platform, p.platform) {
		return errs.New(errs.NotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			p.ref.Familiar(), p.cfg.Platform, p.platform)
	}
	return nil
}

func (p *pull) fetchConfig(ctx context.Context, d spec.Descriptor) ([]byte, error) {
	rc, err := p.s.reg.Blob(ctx, p.ref, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	// Blob brings d.Size bytes, and parseManifest has bounded those.
	b, err := io.ReadAll(rc)
	if err != nil {
		return nil, err
	}
	if got := spec.DigestOf(b); got != d.Digest {
		return nil, p.bad(errs.New(errs.Corrupt, "config: the registry sent %s instead of %s", got, d.Digest))
	}
	return b, nil
}

// A job is one layer to have; an image may name the same one several times.
type job struct {
	blob   spec.Descriptor
	diffID spec.Digest
}

// fetchLayers brings the layers that are missing into the store, three at a
// time, and holds all.
func (p *pull) fetchLayers(ctx context.Context) error {
	p.layers = map[spec.Digest]*layer.Layer{}
	var jobs []job
	seen := map[spec.Digest]bool{}
	for i, d := range p.manifest.Layers {
		id, short := p.cfg.RootFS.DiffIDs[i], d.Digest.Short()
		l, err := p.s.layers.Get(id)
		switch {
		case seen[id]:
			p.exists(short)
			if err == nil {
				l.Close()
			}
		case err == nil:
			p.hold(l)
			p.exists(short)
		case errs.Is(err, errs.NotFound) || errs.Is(err, errs.Corrupt): // Add replaces a damaged one
			p.events.layer(short, "Pulling fs layer", 0, 0)
			jobs = append(jobs, job{d, id})
		default:
			return err
		}
		seen[id] = true
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan job, len(jobs))
	for i, j := range jobs {
		if i >= parallelLayers {
			p.events.layer(j.blob.Digest.Short(), "Waiting", 0, 0)
		}
		queue <- j
	}
	close(queue)
	var wg sync.WaitGroup
	for range min(parallelLayers, len(jobs)) {
		wg.Go(func() {
			for j := range queue {
				if ctx.Err() != nil {
					return
				}
				if err := p.fetchLayer(ctx, j); err != nil {
					cancel(err) // the first one counts
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// exists tells of a layer that is here already. As with Docker that goes unsaid
// where the whole image is.
func (p *pull) exists(short string) {
	if !p.known {
		p.events.layer(short, "Already exists", 0, 0)
	}
}

func (p *pull) fetchLayer(ctx context.Context, j job) error {
	short := j.blob.Digest.Short()
	t, err := p.s.takeTurn(ctx, j.diffID, func() { p.events.layer(short, "Waiting", 0, 0) })
	if err != nil {
		return err
	}
	defer t.end()
	if l, err := p.s.layers.Get(j.diffID); err == nil {
		p.events.layer(short, "Already exists", 0, 0)
		p.hold(l)
		return nil
	}
	l, err := p.addLayer(ctx, j)
	if err != nil {
		return err
	}
	p.events.layer(short, "Pull complete", 0, 0)
	p.hold(l)
	return nil
}

// addLayer downloads a layer into the store, again from its first byte where it
// may be our own doing that the first try failed.
func (p *pull) addLayer(ctx context.Context, j job) (*layer.Layer, error) {
	keep, again := true, true
	for {
		d := p.s.newDownload(ctx, p.ref, j.blob, keep)
		l, err := p.addFrom(ctx, j, d)
		switch errs.ClassOf(err) {
		case errs.Corrupt, errs.Invalid, errs.Unsupported:
			d.end(false)
			// What an earlier download left need not be what it got: power may have
			// failed, or its registry lied. And a mirror may have sent other bytes
			// than were asked for; that is tried once.
			if !d.used && !(again && p.s.reg.AvoidMirrors(p.ref)) {
				return nil, err
			}
			again = again && d.used
		case errs.NoSpace:
			d.end(false)
			if !d.kept {
				return nil, err
			}
			// There may be room for the layer alone, and where killed pulls left
			// something, in its place.
			keep = false
			if err := p.s.Sweep(); err != nil {
				return nil, err
			}
		default:
			d.end(err != nil)
			return l, err
		}
	}
}

func (p *pull) addFrom(ctx context.Context, j job, d *download) (*layer.Layer, error) {
	short := j.blob.Digest.Short()
	r := &countingReader{r: d, total: j.blob.Size, event: func(n int64) {
		if n < j.blob.Size {
			p.events.layer(short, "Downloading", n, j.blob.Size)
			return
		}
		p.events.layer(short, "Download complete", 0, 0)
		p.events.layer(short, "Extracting", n, n)
	}}
	l, err := p.s.layers.Add(ctx, r, layer.Expect{
		Blob: j.blob.Digest, BlobSize: j.blob.Size, DiffID: j.diffID, Source: p.ref.Name() + "@" + string(j.blob.Digest),
	})
	if err == nil {
		return l, nil
	}
	if own, ok := d.failure(err); ok {
		return nil, own
	}
	return nil, p.bad(err)
}

func (p *pull) hold(l *layer.Layer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers[l.DiffID] = l
}

func (p *pull) release() {
	for _, l := range p.layers {
		l.Close()
	}
}

// finish records the image under its names and reads it back.
func (p *pull) finish(ctx context.Context) (*Pulled, error) {
	s, id := p.s, p.manifest.Config.Digest
	in := &incoming{
		id: id, manifest: p.chosen.Digest, target: &p.target, blobs: p.blobs, layers: p.cfg.RootFS.DiffIDs,
		// The digest first: a name:tag never shows without the digest it stood for.
		names: []spec.Reference{{Domain: p.ref.Domain, Path: p.ref.Path, Digest: p.target.Digest}},
	}
	if p.ref.Tag != "" {
		in.names = append(in.names, p.ref)
	}
	for _, d := range in.layers {
		in.size += p.layers[d].Content
	}
	if _, err := s.commit(ctx, []*incoming{in}); err != nil {
		return nil, err
	}
	img, err := s.recorded(in)
	if err != nil {
		return nil, err
	}
	s.did("pull", p.ref.Familiar(), p.ref.FamiliarName(), img.Config.Config.Labels)
	return &Pulled{Image: img, Ref: p.ref, Digest: p.target.Digest, Newer: p.newer}, nil
}

// countingReader tells how much went through it.
type countingReader struct {
	r     io.Reader
	n     int64
	total int64
	event func(n int64)
	next  time.Time
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if n > 0 {
		c.n += int64(n)
		// The clock bounds the events; the end is always told.
		if now := time.Now(); c.n == c.total || now.After(c.next) {
			c.next = now.Add(eventPeriod)
			c.event(c.n)
		}
	}
	return n, err
}
