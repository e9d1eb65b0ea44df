package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// PushOptions modify a Push.
type PushOptions struct {
	Platform *spec.Platform // this one of the images of an index, without the index
	AllTags  bool           // all that are here of the repository
	Progress Progress       // may be nil
}

// Pushed is one tag that was pushed.
type Pushed struct {
	Ref     spec.Reference
	Digest  spec.Digest // of what the tag names in the registry now
	Size    int64       // of that manifest or index
	Instead spec.Digest // the index whose place the manifest of one platform took; may be empty
}

// Push uploads what the tag ref names, or all tags of its repository, and notes
// the digests as names of the images. It returns the tags that were pushed, also
// when one failed.
//
// What the registry has is not sent. An image goes under the manifest it came
// with if each of its layers can be had as it came: it is there already, or in
// another repository of that registry, from where it is mounted, or in another
// registry, from where it is passed through. Other layers are compressed anew
// and the manifest is changed accordingly. An image without a manifest gets one
// of Docker's schema 2.
//
// An index is pushed when all it names is here or there; else only the manifest
// of the one image that the tag means here.
func (s *Images) Push(ctx context.Context, ref spec.Reference, o PushOptions) ([]Pushed, error) {
	if ref.Digest != "" {
		return nil, errs.New(errs.Invalid, "cannot push a digest reference").WithHint("give the image a tag and push that")
	}
	p := &push{
		s: s, repo: spec.Reference{Domain: ref.Domain, Path: ref.Path}, platform: o.Platform, events: newEvents(o.Progress),
		held: map[spec.Digest]*layer.Layer{}, sent: map[sentKey]spec.Descriptor{}, dead: map[string]bool{},
		compress: make(chan struct{}, parallelGzips), origins: sync.OnceValue(s.blobOrigins),
	}
	defer p.release()
	p.events.message("The push refers to repository [" + ref.Name() + "]")
	names, err := s.pushNames(ref, o.AllTags)
	if err != nil {
		return nil, err
	}
	var all []Pushed
	for _, n := range names {
		one, err := p.tag(ctx, n)
		if err != nil {
			return all, err
		}
		p.events.message(fmt.Sprintf("%s: digest: %s size: %d", one.Ref.Tag, one.Digest, one.Size))
		s.did("push", one.Ref.Familiar(), one.Ref.FamiliarName(), nil)
		all = append(all, *one)
	}
	return all, nil
}

// pushNames returns the names to push: ref's, or all tags of its repository.
func (s *Images) pushNames(ref spec.Reference, allTags bool) ([]name, error) {
	if !allTags {
		ref = ref.WithDefaultTag()
		n, err := s.readName(ref)
		if !errors.Is(err, fs.ErrNotExist) {
			return []name{n}, err
		}
	}
	all, err := s.names()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(n name) bool { return n.ref.Name() != ref.Name() || n.ref.Tag == "" })
	switch {
	case len(all) == 0:
		return nil, errs.New(errs.NotFound, "An image does not exist locally with the tag: %s", ref.FamiliarName()).
			WithHint("give an image that name with: tug tag IMAGE %s", ref.FamiliarName())
	case !allTags:
		return nil, errs.New(errs.NotFound, "tag does not exist: %s", ref.Familiar())
	}
	return all, nil
}

// push is one run of Push.
type push struct {
	s        *Images
	repo     spec.Reference // where to, without a tag
	platform *spec.Platform
	events   *events
	origins  func() origins
	compress chan struct{} // a token per layer that is being compressed

	mu   sync.Mutex
	held map[spec.Digest]*layer.Layer // until the end
	sent map[sentKey]spec.Descriptor  // layers that are there now
	dead map[string]bool              // registries that did not answer as sources
}

func (p *push) release() {
	for _, l := range p.held {
		l.Close()
	}
}

// tag pushes what n names.
func (p *push) tag(ctx context.Context, n name) (*Pushed, error) {
	rec, err := p.s.readRecord(n.Image)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noImage(n.Name)
	}
	if err != nil {
		return nil, err
	}
	done := &Pushed{Ref: n.ref}
	if p.platform != nil {
		if rec, err = p.pick(n, rec); err != nil {
			return nil, err
		}
	} else if rec.Target != nil && rec.Target.Digest != rec.Manifest {
		members, err := p.members(ctx, rec)
		if err != nil {
			return nil, err
		}
		if members != nil {
			return done, p.index(ctx, done, rec, members)
		}
		done.Instead = rec.Target.Digest
	}
	m, err := p.image(ctx, rec, rec.Manifest)
	if err != nil {
		return nil, err
	}
	return done, p.put(ctx, done, rec.ID, m, m)
}

// pick returns the record of the image for the platform among those that came
// by the same index as rec.
func (p *push) pick(n name, rec *record) (*record, error) {
	best, bestFit := rec, noFit
	own := spec.Platform{}
	for _, r := range p.s.readableRecords() {
		if r.ID != rec.ID && (rec.Target == nil || r.Target == nil || r.Target.Digest != rec.Target.Digest) {
			continue
		}
		b, err := p.s.readBlob(r.ID)
		if err != nil {
			continue
		}
		cfg, err := parseConfig(b)
		if err != nil {
			continue
		}
		if r.ID == rec.ID {
			own = cfg.Platform
		}
		if f := fit(cfg.Platform, *p.platform); f < bestFit {
			best, bestFit = r, f
		}
	}
	if bestFit == noFit {
		return nil, errs.New(errs.NotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			n.ref.Familiar(), own, p.platform).WithHint("fetch that platform's with: tug pull --platform %s", p.platform)
	}
	return best, nil
}

// readableRecords returns the records that can be read.
func (s *Images) readableRecords() []*record {
	ids, err := s.ids()
	if err != nil {
		return nil
	}
	var all []*record
	for _, id := range ids {
		if r, err := s.readRecord(id); err == nil {
			all = append(all, r)
		}
	}
	return all
}

// listed is one entry of an index; rec is nil for what only the registry has.
type listed struct {
	desc spec.Descriptor
	rec  *record
}

// members returns the entries of the index that rec's name stood for, or nil
// when one of them is neither here nor there.
func (p *push) members(ctx context.Context, rec *record) ([]listed, error) {
	b, err := p.s.readBlob(rec.Target.Digest)
	if err != nil {
		return nil, nil
	}
	_, x, err := parseManifest(b, rec.Target.MediaType)
	if err != nil || x == nil {
		return nil, nil
	}
	recs := p.s.readableRecords()
	var all []listed
	for _, d := range x.Manifests {
		at := slices.IndexFunc(recs, func(r *record) bool {
			return slices.Contains(r.Blobs, d.Digest) && !isIndexType(d.MediaType) && r.has(p.s, d)
		})
		if at >= 0 {
			all = append(all, listed{d, recs[at]})
			continue
		}
		there, err := p.s.reg.HasManifest(ctx, p.repo, d)
		if err != nil {
			return nil, err
		}
		if !there {
			return nil, nil
		}
		all = append(all, listed{d, nil})
	}
	return all, nil
}

// has reports whether d is a manifest of the image.
func (r *record) has(s *Images, d spec.Descriptor) bool {
	m, _ := s.readManifest(d.Digest)
	return m != nil && m.parsed.Config.Digest == r.ID
}

// index pushes an index with the images of it that are here.
func (p *push) index(ctx context.Context, done *Pushed, rec *record, members []listed) error {
	raw, err := p.s.readBlob(rec.Target.Digest)
	if err != nil {
		return err
	}
	x := &manifest{raw: raw, desc: *rec.Target}
	changed := map[spec.Digest]spec.Descriptor{}
	for _, m := range members {
		if m.rec == nil {
			continue
		}
		one, err := p.image(ctx, m.rec, m.desc.Digest)
		if err != nil {
			return err
		}
		if err := p.s.reg.PutManifest(ctx, p.repo, one.desc.MediaType, one.raw); err != nil {
			return err
		}
		if one.desc.Digest != m.desc.Digest {
			changed[m.desc.Digest] = one.desc
			if err := p.s.notePush(m.rec.ID, nil, one, nil); err != nil {
				return err
			}
		}
	}
	if len(changed) > 0 {
		if x, err = changeIndex(x, changed); err != nil {
			return err
		}
	}
	return p.put(ctx, done, rec.ID, x, nil)
}

// put gives the tag its manifest or index, top, and notes it in the store. own
// is the manifest of image id where top is that.
func (p *push) put(ctx context.Context, done *Pushed, id spec.Digest, top, own *manifest) error {
	if err := p.s.reg.PutManifest(ctx, done.Ref, top.desc.MediaType, top.raw); err != nil {
		return err
	}
	done.Digest, done.Size = top.desc.Digest, top.desc.Size
	ref := p.repo
	ref.Digest = top.desc.Digest
	return p.s.notePush(id, &ref, top, own)
}

// notePush gives image id the name ref, which is a repository digest, and keeps
// the manifest or index m that it stands for. An image without a manifest gets
// own. An image that was removed meanwhile stays removed.
func (s *Images) notePush(id spec.Digest, ref *spec.Reference, m, own *manifest) error {
	// Exclusive, since the record is changed and not replaced.
	lock, err := s.st.Refs(true)
	if err != nil {
		return err
	}
	defer lock.Close()
	rec, err := s.readRecord(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var blobs, records, names stage
	defer func() { blobs.discard(); records.discard(); names.discard() }()
	if _, err := s.readBlob(m.desc.Digest); err != nil {
		if err := blobs.add(s.st.Blob(m.desc.Digest.Hex()), m.raw); err != nil {
			return s.storeError(err)
		}
	}
	if change(rec, m, own) {
		b, err := json.Marshal(rec)
		if err == nil {
			err = records.add(s.st.Image(id.Hex()), append(b, '\n'))
		}
		if err != nil {
			return s.storeError(err)
		}
	}
	if ref != nil {
		if _, err := s.stageName(&names, *ref, id); err != nil {
			return s.storeError(err)
		}
	}
	for _, g := range []*stage{&blobs, &records, &names} {
		if err := g.publish(); err != nil {
			return s.storeError(err)
		}
	}
	return nil
}

// change notes m and own in rec and reports whether they are news.
func change(rec *record, m, own *manifest) bool {
	news := false
	if !slices.Contains(rec.Blobs, m.desc.Digest) {
		rec.Blobs = append(rec.Blobs, m.desc.Digest)
		slices.Sort(rec.Blobs)
		news = true
	}
	if own != nil && rec.Manifest == "" && rec.Target == nil {
		rec.Manifest, rec.Target = own.desc.Digest, &own.desc
		news = true
	}
	return news
}

// origins tells which repositories are known to have a blob.
type origins map[spec.Digest][]spec.Reference

func (o origins) add(d spec.Digest, repo spec.Reference) {
	repo.Tag, repo.Digest = "", ""
	if !slices.Contains(o[d], repo) {
		o[d] = append(o[d], repo)
	}
}

// blobOrigins reads them off the repository digests that images have.
func (s *Images) blobOrigins() origins {
	o := origins{}
	all, err := s.names()
	if err != nil {
		return o
	}
	for _, n := range all {
		if n.ref.Digest != "" && n.ref.Domain != "" {
			s.addOrigins(o, n.ref, n.ref.Digest, 0)
		}
	}
	return o
}

func (s *Images) addOrigins(o origins, repo spec.Reference, d spec.Digest, depth int) {
	b, err := s.readBlob(d)
	if err != nil || depth > maxNesting {
		return // of another platform, and not here
	}
	m, x, err := parseManifest(b, "")
	switch {
	case err != nil:
	case m != nil:
		for _, l := range m.Layers {
			o.add(l.Digest, repo)
		}
	default:
		for _, e := range x.Manifests {
			s.addOrigins(o, repo, e.Digest, depth+1)
		}
	}
}

// sourceOf is where a layer came from first, as its description says.
func sourceOf(l *layer.Layer) (spec.Reference, bool) {
	if !strings.Contains(l.Source, "@sha256:") {
		return spec.Reference{}, false
	}
	ref, err := spec.ParseReference(l.Source)
	return ref, err == nil && ref.Digest != "" && ref.Domain != ""
}
