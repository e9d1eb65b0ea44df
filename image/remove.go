package image

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/state"
)

// Removed is one line of what Remove did: exactly one field is set.
type Removed struct {
	Untagged string `json:",omitempty"` // familiar name
	Deleted  string `json:",omitempty"` // an image's ID or a layer's chain ID
}

func (r Removed) String() string {
	if r.Untagged != "" {
		return "Untagged: " + r.Untagged
	}
	return "Deleted: " + r.Deleted
}

// User is a container that uses an image.
type User struct {
	Container string // full id
	Running   bool
}

// Remove removes what name means, as docker rmi does. A name is taken away, and
// with the last one the image; an ID takes the image and its names away, where
// they are all of one repository or force is given. Containers that use the
// image are in the way, running ones also of force; used tells them. It is
// called with the exclusive reference lock held and must not take that lock.
//
// On error what was done so far is returned too. Blobs and layers go when no
// other image and no container needs them; those in use by a running command
// are left to a later Sweep.
func (s *Images) Remove(name string, force bool, used func(id spec.Digest) []User) ([]Removed, error) {
	lock, err := s.st.Refs(true)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	id, ref, err := s.find(name)
	if err != nil {
		return nil, err
	}
	all, err := s.names()
	if err != nil {
		return nil, err
	}
	r := &removal{s: s, id: id, force: force}
	for _, n := range all {
		if n.Image == id {
			r.refs = append(r.refs, n.ref)
		}
	}
	if used != nil {
		r.users = used(id)
	}
	if ref != nil {
		err = r.byName(name, *ref)
	} else {
		err = r.byID()
	}
	return r.done, err
}

// removal is one run of Remove.
type removal struct {
	s     *Images
	id    spec.Digest
	refs  []spec.Reference // that the image still has
	users []User
	force bool
	done  []Removed
}

// byName takes one name away. Were it the last, the image would be left without
// a name and in the way, so then the image goes as well.
func (r *removal) byName(given string, ref spec.Reference) error {
	if !r.force && r.oneName() && len(r.users) > 0 {
		return errs.New(errs.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			given, short(r.users[0].Container), r.id.Short()).
			WithHint("remove the container first, or use --force to take only the name away")
	}
	if err := r.untag(append([]spec.Reference{ref}, r.digestsOf(ref)...)...); err != nil {
		return err
	}
	if len(r.refs) > 0 {
		return state.SyncDir(r.s.st.Names())
	}
	if r.running() != nil || len(r.users) > 0 && !r.force {
		// The name is gone, the image stays for its containers.
		return state.SyncDir(r.s.st.Names())
	}
	return r.image()
}

// byID takes the image away with its names.
func (r *removal) byID() error {
	if u := r.running(); u != nil {
		return r.conflict("cannot be forced", "image is being used by running container "+short(u.Container))
	}
	if !r.oneName() && !r.force && len(r.refs) > 0 {
		return r.conflict("must be forced", "image is referenced in multiple repositories")
	}
	if !r.force && len(r.users) > 0 {
		return r.conflict("must be forced", "image is being used by stopped container "+short(r.users[0].Container))
	}
	if err := r.untag(r.refs...); err != nil {
		return err
	}
	return r.image()
}

func (r *removal) running() *User {
	for i := range r.users {
		if r.users[i].Running {
			return &r.users[i]
		}
	}
	return nil
}

func (r *removal) conflict(how, why string) error {
	err := errs.New(errs.Conflict, "conflict: unable to delete %s (%s) - %s", r.id.Short(), how, why)
	if how == "must be forced" {
		return err.WithHint("use --force")
	}
	return err.WithHint("stop the container first")
}

// oneName reports whether the image has at most one tag, and digests of that
// tag's repository only.
func (r *removal) oneName() bool {
	if len(r.refs) <= 1 {
		return true
	}
	repo, tags := r.refs[0].Name(), 0
	for _, ref := range r.refs {
		if ref.Name() != repo {
			return false
		}
		if ref.Digest == "" {
			tags++
		}
	}
	return tags <= 1
}

// digestsOf returns the digests that go with a tag: those of its repository,
// when that has no other tag here.
func (r *removal) digestsOf(tag spec.Reference) (digests []spec.Reference) {
	if tag.Digest != "" {
		return nil
	}
	for _, o := range r.refs {
		switch {
		case o.Name() != tag.Name():
		case o.Digest != "":
			digests = append(digests, o)
		case o != tag:
			return nil
		}
	}
	return digests
}

// untag takes names away, the first one last: when a crash comes between, it is
// still there for the same command to go on with.
func (r *removal) untag(refs ...spec.Reference) error {
	refs = slices.Clone(refs) // they may be those that shrink
	already := len(r.done)
	for _, ref := range slices.Backward(refs) {
		if err := os.Remove(r.s.namePath(ref.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r.refs = slices.DeleteFunc(r.refs, func(o spec.Reference) bool { return o == ref })
		r.s.untagged(r.id)
		r.done = slices.Insert(r.done, already, Removed{Untagged: ref.Familiar()})
	}
	return nil
}

// image deletes the record, then what only it needed.
func (r *removal) image() error {
	s := r.s
	rec, err := s.readRecord(r.id)
	if errs.Is(err, errs.Corrupt) {
		rec = &record{} // what it needed is found by a later sweep
	} else if err != nil {
		return err
	}
	// The names' going must be durable before the record's: no name may point
	// at nothing after a crash.
	if err := state.SyncDir(s.st.Names()); err != nil {
		return err
	}
	if err := os.Remove(s.st.Image(r.id.Hex())); err != nil {
		return err
	}
	if err := state.SyncDir(s.st.Images()); err != nil {
		return err
	}
	s.deleted(r.id)
	r.done = append(r.done, Removed{Deleted: string(r.id)})
	keep, err := s.needed()
	if err != nil {
		return err
	}
	chains := chainIDs(rec.Layers)
	for i := len(rec.Layers) - 1; i >= 0; i-- {
		d := rec.Layers[i]
		if keep.layers[d] {
			continue
		}
		switch err := s.layers.Remove(d); {
		case err == nil:
			r.done = append(r.done, Removed{Deleted: string(chains[i])})
		case !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound):
			return err
		}
	}
	for _, d := range rec.Stack {
		// Those that were made for the image; no config speaks of them.
		if !keep.layers[d] && !slices.Contains(rec.Layers, d) {
			s.layers.Remove(d) // or a later Sweep
		}
	}
	s.sweep(keep)
	return nil
}

// chainIDs returns for each layer the digest that names it together with all
// below it (OCI config.md, "Layer ChainID").
func chainIDs(diffIDs []spec.Digest) []spec.Digest {
	out := make([]spec.Digest, len(diffIDs))
	for i, d := range diffIDs {
		out[i] = d
		if i > 0 {
			sum := sha256.Sum256([]byte(string(out[i-1]) + " " + string(d)))
			out[i] = spec.DigestSum(sum[:])
		}
	}
	return out
}

func short(id string) string { return id[:min(12, len(id))] }

// references is what must not be removed.
type references struct {
	blobs, layers map[spec.Digest]bool
}

// needed collects what images and containers need. The exclusive reference lock
// is held, so nothing is added meanwhile. Whatever cannot be read might need
// anything, so then nothing may be removed.
func (s *Images) needed() (references, error) {
	recs, err := s.records()
	if err != nil {
		return references{}, err
	}
	containers, err := s.containers()
	if err != nil {
		return references{}, err
	}
	return neededBy(recs, containers), nil
}

// neededBy is what these images and containers need.
func neededBy(recs []*record, containers []containerUse) references {
	refs := references{map[spec.Digest]bool{}, map[spec.Digest]bool{}}
	for _, r := range recs {
		refs.add(r)
	}
	for _, c := range containers {
		for _, d := range c.Layers {
			refs.layers[d] = true
		}
	}
	return refs
}

// add adds what the image of r needs.
func (refs references) add(r *record) {
	for _, d := range r.Blobs {
		refs.blobs[d] = true
	}
	for _, d := range slices.Concat(r.Layers, r.Stack) {
		refs.layers[d] = true
	}
}

// containerUse is what matters here of a container's config.json.
type containerUse struct {
	ID      string
	ImageID spec.Digest
	Layers  []spec.Digest
	Name    string
	Mounts  []struct {
		Image  spec.Digest
		Layers []spec.Digest
	} `json:",omitempty"`
}

// images are those that it was made from and that it has mounted.
func (c *containerUse) images() []spec.Digest {
	all := []spec.Digest{c.ImageID}
	for _, m := range c.Mounts {
		if m.Image != "" {
			all = append(all, m.Image)
		}
	}
	return all
}

// containers reads what each container uses, the layers of images that it has
// mounted among its own. One that is just being removed is
// left out; one that is unreadable is an error, for it may use anything.
func (s *Images) containers() ([]containerUse, error) {
	entries, err := os.ReadDir(s.st.Containers())
	if err != nil {
		return nil, err
	}
	var all []containerUse
	for _, e := range entries {
		var c containerUse
		err := state.ReadJSON(filepath.Join(s.st.Container(e.Name()), "config.json"), &c)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, m := range c.Mounts {
			c.Layers = append(c.Layers, m.Layers...)
		}
		all = append(all, c)
	}
	return all, nil
}

// keepUnused is how long a layer that nobody refers to is kept: it may be what
// an interrupted pull has done so far.
const keepUnused = 24 * time.Hour

// Sweep removes what crashes and interrupted pulls left: temporary files of
// dead processes, broken names, blobs that no image has, and layers that nobody has referred
// to for a day. What cannot be removed stays for the next time.
func (s *Images) Sweep() error {
	lock, err := s.st.Refs(true)
	if err != nil {
		return err
	}
	defer lock.Close()
	keep, err := s.needed()
	if err != nil {
		return err
	}
	s.sweep(keep)
	return nil
}

func (s *Images) sweep(keep references) {
	s.st.Sweep()
	s.sweepTurns()
	s.sweepPartials()
	// Blobs are only written by somebody who holds the reference lock, so one
	// that no record has is nobody's. So are temporary files beside them.
	eachEntry(filepath.Dir(s.st.Blob("x")), func(e os.DirEntry, path string) {
		if !keep.blobs[spec.Digest("sha256:"+e.Name())] {
			os.Remove(path)
		}
	})
	for _, dir := range []string{s.st.Names(), s.st.Images()} {
		eachEntry(dir, func(e os.DirEntry, path string) {
			if strings.HasPrefix(e.Name(), ".new-") {
				os.Remove(path)
			}
		})
	}
	eachEntry(s.st.Names(), func(e os.DirEntry, path string) {
		if _, err := s.readNameFile(e.Name()); errs.Is(err, errs.Corrupt) {
			os.Remove(path) // it names nothing
		}
	})
	eachEntry(s.st.Layers(), func(e os.DirEntry, path string) {
		d := spec.Digest("sha256:" + e.Name())
		if !spec.IsHex64(e.Name()) || keep.layers[d] {
			return
		}
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > keepUnused {
			s.layers.Remove(d)
		}
	})
}

func eachEntry(dir string, f func(e os.DirEntry, path string)) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		f(e, filepath.Join(dir, e.Name()))
	}
}
