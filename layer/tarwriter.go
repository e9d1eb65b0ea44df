package layer

import (
	"io"
	"path"
	"slices"
	"strings"
)

// TarWriter writes the tar of a layer: what a tree changes of the trees below
// it. The same files give the same bytes. After an error all further calls
// return it.
type TarWriter struct {
	m       tarMaker
	members int
}

// NewTarWriter returns a TarWriter that writes to w.
func NewTarWriter(w io.Writer) *TarWriter { return &TarWriter{m: tarMaker{w: w}} }

// Piece is data within a sparse file; what no piece covers reads as zeros.
type Piece struct{ Off, Len int64 }

// Write adds a file; its Path, kind, attributes and target count. A regular
// file's bytes are read from data, where they lie as in the file; pieces, in
// their order and without overlap, make it a sparse one, and nil an ordinary one.
func (t *TarWriter) Write(f *File, pieces []Piece, data io.ReaderAt) error {
	i := &inode{
		mode: uint16(f.Mode), uid: f.UID, gid: f.GID, size: f.Size, mtime: f.Mtime.Unix(), nsec: uint32(f.Mtime.Nanosecond()),
		rdev: f.Major<<8 | f.Minor&0xff | f.Minor&^0xff<<12,
	}
	if f.Target != "" || len(f.Xattrs) > 0 || pieces != nil {
		i.more = &extra{target: f.Target, isHole: pieces != nil}
	}
	for name, value := range f.Xattrs {
		i.more.xattrs = append(i.more.xattrs, xattr{name, value})
	}
	if len(f.Xattrs) > 1 {
		slices.SortFunc(i.more.xattrs, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	}
	for _, p := range pieces {
		i.more.sparse = append(i.more.sparse, segment{off: p.Off, data: p.Off, n: p.Len})
	}
	t.members++
	return t.m.member(f.Path, i, "", data)
}

// Link adds path as a further name of the file that was added as to.
func (t *TarWriter) Link(path, to string) error {
	t.members++
	return t.m.member(path, &inode{}, to, nil)
}

// Whiteout hides what lower layers have at file.
func (t *TarWriter) Whiteout(file string) error {
	return t.mark(path.Join(path.Dir(file), whPrefix+path.Base(file)))
}

// Opaque hides all that lower layers have in dir.
func (t *TarWriter) Opaque(dir string) error { return t.mark(path.Join(dir, whOpaque)) }

// WhiteoutPrefix begins the names that a layer's tar cannot give to files.
const WhiteoutPrefix = whPrefix

func (t *TarWriter) mark(name string) error {
	t.members++
	return t.m.member(name, &inode{mode: kindReg | 0o600}, "", strings.NewReader(""))
}

// Members is how many there are yet.
func (t *TarWriter) Members() int { return t.members }

// Close ends the archive; w stays open.
func (t *TarWriter) Close() error { return t.m.end() }
