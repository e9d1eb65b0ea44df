package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// layers matches what was found in the layers' directories with who needs
// them. Mending and fetching is left for later.
func (c *check) layers(keep references) {
	s := c.s
	eachEntry(s.st.Layers(), func(e os.DirEntry, path string) {
		d := spec.Digest("sha256:" + e.Name())
		fi, err := e.Info()
		switch {
		case err != nil:
		case !spec.IsHex64(e.Name()):
			c.foreign(path)
		case !keep.layers[d] && !c.blind && (time.Since(fi.ModTime()) > keepUnused || len(c.found[d]) > 0):
			what := "belongs to no image or container"
			if len(c.found[d]) > 0 {
				what += ", and is damaged"
			}
			c.leftover(path, what, func() error { return s.layers.Remove(d) })
		default:
			c.layer(d)
		}
	})
	for _, r := range c.records {
		for _, d := range slices.Concat(r.Layers, r.Stack) {
			if _, err := os.Lstat(s.st.Layer(d.Hex())); errors.Is(err, fs.ErrNotExist) && c.found[d] == nil {
				c.found[d] = []layer.Fault{layerMissing}
				c.layer(d)
			}
		}
	}
}

// layer notes the faults of a layer and plans its repair.
func (c *check) layer(d spec.Digest) {
	found := c.found[d]
	if len(found) == 0 {
		return
	}
	var mine []*Fault
	for _, f := range c.s.layerFaults(d, found) {
		c.faults = append(c.faults, &f)
		mine = append(mine, &f)
	}
	if !c.o.Repair {
		return
	}
	c.later = append(c.later, func(ctx context.Context) error {
		done, err := c.mendLayer(ctx, d, found)
		for _, f := range mine {
			if f.Mended = done; err != nil {
				f.Mended, f.Left = "", err.Error()
			}
		}
		return err
	})
}

func (c *check) mendLayer(ctx context.Context, d spec.Digest, found []layer.Fault) (string, error) {
	has := func(k layer.FaultKind) bool {
		return slices.ContainsFunc(found, func(f layer.Fault) bool { return f.Kind == k })
	}
	if c.o.Quick {
		// Sizes tell that something is wrong, not what.
		var err error
		if found, err = c.s.layers.Check(ctx, d, false); err != nil && !errs.Is(err, errs.NotFound) {
			return "", err
		} else if err != nil {
			found = []layer.Fault{{Kind: layer.FaultTar}}
		}
	}
	if (has(layer.FaultTar) || has(layer.FaultTree)) && c.o.Busy != nil && c.o.Busy(d) {
		return "", errors.New("a running container uses it; stop it and check again")
	}
	if r := c.madeFor(d); r != nil && has(layer.FaultTar) {
		return "made it again from the layers below", c.makeLayer(ctx, d, r)
	}
	if has(layer.FaultTar) {
		return "fetched it again", c.fetchLayer(ctx, d)
	}
	// A second round, for what only shows when the first faults are gone.
	for range 2 {
		if err := c.s.layers.Mend(ctx, d, found); err != nil {
			return "", err
		}
		var err error
		if found, err = c.s.layers.Check(ctx, d, false); err != nil {
			return "", err
		}
		if len(found) == 0 {
			return "made it again from the layer's tar", nil
		}
	}
	return "", fmt.Errorf("%s still %s", found[0].File, found[0].What)
}

// madeFor returns an image that layer d was made for; nil when d came with an
// image.
func (c *check) madeFor(d spec.Digest) *record {
	var found *record
	for _, r := range c.records {
		if slices.Contains(r.Layers, d) {
			return nil
		}
		if slices.Contains(r.Stack, d) {
			found = r
		}
	}
	return found
}

// makeLayer makes a layer again that was made for image r. It does not matter
// that it is gone for a moment: it could not be used.
func (c *check) makeLayer(ctx context.Context, d spec.Digest, r *record) error {
	if err := c.s.layers.Remove(d); err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	stack, ok := c.s.expectedStack(ctx, r.Layers)
	if !ok {
		return errors.New("layers below it are damaged; check again when they are mended")
	}
	if !slices.Contains(stack, d) {
		return errors.New("it does not follow from the layers below; check again")
	}
	return nil
}

// origin is a repository that an image came from.
type origin struct {
	r   *record
	ref spec.Reference // without tag and digest
}

// origins are the repositories whose digests the images have as names.
func (c *check) origins(want func(*record) bool) []origin {
	var out []origin
	for _, r := range c.records {
		if !want(r) {
			continue
		}
		for _, n := range c.names {
			if n.Image == r.ID && n.ref.Digest != "" {
				out = append(out, origin{r, spec.Reference{Domain: n.ref.Domain, Path: n.ref.Path}})
			}
		}
	}
	return out
}

var errNoOrigin = errors.New("no registry is known that has it; load the image again, or remove it")

// fetchLayer fetches a layer again from a repository that an image of it came
// from, by its digest.
func (c *check) fetchLayer(ctx context.Context, d spec.Digest) error {
	err := errNoOrigin
	for _, o := range c.origins(func(r *record) bool { return slices.Contains(r.Layers, d) }) {
		m, merr := c.manifestOf(ctx, o)
		if merr != nil {
			err = merr
			continue
		}
		at := slices.Index(o.r.Layers, d)
		if at >= len(m.Layers) {
			continue
		}
		if err = c.fetchLayerFrom(ctx, o, m.Layers[at], d); err == nil {
			return nil
		}
	}
	return err
}

func (c *check) fetchLayerFrom(ctx context.Context, o origin, blob spec.Descriptor, d spec.Digest) error {
	t, err := c.s.takeTurn(ctx, d, nil)
	if err != nil {
		return err
	}
	defer t.end()
	rc, err := c.s.reg.Blob(ctx, o.ref, blob)
	if err != nil {
		return err
	}
	defer rc.Close()
	l, err := c.s.layers.Add(ctx, rc, layer.Expect{
		Blob: blob.Digest, BlobSize: blob.Size, DiffID: d, Source: o.ref.Name() + "@" + string(blob.Digest), Replace: true,
	})
	if err != nil {
		return err
	}
	return l.Close()
}

// manifestOf returns the manifest of an image, from the store or its registry.
func (c *check) manifestOf(ctx context.Context, o origin) (*spec.Manifest, error) {
	if o.r.Manifest == "" {
		return nil, errNoOrigin
	}
	b, err := c.s.readBlob(o.r.Manifest)
	if err != nil {
		ref := o.ref
		ref.Digest = o.r.Manifest
		if _, b, err = c.s.reg.Manifest(ctx, ref); err != nil {
			return nil, err
		}
	}
	m, _, err := parseManifest(b, "")
	if err == nil && m == nil {
		err = errs.New(errs.Corrupt, "manifest %s is an index", o.r.Manifest.Short())
	}
	return m, err
}

// blobFault notes a missing or damaged blob of image r and plans its repair.
func (c *check) blobFault(f Fault, r *record) {
	hexa := filepath.Base(f.Path)
	d := spec.Digest("sha256:" + hexa)
	same := func(o *Fault) bool { return o.Object == "blob" && o.Path == f.Path }
	if slices.ContainsFunc(c.faults, same) {
		return // another image has it too
	}
	c.faults = append(c.faults, &f)
	if !c.o.Repair {
		return
	}
	c.later = append(c.later, func(ctx context.Context) error {
		err := c.fetchBlob(ctx, d)
		if err != nil {
			f.Left = err.Error()
			return err
		}
		f.Mended = "fetched it again"
		return nil
	})
}

func (c *check) fetchBlob(ctx context.Context, d spec.Digest) error {
	err := errNoOrigin
	for _, o := range c.origins(func(r *record) bool { return slices.Contains(r.Blobs, d) }) {
		var b []byte
		if b, err = c.fetchBlobFrom(ctx, o, d); err == nil {
			return c.putBlob(o.r.ID, d, b)
		}
	}
	return err
}

func (c *check) fetchBlobFrom(ctx context.Context, o origin, d spec.Digest) ([]byte, error) {
	if d != o.r.ID {
		ref := o.ref
		ref.Digest = d
		_, b, err := c.s.reg.Manifest(ctx, ref)
		return b, err
	}
	m, err := c.manifestOf(ctx, o)
	if err != nil {
		return nil, err
	}
	if m.Config.Digest != d {
		return nil, errs.New(errs.Corrupt, "manifest %s is of another image", o.r.Manifest.Short())
	}
	rc, err := c.s.reg.Blob(ctx, o.ref, m.Config)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc) // of the size that parseManifest has bounded
	if err == nil && spec.DigestOf(b) != d {
		err = errs.New(errs.Corrupt, "the registry sent %s instead of %s", spec.DigestOf(b), d)
	}
	return b, err
}

// putBlob replaces a blob, if its image is still there.
func (c *check) putBlob(id, d spec.Digest, b []byte) error {
	lock, err := c.s.st.Refs(false)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := os.Lstat(c.s.st.Image(id.Hex())); err != nil {
		return err
	}
	return c.s.storeError(c.s.st.WriteFile(c.s.st.Blob(d.Hex()), b, true))
}

// IsLeft reports whether a fault stays that is more than wasted space.
func IsLeft(faults []Fault) bool {
	return slices.ContainsFunc(faults, func(f Fault) bool { return f.Mended == "" && (f.Object != Leftover || f.Left != "") })
}

// Text is a fault with what became of it, as one line.
func (f *Fault) Text() string {
	s := f.String()
	switch {
	case f.Mended != "":
		s += " [mended: " + f.Mended + "]"
	case f.Left != "":
		s += " [not mended: " + strings.TrimSpace(f.Left) + "]"
	}
	return s
}
