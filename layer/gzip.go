package layer

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/klauspost/pgzip"

	"tug/spec"
)

// What gzip form a tar gets: the same one everywhere, so that a layer which is
// pushed from two machines is one blob. A change here, or in the compressor,
// makes new blobs of old layers.
const (
	gzipLevel = 5
	gzipBlock = 1 << 20
)

// Gzip opens the layer's tar, compressed on all processors while it is read.
// The same tar gives the same bytes. Memory is a few MiB per processor. The tar
// is compared with its digest on the way: the end of a changed one is a Corrupt
// error. The layer must stay held until Close. read, which may be nil, is told
// how much of the tar is done.
func (l *Layers) Gzip(ctx context.Context, held *Layer, read func(n int64)) (io.ReadCloser, error) {
	tar, err := l.Tar(held.DiffID)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	z := &gzipping{tar: tar, read: read, want: held.DiffID, out: &valve{w: w}, done: make(chan struct{})}
	go func() {
		defer close(z.done)
		w.CloseWithError(z.run(ctx))
	}()
	return &gzipReader{r, z}, nil
}

type gzipReader struct {
	*io.PipeReader
	z *gzipping
}

// Close ends the compressing and waits until nothing of it is left.
func (g *gzipReader) Close() error {
	g.PipeReader.Close()
	<-g.z.done
	return g.z.tar.Close()
}

// gzipping is a tar on its way through the compressor.
type gzipping struct {
	tar  *os.File
	read func(n int64)
	want spec.Digest
	out  *valve
	done chan struct{}
}

func (g *gzipping) run(ctx context.Context) error {
	z, err := pgzip.NewWriterLevel(g.out, gzipLevel)
	if err != nil {
		return err
	}
	if err := z.SetConcurrency(gzipBlock, runtime.GOMAXPROCS(0)); err != nil {
		return err
	}
	z.ModTime, z.OS = time.Unix(0, 0), 255
	// The compressor must be closed, or its goroutines stay.
	err = g.feed(ctx, z)
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = g.out.failed()
	}
	return err
}

// feed reads the tar into z.
func (g *gzipping) feed(ctx context.Context, z io.Writer) error {
	sum := sha256.New()
	var total int64
	for buf := make([]byte, gzipBlock); ; {
		n, err := io.ReadFull(g.tar, buf)
		sum.Write(buf[:n])
		if total += int64(n); g.read != nil {
			g.read(total)
		}
		if _, werr := z.Write(buf[:n]); werr != nil {
			return werr
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case g.out.failed() != nil:
			return g.out.failed()
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			if d := spec.DigestSum(sum.Sum(nil)); d != g.want {
				return damaged(g.want, "its tar has digest "+string(d))
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// valve passes writes on until one fails, and swallows the rest: pgzip leaves
// goroutines behind when a write fails.
type valve struct {
	w   io.Writer
	err atomic.Pointer[error]
}

func (v *valve) Write(p []byte) (int, error) {
	if v.err.Load() == nil {
		if _, err := v.w.Write(p); err != nil {
			v.err.Store(&err)
		}
	}
	return len(p), nil
}

func (v *valve) failed() error {
	if err := v.err.Load(); err != nil {
		return *err
	}
	return nil
}

// maxForms bounds how many compressed forms of a layer are remembered.
const maxForms = 16

// Remember notes a compressed form of a layer, so that whoever needs it knows
// its digest, and returns the description with it. The layer must be held. Two
// writers may each add a form and one be lost; it is only a hint that saves a
// push some work.
func (l *Layers) Remember(diffID spec.Digest, blob spec.Descriptor) (Info, error) {
	info, err := l.info(diffID)
	if err != nil {
		return info, err
	}
	if slices.ContainsFunc(info.Blobs, func(d spec.Descriptor) bool { return d.Digest == blob.Digest }) {
		return info, nil
	}
	info.Blobs = append(info.Blobs, spec.Descriptor{MediaType: blob.MediaType, Digest: blob.Digest, Size: blob.Size})
	// The oldest but the first goes: what it came as is worth most.
	if n := len(info.Blobs) - maxForms; n > 0 {
		info.Blobs = slices.Delete(info.Blobs, 1, 1+n)
	}
	return info, l.st.WriteJSON(l.path(diffID, fileMeta), info, true)
}
