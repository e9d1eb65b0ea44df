package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net/http"
	"sync"
	"time"

	"tug/errs"
	"tug/spec"
)

// sendKey is the context key of the *sending of a request that uploads.
type sendKey struct{}

// errResend: a request's body was wanted a second time, as after a 401 in the
// middle. What has been read is gone, so the upload must begin again.
var errResend = errors.New("the upload was interrupted to log in again")

// errCommit: all was sent, and no answer came.
var errCommit = errors.New("the registry does not confirm the upload")

// errEarly: the server said that it has all when it could not.
var errEarly = errors.New("the registry confirmed an upload before its end")

// sending is the way of one request that uploads: its body, read from a source
// and hashed on the way, and the clock that ends it when the server takes
// nothing for a while. The clock stands still while the source is waited for,
// which looks after itself. When all is sent the server has longer, since it may
// have to read all of it once more before it answers.
type sending struct {
	silence, commit time.Duration
	span            string // of the blob, when it is not the whole

	mu    sync.Mutex
	src   io.Reader // nil: no body
	want  spec.Descriptor
	sum   hash.Hash
	n     int64
	sent  bool  // to the end
	begun bool  // by a request
	over  bool  // nothing is read from src any more
	fault error // of src, or of what it gave
	clock *time.Timer
}

// newSending sends what src has. Digest and size are checked where want has
// them; its size is -1 otherwise.
func (c *Client) newSending(src io.Reader, want spec.Descriptor) *sending {
	return &sending{silence: c.options.Silence, commit: 10 * c.options.Silence, src: src, want: want, sum: sha256.New(), sent: src == nil}
}

// pass passes over the first n bytes of src, which the registry has.
func (u *sending) pass(n int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, err := io.CopyN(u.sum, u.src, n); err == io.EOF {
		u.fault = errs.New(errs.Corrupt, "what is to be sent has fewer bytes than the %d it had", n)
	} else if err != nil {
		u.fault = err
	}
	if u.n = n; u.fault == nil && n == u.want.Size && u.digest() != u.want.Digest {
		u.fault = errs.New(errs.Corrupt, "blob %s: its bytes have digest %s", u.want.Digest.Short(), u.digest())
	}
	return u.fault
}

// roundTrip is the guard's, for a request that uploads.
func (u *sending) roundTrip(patient http.RoundTripper, req *http.Request, cancel context.CancelCauseFunc) (*http.Response, error) {
	u.mu.Lock()
	if u.begun && u.src != nil {
		u.mu.Unlock()
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, errResend
	}
	u.begun = true
	wait := u.silence
	if u.sent {
		wait = u.commit
	}
	u.clock = time.AfterFunc(wait, func() { cancel(errSilence) })
	u.mu.Unlock()
	resp, err := patient.RoundTrip(req)
	u.mu.Lock()
	u.clock.Stop()
	sent := u.sent
	u.mu.Unlock()
	if err != nil && context.Cause(req.Context()) == errSilence {
		if err = errSilence; sent {
			err = errCommit
		}
	}
	return resp, err
}

// patient is rt without its limit on how long an answer takes.
func (c *Client) patient(rt http.RoundTripper) http.RoundTripper {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := rt.(*http.Transport)
	if !ok {
		return rt
	}
	p := c.patients[t]
	if p == nil {
		p = t.Clone()
		p.ResponseHeaderTimeout = 0
		p.WriteBufferSize = 64 << 10
		if c.patients == nil {
			c.patients = map[*http.Transport]*http.Transport{}
		}
		c.patients[t] = p
	}
	return p
}

func (u *sending) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return 0, errResend
	}
	u.clock.Stop()
	n, err := u.src.Read(p)
	u.sum.Write(p[:n])
	u.n += int64(n)
	if u.want.Size >= 0 && (u.n > u.want.Size || err == io.EOF && u.n < u.want.Size) {
		err = errs.New(errs.Corrupt, "blob %s has another size than the %d bytes it should have", u.want.Digest.Short(), u.want.Size)
	}
	if err == io.EOF && u.want.Digest != "" && u.digest() != u.want.Digest {
		err = errs.New(errs.Corrupt, "blob %s: its bytes have digest %s", u.want.Digest.Short(), u.digest())
	}
	switch {
	case err == io.EOF:
		u.sent = true
		u.clock.Reset(u.commit)
	case err != nil:
		u.fault = err
		n = 0
	default:
		u.clock.Reset(u.silence)
	}
	return n, err
}

// Close is the transport's, which may call it late and with a Read under way.
func (u *sending) Close() error { return nil }

// end waits until src is not in use any more, and returns what was wrong with
// it. The request's context must have ended, or src must not block.
func (u *sending) end() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	return u.fault
}

// done is end for a request that the server answered with success.
func (u *sending) done() (spec.Descriptor, error) {
	if err := u.end(); err != nil {
		return spec.Descriptor{}, &sourceError{err}
	}
	got := spec.Descriptor{Digest: u.digest(), Size: u.n}
	// An answer may come before the source's end is read, but not before its
	// last byte.
	if !u.sent && (u.n != u.want.Size || got.Digest != u.want.Digest) {
		return got, errEarly
	}
	return got, nil
}

func (u *sending) digest() spec.Digest { return spec.DigestSum(u.sum.Sum(nil)) }
