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
