package image

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// An ahead fetches what a download will need next over several connections,
// segment by segment, into its partial. It is never further than window ahead
// of the reader. Its first connection proves that the registry sends ranges
// before the others are opened. When one fails all end, and what they were
// about to fetch is the download's to fetch.
type ahead struct {
	ctx    context.Context
	cancel context.CancelFunc
	open   opener
	p      *partial
	pace   pace
	wg     sync.WaitGroup

	mu      sync.Mutex
	news    *sync.Cond // a chunk came, a segment was taken or left, the reader moved
	reader  int64      // where it is
	from    int64      // where all this began; there the download's own stream ends
	next    int64      // from here on no segment is taken
	end     int64
	taken   []span // being fetched
	workers int
	proven  bool
	failed  bool
}

type span struct{ from, to int64 }

const connections = 4

// A pace says when and how far an ahead goes ahead. Tests go faster.
type pace struct {
	large    int64         // smaller blobs come over one connection
	segment  int64         // what a connection fetches at once
	window   int64         // how far behind the reader may be
	patience time.Duration // how long one stream is watched before it is called slow
}

var usualPace = pace{large: 32 << 20, segment: 8 << 20, window: 64 << 20, patience: time.Second}

// startAhead begins to fetch what lies a segment ahead of d.
func startAhead(d *download) *ahead {
	a := &ahead{open: d.open, p: d.p, pace: d.pace, reader: d.pos, end: d.src.End()}
	a.ctx, a.cancel = context.WithCancel(d.ctx)
	a.news = sync.NewCond(&a.mu)
	a.next = (d.pos+d.p.chunk-1)/d.p.chunk*d.p.chunk + a.pace.segment
	context.AfterFunc(a.ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.news.Broadcast()
	})
	a.from = a.next
	a.mu.Lock()
	defer a.mu.Unlock()
	a.work()
	return a
}

// work starts one more connection. a.mu is held.
func (a *ahead) work() {
	a.workers++
	a.wg.Go(func() {
		for {
			s, ok := a.take()
			if !ok {
				return
			}
			a.leave(s, a.fetch(s))
		}
	})
}

// take waits until there is a segment to fetch. False: there is none any more,
// and the worker does not count any more.
func (a *ahead) take() (span, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		for a.next < a.end && a.p.has(a.next) {
			a.next = min(a.next+a.p.chunk, a.end)
		}
		switch {
		case a.failed || a.next >= a.end || a.ctx.Err() != nil:
			a.workers--
			a.news.Broadcast()
			return span{}, false
		case a.next < a.reader+a.pace.window:
			s := span{a.next, min(a.p.gap(a.next), a.next+a.pace.segment, a.end)}
			a.next = s.to
			a.taken = append(a.taken, s)
			return s, true
		}
		a.news.Wait()
	}
}

// leave gives a segment back, all or some of which is there.
func (a *ahead) leave(s span, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken = slices.DeleteFunc(a.taken, func(t span) bool { return t == s })
	if err != nil {
		a.failed = true
		a.cancel()
	}
	a.news.Broadcast()
}

func (a *ahead) fetch(s span) error {
	src, err := a.open(a.ctx, s.from, s.to, true)
	if err != nil {
		return err
	}
	defer src.Close()
	if !a.prove() {
		return errTooLate
	}
	buf := make([]byte, min(a.p.chunk, 256<<10))
	fill := filling{p: a.p, off: s.from}
	for {
		n, err := src.Read(buf)
		if n > 0 {
			before := fill.off / a.p.chunk
			if werr := fill.write(buf[:n]); werr != nil {
				return werr
			}
			if fill.off/a.p.chunk > before || fill.off == a.p.size {
				a.mu.Lock()
				a.news.Broadcast()
				a.mu.Unlock()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var errTooLate = errors.New("the reader was there first")

// prove opens the other connections once. False: the reader's own stream has
// gone past the place to take over.
func (a *ahead) prove() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.proven {
		return true
	}
	if a.reader > a.from {
		return false
	}
	a.proven = true
	for range connections - 1 {
		a.work()
	}
	return true
}

// takesOver returns where the reader's own stream, which is at pos, has to end.
func (a *ahead) takesOver(pos, end int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reader = pos
	if a.proven && !a.failed && pos <= a.from {
		return min(a.from, end)
	}
	return end
}

// reached says where the reader is.
func (a *ahead) reached(pos int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if pos/a.pace.segment != a.reader/a.pace.segment {
		a.news.Broadcast()
	}
	a.reader = pos
}

// brings waits for the chunk at pos. False: it will not come from here.
func (a *ahead) brings(pos int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reader = pos
	a.news.Broadcast()
	for a.ctx.Err() == nil && !a.failed {
		if a.p.has(pos) {
			return true
		}
		coming := a.workers > 0 && pos >= a.next && pos < a.end
		for _, s := range a.taken {
			coming = coming || s.from <= pos && pos < s.to
		}
		if !coming {
			return false
		}
		a.news.Wait()
	}
	return false
}

// free cuts to where somebody else fetches already.
func (a *ahead) free(pos, to int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed || a.workers == 0 {
		return to
	}
	for _, s := range a.taken {
		if s.from > pos {
			to = min(to, s.from)
		}
	}
	if a.next > pos {
		to = min(to, a.next)
	}
	return to
}

// stop ends the connections and waits for that.
func (a *ahead) stop() {
	a.cancel()
	a.wg.Wait()
}
