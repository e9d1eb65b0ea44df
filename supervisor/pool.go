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
	ready   []*runtime.Parked
	filling bool
	closed  bool
}

func newPool(s *Supervisor, size int) *pool { return &pool{s: s, size: size} }

// get returns a parked process for ns, held by the keeper under parkedKey.
// Only the default namespaces are pooled.
func (p *pool) get(ns runtime.Namespaces) (*runtime.Parked, error) {
	if ns == (runtime.Namespaces{}) {
		p.mu.Lock()
		if n := len(p.ready); n > 0 {
			got := p.ready[0]
			p.ready = append(p.ready[:0], p.ready[1:]...)
			p.mu.Unlock()
			return got, nil
		}
		p.mu.Unlock()
	}
	return p.park(ns)
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
func (p *pool) refill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.filling || p.closed || len(p.ready) >= p.size {
		return
	}
	p.filling = true
	go p.fill()
}

func (p *pool) fill() {
	for {
		got, err := p.park(runtime.Namespaces{})
		p.mu.Lock()
		if err != nil {
			fmt.Fprintln(os.Stderr, "supervisor: refill pool:", err)
		} else if !p.closed {
			p.ready = append(p.ready, got)
			got = nil
		}
		full := err != nil || p.closed || len(p.ready) >= p.size
		p.filling = !full
		p.mu.Unlock()
		if got != nil {
			p.discard(got)
		}
		if full {
			return
		}
	}
}

func (p *pool) discard(got *runtime.Parked) {
	got.Discard()
	p.s.ctl.send(&keeper.Message{Op: keeper.OpDrop, Key: parkedKey(got)})
}

// drain ends all parked processes.
func (p *pool) drain() {
	p.mu.Lock()
	p.closed = true
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, got := range ready {
		p.discard(got)
	}
}
