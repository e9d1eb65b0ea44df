package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/state"
)

// record is images/ids/<hex>.json. Its modification time is when the image was
// last used, so that using one costs no write.
type record struct {
	ID       spec.Digest      `json:"id"`
	Manifest spec.Digest      `json:"manifest,omitempty"`
	Target   *spec.Descriptor `json:"target,omitempty"`
	Blobs    []spec.Digest    `json:"blobs"`           // all that the image keeps: config, manifest, indexes
	Layers   []spec.Digest    `json:"layers"`          // diffIDs, lowest first
	Stack    []spec.Digest    `json:"stack,omitempty"` // what to mount, where that is not Layers
	Size     int64            `json:"size"`
	Pulled   time.Time        `json:"pulled"`
	Source   string           `json:"source,omitempty"` // what a built-in image was made from

	Created *time.Time `json:"created,omitempty"` // as the config says, so that lists need not read it

	used time.Time
}

// name is images/names/<file>: one tag or one repository digest.
type name struct {
	Name  string      `json:"name"` // full form of the reference
	Image spec.Digest `json:"image"`
	Time  time.Time   `json:"time"` // when it was given

	ref spec.Reference
}

const maxFileName = 240

// nameFile returns the file name for a full reference. The references'
// alphabet has no %, so escaping is unambiguous; a name that is too long for a
// file goes by its hash.
func nameFile(full string) string {
	f := strings.ReplaceAll(full, "/", "%2F")
	if len(f) > maxFileName {
		f = "%" + spec.DigestOf([]byte(full)).Hex()
	}
	return f
}

func (s *Images) namePath(full string) string {
	return filepath.Join(s.st.Names(), nameFile(full))
}

// readName returns the name file of ref; fs.ErrNotExist when there is none.
func (s *Images) readName(ref spec.Reference) (name, error) {
	return s.readNameFile(nameFile(ref.String()))
}

func (s *Images) readNameFile(file string) (name, error) {
	var n name
	path := filepath.Join(s.st.Names(), file)
	err := state.ReadJSON(path, &n)
	if err == nil {
		var perr error
		n.ref, perr = spec.ParseReference(n.Name)
		if perr == nil && nameFile(n.Name) == file && validDigest(n.Image) {
			return n, nil
		}
		err = errs.New(errs.Corrupt, "read %s: it is the name of something else", path)
	}
	if errs.Is(err, errs.Corrupt) {
		err = errs.New(errs.Corrupt, "%w", err).WithHint("pull, load or tag it again")
	}
	return name{}, err
}

// names returns all names, sorted. A broken one is left out: the image that it
// meant is kept by its record, and the next tag of that name mends it.
func (s *Images) names() ([]name, error) {
	entries, err := os.ReadDir(s.st.Names())
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) // somebody's temporary
	found := make([]name, len(entries))
	failed := make([]error, len(entries))
	inParallel(len(entries), func(i int) { found[i], failed[i] = s.readNameFile(entries[i].Name()) })
	var all []name
	for i, err := range failed {
		switch {
		case err == nil:
			all = append(all, found[i])
		case !errors.Is(err, fs.ErrNotExist) && errs.ClassOf(err) == errs.Internal:
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b name) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// readRecord returns the record of image id; fs.ErrNotExist when there is none.
func (s *Images) readRecord(id spec.Digest) (*record, error) {
	path := s.st.Image(id.Hex())
	r := &record{}
	if err := state.ReadJSON(path, r); err != nil {
		return nil, err
	}
	ok := r.ID == id
	for _, d := range slices.Concat(r.Blobs, r.Layers, r.Stack) {
		ok = ok && validDigest(d)
	}
	if !ok {
		return nil, errs.New(errs.Corrupt, "read %s: it is no record of image %s", path, id.Short()).
			WithHint("remove the file and fetch the image again")
	}
	if fi, err := os.Stat(path); err == nil {
		r.used = fi.ModTime()
	}
	return r, nil
}

// stack is what to mount for the image, lowest first.
func (r *record) stack() []spec.Digest {
	if len(r.Stack) > 0 {
		return r.Stack
	}
	return r.Layers
}

func validDigest(d spec.Digest) bool {
	_, err := spec.ParseDigest(string(d))
	return err == nil
}

// ids returns the IDs of all images.
func (s *Images) ids() ([]spec.Digest, error) {
	entries, err := os.ReadDir(s.st.Images())
	if err != nil {
		return nil, err
	}
	var ids []spec.Digest
	for _, e := range entries {
		if hexa, ok := strings.CutSuffix(e.Name(), ".json"); ok && spec.IsHex64(hexa) {
			ids = append(ids, spec.Digest("sha256:"+hexa))
		}
	}
	return ids, nil
}

// records returns all records; one that is unreadable is an error, because what
// it needs might be removed otherwise.
func (s *Images) records() ([]*record, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var all []*record
	for _, id := range ids {
		r, err := s.readRecord(id)
		switch {
		case err == nil:
			all = append(all, r)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return all, nil
}

// readBlob returns the bytes that d names, verified.
func (s *Images) readBlob(d spec.Digest) ([]byte, error) {
	b, err := os.ReadFile(s.st.Blob(d.Hex()))
	if err != nil {
		return nil, err
	}
	if spec.DigestOf(b) != d {
		return nil, errs.New(errs.Corrupt, "blob %s: its bytes have changed", s.st.Blob(d.Hex())).
			WithHint("pull or load the image again")
	}
	return b, nil
}

// image is what the record and the names among all that are r's say.
func (r *record) image(all []name) *Image {
	img := &Image{ID: r.ID, Manifest: r.Manifest, Target: r.Target, Size: r.Size, Pulled: r.Pulled, LastUsed: r.used}
	img.Config.RootFS.DiffIDs, img.Config.Created, img.Stack = r.Layers, r.Created, r.stack()
	for _, n := range all {
		if n.Image != r.ID {
			continue
		}
		if n.ref.Digest != "" {
			img.Digests = append(img.Digests, n.ref.Familiar())
		} else {
			img.Names = append(img.Names, n.ref.Familiar())
		}
		if n.Time.After(img.LastTag) {
			img.LastTag = n.Time
		}
	}
	return img
}

// lost is the error for a part of an image that is not there: somebody removed
// the image after its record was read, or the store is at fault.
func (s *Images) lost(r *record, err error) error {
	if _, rerr := os.Lstat(s.st.Image(r.ID.Hex())); errors.Is(rerr, fs.ErrNotExist) {
		return noImage(r.ID.Hex())
	}
	return errs.New(errs.Corrupt, "image %s: %w", r.ID.Short(), err).WithHint("pull or load the image again")
}

// image makes an Image of a record and the names it has among all. A config
// that is gone or broken is an error, with the rest of the Image there.
func (s *Images) image(r *record, all []name) (*Image, error) {
	img := r.image(all)
	b, err := s.readBlob(r.ID)
	if errors.Is(err, fs.ErrNotExist) {
		if _, rerr := os.Lstat(s.st.Image(r.ID.Hex())); errors.Is(rerr, fs.ErrNotExist) {
			return img, rerr // removed just now
		}
		err = errs.New(errs.Corrupt, "image %s: its config is missing from the store", r.ID.Short()).
			WithHint("pull or load the image again")
	}
	if err != nil {
		return img, err
	}
	cfg, err := parseConfig(b)
	if err != nil {
		return img, fmt.Errorf("image %s: %w", r.ID.Short(), err)
	}
	img.Config = *cfg
	return img, nil
}

// List returns all images, the newest first. A broken one is there with
// what is known of it, so that it can be seen and removed.
func (s *Images) List() ([]*Image, error) { return s.list(false) }

// ListBrief is List without reading configs: of Config only Created and the
// layers are sure to be there. A broken config is not noticed.
func (s *Images) ListBrief() ([]*Image, error) { return s.list(true) }

func (s *Images) list(brief bool) ([]*Image, error) {
	// Names first: an image that comes in between then shows without a name,
	// instead of a name showing without its image.
	all, err := s.names()
	if err != nil {
		return nil, err
	}
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	byImage := map[spec.Digest][]name{}
	for _, n := range all {
		byImage[n.Image] = append(byImage[n.Image], n)
	}
	imgs := make([]*Image, len(ids))
	inParallel(len(ids), func(i int) {
		img := &Image{ID: ids[i]}
		r, err := s.readRecord(ids[i])
		switch {
		case err == nil && brief && r.Created != nil:
			img = r.image(byImage[ids[i]])
		case err == nil:
			img, err = s.image(r, byImage[ids[i]])
		}
		if !errors.Is(err, fs.ErrNotExist) {
			imgs[i] = img
		}
	})
	imgs = slices.DeleteFunc(imgs, func(i *Image) bool { return i == nil })
	slices.SortStableFunc(imgs, func(a, b *Image) int { return created(b).Compare(created(a)) })
	return imgs, nil
}

// inParallel calls f for 0 to n-1 on all processors: small files are read at the
// speed of system calls and of parsing, and there may be thousands.
func inParallel(n int, f func(i int)) {
	const batch = 64
	if n <= batch {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 8) {
		wg.Go(func() {
			for {
				start := int(next.Add(batch)) - batch
				if start >= n {
					return
				}
				for i := start; i < min(start+batch, n); i++ {
					f(i)
				}
			}
		})
	}
	wg.Wait()
}

func created(i *Image) time.Time {
	if i.Config.Created == nil {
		return time.Time{}
	}
	return *i.Config.Created
}
