package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tug/spec"
	"tug/sys"
)

// A turn is the right to download one layer, so that of many pulls that need it
// at the same time one does and the others get what it brought. It is a flock
// on <run>/fetch/<diffid>; nobody takes another lock that is waited for while
// waiting for a turn, and no pull waits for two. The file goes with the turn.
type turn struct{ f *os.File }

const turnPeriod = 20 * time.Millisecond

// takeTurn waits for the turn of layer d. waiting is called once when there is
// something to wait for.
func (s *Images) takeTurn(ctx context.Context, d spec.Digest, waiting func()) (turn, error) {
	return takeTurnAt(ctx, s.st.RunPath("fetch", d.Hex()), waiting)
}

// repairTurn waits for the right to repair the store. Two repairs at once would
// mend the same thing twice, and the second take the first one's copy away. It
// is waited for before any other lock.
func (s *Images) repairTurn(ctx context.Context, waiting func()) (turn, error) {
	return takeTurnAt(ctx, s.st.RunPath("repair.lock"), waiting)
}

func takeTurnAt(ctx context.Context, path string, waiting func()) (turn, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return turn{}, err
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return turn{}, err
		}
		had, err := sys.TryLock(f, true)
		if err != nil {
			f.Close()
			return turn{}, err
		}
		if had {
			// Whoever had it before took the file away with it.
			same, err := sys.SameFile(f, path)
			if err == nil && same {
				return turn{f}, nil
			}
			f.Close()
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return turn{}, err
			}
			continue
		}
		f.Close()
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return turn{}, context.Cause(ctx)
		case <-time.After(turnPeriod):
		}
	}
}

func (t turn) end() {
	os.Remove(t.f.Name())
	t.f.Close()
}

// sweepTurns removes the files of turns whose pulls were killed.
func (s *Images) sweepTurns() {
	eachEntry(s.st.RunPath("fetch"), func(_ os.DirEntry, path string) {
		f, err := os.Open(path)
		if err != nil {
			return
		}
		if had, err := sys.TryLock(f, true); err == nil && had {
			if same, err := sys.SameFile(f, path); err == nil && same {
				os.Remove(path)
			}
		}
		f.Close()
	})
}
