package image

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"tug/errs"
	"tug/spec"
)

// Resolve returns the image that a user means by name: NAME[:TAG], NAME@DIGEST,
// an ID, or the beginning of one that no other image has, each with or without
// "sha256:". A name goes before an ID. Absent is NotFound.
func (s *Images) Resolve(name string) (*Image, error) {
	id, _, err := s.find(name)
	if err != nil {
		return nil, err
	}
	img, err := s.byID(id)
	return img, gone(err, name)
}

// Lookup is Resolve for making a container: it reads the one name and not all
// of them, leaves Names, Digests and LastTag empty, and notes that the image is
// used now.
func (s *Images) Lookup(name string) (*Image, error) {
	id, _, err := s.find(name)
	if err != nil {
		return nil, err
	}
	r, err := s.readRecord(id)
	if err == nil {
		var img *Image
		if img, err = s.image(r, nil); err == nil {
			now := time.Now()
			_ = os.Chtimes(s.st.Image(id.Hex()), now, now) // gone meanwhile: create will say so
			return img, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noImage(name)
	}
	return nil, err
}

func (s *Images) byID(id spec.Digest) (*Image, error) {
	all, err := s.names()
	if err != nil {
		return nil, err
	}
	r, err := s.readRecord(id)
	if err != nil {
		return nil, err
	}
	img, err := s.image(r, all)
	if err != nil {
		return nil, err
	}
	return img, nil
}

func noImage(name string) error {
	if ref, err := spec.ParseReference(name); err == nil {
		ref = ref.WithDefaultTag()
		if ref.Digest != "" {
			ref.Tag = ""
		}
		name = ref.Familiar()
	}
	return errs.New(errs.NotFound, "No such image: %s", name)
}

// find returns the ID that name means, and the reference when it was one.
func (s *Images) find(name string) (spec.Digest, *spec.Reference, error) {
	if d, err := spec.ParseDigest(name); err == nil {
		return s.existing(d, name)
	}
	if spec.IsHex64(name) {
		return s.existing(spec.Digest("sha256:"+name), name)
	}
	ref, err := spec.ParseDockerReference(name)
	if err == nil {
		n, err := s.readName(ref)
		if err == nil {
			return n.Image, &ref, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
	}
	short := strings.TrimPrefix(name, "sha256:")
	if short != "" && spec.IsHex(short) {
		id, ierr := s.findShort(short, name)
		if ierr == nil || !errs.Is(ierr, errs.NotFound) {
			return id, nil, ierr
		}
	}
	if err != nil {
		return "", nil, err
	}
	return "", nil, noImage(name)
}

func (s *Images) existing(id spec.Digest, name string) (spec.Digest, *spec.Reference, error) {
	if _, err := os.Lstat(s.st.Image(id.Hex())); errors.Is(err, fs.ErrNotExist) {
		return "", nil, errs.New(errs.NotFound, "No such image: %s", name)
	} else if err != nil {
		return "", nil, err
	}
	return id, nil, nil
}

func (s *Images) findShort(short, name string) (spec.Digest, error) {
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	var found spec.Digest
	for _, id := range ids {
		if !strings.HasPrefix(id.Hex(), short) {
			continue
		}
		if found != "" {
			return "", errs.New(errs.Invalid, "image ID %s is ambiguous", name).WithHint("give more digits of it")
		}
		found = id
	}
	if found == "" {
		return "", noImage(name)
	}
	return found, nil
}

// Tag gives the image that source means the name target, with the tag latest
// if it has none. A name that pointed elsewhere is moved.
func (s *Images) Tag(source, target string) error {
	ref, err := spec.ParseReference(target)
	if err != nil {
		return err
	}
	if ref.Digest != "" {
		return errs.New(errs.Invalid, "refusing to create a tag with a digest reference")
	}
	if ref.FamiliarName() == "sha256" {
		return errs.New(errs.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	// Looked up under the lock: a name never points at an image that rmi has
	// just taken away.
	lock, err := s.st.Refs(false)
	if err != nil {
		return err
	}
	defer lock.Close()
	id, _, err := s.find(source)
	if err != nil {
		return err
	}
	if _, _, err := s.existing(id, source); err != nil {
		return err
	}
	ref = ref.WithDefaultTag()
	if err := s.writeName(ref, id); err != nil {
		return s.storeError(err)
	}
	s.didID("tag", id, ref.Familiar())
	return nil
}
