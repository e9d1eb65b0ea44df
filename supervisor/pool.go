package supervisor

import (
	"fmt"
	"os"
	"sync"
	"time"

	"tug/runtime"
	"tug/supervisor/keeper"
)

// pool keeps processes parked in fresh namespaces and cgroups, because making
// those costs more than everything else in a start (joining a v1 cgroup alone
// 7-12 ms). It is refilled after a start, never before one.
type pool struct {
	s    *Supervisor
	size int

	mu      sync.Mutex
	parked  sync.Cond // filling made progress
	ready   []*runtime.Parked
	filling bool
	waiting bool // somebody waits for what filling makes
	closed  bool
}

func newPool(s *Supervisor, size int) *pool {
	p := &pool{s: s, size: size}
	p.parked.L = &p.mu
	return p
}

// get returns a parked process for ns, held by the keeper under parkedKey.
// Only the default namespaces are pooled.
func (p *pool) get(ns runtime.Namespaces) (*runtime.Parked, error) {
	if ns = p.s.rt.Needs(ns); ns == (runtime.Namespaces{}) {
		if got := p.take(); got != nil {
			return got, nil
		}
	}
	return p.park(ns)
}

// take returns a ready process, or nil. One caller may wait for the one that
// is being made; more of them are faster by themselves.
func (p *pool) take() *runtime.Parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 && p.filling && !p.waiting {
		p.waiting = true
		p.parked.Wait()
		p.waiting = false
	}
	for len(p.ready) > 0 {
		got := p.ready[0]
		p.ready = append(p.ready[:0], p.ready[1:]...)
		if got.Alive() {
			return got
		}
		p.discard(got) // killed, perhaps for want of memory on the host
	}
	return nil
}

func (p *pool) park(ns runtime.Namespaces) (*runtime.Parked, error) {
	got, err := p.s.rt.Park(ns)
	if err != nil {
		return nil, err
	}
	err = p.s.ctl.send(&keeper.Message{Op: keeper.OpHold, Key: parkedKey(got), Child: &keeper.Child{Pid: got.Pid, Start: got.StartTicks}})
	if err != nil {
		got.Discard()
		return nil, err
	}
	return got, nil
}

func parkedKey(p *runtime.Parked) string { return fmt.Sprintf("p:%d.%d", p.Pid, p.StartTicks) }

// refillDelay keeps a refill out of the way of the start before it: a short
// program has ended by then, and its end refills at once.
const refillDelay = 10 * time.Millisecond

func (p *pool) refillLater() { time.AfterFunc(refillDelay, p.refill) }

// refill parks in the background until the pool is full.
func (p *pool) refill() { p.fillTo(p.size) }

// begin parks one process while the supervisor's first request is on its way.
func (p *pool) begin() { p.fillTo(min(1, p.size)) }

func (p *pool) fillTo(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.filling || p.closed || len(p.ready) >= n {
		return
	}
	p.filling = true
	go p.fill(n)
}

func (p *pool) fill(n int) {
	for full := false; !full; {
		got, err := p.park(runtime.Namespaces{})
		p.mu.Lock()
		switch {
		case err != nil:
			fmt.Fprintln(os.Stderr, "supervisor: refill pool:", err)
		case p.closed:
			p.discard(got) // before drain goes on
		default:
			p.ready = append(p.ready, got)
		}
		full = err != nil || p.closed || len(p.ready) >= n
		p.filling = !full
		p.parked.Broadcast()
		p.mu.Unlock()
	}
}

func (p *pool) discard(got *runtime.Parked) {
	got.Discard()
	p.s.ctl.send(&keeper.Message{Op: keeper.OpDrop, Key: parkedKey(got)})
}

// drain ends all parked processes, also one that is just being made.
func (p *pool) drain() {
	p.mu.Lock()
	p.closed = true
	for p.filling {
		p.parked.Wait()
	}
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, got := range ready {
		p.discard(got)
	}
}
