package layer

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// slowBackend takes its time to be tried.
type slowBackend struct {
	erofsBackend
	begun chan struct{}
	tries atomic.Int32
}

func (b *slowBackend) prepare(context.Context, *prepared) error {
	b.tries.Add(1)
	close(b.begun)
	time.Sleep(50 * time.Millisecond)
	return os.ErrInvalid
}

// A process that ends waits for what it tries in the background, and tries no
// more: nothing stays in tmp/.
func TestSettle(t *testing.T) {
	l := openTestLayers(t)
	b := &slowBackend{begun: make(chan struct{})}
	go l.probe(b)
	<-b.begun
	if n := len(temporaries(t, l)); n != 1 {
		t.Errorf("%d temporaries while it is tried", n)
	}
	l.Settle()
	go l.probe(b)
	time.Sleep(20 * time.Millisecond)
	if left := temporaries(t, l); len(left) != 0 || b.tries.Load() != 1 {
		t.Errorf("left %v after %d tries", left, b.tries.Load())
	}
}

func temporaries(t *testing.T, l *Layers) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(l.st.Tmp())
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
