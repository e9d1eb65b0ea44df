package layer

import (
	"encoding/binary"
	"io"
	"math/bits"

	"tug/errs"
)

// chunkMap maps a file in chunks of 1 << bits bytes. The addresses of a file
// that lies in the tar in one piece follow from its first block.
type chunkMap struct {
	bits   int
	count  int64
	first  uint32 // block in the tar of a dense file
	size   int64
	segs   []segment        // of a sparse file
	copies map[int64]uint32 // chunks of a sparse file that the index holds; nil: dense
}

// copied is a chunk of a sparse file whose data does not lie in the tar as
// whole blocks in the right order, so that the index holds a copy.
type copied struct {
	chunks *chunkMap
	chunk  int64
	n      int64 // bytes, at most a chunk
	off    int64 // in the file
	segs   []segment
}

// mapChunks finds the chunks of a file with data.
func (x *index) mapChunks(i *inode) (*chunkMap, error) {
	segs, sparse := i.sparse()
	if !sparse {
		c := &chunkMap{bits: ceilLog2(i.size), first: uint32(i.data / blockSize)}
		c.count = countChunks(i.size, c.bits)
		return c, nil
	}
	best, cost := 0, int64(0)
	for b := minChunkBits; b <= maxChunkBits; b++ {
		if n := sparseCost(segs, i.size, b); n >= 0 && (best == 0 || n < cost) {
			best, cost = b, n
		}
		if int64(1)<<b >= i.size {
			break
		}
	}
	if best == 0 || cost > x.limit {
		return nil, errs.New(errs.Invalid, "a sparse file of %d bytes in the layer would need more than %d bytes of index", i.size, x.limit)
	}
	c := &chunkMap{bits: best, count: countChunks(i.size, best), size: i.size, segs: segs, copies: make(map[int64]uint32)}
	eachChunk(segs, i.size, best, func(k int64, direct bool, in []segment) {
		if !direct {
			n := min(int64(1)<<best, i.size-k<<best)
			x.copies = append(x.copies, copied{chunks: c, chunk: k, n: n, off: k << best, segs: in})
		}
	})
	return c, nil
}

func ceilLog2(n int64) int {
	return min(max(bits.Len64(uint64(n-1)), minChunkBits), maxChunkBits)
}

func countChunks(size int64, bits int) int64 {
	return (size-1)>>bits + 1
}

// sparseCost is how many bytes of index a chunk size costs; -1: too many.
func sparseCost(segs []segment, size int64, bits int) int64 {
	const most = 1 << 40
	count := countChunks(size, bits)
	if count > most/8 {
		return -1
	}
	cost := 8 * count
	eachChunk(segs, size, bits, func(_ int64, direct bool, _ []segment) {
		if !direct && cost < most {
			cost += 1 << bits
		}
	})
	if cost >= most {
		return -1
	}
	return cost
}

// eachChunk calls f for every chunk that holds data, in order: direct, when
// the tar holds the chunk (up to the end of the file) as it is, in whole
// blocks; and with the pieces that touch it. Long pieces are not special: a
// chunk costs 8 bytes in any case.
func eachChunk(segs []segment, size int64, bits int, f func(k int64, direct bool, in []segment)) {
	done := int64(-1) // last chunk given to f
	for s := 0; s < len(segs); s++ {
		g := segs[s]
		for k := max(g.off>>bits, done+1); k <= (g.off+g.n-1)>>bits; k++ {
			start := k << bits
			end := size
			if size-start > 1<<bits {
				end = start + 1<<bits
			}
			last := s
			for last+1 < len(segs) && segs[last+1].off < end {
				last++
			}
			direct := g.off <= start && g.off+g.n >= end && (g.data+start-g.off)%blockSize == 0
			f(k, direct, segs[s:last+1])
			done = k
		}
	}
}

func (c *chunkMap) emit(e *emitter) {
	if c.copies == nil {
		for k := range c.count {
			emitChunk(e, 1, c.first+uint32(k<<(c.bits-minChunkBits)))
		}
		return
	}
	next := int64(0)
	eachChunk(c.segs, c.size, c.bits, func(k int64, direct bool, in []segment) {
		for ; next < k; next++ {
			emitChunk(e, 0, noBlock)
		}
		next++
		if direct {
			emitChunk(e, 1, uint32((in[0].data-in[0].off+k<<c.bits)/blockSize))
		} else {
			emitChunk(e, 0, c.copies[k])
		}
	})
	for ; next < c.count; next++ {
		emitChunk(e, 0, noBlock)
	}
}

// emitChunk writes one chunk index: device 0 is the index itself, 1 the tar.
func emitChunk(e *emitter, device uint16, block uint32) {
	var b [8]byte
	binary.LittleEndian.PutUint16(b[2:], device)
	binary.LittleEndian.PutUint32(b[4:], block)
	e.write(b[:])
}

// emitCopy writes one chunk from its pieces in the tar, zeros between them.
func (x *index) emitCopy(e *emitter, c copied) {
	at, end := c.off, c.off+c.n
	base := e.n
	for _, g := range c.segs {
		from, to := max(g.off, at), min(g.off+g.n, end)
		if from >= to {
			continue
		}
		e.seek(base + from - c.off)
		r := io.NewSectionReader(x.tar, g.data+from-g.off, to-from)
		buf := make([]byte, min(64<<10, to-from))
		for e.err == nil {
			n, err := r.Read(buf)
			e.write(buf[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				e.err = err
			}
		}
		at = to
	}
	e.seek(base + c.n)
	e.align(blockSize)
}
