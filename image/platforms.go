package image

import (
	"errors"
	"io/fs"
	"slices"

	"tug/errs"
	"tug/spec"
)

// ResolveFor is Resolve for one platform: the image that name means, if it is
// for that platform, else an image in the store that came with the same index
// and is. A nil platform is Resolve.
func (s *Images) ResolveFor(name string, want *spec.Platform) (*Image, error) {
	img, err := s.Resolve(name)
	if err != nil || want == nil {
		return img, err
	}
	return s.variant(img, name, *want)
}

// variant returns the image of the same index as img that serves want best.
func (s *Images) variant(img *Image, name string, want spec.Platform) (*Image, error) {
	best, at := img, fit(img.Config.Platform, want)
	if at == 0 {
		return img, nil
	}
	all, err := s.Variants(img)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if f := fit(v.Config.Platform, want); f < at {
			best, at = v, f
		}
	}
	if at >= noFit {
		return nil, errs.New(errs.NotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			name, img.Config.Platform, want).WithHint("fetch it with: tug pull --platform %s %s", want, name)
	}
	return best, nil
}

// Variants returns the other images in the store that came with img's index:
// the same name for other platforms.
func (s *Images) Variants(img *Image) ([]*Image, error) {
	if img.Target == nil || img.Target.Digest == img.Manifest {
		return nil, nil
	}
	all, err := s.names()
	if err != nil {
		return nil, err
	}
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var out []*Image
	for _, id := range ids {
		r, err := s.readRecord(id)
		if errors.Is(err, fs.ErrNotExist) || errs.Is(err, errs.Corrupt) || err == nil && (id == img.ID || !slices.Contains(r.Blobs, img.Target.Digest)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if v, err := s.image(r, all); err == nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// PlatformTree is what a name stands for: an index with its platforms, or an
// image for one.
type PlatformTree struct {
	Image     *Image
	Target    spec.Digest // of the index; else the image's ID
	Platforms []PlatformImage
}

// PlatformImage is one platform of a PlatformTree.
type PlatformImage struct {
	Platform spec.Platform
	Image    spec.Digest // empty where it is not in the store
	Disk     int64       // bytes of its layers in the store
	Content  int64       // bytes of its layers, config and manifest as the registry has them
}

// Platforms makes the trees of imgs.
func (s *Images) Platforms(imgs []*Image) ([]*PlatformTree, error) {
	disk, err := s.onDisk()
	if err != nil {
		return nil, err
	}
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	byManifest := map[spec.Digest]*record{}
	for _, id := range ids {
		if r, err := s.readRecord(id); err == nil {
			byManifest[r.Manifest] = r
		}
	}
	var out []*PlatformTree
	for _, img := range imgs {
		t := &PlatformTree{Image: img, Target: img.ID}
		if img.Target != nil && img.Target.Digest != img.Manifest {
			t.Target = img.Target.Digest
			for _, d := range s.entries(img.Target.Digest) {
				p := PlatformImage{Platform: *d.Platform}
				if r := byManifest[d.Digest]; r != nil {
					p.Image, p.Disk, p.Content = r.ID, sumOf(r.Layers, disk), s.contentOf(d.Digest)
				}
				t.Platforms = append(t.Platforms, p)
			}
		}
		if len(t.Platforms) == 0 {
			t.Platforms = []PlatformImage{{img.Config.Platform, img.ID, sumOf(img.Layers(), disk), s.contentOf(img.Manifest)}}
		}
		out = append(out, t)
	}
	return out, nil
}

// entries returns the images that an index in the store names with a platform.
func (s *Images) entries(index spec.Digest) []spec.Descriptor {
	b, err := s.readBlob(index)
	if err != nil {
		return nil
	}
	_, x, err := parseManifest(b, "")
	if err != nil || x == nil {
		return nil
	}
	var out []spec.Descriptor
	for _, d := range x.Manifests {
		if isImageEntry(d) && d.Platform != nil {
			out = append(out, d)
		}
	}
	return out
}

func sumOf(layers []spec.Digest, sizes map[spec.Digest]int64) (sum int64) {
	for d := range setOf(layers) {
		sum += sizes[d]
	}
	return sum
}

// contentOf returns the bytes of an image as its manifest tells; 0 without one.
func (s *Images) contentOf(manifest spec.Digest) int64 {
	b, err := s.readBlob(manifest)
	if err != nil {
		return 0
	}
	m, _, err := parseManifest(b, "")
	if err != nil || m == nil {
		return 0
	}
	sum := int64(len(b)) + m.Config.Size
	for _, l := range m.Layers {
		sum += l.Size
	}
	return sum
}
