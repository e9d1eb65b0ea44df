package layer

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"

	"tug/errs"
)

// The on-disk format: Linux fs/erofs/erofs_fs.h, the subset of it that we
// write. One image holds metadata only; file data lies on extra device 1, the
// layer's tar.
//
//	block 0, 1   zeros (boot area)
//	block 2      superblock (128 bytes), device slot (128 bytes), zeros
//	block 3...   inodes, each followed by its attributes, its chunk index and
//	             the tail of its data; parents before children, siblings together
//	then         whole blocks of directories and symlinks
//	then         file data that cannot be mapped from the tar (odd sparse files)
const (
	superOffset  = 1024
	superSize    = 128
	slotSize     = 128
	firstInode   = 3 * blockSize
	erofsMagic   = 0xE0F5E1E2
	compatMtime  = 0x2
	incompatFlag = 0x4 | 0x8 // chunked files, device table
	inodeSize    = 64
	inodeAlign   = 32
	layoutPlain  = 0
	layoutInline = 2
	layoutChunk  = 4
	chunkIndexes = 0x20
	noBlock      = 0xffffffff
	minChunkBits = 9
	maxChunkBits = 40

	xattrHeader = 12
	xattrEntry  = 4
	// i_xattr_icount has 16 bits and counts units of four bytes.
	maxXattrs = 65535*4 - 64
)

// xattrSize is the space that attributes take behind an inode.
func xattrSize(list []xattr) int {
	if len(list) == 0 {
		return 0
	}
	n := xattrHeader
	for _, x := range list {
		_, suffix := xattrPrefix(x.name)
		n += (xattrEntry + len(suffix) + len(x.value) + 3) &^ 3
	}
	return n
}

// xattrPrefix splits a name into EROFS's number for its namespace and the rest.
func xattrPrefix(name string) (index byte, suffix string) {
	switch name {
	case aclAccess:
		return 2, ""
	case aclDefault:
		return 3, ""
	}
	space, rest, _ := strings.Cut(name, ".")
	switch space {
	case "user":
		return 1, rest
	case "trusted":
		return 4, rest
	}
	return 6, rest // security; storable lets nothing else pass
}

// index lays out and writes one image.
type index struct {
	tree    *tree
	tar     io.ReaderAt // for data that must be copied
	tarSize int64
	uuid    [16]byte

	order  []*inode          // by position
	placed map[*inode]*place // of those with more than an inode
	end    int64             // first free byte
	plain  []*inode          // with data in whole blocks, in order
	copies []copied          // file data to copy, in order
	limit  int64
	maxLen int // longest directory, for the scratch buffer
}

// place says where the parts of an inode are that do not follow from it.
type place struct {
	layout byte
	block  uint32 // of plain data
	chunks *chunkMap
}

// writeIndex writes the image of t. The same tree and uuid give the same bytes.
func writeIndex(w io.Writer, t *tree, tar io.ReaderAt, tarSize int64, uuid [16]byte) (int64, error) {
	x := &index{tree: t, tar: tar, tarSize: tarSize, uuid: uuid, placed: make(map[*inode]*place), limit: t.limits.Index}
	if err := x.layOut(); err != nil {
		return 0, err
	}
	bw := bufio.NewWriterSize(w, 256<<10)
	e := &emitter{w: bw}
	e.write(make([]byte, superOffset))
	e.write(x.super())
	for _, i := range x.order {
		x.emitInode(e, i)
	}
	e.align(blockSize)
	for _, i := range x.plain {
		x.emitData(e, i)
		e.align(blockSize)
	}
	for _, c := range x.copies {
		x.emitCopy(e, c)
	}
	if e.err == nil {
		e.err = bw.Flush()
	}
	return e.n, e.err
}

// layOut gives every inode its position.
func (x *index) layOut() error {
	x.end = firstInode
	if err := x.put(x.tree.root); err != nil {
		return err
	}
	stack := []*inode{x.tree.root}
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		at := len(stack)
		for _, c := range d.dir.sorted {
			if c.ino.pos != 0 {
				continue // another name of it was here before
			}
			if err := x.put(c.ino); err != nil {
				return err
			}
			if c.ino.isDir() {
				stack = append(stack, c.ino)
			}
		}
		// Depth first, in order: the last pushed is popped first.
		for i, j := at, len(stack)-1; i < j; i, j = i+1, j-1 {
			stack[i], stack[j] = stack[j], stack[i]
		}
	}
	block := (x.end + blockSize - 1) / blockSize
	for _, i := range x.plain {
		p := x.placed[i]
		p.block = uint32(block)
		if block += i.size / blockSize; p.layout == layoutPlain && i.size%blockSize != 0 {
			block++
		}
	}
	for n := range x.copies {
		c := &x.copies[n]
		c.chunks.copies[c.chunk] = uint32(block)
		block += (c.n + blockSize - 1) / blockSize
	}
	x.end = block * blockSize
	if x.end > x.limit || block >= noBlock {
		return errs.New(errs.Invalid, "the layer's index would take %d bytes, more than the limit of %d", x.end, x.limit)
	}
	return nil
}

// put places one inode at the next position that fits.
func (x *index) put(i *inode) error {
	head := int64(inodeSize + xattrSize(i.xattrs()))
	n, tail := head, int64(0)
	var p *place
	switch {
	case i.isDir():
		i.size = dirSize(i)
		x.maxLen = max(x.maxLen, int(i.size))
		p = &place{layout: layoutInline}
		if tail = i.size % blockSize; tail == 0 {
			p.layout = layoutPlain
		}
	case i.kind() == kindSymlink:
		p = &place{layout: layoutInline}
		// A target that spans blocks is only read from whole ones.
		if tail = i.size; tail >= blockSize {
			p.layout, tail = layoutPlain, 0
		}
	case i.kind() == kindReg && i.size > 0:
		c, err := x.mapChunks(i)
		if err != nil {
			return err
		}
		p = &place{layout: layoutChunk, chunks: c}
		n = (head+7)&^7 + 8*int64(c.count)
	}
	pos := align(x.end, inodeAlign)
	for tries := 0; ; tries++ {
		if pos%blockSize+inodeSize <= blockSize && (tail == 0 || (pos+head)%blockSize+tail <= blockSize && (pos+head)%blockSize != 0) {
			break
		}
		if tries == blockSize/inodeAlign {
			// No place has room for the tail in one block: whole blocks it is.
			p.layout, tail = layoutPlain, 0
			pos, tries = align(x.end, inodeAlign), -1
			continue
		}
		pos += inodeAlign
	}
	if p != nil {
		x.placed[i] = p
		if p.layout == layoutPlain || p.layout == layoutInline && i.size > tail {
			x.plain = append(x.plain, i)
		}
	}
	i.pos, x.end = pos, pos+n+tail
	x.order = append(x.order, i)
	if x.end > x.limit {
		return errs.New(errs.Invalid, "the layer's index would take more than the limit of %d bytes", x.limit)
	}
	return nil
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// super returns the superblock and the device table. It has no checksum: that
// would cover this one block, and fsck.erofs before 1.9 crashes when it sees
// one together with blocks smaller than 1 KiB.
func (x *index) super() []byte {
	b := make([]byte, blockSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], erofsMagic)
	le.PutUint32(b[8:], compatMtime)
	b[12] = 9 // log2 of the block size
	le.PutUint16(b[14:], uint16(x.tree.root.pos/inodeAlign))
	le.PutUint64(b[16:], uint64(len(x.order)))
	le.PutUint32(b[36:], uint32(x.end/blockSize))
	copy(b[48:64], x.uuid[:])
	le.PutUint32(b[80:], incompatFlag)
	le.PutUint16(b[86:], 1) // extra devices
	le.PutUint16(b[88:], (superOffset+superSize)/slotSize)
	slot := b[superSize:]
	copy(slot[:64], "tar")
	le.PutUint32(slot[64:], uint32(x.tarSize/blockSize))
	return b
}

// emitter writes in sequence and remembers the first error.
type emitter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (e *emitter) write(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
	e.n += int64(len(b))
}

var zeros [blockSize]byte

func (e *emitter) seek(pos int64) {
	for e.n < pos {
		e.write(zeros[:min(pos-e.n, blockSize)])
	}
}

func (e *emitter) align(to int64) { e.seek(align(e.n, to)) }
