package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"tug/errs"
	"tug/spec"
)

// Blob opens the blob that d names. Exactly d.Size bytes come, or an error; a
// connection that breaks on the way is resumed where it broke. The digest is
// the reader's to check.
func (c *Client) Blob(ctx context.Context, ref spec.Reference, d spec.Descriptor) (io.ReadCloser, error) {
	b, err := c.part(ctx, ref, &Part{d: d, end: d.Size})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// ErrNoRanges says that a registry cannot send a part of a blob.
var ErrNoRanges = errors.New("the registry sends whole blobs only")

// BlobPart opens the bytes from from up to (not including) to of the blob that
// d names; else it is like Blob. From a registry that cannot send parts, all
// comes from the blob's beginning and what is before from is skipped; with
// exact that is ErrNoRanges instead.
func (c *Client) BlobPart(ctx context.Context, ref spec.Reference, d spec.Descriptor, from, to int64, exact bool) (*Part, error) {
	if from < 0 || to < from || to > d.Size {
		return nil, errs.New(errs.Invalid, "blob %s of %s: no bytes %d to %d", d.Digest.Short(), ref.Familiar(), from, to)
	}
	return c.part(ctx, ref, &Part{d: d, off: from, end: to, exact: exact})
}

func (c *Client) part(ctx context.Context, ref spec.Reference, b *Part) (*Part, error) {
	if b.d.Size < 0 {
		return nil, errs.New(errs.Invalid, "blob %s of %s: negative size %d", b.d.Digest.Short(), ref.Familiar(), b.d.Size)
	}
	b.ctx, b.c, b.ref = ctx, c, ref
	if err := b.find(); err != nil {
		return nil, err
	}
	return b, nil
}

// A blob may break maxResumes times on its way, and badResumes times in a row
// without a byte in between.
const (
	maxResumes = 50
	badResumes = 4
)

// Part is a blob, or a part of it, on its way.
type Part struct {
	ctx   context.Context
	c     *Client
	s     *session
	ref   spec.Reference
	d     spec.Descriptor
	exact bool // do without what the registry sends unasked
	body  io.ReadCloser

	off, end int64 // of the next byte in the blob, and where the part ends
	whole    bool  // the registry does not understand ranges
	resumes  int
	bad      int // resumes since the last byte
}

// End is where the part ends in the blob: what was asked for, or the blob's end
// when the registry sends whole blobs only and more would come anyway.
func (b *Part) End() int64 { return b.end }

// find opens the part at the first of the sources that has it.
func (b *Part) find() error {
	return b.c.pull(b.ctx, b.ref, func(s *session) error {
		b.s, b.whole = s, false
		return b.open()
	})
}

// open asks for the blob from b.off on. A registry that cannot make sense of
// that is asked for all of it.
func (b *Part) open() error {
	err := b.ask()
	if errors.Is(err, ErrNoRanges) && !b.exact && !b.whole {
		b.whole = true
		err = b.ask()
	}
	return err
}

func (b *Part) ask() error {
	req, err := b.s.request(b.ctx, http.MethodGet, "blobs/"+string(b.d.Digest), b.d.Size)
	if err != nil {
		return err
	}
	switch {
	case b.whole:
	case b.end < b.d.Size:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.off, b.end-1))
	case b.off > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := b.s.client.Do(req)
	if err != nil {
		return err
	}
	if err := b.accept(resp, req.Header.Get("Range") != ""); err != nil {
		resp.Body.Close()
		return err
	}
	b.body = resp.Body
	return nil
}

// accept checks that resp will bring what is missing, and skips what is not.
func (b *Part) accept(resp *http.Response, ranged bool) error {
	about := fmt.Sprintf("blob %s of %s", b.d.Digest.Short(), b.ref.Familiar())
	switch resp.StatusCode {
	case http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != b.d.Size {
			return errs.New(errs.Corrupt, "%s: the manifest says %d bytes, the registry has %d", about, b.d.Size, resp.ContentLength)
		}
		if b.exact {
			return errs.New(errs.Unavailable, "%s: %w", about, ErrNoRanges)
		}
		b.end = b.d.Size
		_, err := io.CopyN(io.Discard, resp.Body, b.off)
		return err
	case http.StatusPartialContent:
		start, size, ok := contentRange(resp)
		if !ranged || !ok || start != b.off || size >= 0 && size != b.d.Size {
			return errs.New(errs.Unavailable, "%s: the registry sent another part than was asked for (%.80q): %w", about, resp.Header.Get("Content-Range"), ErrNoRanges)
		}
		return nil
	case http.StatusRequestedRangeNotSatisfiable, http.StatusBadRequest, http.StatusNotImplemented:
		if ranged {
			return errs.New(errs.Unavailable, "%s: HTTP status %s: %w", about, statusText(resp.StatusCode), ErrNoRanges)
		}
	}
	return readStatus(resp, "blob")
}

func (b *Part) Read(p []byte) (int, error) {
	for {
		left := b.end - b.off
		switch {
		case left == 0 && b.end < b.d.Size:
			return 0, io.EOF
		case b.end == b.d.Size:
			// One byte more tells a blob that ends from one that goes on.
			p = p[:min(int64(len(p)), left+1)]
		default:
			p = p[:min(int64(len(p)), left)]
		}
		n, err := b.body.Read(p)
		if n > 0 {
			b.bad = 0
		}
		if int64(n) > left {
			n, err = int(left), errBomb
		}
		b.off += int64(n)
		switch {
		case errors.Is(err, errBomb):
			return n, errs.New(errs.Corrupt, "blob %s of %s: the registry sent more than the %d bytes that the manifest says", b.d.Digest.Short(), b.ref.Familiar(), b.d.Size)
		case err == nil, err == io.EOF && b.off == b.end:
			return n, err
		}
		if n > 0 {
			// The break is met again at the next Read.
			return n, nil
		}
		if err := b.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume opens the blob again after cause cut it short.
func (b *Part) resume(cause error) error {
	b.body.Close()
	for {
		if cause == io.EOF {
			cause = io.ErrUnexpectedEOF
		}
		b.resumes++
		b.bad++
		if b.ctx.Err() == nil && b.resumes <= maxResumes && b.s.at.mirror && (b.bad > badResumes || !passes(cause)) {
			// Another source may have the rest.
			b.s.at.failed.Store(time.Now().UnixNano())
			return b.find()
		}
		if b.ctx.Err() != nil || b.bad > badResumes || b.resumes > maxResumes || !passes(cause) {
			return failure(b.ref, b.s.cred, fmt.Errorf("blob %s broke off after %d of %d bytes: %w", b.d.Digest.Short(), b.off, b.d.Size, cause))
		}
		if !b.c.pause(b.ctx, b.bad-1, cause) {
			return b.ctx.Err()
		}
		if cause = b.open(); cause == nil {
			return nil
		}
	}
}

// passes reports whether the next try at reading on may do better.
func passes(cause error) bool { return transient(cause) || errors.Is(cause, errSilence) }

func (b *Part) Close() error { return b.body.Close() }
