package layer

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What a TarWriter is given is what the reader of layers finds.
func TestTarWriter(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name"
	at := time.Unix(-5, 7)
	files := []*File{
		{Path: "", Mode: kindDir | 0o711, UID: 1 << 31, GID: 3, Mtime: at},
		{Path: "d", Mode: kindDir | 0o1777, Mtime: at, Opaque: true, Xattrs: map[string]string{"user.b": "\x00=\n", "user.a": "1"}},
		{Path: "d/dev", Mode: kindChar | 0o600, Major: 4095, Minor: 1<<20 - 1, Mtime: at},
		{Path: "d/fifo", Mode: kindFifo | 0o644, Mtime: at},
		{Path: "d/file", Mode: kindReg | 0o4755, Size: 4, Mtime: at},
		{Path: "d/holes", Mode: kindReg | 0o644, Size: 1 << 40, Mtime: at},
		{Path: "d/link", Mode: kindSymlink | 0o777, Size: 301, Target: strings.Repeat("../", 100) + "x", Mtime: at},
		{Path: long, Mode: kindReg | 0o644, Mtime: at},
	}
	var b bytes.Buffer
	w := NewTarWriter(&b)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		var pieces []Piece
		if f.Path == "d/holes" {
			pieces = []Piece{{1, 2}}
		}
		ok(w.Write(f, pieces, strings.NewReader("data")))
		if f.Opaque {
			ok(w.Opaque(f.Path))
		}
	}
	ok(w.Link("d/same", "d/file"))
	ok(w.Whiteout("gone"))
	ok(w.Whiteout("d/gone"))
	ok(w.Close())
	limits := Limits{}.withDefaults()
	tree, err := readTree(&fileBlocks{f: bytes.NewReader(b.Bytes()), size: int64(b.Len())}, &limits)
	ok(err)
	got := map[string]*File{}
	last := int64(0)
	ok(walkFiles("", tree.root, &last, func(f *File) error { got[f.Path] = f; return nil }))
	for _, f := range files {
		if diff := cmp.Diff(f, got[f.Path], cmpopts.IgnoreFields(File{}, "Links", "Inode"), cmpopts.IgnoreUnexported(File{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", f.Path, diff)
		}
	}
	if got["gone"] == nil || !got["gone"].Whiteout || got["d/gone"] == nil || !got["d/gone"].Whiteout {
		t.Error("the whiteouts are not there")
	}
	if got["d/same"] == nil || got["d/same"].Inode != got["d/file"].Inode {
		t.Error("the hard link is not there")
	}
	if segs, sparse := got["d/holes"].ino.sparse(); !sparse || len(segs) != 1 || segs[0].n != 2 || string(b.Bytes()[segs[0].data:][:2]) != "at" {
		t.Errorf("pieces: %v", segs)
	}
}
