package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"tug/errs"
	"tug/spec"
)

// Blob opens the blob that d names. Exactly d.Size bytes come, or an error; a
// connection that breaks on the way is resumed where it broke. The digest is
// the reader's to check.
func (c *Client) Blob(ctx context.Context, ref spec.Reference, d spec.Descriptor) (io.ReadCloser, error) {
	if d.Size < 0 {
		return nil, errs.New(errs.Invalid, "blob %s of %s: negative size %d", d.Digest.Short(), ref.Familiar(), d.Size)
	}
	b := &blob{ctx: ctx, c: c, ref: ref, d: d}
	err := c.pull(ctx, ref, func(s *session) error {
		b.s = s
		return b.open()
	})
	if err != nil {
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

type blob struct {
	ctx  context.Context
	c    *Client
	s    *session
	ref  spec.Reference
	d    spec.Descriptor
	body io.ReadCloser

	off     int64 // bytes handed out
	resumes int
	bad     int // resumes since the last byte
}

// open asks for the blob from b.off on.
func (b *blob) open() error {
	req, err := b.s.request(b.ctx, http.MethodGet, "blobs/"+string(b.d.Digest), b.d.Size)
	if err != nil {
		return err
	}
	if b.off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := b.s.client.Do(req)
	if err != nil {
		return err
	}
	if err := b.accept(resp); err != nil {
		resp.Body.Close()
		return err
	}
	b.body = resp.Body
	return nil
}

// accept checks that resp will bring what is missing, and skips what is not.
func (b *blob) accept(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != b.d.Size {
			return errs.New(errs.Corrupt, "blob %s of %s: the manifest says %d bytes, the registry has %d", b.d.Digest.Short(), b.ref.Familiar(), b.d.Size, resp.ContentLength)
		}
		_, err := io.CopyN(io.Discard, resp.Body, b.off)
		return err
	case http.StatusPartialContent:
		start, size, ok := contentRange(resp)
		if b.off == 0 || !ok || start != b.off || size != b.d.Size {
			return errs.New(errs.Unavailable, "blob %s of %s: the registry sent another part than was asked for (%.80q)", b.d.Digest.Short(), b.ref.Familiar(), resp.Header.Get("Content-Range"))
		}
		return nil
	}
	return readStatus(resp, "blob")
}

func (b *blob) Read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		b.off += int64(n)
		if n > 0 {
			b.bad = 0
		}
		switch {
		case errors.Is(err, errBomb):
			return n, errs.New(errs.Corrupt, "blob %s of %s: the registry sent more than the %d bytes that the manifest says", b.d.Digest.Short(), b.ref.Familiar(), b.d.Size)
		case err == nil, err == io.EOF && b.off == b.d.Size:
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
func (b *blob) resume(cause error) error {
	b.body.Close()
	for {
		if cause == io.EOF {
			cause = io.ErrUnexpectedEOF
		}
		b.resumes++
		b.bad++
		if b.ctx.Err() != nil || b.bad > badResumes || b.resumes > maxResumes || !transient(cause) && !errors.Is(cause, errSilence) {
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

func (b *blob) Close() error { return b.body.Close() }
