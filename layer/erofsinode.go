package layer

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// emitInode writes an inode with what lies behind it.
func (x *index) emitInode(e *emitter, i *inode) {
	e.seek(i.pos)
	list := i.xattrs()
	p := x.placed[i]
	var b [inodeSize]byte
	le := binary.LittleEndian
	layout := byte(layoutPlain)
	if p != nil {
		layout = p.layout
	}
	le.PutUint16(b[0:], 1|uint16(layout)<<1) // 1: the extended form
	if len(list) > 0 {
		le.PutUint16(b[2:], uint16((xattrSize(list)-xattrHeader)/4+1))
	}
	le.PutUint16(b[4:], i.mode)
	le.PutUint64(b[8:], uint64(i.size))
	switch {
	case i.kind() == kindChar || i.kind() == kindBlock:
		le.PutUint32(b[16:], i.rdev)
	case layout == layoutChunk:
		le.PutUint16(b[16:], uint16(p.chunks.bits-minChunkBits)|chunkIndexes)
	case p != nil:
		le.PutUint32(b[16:], p.block)
	}
	le.PutUint32(b[20:], uint32(i.pos/inodeAlign)) // for 32-bit users of stat
	le.PutUint32(b[24:], i.uid)
	le.PutUint32(b[28:], i.gid)
	le.PutUint64(b[32:], uint64(i.mtime))
	le.PutUint32(b[40:], i.nsec)
	le.PutUint32(b[44:], i.nlink)
	e.write(b[:])
	emitXattrs(e, list)
	switch layout {
	case layoutChunk:
		e.align(8)
		p.chunks.emit(e)
	case layoutInline:
		data := x.contents(i)
		e.write(data[len(data)/blockSize*blockSize:])
	}
}

func emitXattrs(e *emitter, list []xattr) {
	if len(list) == 0 {
		return
	}
	e.write(zeros[:xattrHeader])
	for _, a := range list {
		index, suffix := xattrPrefix(a.name)
		e.write([]byte{byte(len(suffix)), index, byte(len(a.value)), byte(len(a.value) >> 8)})
		e.write([]byte(suffix))
		e.write([]byte(a.value))
		e.align(4)
	}
}

// emitData writes the whole blocks of a directory or symlink.
func (x *index) emitData(e *emitter, i *inode) {
	data := x.contents(i)
	if x.placed[i].layout == layoutInline {
		data = data[:len(data)/blockSize*blockSize]
	}
	e.write(data)
}

func (x *index) contents(i *inode) []byte {
	if i.isDir() {
		return dirData(i, make([]byte, 0, i.size))
	}
	return []byte(i.target())
}

// Directory data: blocks of 12-byte entries followed by their names; all names
// of a directory, "." and ".." among them, in byte order.
const direntSize = 12

// File types in directory entries.
func direntType(i *inode) byte {
	switch i.kind() {
	case kindReg:
		return 1
	case kindDir:
		return 2
	case kindChar:
		return 3
	case kindBlock:
		return 4
	case kindFifo:
		return 5
	}
	return 7 // symlink
}

// withDots returns d's entries with "." and "..".
func withDots(d *inode) []dirEntry {
	parent := d.dir.parent
	if parent == nil {
		parent = d
	}
	out := make([]dirEntry, 0, len(d.dir.sorted)+2)
	// Names that sort before "." exist: "!" or "-x".
	at, _ := slices.BinarySearchFunc(d.dir.sorted, ".", func(e dirEntry, s string) int { return cmp.Compare(e.name, s) })
	out = append(out, d.dir.sorted[:at]...)
	out = append(out, dirEntry{".", d})
	rest := d.dir.sorted[at:]
	// And some between the two: ".-".
	at, _ = slices.BinarySearchFunc(rest, "..", func(e dirEntry, s string) int { return cmp.Compare(e.name, s) })
	out = append(out, rest[:at]...)
	out = append(out, dirEntry{"..", parent})
	return append(out, rest[at:]...)
}

// firstBlock returns how many of list fit into one block and the bytes they use.
func firstBlock(list []dirEntry) (n, used int) {
	for _, d := range list {
		if used+direntSize+len(d.name) > blockSize {
			break
		}
		used += direntSize + len(d.name)
		n++
	}
	return n, used
}

func dirSize(d *inode) int64 {
	var size int64
	for list := withDots(d); len(list) > 0; {
		n, used := firstBlock(list)
		list = list[n:]
		if len(list) > 0 {
			used = blockSize
		}
		size += int64(used)
	}
	return size
}

func dirData(d *inode, b []byte) []byte {
	le := binary.LittleEndian
	for list := withDots(d); len(list) > 0; {
		n, used := firstBlock(list)
		nameoff := n * direntSize
		for _, c := range list[:n] {
			b = le.AppendUint64(b, uint64(c.ino.pos/inodeAlign))
			b = le.AppendUint16(b, uint16(nameoff))
			b = append(b, direntType(c.ino), 0)
			nameoff += len(c.name)
		}
		for _, c := range list[:n] {
			b = append(b, c.name...)
		}
		list = list[n:]
		if len(list) > 0 {
			b = append(b, zeros[:blockSize-used]...)
		}
	}
	return b
}
