package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// SaveOptions modify a Save.
type SaveOptions struct {
	OCI       bool            // an OCI layout alone, without what docker load reads
	Platforms []spec.Platform // of each name; none: what the name means
}

// Save writes images into w as one archive that Load, docker load, podman and
// skopeo read: a docker-archive that is an OCI layout as well, or the layout
// alone. A repository without a tag means all its tags; an ID or a digest saves
// the image without a name. The same images give the same bytes.
//
// Layers are in it once, uncompressed, as they lie on the disk: where w is a
// file the kernel copies them. Meanwhile their checksums are compared; a layer
// that has changed on the disk is Corrupt, and w is then to be thrown away.
func (s *Images) Save(ctx context.Context, w io.Writer, names []string, o SaveOptions) error {
	imgs, err := s.collect(names, o.Platforms)
	defer func() {
		for _, img := range imgs {
			img.release()
		}
	}()
	if err != nil {
		return err
	}
	a := &archiveWriter{ctx: ctx, w: w, s: s, done: map[spec.Digest]bool{}}
	if err := a.write(imgs, o.OCI); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	for _, img := range imgs {
		s.didID("save", img.id, string(img.id))
	}
	return nil
}

// outgoing is an image on its way out, its layers held.
type outgoing struct {
	id       spec.Digest
	platform spec.Platform
	config   []byte
	names    []spec.Reference
	layers   []*layer.Layer
	manifest []byte
}

func (g *outgoing) release() {
	for _, l := range g.layers {
		l.Close()
	}
}

// collect finds the images of names and holds their layers. An image that is
// named twice comes once. What was collected is returned with an error, too.
func (s *Images) collect(names []string, platforms []spec.Platform) (out []*outgoing, err error) {
	// Nothing found is removed before its layers are held.
	lock, err := s.st.Refs(false)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	byID := map[spec.Digest]*outgoing{}
	for _, name := range names {
		found, refs, err := s.meant(name)
		if err != nil {
			return out, err
		}
		for i, img := range found {
			variants := []*Image{img}
			if len(platforms) > 0 {
				variants = nil
			}
			for _, p := range platforms {
				v, err := s.variant(img, name, p)
				if err != nil {
					return out, err
				}
				variants = append(variants, v)
			}
			for _, v := range variants {
				g := byID[v.ID]
				if g == nil {
					if g, err = s.outgoing(v); g != nil {
						out = append(out, g)
					}
					if err != nil {
						return out, err
					}
					byID[v.ID] = g
				}
				if i < len(refs) && !slices.Contains(g.names, refs[i]) {
					g.names = append(g.names, refs[i])
				}
			}
		}
	}
	return out, nil
}

// meant returns the images that a user means by name, and for each the tag that
// it is saved under, if any.
func (s *Images) meant(name string) (imgs []*Image, refs []spec.Reference, err error) {
	if ref, err := spec.ParseDockerReference(name); err == nil && !strings.ContainsAny(name[strings.LastIndexByte(name, '/')+1:], ":@") {
		all, err := s.names()
		if err != nil {
			return nil, nil, err
		}
		for _, n := range all {
			if n.ref.Name() == ref.Name() && n.ref.Tag != "" {
				img, err := s.byID(n.Image)
				if err != nil {
					return nil, nil, gone(err, n.Name)
				}
				imgs, refs = append(imgs, img), append(refs, n.ref)
			}
		}
		if len(imgs) > 0 {
			return imgs, refs, nil
		}
	}
	id, ref, err := s.find(name)
	if err != nil {
		return nil, nil, err
	}
	img, err := s.byID(id)
	if err != nil {
		return nil, nil, gone(err, name)
	}
	if ref != nil && ref.Tag != "" && ref.Digest == "" {
		refs = []spec.Reference{*ref}
	}
	return []*Image{img}, refs, nil
}

// gone is err, which reading the image called name gave: not to find it means
// that it has just been removed.
func gone(err error, name string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return noImage(name)
	}
	return err
}

// outgoing holds the layers of img and makes its manifest.
func (s *Images) outgoing(img *Image) (*outgoing, error) {
	g := &outgoing{id: img.ID, platform: img.Config.Platform}
	var err error
	if g.config, err = s.readBlob(img.ID); err != nil {
		return g, gone(err, string(img.ID))
	}
	m := spec.Manifest{SchemaVersion: 2, MediaType: spec.TypeOCIManifest, Layers: []spec.Descriptor{}}
	m.Config = spec.Descriptor{MediaType: spec.TypeOCIConfig, Digest: img.ID, Size: int64(len(g.config))}
	for _, d := range img.Layers() {
		l, err := s.layers.Get(d)
		if err != nil {
			return g, err
		}
		g.layers = append(g.layers, l)
		m.Layers = append(m.Layers, spec.Descriptor{MediaType: spec.TypeOCILayer, Digest: d, Size: l.Size})
	}
	g.manifest, err = json.Marshal(m)
	return g, err
}

// index describes imgs in an OCI layout: one entry per name. In a layout alone
// the name stands whole in ref.name, where podman and skopeo look for it;
// Docker has only the tag there.
func layoutIndex(imgs []*outgoing, oci bool) ([]byte, error) {
	x := spec.Index{SchemaVersion: 2, MediaType: spec.TypeOCIIndex, Manifests: []spec.Descriptor{}}
	for _, g := range imgs {
		d := spec.Descriptor{MediaType: spec.TypeOCIManifest, Digest: spec.DigestOf(g.manifest), Size: int64(len(g.manifest))}
		if g.platform.Architecture != "" {
			d.Platform = &g.platform
		}
		for _, ref := range g.names {
			named := d
			named.Annotations = map[string]string{annotationImageName: ref.String(), annotationRefName: ref.Tag}
			if oci {
				named.Annotations[annotationRefName] = ref.String()
			}
			x.Manifests = append(x.Manifests, named)
		}
		if len(g.names) == 0 {
			x.Manifests = append(x.Manifests, d)
		}
	}
	return json.Marshal(x)
}

// dockerFiles are manifest.json and repositories, which docker load reads.
func dockerFiles(imgs []*outgoing) (manifest, repositories []byte, err error) {
	type source struct {
		MediaType string      `json:"mediaType"`
		Size      int64       `json:"size"`
		Digest    spec.Digest `json:"digest"`
	}
	type entry struct {
		Config       string
		RepoTags     []string
		Layers       []string
		LayerSources map[spec.Digest]source `json:",omitempty"`
	}
	entries := []entry{}
	repos := map[string]map[string]string{}
	for _, g := range imgs {
		e := entry{Config: layoutPath(g.id), Layers: []string{}, LayerSources: map[spec.Digest]source{}}
		for _, l := range g.layers {
			e.Layers = append(e.Layers, layoutPath(l.DiffID))
			e.LayerSources[l.DiffID] = source{spec.TypeOCILayer, l.Size, l.DiffID}
		}
		for _, ref := range g.names {
			e.RepoTags = append(e.RepoTags, ref.Familiar())
			if repos[ref.FamiliarName()] == nil {
				repos[ref.FamiliarName()] = map[string]string{}
			}
			if len(g.layers) > 0 {
				repos[ref.FamiliarName()][ref.Tag] = g.layers[len(g.layers)-1].DiffID.Hex()
			}
		}
		entries = append(entries, e)
	}
	if manifest, err = json.Marshal(entries); err == nil {
		repositories, err = json.Marshal(repos)
	}
	return manifest, repositories, err
}

func layoutPath(d spec.Digest) string { return "blobs/sha256/" + d.Hex() }

// archiveWriter writes a tar. It makes the headers itself: archive/tar would
// copy what is in the files through a buffer.
type archiveWriter struct {
	ctx  context.Context
	w    io.Writer
	s    *Images
	done map[spec.Digest]bool // blobs written
}

func (a *archiveWriter) write(imgs []*outgoing, oci bool) error {
	index, err := layoutIndex(imgs, oci)
	if err != nil {
		return err
	}
	files := []struct {
		name string
		b    []byte
	}{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", index}}
	if !oci {
		manifest, repositories, err := dockerFiles(imgs)
		if err != nil {
			return err
		}
		files = append(files, struct {
			name string
			b    []byte
		}{"manifest.json", manifest}, struct {
			name string
			b    []byte
		}{"repositories", repositories})
	}
	for _, f := range files {
		if err := a.file(f.name, f.b); err != nil {
			return err
		}
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := a.header(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, g := range imgs {
		for _, b := range [][]byte{g.manifest, g.config} {
			if d := spec.DigestOf(b); !a.done[d] {
				a.done[d] = true
				if err := a.file(layoutPath(d), b); err != nil {
					return err
				}
			}
		}
	}
	for _, g := range imgs {
		for _, l := range g.layers {
			if a.done[l.DiffID] {
				continue
			}
			a.done[l.DiffID] = true
			if err := a.layer(l); err != nil {
				return fmt.Errorf("image %s: %w", g.id.Short(), err)
			}
		}
	}
	_, err = a.w.Write(make([]byte, 2*tarBlock))
	return err
}

const tarBlock = 512

// header writes the header of one member. Nothing in it depends on when and by
// whom the archive is made.
func (a *archiveWriter) header(h *tar.Header) error {
	h.ModTime = time.Unix(0, 0)
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return err
	}
	_, err := a.w.Write(b.Bytes())
	return err
}

func (a *archiveWriter) file(name string, b []byte) error {
	if err := a.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err := a.w.Write(append(slices.Clone(b), make([]byte, padding(int64(len(b))))...))
	return err
}

func padding(size int64) int64 { return -size & (tarBlock - 1) }

// copyStep is how much is copied before it is asked whether to go on.
const copyStep = 32 << 20

// layer writes one layer and checks it. Whoever checks reads the same pages
// a moment before or after the kernel copies them, so the disk is read once.
func (a *archiveWriter) layer(l *layer.Layer) error {
	f, err := a.s.layers.Tar(l.DiffID)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.header(&tar.Header{Typeflag: tar.TypeReg, Name: layoutPath(l.DiffID), Mode: 0o644, Size: l.Size}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	checked := make(chan error, 1)
	go func() {
		err := l.Check(ctx, f)
		if err != nil {
			cancel(err)
		}
		checked <- err
	}()
	err = a.copy(ctx, f, l.Size)
	if err != nil && ctx.Err() == nil {
		cancel(err) // or the other one would go on to the end
	}
	if verr := <-checked; verr != nil && err == nil || errs.Is(verr, errs.Corrupt) {
		return verr
	}
	if err != nil {
		return err
	}
	_, err = a.w.Write(make([]byte, padding(l.Size)))
	return err
}

func (a *archiveWriter) copy(ctx context.Context, f *os.File, size int64) error {
	for size > 0 && ctx.Err() == nil {
		n, err := io.CopyN(a.w, f, min(size, copyStep))
		size -= n
		if err == io.EOF {
			return errs.New(errs.Corrupt, "%s became shorter while it was saved", f.Name())
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}
