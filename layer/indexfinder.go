package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"sort"

	"tug/spec"
)

// indexFinder finds in an index.erofs, which writeIndex has written. It checks
// what it goes by, as a disk may have changed it: no answer costs more than a
// directory has blocks.
type indexFinder struct {
	f    *os.File
	size int64
	d    spec.Digest
	base int64 // position of the root
}

func openIndex(path string, info Info) (*indexFinder, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(info.DiffID, "its "+fileIndex+" is missing")
	}
	if err != nil {
		return nil, err
	}
	x := &indexFinder{f: f, size: info.IndexSize, d: info.DiffID}
	var b [superSize]byte
	fi, err := f.Stat()
	if err == nil && fi.Size() != info.IndexSize {
		err = x.bad()
	}
	if err == nil {
		err = x.read(b[:], superOffset)
	}
	if err == nil && (binary.LittleEndian.Uint32(b[0:]) != erofsMagic || b[12] != 9) {
		err = x.bad()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	x.base = int64(binary.LittleEndian.Uint16(b[14:])) * inodeAlign
	return x, nil
}

func (x *indexFinder) close() { x.f.Close() }

func (x *indexFinder) bad() error { return damaged(x.d, "its "+fileIndex+" is not what it should be") }

// read fills b.
func (x *indexFinder) read(b []byte, pos int64) error {
	if pos < 0 || pos > x.size-int64(len(b)) {
		return x.bad()
	}
	_, err := x.f.ReadAt(b, pos)
	if errors.Is(err, io.EOF) {
		return x.bad()
	}
	return err
}

func (x *indexFinder) root() (found, error) { return x.inode(x.base) }

// inode reads the inode at pos; see emitInode.
func (x *indexFinder) inode(pos int64) (found, error) {
	var b [inodeSize]byte
	if err := x.read(b[:], pos); err != nil {
		return found{}, err
	}
	le := binary.LittleEndian
	f := found{
		layout: byte(le.Uint16(b[0:]) >> 1), mode: le.Uint16(b[4:]), size: int64(le.Uint64(b[8:])),
		uid: le.Uint32(b[24:]), gid: le.Uint32(b[28:]), mtime: int64(le.Uint64(b[32:])), nsec: le.Uint32(b[40:]),
	}
	if f.size < 0 {
		return f, x.bad()
	}
	switch f.mode & kindMask {
	case kindChar, kindBlock:
		f.rdev = le.Uint32(b[16:])
	case kindDir:
		attrs := 0
		if n := int(le.Uint16(b[2:])); n > 0 {
			attrs = xattrHeader + (n-1)*4
		}
		f.block, f.tail = int64(le.Uint32(b[16:])), pos+inodeSize+int64(attrs)
		if f.size > x.size || f.layout != layoutPlain && f.layout != layoutInline {
			return f, x.bad()
		}
		return f, x.opaque(&f, pos+inodeSize, attrs)
	}
	return f, nil
}

// opaque looks for overlayfs's mark among the n bytes of attributes at pos.
func (x *indexFinder) opaque(f *found, pos int64, n int) error {
	if n <= xattrHeader {
		return nil
	}
	b := make([]byte, n)
	if err := x.read(b, pos); err != nil {
		return err
	}
	for b = b[xattrHeader:]; len(b) >= xattrEntry; {
		name, value := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
		if xattrEntry+name+value > len(b) {
			return x.bad()
		}
		index, suffix := xattrPrefix(opaqueXattr)
		if b[1] == index && string(b[xattrEntry:xattrEntry+name]) == suffix && string(b[xattrEntry+name:xattrEntry+name+value]) == "y" {
			f.opaque = true
		}
		b = b[min(len(b), (xattrEntry+name+value+3)&^3):]
	}
	return nil
}

// dirent is one entry of a directory.
type dirent struct {
	name []byte
	pos  int64 // of its inode
}

// entries reads block n of a directory; see dirData. There is at least one.
func (x *indexFinder) entries(dir *found, n int64) ([]dirent, error) {
	b := make([]byte, min(blockSize, dir.size-n*blockSize))
	pos := (dir.block + n) * blockSize
	if dir.layout == layoutInline && n == dir.size/blockSize {
		pos = dir.tail
	}
	if err := x.read(b, pos); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if len(b) < direntSize {
		return nil, x.bad()
	}
	count := int(le.Uint16(b[8:])) / direntSize
	if count == 0 || count*direntSize > len(b) {
		return nil, x.bad()
	}
	out := make([]dirent, count)
	for i := range out {
		e := b[i*direntSize:]
		from, to := int(le.Uint16(e[8:])), len(b)
		if i+1 < count {
			to = int(le.Uint16(e[direntSize+8:]))
		}
		if from > to || to > len(b) || le.Uint64(e) > uint64(x.size/inodeAlign) {
			return nil, x.bad()
		}
		name := b[from:to]
		if end := bytes.IndexByte(name, 0); i+1 == count && end >= 0 {
			name = name[:end] // what follows fills the block
		}
		out[i] = dirent{name, int64(le.Uint64(e)) * inodeAlign}
	}
	return out, nil
}

func blocksOf(dir *found) int64 { return (dir.size + blockSize - 1) / blockSize }

func (x *indexFinder) child(dir found, name string) (found, bool, error) {
	var err error
	// The last block that begins with name or something before it.
	n := sort.Search(int(blocksOf(&dir)), func(n int) bool {
		if err != nil {
			return true
		}
		var list []dirent
		if list, err = x.entries(&dir, int64(n)); err != nil {
			return true
		}
		return string(list[0].name) > name
	})
	if err != nil || n == 0 {
		return found{}, false, err
	}
	list, err := x.entries(&dir, int64(n-1))
	if err != nil {
		return found{}, false, err
	}
	i := sort.Search(len(list), func(i int) bool { return string(list[i].name) >= name })
	if i == len(list) || string(list[i].name) != name {
		return found{}, false, nil
	}
	f, err := x.inode(list[i].pos)
	return f, err == nil, err
}

func (x *indexFinder) names(dir found) ([]string, error) {
	var out []string
	for n := range blocksOf(&dir) {
		list, err := x.entries(&dir, n)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if s := string(e.name); s != "." && s != ".." {
				out = append(out, s)
			}
		}
	}
	return out, nil
}
