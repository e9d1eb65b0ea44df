package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tug/errs"
	"tug/spec"
)

// dockerEntry is one image in the manifest.json of a docker-archive.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func parseDockerArchive(b []byte) ([]dockerEntry, error) {
	var entries []dockerEntry
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, errs.New(errs.Corrupt, "manifest.json of the archive: %w", err)
	}
	if len(entries) > maxArchived {
		return nil, errs.New(errs.Invalid, "the archive names %d images, more than %d", len(entries), maxArchived)
	}
	for _, e := range entries {
		if e.Config == "" {
			return nil, errs.New(errs.Corrupt, "manifest.json of the archive: an image has no config")
		}
		if len(e.Layers) > maxLayers {
			return nil, errs.New(errs.Unsupported, "manifest.json of the archive: an image has %d layers, more than %d", len(e.Layers), maxLayers)
		}
	}
	return entries, nil
}

// dockerImages reads the images that manifest.json names.
func (a *archive) dockerImages() ([]*incoming, error) {
	b, err := a.small("manifest.json")
	if err != nil {
		return nil, err
	}
	entries, err := parseDockerArchive(b)
	if err != nil {
		return nil, err
	}
	var imgs []*incoming
	for _, e := range entries {
		config, err := a.small(e.Config)
		if err != nil {
			return nil, err
		}
		// The config's name is its digest with all tools of today.
		if want, ok := configDigest(e.Config); ok && spec.DigestOf(config) != want {
			return nil, errs.New(errs.Corrupt, "config %.200q in the archive has digest %s", e.Config, spec.DigestOf(config))
		}
		var parts []part
		for _, l := range e.Layers {
			parts = append(parts, part{l, -1})
		}
		in, err := a.assemble(config, parts)
		if err != nil {
			return nil, err
		}
		for _, tag := range e.RepoTags {
			ref, err := spec.ParseReference(tag)
			if err == nil && (ref.Tag == "" || ref.Digest != "") {
				err = errs.New(errs.Invalid, "invalid tag %.200q", tag)
			}
			if err != nil {
				return nil, errs.New(errs.Invalid, "manifest.json of the archive: %w", err)
			}
			in.addName(ref)
		}
		imgs = append(imgs, in)
	}
	return imgs, a.attachManifests(imgs)
}

func configDigest(member string) (spec.Digest, bool) {
	if d, ok := nameDigest(cleanName(member)); ok {
		return d, true
	}
	hexa := strings.TrimSuffix(cleanName(member), ".json")
	return spec.Digest("sha256:" + hexa), spec.IsHex64(hexa)
}

// attachManifests looks for the images' manifests: Docker writes archives that
// are an OCI layout as well. Images are complete without one, and what belongs
// to no image, or to other platforms' that were left out, is passed over.
func (a *archive) attachManifests(imgs []*incoming) error {
	b, err := a.small("index.json")
	if err != nil {
		return nil
	}
	_, x, err := parseManifest(b, "")
	if err != nil || x == nil {
		return nil
	}
	seen := map[spec.Digest]bool{}
	for _, d := range x.Manifests {
		if err := a.attach(imgs, d, d, nil, seen); err != nil {
			return err
		}
	}
	return nil
}

// attach gives the manifest d, or those that the index d names, to the images
// they are of; above are the indexes that led here from top, seen is what was
// met before.
func (a *archive) attach(imgs []*incoming, top, d spec.Descriptor, above map[spec.Digest][]byte, seen map[spec.Digest]bool) error {
	if len(above) == maxNesting || seen[d.Digest] || !a.has(blobMember(d)) {
		return nil
	}
	seen[d.Digest] = true
	b, err := a.blob("manifest", d, "index")
	if err != nil {
		return err
	}
	blobs := maps.Clone(above)
	if blobs == nil {
		blobs = map[spec.Digest][]byte{}
	}
	blobs[d.Digest] = b
	m, x, err := parseManifest(b, d.MediaType)
	switch {
	case err != nil:
		return nil // an artifact that is no image
	case x != nil:
		for _, e := range x.Manifests {
			if err := a.attach(imgs, top, e, blobs, seen); err != nil {
				return err
			}
		}
		return nil
	}
	for _, in := range imgs {
		if in.id != m.Config.Digest || in.target != nil {
			continue
		}
		if !a.complete(m) {
			continue
		}
		if err := a.checkManifest(in, m); err != nil {
			return fmt.Errorf("image %s: manifest %s: %w", in.id.Short(), d.Digest.Short(), err)
		}
		in.setManifest(d, top, blobs)
	}
	return nil
}

func blobMember(d spec.Descriptor) string { return "blobs/sha256/" + d.Digest.Hex() }

// complete reports whether all layers that m names are there by that name.
func (a *archive) complete(m *spec.Manifest) bool {
	return !slices.ContainsFunc(m.Layers, func(l spec.Descriptor) bool {
		name, err := a.resolve(blobMember(l))
		return err != nil || !a.has(name)
	})
}

// checkManifest compares a manifest with the image that was found by other
// ways.
func (a *archive) checkManifest(in *incoming, m *spec.Manifest) error {
	if err := checkSize("config", int64(len(in.blobs[in.id])), "manifest", m.Config.Size); err != nil {
		return err
	}
	if len(m.Layers) != len(in.layers) {
		return errs.New(errs.Corrupt, "it names %d layers, the config %d", len(m.Layers), len(in.layers))
	}
	for i, p := range layerParts(m) {
		l, err := a.layer(p)
		if err != nil {
			return err
		}
		if l.DiffID != in.layers[i] {
			return errs.New(errs.Corrupt, "its layer %d has digest %s, the config says %s", i+1, l.DiffID, in.layers[i])
		}
	}
	return nil
}

// setManifest notes the manifest of in, what its name stood for, and their bytes.
func (in *incoming) setManifest(manifest, target spec.Descriptor, blobs map[spec.Digest][]byte) {
	in.manifest = manifest.Digest
	in.target = &spec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	for d, b := range blobs {
		in.blobs[d] = b
	}
}

// ociImages reads the images of an OCI layout (image-layout.md).
func (a *archive) ociImages() ([]*incoming, error) {
	if err := a.checkLayout(); err != nil {
		return nil, err
	}
	b, err := a.small("index.json")
	if err != nil {
		return nil, err
	}
	m, x, err := parseManifest(b, "")
	if err != nil {
		return nil, errs.New(errs.ClassOf(err), "index.json of the archive: %w", err)
	}
	if m != nil {
		return nil, errs.New(errs.Corrupt, "index.json of the archive is no index")
	}
	var imgs []*incoming
	byID := map[spec.Digest]*incoming{}
	for _, e := range a.pickEntries(x) {
		d := e.Descriptor
		in, err := a.ociImage(d, e.platform)
		if errs.Is(err, errs.NotFound) && len(a.want) > 0 {
			continue // not for this platform
		}
		if err != nil {
			return nil, err
		}
		if old := byID[in.id]; old != nil {
			in = old
		} else {
			byID[in.id] = in
			imgs = append(imgs, in)
		}
		if ref, ok := entryName(d); ok {
			in.addName(ref)
		}
		if len(imgs) > maxArchived {
			return nil, errs.New(errs.Invalid, "the archive has more than %d images", maxArchived)
		}
	}
	return imgs, nil
}

func (a *archive) checkLayout() error {
	b, err := a.small("oci-layout")
	if err != nil {
		return err
	}
	var l struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return errs.New(errs.Corrupt, "oci-layout of the archive: %w", err)
	}
	if !strings.HasPrefix(l.Version, "1.") {
		return errs.New(errs.Unsupported, "the archive has OCI layout version %.20q, known is 1.0.0", l.Version)
	}
	return nil
}

// entry is one entry of a layout's index, and the platform it is to be loaded
// for where it is an index itself.
type entry struct {
	spec.Descriptor
	platform spec.Platform
}

// pickEntries returns the entries of a layout's index to load. Where several
// platforms of one name lie side by side, those asked for are meant, else the
// host's, if it is there.
func (a *archive) pickEntries(x *spec.Index) []entry {
	if len(a.want) == 0 {
		return pickFor(x, spec.HostPlatform(), false)
	}
	var out []entry
	for _, p := range a.want {
		out = append(out, pickFor(x, p, true)...)
	}
	return out
}

func pickFor(x *spec.Index, want spec.Platform, only bool) []entry {
	best := map[string]int{}
	for _, d := range x.Manifests {
		if label := entryLabel(d); isImageEntry(d) && d.Platform != nil {
			f := fit(*d.Platform, want)
			if old, ok := best[label]; !ok || f < old {
				best[label] = f
			}
		}
	}
	var out []entry
	for _, d := range x.Manifests {
		if !isImageEntry(d) {
			continue
		}
		f := 0
		if d.Platform != nil {
			f = fit(*d.Platform, want)
		}
		if d.Platform == nil || f == best[entryLabel(d)] && (!only || f < noFit) {
			out = append(out, entry{d, want})
		}
	}
	return out
}

const (
	annotationRefName   = "org.opencontainers.image.ref.name"
	annotationImageName = "io.containerd.image.name"
)

func entryLabel(d spec.Descriptor) string {
	if n := d.Annotations[annotationImageName]; n != "" {
		return n
	}
	return d.Annotations[annotationRefName]
}

// entryName returns the name that a layout's entry asks for. containerd and
// Docker write the whole; others put a whole name or only a tag into ref.name,
// and a tag alone names nothing.
func entryName(d spec.Descriptor) (spec.Reference, bool) {
	s := d.Annotations[annotationImageName]
	if s == "" {
		if s = d.Annotations[annotationRefName]; !strings.ContainsAny(s, "/:") {
			return spec.Reference{}, false
		}
	}
	ref, err := spec.ParseReference(s)
	if err != nil || ref.Digest != "" {
		return spec.Reference{}, false
	}
	return ref.WithDefaultTag(), true
}

// ociImage reads the image behind one entry, through indexes.
func (a *archive) ociImage(top spec.Descriptor, want spec.Platform) (*incoming, error) {
	blobs := map[spec.Digest][]byte{}
	d := top
	for range maxNesting {
		b, err := a.blob("manifest", d, "index")
		if err != nil {
			return nil, err
		}
		m, x, err := parseManifest(b, d.MediaType)
		if err != nil {
			return nil, errs.New(errs.ClassOf(err), "manifest %s in the archive: %w", d.Digest.Short(), err)
		}
		blobs[d.Digest] = b
		if m == nil {
			if d, err = chooseLocal(x, want, len(a.want) > 0); err != nil {
				return nil, err
			}
			continue
		}
		config, err := a.blob("config", m.Config, "manifest")
		if err != nil {
			return nil, err
		}
		in, err := a.assemble(config, layerParts(m))
		if err != nil {
			return nil, err
		}
		in.setManifest(d, top, blobs)
		return in, nil
	}
	return nil, errs.New(errs.Unsupported, "indexes in the archive are nested more than %d deep", maxNesting)
}

// chooseLocal is choose; unless the platform was asked for, an index with one
// image only means that.
func chooseLocal(x *spec.Index, want spec.Platform, asked bool) (spec.Descriptor, error) {
	d, err := choose(x, want)
	if err == nil || asked {
		return d, err
	}
	var only []spec.Descriptor
	for _, e := range x.Manifests {
		if isImageEntry(e) {
			only = append(only, e)
		}
	}
	if len(only) == 1 {
		return only[0], nil
	}
	return d, err
}

func layerParts(m *spec.Manifest) []part {
	var parts []part
	for _, l := range m.Layers {
		parts = append(parts, part{blobMember(l), l.Size})
	}
	return parts
}
