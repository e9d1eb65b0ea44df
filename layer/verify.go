package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// Fault is one thing that is wrong with a layer in the store.
type Fault struct {
	Kind FaultKind
	File string // within the layer's directory; "" is the directory itself
	What string
}

// FaultKind says what can be done about a fault.
type FaultKind int

const (
	FaultTar   FaultKind = iota // the data: it has to come again from outside
	FaultMeta                   // meta.json: made again from the tar
	FaultIndex                  // index.erofs: made again from the tar
	FaultTree                   // fs/: made again from the tar when needed
	FaultMode                   // permissions
	FaultExtra                  // a file that does not belong there
	FaultLeft                   // a temporary file that a killed command left
)

// Check compares a layer's directory with the digest that is its name. With
// quick no file's content is read, except meta.json. Without, the tar is
// hashed, and what is made from it is made again and compared. An error is
// NotFound, or a failure of the machine.
func (l *Layers) Check(ctx context.Context, d spec.Digest, quick bool) ([]Fault, error) {
	for range 3 {
		dir, err := os.Open(l.path(d))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noLayer(d)
		}
		if err != nil {
			return nil, err
		}
		c := &checking{l: l, ctx: ctx, d: d, dir: dir, odd: map[string]bool{}}
		err = c.run(quick)
		if len(c.faults) == 0 && err == nil {
			dir.Close()
			return nil, nil
		}
		// No lock is held: the layer may have been removed or replaced.
		same, serr := sys.SameFile(dir, l.path(d))
		dir.Close()
		if errors.Is(serr, fs.ErrNotExist) {
			return nil, noLayer(d)
		}
		if serr != nil {
			return nil, serr
		}
		if same {
			return c.faults, err
		}
	}
	return nil, errs.New(errs.Conflict, "layer %s is replaced again and again", d)
}

// beingMade is how long a temporary file beside meta.json is left alone: some
// command is replacing that just now.
const beingMade = time.Minute

// checking is one run of Check.
type checking struct {
	l      *Layers
	ctx    context.Context
	d      spec.Digest
	dir    *os.File
	odd    map[string]bool // what is no regular file
	info   Info
	metaOK bool
	tree   *tree
	tar    *os.File
	size   int64
	crc    uint32 // of the tar

	mu     sync.Mutex
	faults []Fault
}

func (c *checking) fault(kind FaultKind, file, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, Fault{kind, file, fmt.Sprintf(format, args...)})
}

func (c *checking) run(quick bool) error {
	names, err := c.dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range append([]string{"."}, names...) {
		if err := c.entry(n); err != nil {
			return err
		}
	}
	if err := c.meta(); err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return c.odd[n] })
	if c.odd[fileTar] {
		return nil
	}
	if c.tar, err = os.Open(c.l.path(c.d, fileTar)); errors.Is(err, fs.ErrNotExist) {
		c.fault(FaultTar, fileTar, "is missing")
		return nil
	} else if err != nil {
		return err
	}
	defer c.tar.Close()
	fi, err := c.tar.Stat()
	if err != nil {
		return err
	}
	c.size = fi.Size()
	if quick {
		c.quick(slices.Contains(names, fileIndex))
		return nil
	}
	return c.contents(slices.Contains(names, fileIndex), slices.Contains(names, dirFS))
}

// entry checks kind and permissions of one file in the layer's directory.
func (c *checking) entry(name string) error {
	fi, err := os.Lstat(c.l.path(c.d, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	want := fs.FileMode(0o600)
	switch name {
	case ".":
		want, name = fs.ModeDir|0o700, ""
	case fileTar, fileIndex, fileMeta:
	case dirFS:
		if !fi.IsDir() {
			c.odd[name] = true
			c.fault(FaultExtra, name, "is not a directory")
		}
		return nil // its permissions are the image's
	default:
		switch {
		case !strings.HasPrefix(name, ".new-") || !fi.Mode().IsRegular():
			c.fault(FaultExtra, name, "does not belong here")
		case time.Since(fi.ModTime()) > beingMade:
			c.fault(FaultLeft, name, "was left by a command that was killed")
		}
		return nil
	}
	switch {
	case fi.Mode().Type() != want.Type():
		c.odd[name] = true
		kind := FaultExtra
		if name == fileTar {
			kind = FaultTar
		}
		c.fault(kind, name, "is not a file")
	case fi.Mode().Perm() != want.Perm():
		c.fault(FaultMode, name, "has mode %04o instead of %04o", fi.Mode().Perm(), want.Perm())
	}
	return nil
}

func (c *checking) meta() error {
	if c.odd[fileMeta] {
		c.fault(FaultMeta, fileMeta, "is missing")
		return nil
	}
	err := state.ReadJSON(c.l.path(c.d, fileMeta), &c.info)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.fault(FaultMeta, fileMeta, "is missing")
	case errs.Is(err, errs.Corrupt):
		c.fault(FaultMeta, fileMeta, "is not the JSON it should be")
	case err != nil:
		return err
	case c.info.DiffID != c.d:
		c.fault(FaultMeta, fileMeta, "is of layer %.80q", string(c.info.DiffID))
	default:
		c.metaOK = true
	}
	return nil
}

// quick compares sizes.
func (c *checking) quick(hasIndex bool) {
	if !c.metaOK {
		return
	}
	if c.size != c.info.Size {
		c.fault(FaultTar, fileTar, "has %d bytes instead of %d", c.size, c.info.Size)
	}
	fi, err := os.Lstat(c.l.path(c.d, fileIndex))
	switch {
	case !hasIndex && c.info.IndexSize > 0:
		c.fault(FaultIndex, fileIndex, "is missing")
	case hasIndex && err == nil && fi.Size() != c.info.IndexSize:
		c.fault(FaultIndex, fileIndex, "has %d bytes instead of %d", fi.Size(), c.info.IndexSize)
	}
}

// contents hashes the tar on one processor and reads it as a tree on the
// other. What is made from a tar with another digest is not looked at.
func (c *checking) contents(hasIndex, hasTree bool) error {
	var sum spec.Digest
	var hashErr, treeErr error
	var wg sync.WaitGroup
	wg.Go(func() { sum, hashErr = c.hash() })
	limits := c.l.Limits.withDefaults()
	limits.Entries = max(limits.Entries, int(c.size/blockSize)) // as of one that was accepted before
	if c.tree, treeErr = readTree(&fileBlocks{f: c.tar, size: c.size}, &limits); treeErr == nil && hasIndex {
		treeErr = c.index()
	}
	wg.Wait()
	if hashErr != nil {
		return hashErr
	}
	if sum != c.d {
		// What was found to differ from it says nothing.
		c.faults = slices.DeleteFunc(c.faults, func(f Fault) bool { return f.Kind == FaultIndex })
		c.fault(FaultTar, fileTar, "has digest %s", sum)
		return nil
	}
	if treeErr != nil {
		if errs.ClassOf(treeErr) == errs.Internal {
			return treeErr
		}
		c.fault(FaultTar, fileTar, "cannot be read: %v", treeErr)
		return nil
	}
	c.compareMeta(hasIndex)
	if hasTree {
		return c.extracted()
	}
	return nil
}

func (c *checking) hash() (spec.Digest, error) {
	h := sha256.New()
	crc := crc32.New(castagnoli())
	defer func() { c.crc = crc.Sum32() }()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < c.size; {
		if c.ctx.Err() != nil {
			return "", context.Cause(c.ctx)
		}
		n, err := c.tar.ReadAt(buf[:min(int64(len(buf)), c.size-off)], off)
		h.Write(buf[:n])
		crc.Write(buf[:n])
		off += int64(n)
		if err != nil && n == 0 {
			if err == io.EOF {
				break
			}
			return "", err
		}
	}
	return spec.DigestSum(h.Sum(nil)), nil
}

// compareMeta compares meta.json with what a fresh one would say.
func (c *checking) compareMeta(hasIndex bool) {
	if !c.metaOK {
		return
	}
	is := infoOf(c.tree, c.size)
	wrong := func(what string, got, want any) {
		c.fault(FaultMeta, fileMeta, "says %s %v, which is %v", what, got, want)
	}
	for _, v := range []struct {
		what      string
		got, want int64
	}{{"Size", c.info.Size, is.Size}, {"Content", c.info.Content, is.Content}, {"Entries", int64(c.info.Entries), int64(is.Entries)}, {"Loose", int64(c.info.Loose), int64(is.Loose)}} {
		if v.got != v.want {
			wrong(v.what, v.got, v.want)
		}
	}
	if c.info.CRC32C != nil && *c.info.CRC32C != c.crc {
		wrong("CRC32C", *c.info.CRC32C, c.crc)
	}
	if c.info.Opaque != is.Opaque {
		wrong("Opaque", c.info.Opaque, is.Opaque)
	}
	if !sameAttrs(c.info.Root, is.Root) {
		c.fault(FaultMeta, fileMeta, "describes another root directory")
	}
	for _, b := range c.info.Blobs {
		if _, err := spec.ParseDigest(string(b.Digest)); err != nil || b.Size < 0 {
			c.fault(FaultMeta, fileMeta, "names a blob %.80q of %d bytes", string(b.Digest), b.Size)
		}
	}
	if fi, err := os.Lstat(c.l.path(c.d, fileIndex)); hasIndex && err == nil && fi.Size() != c.info.IndexSize {
		if !slices.ContainsFunc(c.faults, func(f Fault) bool { return f.Kind == FaultIndex }) {
			wrong("IndexSize", c.info.IndexSize, fi.Size())
		}
	} else if !hasIndex && c.info.IndexSize > 0 {
		c.fault(FaultIndex, fileIndex, "is missing")
	}
}

// infoOf is what meta.json says of a tar, as far as that follows from it.
func infoOf(t *tree, size int64) Info {
	return Info{Size: size, Content: t.content, Entries: t.entries, Root: t.rootAttrs(), Opaque: t.root.dir.opaque, Loose: t.loose()}
}

func sameAttrs(a, b *Attrs) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Mtime == b.Mtime && a.Nsec == b.Nsec &&
		maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal)
}

// index writes the index anew and compares it with the one there is.
func (c *checking) index() error {
	f, err := os.Open(c.l.path(c.d, fileIndex))
	if err != nil {
		return err
	}
	defer f.Close()
	w := &comparer{ctx: c.ctx, r: f, differs: -1}
	n, err := writeIndex(w, c.tree, c.tar, c.size, indexID(c.d))
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case w.differs >= 0:
		c.fault(FaultIndex, fileIndex, "differs from what the tar says, from byte %d on", w.differs)
	case fi.Size() != n:
		c.fault(FaultIndex, fileIndex, "has %d bytes instead of %d", fi.Size(), n)
	}
	return nil
}

// indexID is the uuid of a layer's index.
func indexID(d spec.Digest) (uuid [16]byte) {
	hex.Decode(uuid[:], []byte(d.Hex()[:min(32, len(d.Hex()))]))
	return uuid
}

// comparer takes what should be in a file and finds where it is not.
type comparer struct {
	ctx     context.Context
	r       io.Reader
	buf     []byte
	off     int64
	differs int64 // first byte that does; -1: none
}

func (w *comparer) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	if w.differs >= 0 {
		return len(p), nil
	}
	if len(w.buf) < len(p) {
		w.buf = make([]byte, len(p))
	}
	n, err := io.ReadFull(w.r, w.buf[:len(p)])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return 0, err
	}
	if !bytes.Equal(w.buf[:n], p) {
		i := 0
		for i < n && w.buf[i] == p[i] {
			i++
		}
		w.differs = w.off + int64(i)
	}
	w.off += int64(len(p))
	return len(p), nil
}

// extracted compares the dir backend's tree with the tar.
func (c *checking) extracted() error {
	root, err := os.Open(c.l.path(c.d, dirFS))
	if err != nil {
		return err
	}
	defer root.Close()
	x := &treeCheck{c: c, links: map[*inode]uint64{}}
	x.dir(filepath.Join(c.l.path(c.d), dirFS), "", c.tree.root)
	return x.err
}

// treeCheck is one comparison of an extracted tree. It stops at the first
// difference: then all of it is made again.
type treeCheck struct {
	c     *checking
	links map[*inode]uint64 // inode number of the first name
	found bool
	err   error
}

func (x *treeCheck) differs(path, format string, args ...any) {
	if !x.found {
		x.found = true
		x.c.fault(FaultTree, filepath.Join(dirFS, path), format, args...)
	}
}

func (x *treeCheck) dir(base, path string, d *inode) {
	if x.one(base, path, d); x.found || x.err != nil {
		return
	}
	entries, err := os.ReadDir(filepath.Join(base, path))
	if err != nil {
		x.err = err
		return
	}
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
	}
	for _, e := range d.dir.sorted {
		p := filepath.Join(path, e.name)
		if !have[e.name] {
			x.differs(p, "is missing")
			return
		}
		delete(have, e.name)
		if e.ino.isDir() {
			x.dir(base, p, e.ino)
		} else {
			x.one(base, p, e.ino)
		}
		if x.found || x.err != nil {
			return
		}
	}
	for name := range have {
		x.differs(filepath.Join(path, name), "is not in the tar")
	}
}

// one compares one file. Directories above it were found to be directories.
func (x *treeCheck) one(base, path string, i *inode) {
	if x.err = x.c.ctx.Err(); x.err != nil {
		return
	}
	full := filepath.Join(base, path)
	fi, err := os.Lstat(full)
	if err != nil {
		x.err = err
		return
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	mode := uint32(i.mode)
	switch {
	case st.Mode&kindMask != uint32(i.kind()):
		x.differs(path, "is of another kind")
	case i.isWhiteout():
		if st.Rdev != 0 {
			x.differs(path, "is another device")
		}
	case st.Mode != mode:
		x.differs(path, "has mode %04o instead of %04o", st.Mode&0o7777, mode&0o7777)
	case st.Uid != i.uid || st.Gid != i.gid:
		x.differs(path, "is owned by %d:%d instead of %d:%d", st.Uid, st.Gid, i.uid, i.gid)
	case i.kind() == kindReg && st.Size != i.size:
		x.differs(path, "has %d bytes instead of %d", st.Size, i.size)
	default:
		x.content(full, path, i, st)
	}
}

func (x *treeCheck) content(full, path string, i *inode, st *syscall.Stat_t) {
	if i.nlink > 1 && !i.isDir() {
		if first, ok := x.links[i]; ok {
			if first != st.Ino {
				x.differs(path, "is not the hard link it should be")
			}
			return
		}
		x.links[i] = st.Ino
	}
	attrs, err := sys.Xattrs(full)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		x.err = err
		return
	}
	for _, a := range i.xattrs() {
		// Setting the mode of a file changes its ACL's mask.
		if attrs[a.name] != a.value && a.name != aclAccess {
			x.differs(path, "has another attribute %s", quote(a.name))
		}
	}
	switch i.kind() {
	case kindSymlink:
		if target, err := os.Readlink(full); err != nil || target != i.target() {
			x.differs(path, "leads to %.100q instead of %.100q", target, i.target())
		}
	case kindReg:
		x.data(full, path, i)
	}
}

func (x *treeCheck) data(full, path string, i *inode) {
	f, err := os.Open(full)
	if err != nil {
		x.err = err
		return
	}
	defer f.Close()
	w := &comparer{ctx: x.c.ctx, r: f, differs: -1}
	if _, x.err = io.Copy(w, &fileReader{tar: x.c.tar, i: i}); x.err == nil && w.differs >= 0 {
		x.differs(path, "differs from the tar, from byte %d on", w.differs)
	}
}

// Mend does what can be done about faults without the layer's bytes from
// outside: a missing or wrong meta.json, index or tree is made again from the
// tar, whose digest the caller has just checked. Others replace files only by
// rename, so nobody is disturbed.
func (l *Layers) Mend(ctx context.Context, d spec.Digest, faults []Fault) error {
	lock, err := l.lockDir(d, false)
	if err != nil {
		return err
	}
	defer lock.Close()
	again := false
	for _, f := range faults {
		path := l.path(d, f.File)
		switch f.Kind {
		case FaultMode:
			mode := fs.FileMode(0o600)
			if f.File == "" {
				mode = 0o700
			}
			err = os.Chmod(path, mode)
		case FaultExtra, FaultLeft:
			err = os.RemoveAll(path)
		case FaultTree:
			err = l.discard(l.path(d, dirFS))
		case FaultMeta, FaultIndex:
			again = true
		case FaultTar:
			err = damaged(d, "its tar "+f.What)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if again {
		return l.remake(ctx, d)
	}
	return nil
}

// remake writes index and meta.json anew from the tar. What meta.json knows
// from elsewhere, blobs and source, is kept where it can be read.
func (l *Layers) remake(ctx context.Context, d spec.Digest) error {
	dir, lock, err := l.st.TempDir("mend-*")
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.RemoveAll(dir)
	tar, err := l.Tar(d)
	if err != nil {
		return err
	}
	defer tar.Close()
	fi, err := tar.Stat()
	if err != nil {
		return err
	}
	t, err := l.readAgain(Info{Size: fi.Size(), Entries: int(fi.Size() / blockSize)}, tar, nil)
	if err != nil {
		return damaged(d, fmt.Sprintf("its tar cannot be read: %v", err))
	}
	info := infoOf(t, fi.Size())
	var old Info
	if err := state.ReadJSON(l.path(d, fileMeta), &old); err == nil && old.DiffID == d {
		info.Source = strings.ToValidUTF8(old.Source, "?")
		for _, b := range old.Blobs {
			if _, err := spec.ParseDigest(string(b.Digest)); err == nil && b.Size >= 0 {
				info.Blobs = append(info.Blobs, b)
			}
		}
	}
	info.DiffID = d
	if err := (erofsBackend{}).prepare(ctx, &prepared{dir: dir, tree: t, tar: tar, info: &info}); err != nil {
		return noSpace(err, l.st.Root)
	}
	made := filepath.Join(dir, fileIndex)
	if err := syncFile(made); err != nil {
		return noSpace(err, l.st.Root)
	}
	if err := os.Rename(made, l.path(d, fileIndex)); err != nil {
		return err
	}
	return noSpace(l.st.WriteJSON(l.path(d, fileMeta), info, true), l.st.Root)
}
