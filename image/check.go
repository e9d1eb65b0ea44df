package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tug/layer"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// CheckOptions say how thorough a Check is and whether it mends.
type CheckOptions struct {
	Repair bool
	Quick  bool                   // do not read the contents of layers
	Busy   func(spec.Digest) bool // a running container uses this layer
	Wait   func()                 // called when another repair has to end first; may be nil
}

// Leftover is the Object of faults that only take space: what a killed command
// left, which the next removal of any image would take along.
const Leftover = "leftover"

// Check looks at everything in the store but containers and names each fault;
// with Repair it does what it can about them. It runs beside other commands:
// contents are read without a lock, for they never change; what refers to what
// is looked at under the exclusive reference lock, for milliseconds; layers and
// blobs are made or fetched again without it. Repairs wait for one another.
func (s *Images) Check(ctx context.Context, o CheckOptions) ([]Fault, error) {
	if o.Repair {
		t, err := s.repairTurn(ctx, o.Wait)
		if err != nil {
			return nil, err
		}
		defer t.end()
	}
	c := &check{s: s, o: o}
	var dirs []spec.Digest
	eachEntry(s.st.Layers(), func(e os.DirEntry, _ string) {
		if spec.IsHex64(e.Name()) {
			dirs = append(dirs, spec.Digest("sha256:"+e.Name()))
		}
	})
	var err error
	if c.found, err = s.checkLayers(ctx, dirs, o.Quick); err != nil {
		return nil, err
	}
	// Those were just removed, and may have come again since; whether one is
	// missing that is needed is looked at under the lock.
	maps.DeleteFunc(c.found, func(_ spec.Digest, f []layer.Fault) bool { return len(f) == 1 && f[0] == layerMissing })
	if err := c.expect(ctx); err != nil {
		return nil, err
	}
	if err := c.structure(); err != nil {
		return nil, err
	}
	for _, later := range c.later {
		if err := later(ctx); err != nil && ctx.Err() != nil {
			return nil, err
		}
	}
	out := make([]Fault, len(c.faults))
	for i, f := range c.faults {
		out[i] = *f
	}
	return out, nil
}

// check is one run of Check.
type check struct {
	s      *Images
	o      CheckOptions
	found  map[spec.Digest][]layer.Fault
	faults []*Fault
	stacks map[spec.Digest][]spec.Digest // what has to be mounted for images, where it is known
	later  []func(context.Context) error // repairs that need no reference lock

	names   []name
	records []*record
	blind   bool // a record or container is unreadable: it may need anything
}

// expect finds out what has to be mounted for each image.
func (c *check) expect(ctx context.Context) error {
	c.stacks = map[spec.Digest][]spec.Digest{}
	ids, err := c.s.ids()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, id := range ids {
		b, err := c.s.readBlob(id)
		if err != nil {
			continue
		}
		cfg, err := parseConfig(b)
		if err != nil || slices.ContainsFunc(cfg.RootFS.DiffIDs, func(d spec.Digest) bool { return len(c.found[d]) > 0 }) {
			continue
		}
		if c.lacks(id) {
			continue // what is missing is made again when that is asked for
		}
		if !c.o.Quick || !c.loose(cfg.RootFS.DiffIDs) {
			if stack, ok := c.s.expectedStack(ctx, cfg.RootFS.DiffIDs); ok {
				c.stacks[id] = stack
			}
		}
	}
	return err
}

// lacks reports whether something that is mounted for an image is missing or
// damaged.
func (c *check) lacks(id spec.Digest) bool {
	r, err := c.s.readRecord(id)
	return err == nil && slices.ContainsFunc(r.Stack, func(d spec.Digest) bool {
		_, gone := os.Lstat(c.s.st.Layer(d.Hex()))
		return gone != nil || len(c.found[d]) > 0
	})
}

// loose reports whether it takes reading layers to know what is mounted.
func (c *check) loose(layers []spec.Digest) bool {
	return slices.ContainsFunc(layers, func(d spec.Digest) bool {
		info, err := c.s.layers.Info(d)
		return err != nil || info.Loose > 0
	})
}

// add notes a fault and, when repairing, mends it at once. mend returns what it
// did; without one nothing can be done, and left says why.
func (c *check) add(f Fault, left string, mend func() (string, error)) {
	c.faults = append(c.faults, &f)
	if !c.o.Repair {
		return
	}
	if mend == nil {
		f.Left = left
	} else if done, err := mend(); err != nil {
		f.Left = err.Error()
	} else {
		f.Mended = done
	}
}

// structure is what needs the exclusive reference lock: nobody is just
// recording or removing an image.
func (c *check) structure() error {
	lock, err := c.s.st.Refs(true)
	if err != nil {
		return err
	}
	defer lock.Close()
	c.directories()
	c.leftovers()
	c.storage()
	if err := c.allRecords(); err != nil {
		return err
	}
	if err := c.allNames(); err != nil {
		return err
	}
	keep, err := c.s.needed()
	if err != nil {
		c.blind = true // named by allRecords, or by the check of containers
	}
	c.blobs(keep)
	c.layers(keep)
	return nil
}

// directories checks that the store's own directories are there and private.
func (c *check) directories() {
	st := c.s.st
	for _, dir := range []string{st.Root, filepath.Dir(st.Blob("x")), st.Layers(), st.Images(), st.Names(), st.Containers(), st.ContainerNames(), st.Tmp()} {
		fi, err := os.Lstat(dir)
		f := Fault{Object: "store", Path: dir}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.What, f.Effect = "is missing", "commands that need it fail"
			c.add(f, "", func() (string, error) { return "made it", os.MkdirAll(dir, 0o700) })
		case err != nil || !fi.IsDir():
			f.What, f.Effect = "is not a directory", "commands that need it fail"
			c.add(f, "it is nothing that tug made; move it away", nil)
		case fi.Mode().Perm()&0o077 != 0:
			f.What, f.Effect = fmt.Sprintf("has mode %04o instead of 0700", fi.Mode().Perm()), "others on this machine may read images"
			c.add(f, "", func() (string, error) { return "set its mode", os.Chmod(dir, 0o700) })
		}
	}
	for _, file := range []string{filepath.Join(st.Root, "version"), filepath.Join(st.Root, "refs.lock")} {
		c.mode(file)
	}
}

// mode checks that a file is one and private. It reports whether it is one.
func (c *check) mode(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil {
		return false
	}
	f := Fault{Object: "store", Path: path}
	if !fi.Mode().IsRegular() {
		f.What, f.Effect = "is not a file", "commands that need it fail"
		c.add(f, "it is nothing that tug made; move it away", nil)
		return false
	}
	if fi.Mode().Perm() != 0o600 {
		f.What, f.Effect = fmt.Sprintf("has mode %04o instead of 0600", fi.Mode().Perm()), "others on this machine may read it"
		c.add(f, "", func() (string, error) { return "set its mode", os.Chmod(path, 0o600) })
	}
	return true
}

// leftover notes what only takes space.
func (c *check) leftover(path, what string, remove func() error) {
	c.add(Fault{Object: Leftover, Path: path, What: what, Effect: "it only takes space"}, "", func() (string, error) { return "removed it", remove() })
}

// removedFor is how long what a command is removing in tmp/ is left alone.
const removedFor = time.Minute

// leftovers finds temporary files whose maker is gone: nobody holds their lock.
func (c *check) leftovers() {
	st := c.s.st
	eachEntry(st.Tmp(), func(e os.DirEntry, path string) {
		fi, err := e.Info()
		if err != nil || strings.HasPrefix(e.Name(), "removed-") && time.Since(fi.ModTime()) < removedFor {
			return
		}
		if c.free(path, fi) {
			c.leftover(path, "was left by a command that was killed", func() error { return os.RemoveAll(path) })
		}
	})
	eachEntry(st.RunPath("fetch"), func(e os.DirEntry, path string) {
		if fi, err := e.Info(); err == nil && c.free(path, fi) {
			c.leftover(path, "was left by a pull that was killed", func() error { return os.Remove(path) })
		}
	})
	// What a partial download says of itself is compared by who goes on with it.
	eachEntry(filepath.Dir(st.Partial("x")), func(e os.DirEntry, path string) {
		fi, err := e.Info()
		switch {
		case err != nil:
		case !spec.IsHex64(e.Name()) || !fi.Mode().IsRegular():
			c.foreign(path)
		case time.Since(fi.ModTime()) > keepUnused && c.free(path, fi):
			c.leftover(path, "was left by a pull that nobody went on with", func() error { return os.Remove(path) })
		default:
			c.mode(path)
		}
	})
	for _, dir := range []string{filepath.Dir(st.Blob("x")), st.Images(), st.Names()} {
		eachEntry(dir, func(e os.DirEntry, path string) {
			if strings.HasPrefix(e.Name(), ".new-") {
				c.leftover(path, "was left by a command that was killed", func() error { return os.Remove(path) })
			}
		})
	}
}

// free reports whether nobody holds the lock on a temporary.
func (c *check) free(path string, fi fs.FileInfo) bool {
	if !fi.Mode().IsRegular() && !fi.IsDir() {
		return true // never made by tug, and opening it may block
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	had, err := sys.TryLock(f, true)
	return err == nil && had
}

// storage checks what is remembered of the storage backends.
func (c *check) storage() {
	path := c.s.st.RunPath("storage.json")
	var v struct {
		Key     string
		Works   []string
		Refused map[string]string
	}
	err := state.ReadJSON(path, &v)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	bad := err != nil
	for _, n := range v.Works {
		bad = bad || !slices.Contains(layer.Backends(), n)
	}
	if bad {
		c.add(Fault{Object: "store", Path: path, What: "does not hold what works here", Effect: "the next command tries it anew"}, "",
			func() (string, error) { return "removed it", os.Remove(path) })
		return
	}
	c.mode(path)
}

// allRecords reads and checks all records; what is wrong with one is mended
// by making it anew from the blobs.
func (c *check) allRecords() error {
	s := c.s
	entries, err := os.ReadDir(s.st.Images())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.st.Images(), e.Name())
		hexa, ok := strings.CutSuffix(e.Name(), ".json")
		if strings.HasPrefix(e.Name(), ".new-") {
			continue
		}
		if !ok || !spec.IsHex64(hexa) {
			c.foreign(path)
			continue
		}
		if c.mode(path) {
			c.record(spec.Digest("sha256:" + hexa))
		}
	}
	return nil
}

// foreign notes a file that tug does not make there.
func (c *check) foreign(path string) {
	c.add(Fault{Object: "store", Path: path, What: "does not belong there", Effect: "tug does not look at it"},
		"it is nothing that tug made; remove it yourself", nil)
}

func (c *check) record(id spec.Digest) {
	s := c.s
	remake := func() (string, error) { return "made the record anew from the image's blobs", c.remakeRecord(id) }
	r, err := s.readRecord(id)
	if err != nil {
		c.add(recordFault(s, id, "is not the record of this image"), "", remake)
		if r, err = s.readRecord(id); err != nil {
			c.blind = true
			return
		}
	}
	faults, cfg := s.checkRecord(r)
	for _, f := range faults {
		switch {
		case f.Object == "blob":
			c.blobFault(f, r)
		case cfg == nil:
			c.add(f, "it can be used by no tug; remove the image", nil)
		default:
			c.add(f, "", remake)
		}
	}
	if stack := c.stacks[id]; cfg != nil && stack != nil && !slices.Equal(stack, r.stack()) && slices.Equal(r.Layers, cfg.RootFS.DiffIDs) {
		c.add(stackFault(s, id), "", remake)
	}
	if cfg != nil && len(faults) == 0 && !c.o.Quick {
		c.size(r, remake)
	}
	if again, err := s.readRecord(id); err == nil {
		r = again
	}
	c.records = append(c.records, r)
}

// size compares the record's size with the layers'.
func (c *check) size(r *record, remake func() (string, error)) {
	if sum, ok := c.sumLayers(r.Layers); ok && sum != r.Size {
		f := recordFault(c.s, r.ID, fmt.Sprintf("says size %d, its layers have %d", r.Size, sum))
		f.Effect = "the image is listed with a wrong size"
		c.add(f, "", remake)
	}
}

// sumLayers adds up what is in layers; ok is false when one is damaged.
func (c *check) sumLayers(layers []spec.Digest) (sum int64, ok bool) {
	for _, d := range layers {
		info, err := c.s.layers.Info(d)
		if err != nil || len(c.found[d]) > 0 {
			return 0, false
		}
		sum += info.Content
	}
	return sum, true
}

// remakeRecord makes a record from the image's config and those manifests and
// indexes in the store that lead to it.
func (c *check) remakeRecord(id spec.Digest) error {
	s := c.s
	b, err := s.readBlob(id)
	if err != nil {
		return errors.New("its config is not whole either; remove the file and fetch the image again")
	}
	cfg, err := parseConfig(b)
	if err != nil {
		return err
	}
	r := &record{ID: id, Blobs: []spec.Digest{id}, Layers: cfg.RootFS.DiffIDs, Pulled: time.Now().UTC(), Created: cfg.Created}
	if old, err := s.readRecord(id); err == nil {
		r.Pulled, r.Source = old.Pulled, old.Source
	} else if fi, err := os.Lstat(s.st.Image(id.Hex())); err == nil {
		r.Pulled = fi.ModTime().UTC()
	}
	stack := c.stacks[id]
	if stack == nil {
		return errors.New("what has to be mounted for it is not known as long as one of its layers is damaged or not read; check again")
	}
	if !slices.Equal(stack, r.Layers) {
		r.Stack = stack
	}
	r.Size, _ = c.sumLayers(r.Layers)
	s.findManifests(r)
	b, err = json.Marshal(r)
	if err != nil {
		return err
	}
	return s.storeError(s.st.WriteFile(s.st.Image(id.Hex()), append(b, '\n'), true))
}

// findManifests looks through the blobs for the image's manifest and for
// indexes that name it.
func (s *Images) findManifests(r *record) {
	indexes := map[spec.Digest]*spec.Index{}
	known := map[spec.Digest]spec.Descriptor{}
	eachEntry(filepath.Dir(s.st.Blob("x")), func(e os.DirEntry, _ string) {
		d := spec.Digest("sha256:" + e.Name())
		if fi, err := e.Info(); err != nil || !spec.IsHex64(e.Name()) || !fi.Mode().IsRegular() || fi.Size() > maxManifest {
			return
		}
		b, err := s.readBlob(d)
		if err != nil {
			return
		}
		m, x, err := parseManifest(b, "")
		switch {
		case err != nil:
		case m != nil && m.Config.Digest == r.ID:
			r.Manifest = d
			known[d] = spec.Descriptor{MediaType: typeOf(m.MediaType, spec.TypeOCIManifest), Digest: d, Size: int64(len(b))}
		case x != nil:
			indexes[d] = x
			known[d] = spec.Descriptor{MediaType: typeOf(x.MediaType, spec.TypeOCIIndex), Digest: d, Size: int64(len(b))}
		}
	})
	if r.Manifest == "" {
		return
	}
	top := r.Manifest
	r.Blobs = append(r.Blobs, top)
	for range maxNesting {
		for d, x := range indexes {
			if slices.ContainsFunc(x.Manifests, func(e spec.Descriptor) bool { return e.Digest == top }) {
				r.Blobs = append(r.Blobs, d)
				top = d
				delete(indexes, d)
				break
			}
		}
	}
	t := known[top]
	r.Target = &t
	slices.Sort(r.Blobs)
}

func typeOf(said, otherwise string) string {
	if said == "" {
		return otherwise
	}
	return said
}

// allNames checks that each name points at an image.
func (c *check) allNames() error {
	s := c.s
	entries, err := os.ReadDir(s.st.Names())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.st.Names(), e.Name())
		if strings.HasPrefix(e.Name(), ".new-") || !c.mode(path) {
			continue
		}
		n, err := s.readNameFile(e.Name())
		if err != nil {
			c.badName(e.Name(), path)
			continue
		}
		if _, err := os.Lstat(s.st.Image(n.Image.Hex())); errors.Is(err, fs.ErrNotExist) {
			c.add(Fault{Object: "name", ID: n.ref.Familiar(), Path: path, What: "points at image " + n.Image.Short() + ", which is not there", Effect: "commands with this name fail"},
				"", func() (string, error) { return "removed the name", os.Remove(path) })
			continue
		}
		c.names = append(c.names, n)
	}
	return nil
}

// badName is a name file that does not say what it should. A repository digest
// can be given again to the image that came by it; what image a tag meant is
// not known any more.
func (c *check) badName(file, path string) {
	f := Fault{Object: "name", ID: file, Path: path, What: "does not hold the name it is called by", Effect: "the name cannot be used"}
	full := strings.ReplaceAll(file, "%2F", "/")
	ref, err := spec.ParseReference(full)
	if err == nil && ref.String() == full {
		f.ID = ref.Familiar()
	}
	c.add(f, "", func() (string, error) {
		if err == nil && ref.Digest != "" {
			for _, r := range c.records {
				if ref.Digest == targetDigest(r) || ref.Digest == r.Manifest {
					return "gave it to image " + r.ID.Short() + " again", c.s.writeName(ref, r.ID)
				}
			}
		}
		return "removed it; pull, load or tag it again", os.Remove(path)
	})
}

// blobs finds blobs that nobody needs.
func (c *check) blobs(keep references) {
	eachEntry(filepath.Dir(c.s.st.Blob("x")), func(e os.DirEntry, path string) {
		switch {
		case strings.HasPrefix(e.Name(), ".new-"):
		case !spec.IsHex64(e.Name()):
			c.foreign(path)
		case !c.mode(path):
		case !c.blind && !keep.blobs[spec.Digest("sha256:"+e.Name())]:
			c.leftover(path, "belongs to no image", func() error { return os.Remove(path) })
		}
	})
}
