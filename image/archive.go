package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"tug/errs"
	"tug/layer"
	"tug/spec"
)

// Limits on archives. Small members are kept in memory until it is known what
// they are, because a stream has no way back.
const (
	maxSmall    = maxConfig
	maxKept     = 64 << 20
	maxMembers  = 200_000
	maxArchived = 1000 // images in one archive
	maxLinks    = 10   // of one member to another
	maxTrailer  = 64 << 20
	maxParsed   = 128 << 20 // in all: entries may name one large index thousands of times
)

// errArchive marks errors of the archive itself, which come up through a layer
// that is being read from it.
var errArchive = errors.New("archive")

// archive is what Load keeps of one while it goes by.
type archive struct {
	s       *Images
	events  *events
	want    []spec.Platform // none: what the archive's names mean here
	members map[string]*member
	links   map[string]string // symbolic and hard links between members
	kept    int               // bytes of all small members
	parsed  int               // bytes of small members asked for, again and again

	known map[spec.Digest]spec.Digest // compressed digests in the store -> diffID; read at first need
	added []spec.Digest               // layers that were not in the store before
}

// member is one file of the archive: small, a layer, or neither.
type member struct {
	size  int64 // as it lies in the archive
	small []byte
	layer *layer.Layer // held until release
	err   error        // why it is no layer although it looked like one
}

func newArchive(s *Images, ev *events) *archive {
	return &archive{s: s, events: ev, members: map[string]*member{}, links: map[string]string{}}
}

func (a *archive) release() {
	for m := range maps.Values(a.members) {
		if m.layer != nil {
			m.layer.Close()
		}
	}
}

// has reports whether a member of that name is there at all.
func (a *archive) has(name string) bool { return a.members[name] != nil }

// small returns the bytes of a member that is no layer.
func (a *archive) small(name string) ([]byte, error) {
	at, err := a.resolve(name)
	if err != nil {
		return nil, err
	}
	m := a.members[at]
	switch {
	case m == nil:
		return nil, errs.New(errs.Corrupt, "the archive lacks %.200q", name).WithHint("it may be cut short; make it again")
	case m.small == nil:
		return nil, errs.New(errs.Invalid, "%.200q in the archive is not the JSON it should be, or larger than %d MiB", name, maxSmall>>20)
	}
	if a.parsed += len(m.small); a.parsed > maxParsed {
		return nil, errs.New(errs.Invalid, "the archive names its metadata again and again, %d MiB in all", maxParsed>>20)
	}
	return m.small, nil
}

// resolve follows links between members. Names are keys here, no files: what
// leads outside of the archive is just not there.
func (a *archive) resolve(name string) (string, error) {
	name = cleanName(name)
	for range maxLinks {
		target, ok := a.links[name]
		if !ok {
			return name, nil
		}
		name = target
	}
	return "", errs.New(errs.Invalid, "links in the archive go in circles at %.200q", name)
}

func cleanName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// scan reads all members, and r to its end.
func (a *archive) scan(ctx context.Context, r *plain) error {
	src := &archiveReader{ctx: ctx, r: r}
	tr := tar.NewReader(src)
	for n := 0; ; n++ {
		h, err := tr.Next()
		switch {
		case err == io.EOF && n > 0:
			return r.drain(src)
		case ctx.Err() != nil:
			return ctx.Err()
		case err == io.EOF:
			return errs.New(errs.Invalid, "the archive is empty")
		case errors.Is(err, tar.ErrHeader) && n == 0:
			return errs.New(errs.Invalid, "this is no image archive: no tar, plain or compressed with gzip, bzip2, xz or zstd")
		case err != nil:
			return archiveError(err)
		case n == maxMembers:
			return errs.New(errs.Invalid, "the archive has more than %d members", maxMembers)
		}
		if err := a.add(ctx, tr, h); err != nil {
			return err
		}
	}
}

// add takes in one member.
func (a *archive) add(ctx context.Context, tr *tar.Reader, h *tar.Header) error {
	name := cleanName(h.Name)
	old := a.members[name]
	switch h.Typeflag {
	case tar.TypeSymlink:
		target := h.Linkname
		if !strings.HasPrefix(target, "/") {
			target = path.Join(path.Dir(name), target)
		}
		a.links[name] = cleanName(target)
		return sameAgain(name, old, &member{})
	case tar.TypeLink:
		a.links[name] = cleanName(h.Linkname)
		return sameAgain(name, old, &member{})
	case tar.TypeReg:
	default:
		return nil
	}
	if isSparse(h) {
		// A few bytes of it could claim any size, all of which would be read.
		return errs.New(errs.Unsupported, "%.200q in the archive is sparse", name).WithHint("make the archive without tar's --sparse")
	}
	return a.addFile(ctx, tr, name, h.Size)
}

// addFile takes in one file: a layer goes into the store, what is small is
// kept.
func (a *archive) addFile(ctx context.Context, tr io.Reader, name string, size int64) error {
	old := a.members[name]
	if old != nil && old.layer != nil {
		old.layer.Close()
	}
	delete(a.links, name)
	m := &member{size: size}
	a.members[name] = m
	head := make([]byte, 512)
	n, err := io.ReadFull(tr, head)
	if err != nil && err != io.EOF && !(errors.Is(err, io.ErrUnexpectedEOF) && int64(n) == size) {
		return archiveError(err)
	}
	head = head[:n]
	body := io.MultiReader(bytes.NewReader(head), tr)
	if isGzip(head) || isZstd(head) || isBzip2(head) || isXZ(head) || isTar(head) {
		if err := sameAgain(name, old, m); err != nil {
			return err
		}
		return a.addLayer(ctx, m, name, body, size, isTar(head))
	}
	if size > maxSmall || a.kept+int(size) > maxKept {
		return sameAgain(name, old, m) // whoever needs it will miss it
	}
	if m.small, err = io.ReadAll(body); err != nil {
		return archiveError(err)
	}
	if m.small == nil {
		m.small = []byte{}
	}
	a.kept += len(m.small)
	return sameAgain(name, old, m)
}

// sameAgain allows a member to come again. A layer may be another one, as its
// digest counts and not its place; with metadata, another tool might read the
// other one.
func sameAgain(name string, old, now *member) error {
	if old == nil || old.small == nil || now.small != nil && bytes.Equal(old.small, now.small) {
		return nil
	}
	return errs.New(errs.Invalid, "the archive has %.200q twice", name)
}

func isSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// addLayer puts one member into the store as a layer, or finds it there. What
// is wrong with it alone is kept for the image that needs it.
func (a *archive) addLayer(ctx context.Context, m *member, name string, body io.Reader, size int64, plain bool) error {
	src := &memberReader{r: body}
	digest, blob := nameDigest(name)
	label := digest.Short()
	if label == "" {
		label = spec.DigestOf([]byte(name)).Short()
	}
	r := &countingReader{r: src, total: size, event: func(n int64) { a.events.layer(label, "Loading layer", n, size) }}
	var err error
	if l := a.inStore(digest, plain); l != nil {
		m.layer, err = l, verify(r, digest, size)
		if err != nil {
			l.Close()
			m.layer = nil
		}
	} else {
		want := layer.Expect{BlobSize: size, Source: "archive"}
		if blob {
			want.Blob = digest
			if plain {
				want.DiffID = digest
			}
		}
		m.layer, err = a.s.layers.Add(ctx, r, want)
		if err == nil {
			a.added = append(a.added, m.layer.DiffID)
		}
	}
	switch {
	case src.err != nil && ctx.Err() == nil:
		return archiveError(src.err)
	case err != nil && !deferred(err):
		return err
	}
	m.err = err
	return nil
}

// memberReader remembers that the archive failed under a layer.
type memberReader struct {
	r   io.Reader
	err error
}

func (m *memberReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF {
		m.err = err
		return n, fmt.Errorf("%w: %w", errArchive, err)
	}
	return n, err
}

// nameDigest returns the digest that a member's name promises. In an OCI layout
// it is binding (blob); <hex>.tar, which skopeo and podman write, is a hint.
func nameDigest(name string) (d spec.Digest, blob bool) {
	if hexa, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && spec.IsHex64(hexa) {
		return spec.Digest("sha256:" + hexa), true
	}
	if hexa, ok := strings.CutSuffix(name, ".tar"); ok && spec.IsHex64(hexa) {
		return spec.Digest("sha256:" + hexa), false
	}
	return "", false
}

// inStore finds a layer by the digest of its bytes in the archive; nil when it
// is not there, so that a second load of an image only reads.
func (a *archive) inStore(d spec.Digest, plain bool) *layer.Layer {
	if d == "" {
		return nil
	}
	if !plain {
		if a.known == nil {
			a.known = map[spec.Digest]spec.Digest{}
			all, err := a.s.layers.List()
			if err != nil {
				return nil
			}
			for _, info := range all {
				for _, b := range info.Blobs {
					a.known[b.Digest] = info.DiffID
				}
			}
		}
		if d = a.known[d]; d == "" {
			return nil
		}
	}
	l, err := a.s.layers.Get(d)
	if err != nil {
		return nil
	}
	return l
}

// verify reads r to its end and compares.
func verify(r io.Reader, want spec.Digest, size int64) error {
	h := sha256.New()
	n, err := io.CopyBuffer(h, onlyReader{r}, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	if got := spec.DigestSum(h.Sum(nil)); got != want || n != size {
		return errs.New(errs.Corrupt, "the bytes in the archive have digest %s, their name says %s", got, want)
	}
	return nil
}

// checkSize compares what is there with what the descriptor in says tells.
func checkSize(what string, got int64, says string, want int64) error {
	if got != want {
		return errs.New(errs.Corrupt, "%s has %d bytes, the %s says %d", what, got, says, want).WithHint("the archive is broken; make it again")
	}
	return nil
}

type onlyReader struct{ io.Reader }

// blob returns the small member that d, which stands in says, names, verified.
func (a *archive) blob(what string, d spec.Descriptor, says string) ([]byte, error) {
	b, err := a.small(blobMember(d))
	if err != nil {
		return nil, err
	}
	if got := spec.DigestOf(b); got != d.Digest {
		return nil, errs.New(errs.Corrupt, "%s %s in the archive has digest %s", what, d.Digest.Short(), got).WithHint("make it again")
	}
	return b, checkSize(what+" "+d.Digest.Short(), int64(len(b)), says, d.Size)
}

// addName adds a name to in, once.
func (in *incoming) addName(ref spec.Reference) {
	if !slices.Contains(in.names, ref) {
		in.names = append(in.names, ref)
	}
}
