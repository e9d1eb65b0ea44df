package image

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"tug/registry"
	"tug/spec"
)

// A download reads one blob from its first to its last byte: what an earlier
// download left from disk, the rest from the registry, keeping it on the way.
//
// It begins with one stream. When that turns out to be what everybody waits
// for, more connections fetch what comes next into the partial (see ahead), and
// the download reads it from there. When they fail, it goes on with one stream
// where it is.
type download struct {
	ctx    context.Context
	cancel context.CancelFunc
	open   opener
	size   int64
	pace   pace

	mu    sync.Mutex // held by Read
	p     *partial   // nil: nothing is kept
	kept  bool       // something was, at least at first
	used  bool       // bytes of an earlier download went out
	pos   int64      // of the next byte
	disk  []byte     // of the chunk that was read from p last
	rest  []byte     // of disk, not handed out yet
	err   error      // that Read returned
	src   *registry.Part
	fill  filling
	ahead *ahead

	since  time.Time     // src gives bytes
	got    int64         // from src
	waited time.Duration // for src
}

// opener opens a part of the blob; see registry.Client.BlobPart.
type opener func(ctx context.Context, from, to int64, exact bool) (*registry.Part, error)

// newDownload begins to download d. Nothing is asked for before the first Read.
func (s *Images) newDownload(ctx context.Context, ref spec.Reference, d spec.Descriptor, keep bool) *download {
	dl := &download{size: d.Size, pace: s.pace}
	dl.ctx, dl.cancel = context.WithCancel(ctx)
	dl.open = func(ctx context.Context, from, to int64, exact bool) (*registry.Part, error) {
		return s.reg.BlobPart(ctx, ref, d, from, to, exact)
	}
	if keep {
		dl.p = s.openPartial(d)
		dl.kept = dl.p != nil
	}
	return dl
}

func (d *download) Read(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.read(b)
	if err != nil && err != io.EOF {
		d.err = err
	}
	return n, err
}

func (d *download) read(b []byte) (int, error) {
	for {
		switch {
		case len(d.rest) > 0:
			n := copy(b, d.rest)
			d.rest = d.rest[n:]
			d.pos += int64(n)
			return n, nil
		case d.src != nil:
			n, err := d.stream(b)
			if n > 0 || err != nil {
				return n, err
			}
		case d.pos == d.size:
			return 0, io.EOF
		case d.p != nil && d.p.has(d.pos):
			d.fromDisk()
		case d.ahead != nil && d.ahead.brings(d.pos):
		default:
			if err := d.openStream(); err != nil {
				return 0, err
			}
		}
		if err := d.ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// fromDisk reads the next chunk from the partial, if it is good.
func (d *download) fromDisk() {
	if d.disk == nil {
		d.disk = make([]byte, d.p.chunk)
	}
	d.rest, _ = d.p.read(d.pos, d.disk)
	d.used = d.used || d.p.old && d.rest != nil
	if d.ahead != nil {
		d.ahead.reached(d.pos)
	}
}

// openStream asks the registry for what is missing from here on.
func (d *download) openStream() error {
	to := d.size
	if d.p != nil {
		to = d.p.gap(d.pos)
	}
	if d.ahead != nil {
		to = d.ahead.free(d.pos, to)
	}
	src, err := d.open(d.ctx, d.pos, to, false)
	if err != nil {
		return err
	}
	d.src = src
	d.fill = filling{p: d.p, off: d.pos}
	d.since, d.got, d.waited = time.Now(), 0, 0
	return nil
}

// stream reads from the registry. It returns nothing at all where the stream
// has done its part and the blob goes on.
func (d *download) stream(b []byte) (int, error) {
	end := d.src.End()
	if d.ahead != nil {
		end = d.ahead.takesOver(d.pos, end)
		b = b[:min(int64(len(b)), end-d.pos)]
	}
	var n int
	err := io.EOF
	if len(b) > 0 {
		start := time.Now()
		n, err = d.src.Read(b)
		d.waited += time.Since(start)
	}
	if n > 0 && d.p != nil && d.fill.write(b[:n]) != nil {
		d.giveUp()
	}
	d.pos += int64(n)
	d.got += int64(n)
	if err == io.EOF {
		d.src.Close()
		d.src = nil
		return n, nil
	}
	if d.ahead == nil && d.slow() {
		d.ahead = startAhead(d)
	}
	return n, err
}

// giveUp goes on without keeping anything: there is no room.
func (d *download) giveUp() {
	if d.ahead != nil {
		d.ahead.stop()
		d.ahead = nil
	}
	d.p.drop()
	d.p = nil
}

// slow reports whether more connections would help: this one has been waited
// for most of the time, and there is more to come than it brings in a moment.
func (d *download) slow() bool {
	took := time.Since(d.since)
	if d.p == nil || d.size < d.pace.large || took < d.pace.patience || d.waited < took/2 {
		return false
	}
	left := d.src.End() - d.pos
	return left > 2*d.pace.segment && float64(left) > float64(d.got)*float64(d.pace.patience)/float64(took)
}

// failure is what err, with which the reading of this download ended, comes
// from: the registry's own error, which says what it is about, where it is that.
func (d *download) failure(err error) (error, bool) {
	if d.ctx.Err() != nil {
		return nil, false // and a Read may still be under way
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err, d.err != nil && errors.Is(err, d.err)
}

// end closes the download. What is kept stays for the next one if keep, and
// something is there.
func (d *download) end(keep bool) {
	d.cancel()
	d.mu.Lock() // a Read that was under way ends with its context
	defer d.mu.Unlock()
	if d.ahead != nil {
		d.ahead.stop()
	}
	if d.src != nil {
		d.src.Close()
	}
	switch {
	case d.p == nil:
	case keep && !d.p.empty():
		d.p.close()
	default:
		d.p.drop()
	}
}
