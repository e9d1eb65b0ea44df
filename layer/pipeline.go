package layer

import (
	"context"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"tug/sys"
)

// A layer passes through a chain of stages, each a goroutine, so that inflating,
// the slowest, has one core for itself:
//
//	read + sha256 of the blob --> inflate --+--> sha256 (diffID)
//	                                        +--> write tar
//	                                        +--> parse tar headers
//
// Stages hand on chunks by reference; a chunk goes back to its pool when the
// last stage is done with it. The pools bound the memory.
const (
	blobChunk  = 128 << 10
	blobChunks = 8
	tarChunk   = 256 << 10 // a multiple of the tar block, so that blocks never straddle chunks
	tarChunks  = 12
	// How much of the tar may be dirty before its writing out is started.
	writeback = 16 << 20
)

type chunk struct {
	buf  []byte // all of it
	b    []byte // the part in use
	refs atomic.Int32
	pool chan *chunk
}

func newPool(n, size int) chan *chunk {
	pool := make(chan *chunk, n)
	for range n {
		pool <- &chunk{buf: make([]byte, size), pool: pool}
	}
	return pool
}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.pool <- c // never blocks: the pool has room for all its chunks
	}
}

// flow runs stages; the first error stops them all.
type flow struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newFlow(ctx context.Context) *flow {
	f := &flow{}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	return f
}

func (f *flow) run(stage func() error) {
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		if err := stage(); err != nil {
			f.cancel(err)
		}
	}()
}

// get takes a chunk out of a pool or a queue. A closed queue is io.EOF.
func (f *flow) get(ch <-chan *chunk) (*chunk, error) {
	select {
	case c, ok := <-ch:
		if !ok {
			return nil, io.EOF
		}
		return c, nil
	case <-f.ctx.Done():
		return nil, context.Cause(f.ctx)
	}
}

// put hands c to queues.
func (f *flow) put(c *chunk, queues ...chan *chunk) error {
	c.refs.Store(int32(len(queues)))
	for _, q := range queues {
		select {
		case q <- c:
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		}
	}
	return nil
}

// each calls fn with every chunk of a queue.
func (f *flow) each(q <-chan *chunk, fn func([]byte) error) error {
	for {
		c, err := f.get(q)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(c.b); err != nil {
			return err
		}
		c.release()
	}
}

// fill reads r to its end in whole chunks and hands them to queues, which it
// closes then. Not when it or the check atEnd fails: nobody downstream may
// mistake that for an end.
func (f *flow) fill(r io.Reader, pool chan *chunk, check func(total int64, atEnd bool) error, queues ...chan *chunk) error {
	var total int64
	for {
		c, err := f.get(pool)
		if err != nil {
			return err
		}
		n, err := io.ReadFull(r, c.buf)
		c.b = c.buf[:n]
		total += int64(n)
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if cerr := check(total, end); cerr != nil && (end || err == nil) {
			return cerr
		}
		if n > 0 {
			if perr := f.put(c, queues...); perr != nil {
				return perr
			}
		}
		if end {
			for _, q := range queues {
				close(q)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// queueReader reads a queue of chunks as one stream.
type queueReader struct {
	f   *flow
	q   <-chan *chunk
	cur *chunk
	b   []byte
}

func (r *queueReader) Read(p []byte) (int, error) {
	for len(r.b) == 0 {
		if r.cur != nil {
			r.cur.release()
			r.cur = nil
		}
		c, err := r.f.get(r.q)
		if err != nil {
			return 0, err
		}
		r.cur, r.b = c, c.b
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// queueBlocks is a blockSource over a queue of chunks.
type queueBlocks struct{ queueReader }

func (q *queueBlocks) next() error {
	if q.cur != nil {
		q.cur.release()
		q.cur, q.b = nil, nil
	}
	c, err := q.f.get(q.q)
	if err != nil {
		return err
	}
	q.cur, q.b = c, c.b
	return nil
}

func (q *queueBlocks) block() ([]byte, error) {
	if len(q.b) == 0 {
		if err := q.next(); err != nil {
			return nil, err
		}
	}
	if len(q.b) < blockSize {
		return nil, io.ErrUnexpectedEOF
	}
	b := q.b[:blockSize:blockSize]
	q.b = q.b[blockSize:]
	return b, nil
}

func (q *queueBlocks) skip(n int64) error {
	n *= blockSize
	for n > 0 {
		if len(q.b) == 0 {
			if err := q.next(); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		m := min(n, int64(len(q.b)))
		q.b = q.b[m:]
		n -= m
	}
	return nil
}

// drain takes what is left, so that the other stages can go on.
func (q *queueBlocks) drain() error {
	for {
		if err := q.next(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// hashReader hashes and counts what is read through it.
type hashReader struct {
	r io.Reader
	h hash.Hash // may be nil
	n int64
}

func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if h.h != nil {
		h.h.Write(p[:n])
	}
	h.n += int64(n)
	return n, err
}

// tarWriter appends chunks to the tar and keeps the disk busy meanwhile, so
// that the sync at the end has little left to do.
type tarWriter struct {
	f       *os.File
	n, told int64
	crc     uint32
}

func (w *tarWriter) write(b []byte) error {
	n, err := w.f.Write(b)
	w.crc = crc32.Update(w.crc, castagnoli(), b[:n])
	w.n += int64(n)
	if err == nil && w.n-w.told >= writeback {
		sys.StartWriteback(w.f, w.told, w.n-w.told)
		w.told = w.n
	}
	return err
}
