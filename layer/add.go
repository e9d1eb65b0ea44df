package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// Expect says what Add must find in the stream. An empty digest is not checked.
type Expect struct {
	Blob     spec.Digest // of the stream as it comes
	BlobSize int64       // of the stream as it comes; -1: unknown
	DiffID   spec.Digest // of the uncompressed tar
	Source   string      // where from, for meta.json
	Replace  bool        // a layer of that digest in the store is damaged: take its place
}

// ingested is what went through the pipeline into a temporary directory.
type ingested struct {
	tree     *tree
	size     int64
	crc      uint32
	diffID   spec.Digest
	blob     spec.Digest
	blobSize int64
	kind     compression
}

// form is what the layer came as, or its tar where that is no form for a
// registry.
func (in *ingested) form() spec.Descriptor {
	if !in.kind.registry() {
		return spec.Descriptor{MediaType: plainTar.mediaType(), Digest: in.diffID, Size: in.size}
	}
	return spec.Descriptor{MediaType: in.kind.mediaType(), Digest: in.blob, Size: in.blobSize}
}

// Add reads one layer to its end and returns it with its shared lock, so that
// it cannot be removed before something refers to it. The layer appears in the
// store whole, verified and durable, or, on any error, not at all. When it is
// there already, or another Add of it is faster, the one in the store stays;
// the stream is verified all the same. Add takes the shared reference lock for
// a moment, so its caller must not hold the exclusive one.
//
// Errors: Corrupt for bytes that are damaged, cut short or not those expected;
// Invalid for a tar that says impossible things; Unsupported; NoSpace. When ctx
// ends, Add returns even if r is still blocked in a Read.
func (l *Layers) Add(ctx context.Context, r io.Reader, want Expect) (*Layer, error) {
	layer, err := l.add(ctx, r, want)
	if err == nil {
		return layer, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	name := want.DiffID
	if name == "" {
		name = want.Blob
	}
	if name == "" {
		return nil, noSpace(err, l.st.Root)
	}
	return nil, fmt.Errorf("layer %s: %w", name.Short(), noSpace(err, l.st.Root))
}

func (l *Layers) add(ctx context.Context, r io.Reader, want Expect) (*Layer, error) {
	be, err := l.preparer()
	if err != nil {
		return nil, err
	}
	dir, lock, err := l.st.TempDir("layer-*")
	if err != nil {
		return nil, err
	}
	layer, err := l.addIn(ctx, be, dir, lock, r, want)
	if layer == nil || layer.lock != lock {
		// Not published under our lock: what is in tmp/ is nobody's.
		os.RemoveAll(dir)
		lock.Close()
	}
	return layer, err
}

func (l *Layers) addIn(ctx context.Context, be backend, dir string, lock *os.File, r io.Reader, want Expect) (*Layer, error) {
	limits := l.Limits.withDefaults()
	tar, err := os.OpenFile(filepath.Join(dir, fileTar), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer tar.Close()
	in, err := ingest(ctx, r, tar, want, &limits)
	if err != nil {
		return nil, err
	}
	info := Info{
		DiffID: in.diffID, Size: in.size, Content: in.tree.content, Entries: in.tree.entries, Source: want.Source,
		CRC32C: &in.crc, Root: in.tree.rootAttrs(), Opaque: in.tree.root.dir.opaque, Loose: in.tree.loose(),
		Blobs: []spec.Descriptor{in.form()},
	}
	if !want.Replace {
		if found, err := l.known(info); found != nil || err != nil {
			return found, err
		}
	}
	p := &prepared{dir: dir, tree: in.tree, tar: tar, info: &info}
	if err := be.prepare(ctx, p); err != nil {
		return nil, err
	}
	if err := writeMeta(filepath.Join(dir, fileMeta), info); err != nil {
		return nil, err
	}
	if err := syncLayer(dir, tar); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if want.Replace {
		if err := l.makeRoom(info.DiffID); err != nil {
			return nil, err
		}
	}
	return l.publish(dir, lock, info)
}

// makeRoom takes a damaged layer away for the one that is ready to replace it.
// A crash in between leaves none, which is mended the same way. The shared
// reference lock is enough, see clearDamaged.
func (l *Layers) makeRoom(d spec.Digest) error {
	refs, err := l.st.Refs(false)
	if err != nil {
		return err
	}
	defer refs.Close()
	if err := l.Remove(d); err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	return nil
}

// syncLayer makes the files of a layer durable. Side by side: they share the
// journal's commits then.
func syncLayer(dir string, tar *os.File) error {
	names := []string{fileMeta, fileIndex, "."}
	done := make(chan error, len(names)+1)
	go func() { done <- sys.Fdatasync(tar) }()
	for _, name := range names {
		go func() { done <- syncFile(filepath.Join(dir, name)) }()
	}
	var errAll error
	for range cap(done) {
		errAll = errors.Join(errAll, <-done)
	}
	return errAll
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the dir backend has no index
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// publish renames the temporary directory into its place and turns the
// exclusive lock on it into a shared one. The shared reference lock is held
// meanwhile: nobody removes the layer in between.
func (l *Layers) publish(dir string, lock *os.File, info Info) (*Layer, error) {
	refs, err := l.st.Refs(false)
	if err != nil {
		return nil, err
	}
	defer refs.Close()
	path := l.path(info.DiffID)
	for {
		err := os.Rename(dir, path)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		found, err := l.known(info)
		if found != nil || err != nil {
			return found, err
		}
		if err := l.clearDamaged(info.DiffID); err != nil {
			return nil, err
		}
	}
	if err := sys.Lock(lock, false); err != nil {
		return nil, err
	}
	if err := state.SyncDir(l.st.Layers()); err != nil {
		return nil, err
	}
	return &Layer{Info: info, lock: lock}, nil
}

// known returns the layer if it is in the store, having noted the compressed
// form it came in this time. A damaged one counts as none: nil.
func (l *Layers) known(info Info) (*Layer, error) {
	found, err := l.Get(info.DiffID)
	switch {
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Corrupt):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if found.Info, err = l.Remember(info.DiffID, info.Blobs[0]); err != nil {
		found.Close()
		return nil, err
	}
	return found, nil
}

// clearDamaged takes a damaged layer away, so that the one that is ready takes
// its place. That needs no exclusive reference lock as other removals do: who
// wants to add a reference has to Get the layer, which fails, and those that
// refer to it are served by the new one. It is looked at again under its own
// exclusive lock, for another Add may have replaced it by a good one, which
// stays.
func (l *Layers) clearDamaged(d spec.Digest) error {
	for range 100 {
		f, err := l.lockDir(d, true)
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if f == nil { // mostly somebody's Get, which will fail
			time.Sleep(2 * time.Millisecond)
			continue
		}
		_, err = l.info(d)
		if errs.Is(err, errs.Corrupt) {
			err = l.discard(l.path(d))
		}
		f.Close()
		return err
	}
	return errs.New(errs.Conflict, "layer %s is damaged and in use by another command", d)
}

// ingest runs the pipeline over r and writes the uncompressed tar to tar.
func ingest(ctx context.Context, r io.Reader, tar *os.File, want Expect, limits *Limits) (*ingested, error) {
	first := make([]byte, 512)
	n, err := io.ReadFull(r, first)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	kind := detect(first[:n])
	r = io.MultiReader(bytes.NewReader(first[:n]), r)
	p := &pipeline{flow: newFlow(ctx), want: want, limits: limits, out: ingested{kind: kind}}
	defer p.cancel(nil)
	p.start(r, tar)

	done := make(chan struct{})
	go func() { p.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		// The stage that reads r may be stuck in a Read for ever. Only it can
		// be: so the files of the other stages are not in use for long.
		return nil, context.Cause(ctx)
	}
	if err := context.Cause(p.ctx); err != nil {
		return nil, err
	}
	return &p.out, nil
}

type pipeline struct {
	*flow
	want   Expect
	limits *Limits
	out    ingested
}

// start connects the stages. Each field of out is written by one stage.
func (p *pipeline) start(r io.Reader, tar *os.File) {
	src := r
	if p.out.kind != plainTar {
		blobs := make(chan *chunk, blobChunks)
		in := &hashReader{r: r, h: sha256.New()}
		p.run(func() error {
			return p.fill(in, newPool(blobChunks, blobChunk), func(n int64, end bool) error {
				if err := p.checkSize(n, end); err != nil || !end {
					return err
				}
				return p.checkBlob(spec.DigestSum(in.h.Sum(nil)))
			}, blobs)
		})
		src = &queueReader{f: p.flow, q: blobs}
	}
	hashes, writes, parses := make(chan *chunk, tarChunks), make(chan *chunk, tarChunks), make(chan *chunk, tarChunks)
	p.run(func() error {
		z, free, err := inflater(p.out.kind, src)
		if err != nil {
			return err
		}
		defer free()
		return p.fill(z, newPool(tarChunks, tarChunk), p.checkTar, hashes, writes, parses)
	})
	p.run(func() error {
		h := sha256.New()
		if err := p.each(hashes, func(b []byte) error { h.Write(b); return nil }); err != nil {
			return err
		}
		return p.checkDiffID(spec.DigestSum(h.Sum(nil)))
	})
	p.run(func() error {
		w := &tarWriter{f: tar}
		err := p.each(writes, w.write)
		p.out.size, p.out.crc = w.n, w.crc
		return err
	})
	p.run(func() error {
		q := &queueBlocks{queueReader{f: p.flow, q: parses}}
		t, err := readTree(q, p.limits)
		if err != nil {
			return err
		}
		p.out.tree = t
		return q.drain()
	})
}

func (p *pipeline) checkTar(n int64, end bool) error {
	if n > p.limits.Tar {
		return p.limits.tooLarge()
	}
	if p.out.kind == plainTar {
		return p.checkSize(n, end)
	}
	return nil
}

// checkSize compares the stream's length with what was promised: too long at
// once, too short at the end.
func (p *pipeline) checkSize(n int64, end bool) error {
	if p.want.BlobSize >= 0 && (n > p.want.BlobSize || end && n < p.want.BlobSize) {
		return errs.New(errs.Corrupt, "got %s bytes, expected %d", moreOr(n, end), p.want.BlobSize)
	}
	if end {
		p.out.blobSize = n
	}
	return nil
}

// checkBlob is the end of reading a compressed blob, or of hashing a plain one.
func (p *pipeline) checkBlob(blob spec.Digest) error {
	p.out.blob = blob
	if p.want.Blob != "" && p.out.blob != p.want.Blob {
		return errs.New(errs.Corrupt, "the bytes received have digest %s, expected %s", p.out.blob, p.want.Blob)
	}
	return nil
}

func moreOr(n int64, end bool) string {
	if end {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("at least %d", n)
}

// checkDiffID is the end of the hashing stage. A plain tar is its own blob.
func (p *pipeline) checkDiffID(d spec.Digest) error {
	p.out.diffID = d
	if p.out.kind == plainTar {
		if err := p.checkBlob(d); err != nil {
			return err
		}
	}
	if p.want.DiffID != "" && p.out.diffID != p.want.DiffID {
		return errs.New(errs.Corrupt, "the uncompressed tar has digest %s, expected %s", p.out.diffID, p.want.DiffID)
	}
	return nil
}
