package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"tug/errs"
	"tug/spec"
)

// uploadAttempts is how often a blob is sent. One that gets an upload further by
// uploadStep does not count.
const (
	uploadAttempts = 5
	uploadStep     = 1 << 20
)

// Upload sends a blob to ref's repository and returns its digest and size.
// Where want has a digest and a size they are what open must give; a want
// without a digest has the size -1. open may be called several times, since an
// upload that breaks goes on where the registry says, or is begun anew; it must
// give the same bytes each time. Its errors, and those of reading, are returned
// as they are.
func (c *Client) Upload(ctx context.Context, ref spec.Reference, want spec.Descriptor, open func(context.Context) (io.ReadCloser, error)) (got spec.Descriptor, err error) {
	if want.Digest == "" {
		want.Size = -1
	}
	err = c.push(ctx, ref, "", func(s *session) error {
		u := &upload{s: s, c: c, want: want}
		for i, last := 0, int64(0); ; i++ {
			got, err = u.try(ctx, open)
			if err == nil || ctx.Err() != nil || !again(err) || i+1 == uploadAttempts || !c.pause(ctx, i, err) {
				return err
			}
			if u.ask(ctx, err); u.have >= last+uploadStep {
				i, last = -1, u.have
			}
		}
	})
	var own *sourceError
	if errors.As(err, &own) {
		return got, own.err
	}
	return got, err
}

// sourceError is an error of what is to be sent, not of sending it.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// again reports whether an upload that ended with err may do better from its
// beginning.
func again(err error) bool {
	var s *statusError
	if errors.As(err, &s) {
		return isGarbled(err) || transient(err) || s.status == http.StatusRequestedRangeNotSatisfiable
	}
	var own *sourceError
	var classed *errs.Error
	var op *net.OpError
	switch {
	case errors.As(err, &own), errors.As(err, &classed), errors.Is(err, context.Canceled), errors.Is(err, errCommit), errors.Is(err, errEarly):
		return false
	}
	// Connections break in many ways; but one that cannot be made, cannot.
	return !errors.As(err, &op) || op.Op != "dial"
}

// isGarbled reports whether the registry answered that what it got was lost or
// garbled on the way.
func isGarbled(err error) bool {
	var s *statusError
	if !errors.As(err, &s) {
		return false
	}
	switch s.code {
	case "DIGEST_INVALID", "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "SIZE_INVALID":
		return true
	}
	return false
}

// upload is a blob's way to a registry, in one attempt or several.
type upload struct {
	s    *session
	c    *Client
	want spec.Descriptor

	at   *url.URL // nil: it is not begun, or must begin anew
	have int64    // bytes that the registry has
	sent int64    // bytes that it can have at most
}

// try is one attempt.
func (u *upload) try(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (got spec.Descriptor, err error) {
	ctx, cancel := context.WithCancel(ctx)
	// The source first: when it has nothing, nothing is begun.
	src, err := open(ctx)
	if err != nil {
		cancel()
		return got, &sourceError{err}
	}
	up := u.c.newSending(src, u.want)
	defer func() {
		cancel()
		if fault := up.end(); fault != nil && err != nil {
			err = &sourceError{fault}
		}
		u.sent = up.n
		src.Close()
	}()
	if u.at == nil {
		if err := u.begin(ctx); err != nil {
			return got, err
		}
		if u.want.Digest != "" {
			return u.whole(ctx, up)
		}
	} else if err := up.pass(u.have); err != nil {
		return got, err
	}
	if u.have != u.want.Size {
		if err := u.patch(ctx, up); err != nil {
			return got, err
		}
	}
	if got, err = up.done(); err != nil {
		return got, err
	}
	return got, u.commit(ctx, got.Digest)
}

// whole sends a blob whose digest is known in one request.
func (u *upload) whole(ctx context.Context, up *sending) (got spec.Descriptor, err error) {
	resp, err := u.s.send(ctx, http.MethodPut, withDigest(u.at, u.want.Digest), up, u.want.Size)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close()
	if err := uploaded(resp, u.want.Digest); err != nil {
		return got, err
	}
	return up.done()
}

// patch sends all that the registry does not have.
func (u *upload) patch(ctx context.Context, up *sending) error {
	size := int64(-1)
	if u.want.Digest != "" {
		size = u.want.Size - u.have
		up.span = strconv.FormatInt(u.have, 10) + "-" + strconv.FormatInt(u.want.Size-1, 10)
	}
	resp, err := u.s.send(ctx, http.MethodPatch, u.at, up, size)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusAccepted, http.StatusNoContent, http.StatusCreated:
	default:
		return readStatus(resp, "upload")
	}
	return u.move(resp)
}

// begin asks for an upload and notes where it goes.
func (u *upload) begin(ctx context.Context) error {
	resp, err := u.s.post(ctx, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return readStatus(resp, "upload")
	}
	u.at, err = u.s.location(u.c, resp)
	return err
}

// move notes where the upload goes on, when an answer says that.
func (u *upload) move(resp *http.Response) error {
	if resp.Header.Get("Location") == "" {
		return nil
	}
	at, err := u.s.location(u.c, resp)
	if err == nil {
		u.at = at
	}
	return err
}

// commit ends an upload whose bytes are sent.
func (u *upload) commit(ctx context.Context, d spec.Digest) error {
	resp, err := u.s.send(ctx, http.MethodPut, withDigest(u.at, d), u.c.newSending(nil, spec.Descriptor{}), 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return uploaded(resp, d)
}

// ask finds out what the registry has of an upload that ended with err. When it
// does not say, or what it has is not worth it, the next attempt begins anew;
// Docker's registry always forgets an upload whose connection broke.
func (u *upload) ask(ctx context.Context, err error) {
	at, had := u.at, u.have
	u.at, u.have = nil, 0
	if at == nil || u.sent < uploadStep || isGarbled(err) {
		return
	}
	var s *statusError
	refused := errors.As(err, &s) && s.status == http.StatusRequestedRangeNotSatisfiable
	req, err := http.NewRequestWithContext(u.s.at.own(ctx), http.MethodGet, at.String(), nil)
	if err != nil {
		return
	}
	resp, err := u.s.client.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	last, ok := strings.CutPrefix(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "0-")
	n, err := strconv.ParseInt(last, 10, 64)
	// One that refused to go on here would again.
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusAccepted || !ok || err != nil || n+1 < uploadStep || n >= u.sent || refused && n < had {
		return
	}
	u.at = at
	if u.move(resp) != nil {
		u.at = nil
		return
	}
	u.have = n + 1
}
