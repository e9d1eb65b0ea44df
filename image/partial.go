package image

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
	"time"

	"tug/spec"
	"tug/sys"
)

// A partial is the bytes that there are of one blob while it is being
// downloaded, and after a download that was cut short, for the next one. It is
// one sparse file, partial/<hex of the blob's digest>:
//
//	0                     size              size + 4 * number of chunks
//	| blob, at its offsets | CRC-32C per chunk |
//
// A chunk's checksum is written, in place, after the chunk; zero says that the
// chunk is not there. So kill -9 loses the chunk on its way, and a power
// failure, after which any of it may be missing, the chunks that do not fit
// their checksums. Whether the bytes are the right ones only the blob's digest
// says: they may be from a registry that lied.
//
// The file is used by one download at a time, under an exclusive flock on it
// that nobody waits for. Who removes it holds the lock, too.
type partial struct {
	f     *os.File
	size  int64
	chunk int64
	table *crc32.Table
	old   bool // it has chunks of an earlier download

	mu   sync.Mutex
	sums []uint32 // per chunk; 0: not there
}

const (
	minPartial = 1 << 20 // smaller blobs are fetched anew
	minChunk   = 64 << 10
	maxChunks  = 1 << 20
	// roomFor is how many times a blob's size must be free on the disk for its
	// bytes to be kept: once for them, the rest for the layer's tar.
	roomFor = 4
)

// openPartial returns what there is of a blob, maybe nothing so far. Where
// nothing shall or can be kept it returns nil: keeping bytes is a favour, and
// what it needs must not be what a pull fails for.
func (s *Images) openPartial(d spec.Descriptor) *partial {
	if d.Size < minPartial || !spec.IsHex64(d.Digest.Hex()) || os.MkdirAll(s.st.Partials(), 0o700) != nil {
		return nil
	}
	path := s.st.Partial(d.Digest.Hex())
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if free, err := sys.FreeSpace(s.st.Partials()); err != nil || free/roomFor < d.Size {
			return nil
		}
	}
	f := lockPartial(path, os.O_RDWR|os.O_CREATE)
	if f == nil {
		return nil
	}
	p := &partial{f: f, size: d.Size, chunk: minChunk, table: crc32.MakeTable(crc32.Castagnoli)}
	for d.Size/p.chunk >= maxChunks {
		p.chunk *= 2
	}
	p.sums = make([]uint32, (d.Size+p.chunk-1)/p.chunk)
	if err := p.load(); err != nil {
		p.drop()
		return nil
	}
	return p
}

// lockPartial opens and locks a partial. It returns nil where there is none or
// somebody else has it.
func lockPartial(path string, flags int) *os.File {
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil
		}
		had, err := sys.TryLock(f, true)
		if err == nil && had {
			// Whoever had it before may have removed it.
			same, err := sys.SameFile(f, path)
			if err == nil && same {
				return f
			}
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				f.Close()
				continue
			}
		}
		f.Close()
		return nil
	}
}

// load reads the checksums. A file of another size than this blob's is of a
// manifest that said another one, or new, and is begun anew.
func (p *partial) load() error {
	fi, err := p.f.Stat()
	if err != nil {
		return err
	}
	whole := p.size + 4*int64(len(p.sums))
	if fi.Size() != whole {
		if err := p.f.Truncate(0); err != nil {
			return err
		}
		return p.f.Truncate(whole)
	}
	b := make([]byte, 4*len(p.sums))
	if _, err := p.f.ReadAt(b, p.size); err != nil {
		return err
	}
	for i := range p.sums {
		p.sums[i] = binary.LittleEndian.Uint32(b[4*i:])
		p.old = p.old || p.sums[i] != 0
	}
	return nil
}

// has reports whether the chunk that begins at off is there.
func (p *partial) has(off int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sums[off/p.chunk] != 0
}

// gap returns where the bytes end that are missing from off, the beginning of a
// chunk, on.
func (p *partial) gap(off int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for off < p.size && p.sums[off/p.chunk] == 0 {
		off += p.chunk
	}
	return min(off, p.size)
}

// empty reports whether no chunk is there.
func (p *partial) empty() bool { return p.gap(0) == p.size }

// mark says that chunk i is there, or, with sum 0, that it is not.
func (p *partial) mark(i int64, sum uint32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], sum)
	if _, err := p.f.WriteAt(b[:], p.size+4*i); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sums[i] = sum
	return nil
}

// read reads the chunk that begins at off into buf. False: it is not there, or
// not any more.
func (p *partial) read(off int64, buf []byte) ([]byte, bool) {
	i := off / p.chunk
	p.mu.Lock()
	sum := p.sums[i]
	p.mu.Unlock()
	if sum == 0 {
		return nil, false
	}
	buf = buf[:min(p.chunk, p.size-off)]
	if _, err := p.f.ReadAt(buf, off); err == nil && p.sum(0, buf) == sum {
		return buf, true
	}
	p.mu.Lock()
	p.sums[i] = 0 // whoever fetches it again writes its checksum
	p.mu.Unlock()
	return nil, false
}

// sum goes on with a chunk's checksum.
func (p *partial) sum(before uint32, b []byte) uint32 {
	return crc32.Update(before, p.table, b)
}

// A filling writes bytes that come in order, from the beginning of a chunk on.
type filling struct {
	p   *partial
	off int64
	sum uint32 // of the chunk so far
}

func (w *filling) write(b []byte) error {
	if _, err := w.p.f.WriteAt(b, w.off); err != nil {
		return err
	}
	for len(b) > 0 {
		i := w.off / w.p.chunk
		end := min((i+1)*w.p.chunk, w.p.size)
		n := min(int64(len(b)), end-w.off)
		w.sum = w.p.sum(w.sum, b[:n])
		w.off += n
		b = b[n:]
		if w.off < end {
			break
		}
		// A checksum that happens to be 0 would be taken for none: that chunk
		// counts as missing, which is no more than a loss.
		if err := w.p.mark(i, w.sum); err != nil {
			return err
		}
		w.sum = 0
	}
	return nil
}

func (p *partial) close() { p.f.Close() }

// drop removes the partial.
func (p *partial) drop() {
	os.Remove(p.f.Name())
	p.f.Close()
}

// sweepPartials removes partials that no download has added to for a day, and
// those of layers that are in the store.
func (s *Images) sweepPartials() {
	entries, err := os.ReadDir(s.st.Partials())
	if err != nil || len(entries) == 0 {
		return
	}
	here := map[string]bool{}
	if layers, err := s.layers.List(); err == nil {
		for _, l := range layers {
			for _, b := range l.Blobs {
				here[b.Digest.Hex()] = true
			}
		}
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !here[e.Name()] && time.Since(fi.ModTime()) <= keepUnused {
			continue
		}
		path := s.st.Partial(e.Name())
		if f := lockPartial(path, os.O_RDWR); f != nil {
			os.Remove(path)
			f.Close()
		}
	}
}
