package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tug/errs"
)

// limitKey is the context key of an answer's largest size in bytes. Requests
// without one are for small talk: pings, challenges, tokens, errors.
type limitKey struct{}

// plainKey marks requests for a URL of the user's own that begins with http.
type plainKey struct{}

const smallTalk = 1 << 20

var (
	errSilence = errors.New("the server went silent")
	errSlow    = errors.New("the answer takes too long")
	errBomb    = errors.New("the answer is larger than it may be")
)

// guard is the lowest transport. Every request of this package goes through
// it, whoever made it: pings and token requests of the auth code, redirects,
// content. It refuses plain HTTP to anything but loopback, bounds the size of
// each answer, and ends a body that says nothing for a while.
type guard struct{ c *Client }

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	asked, _ := req.Context().Value(plainKey{}).(bool)
	if req.URL.Scheme != "https" && (req.URL.Scheme != "http" || !asked && !g.c.plainHost(req.URL.Host)) {
		closeBody(req)
		return nil, errs.New(errs.Denied, "refused to speak %s to %s: not encrypted", req.URL.Scheme, req.URL.Host).
			WithHint("only loopback addresses, and registries with insecure = true in the registries file, may go without TLS")
	}
	own, _ := req.Context().Value(ownKey{}).(string)
	inner, err := g.c.transport(req.URL.Host, own == req.URL.Host)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	out := req.Clone(ctx)
	out.Header.Set("User-Agent", g.c.options.UserAgent)
	// The address that led here may hold a signature.
	out.Header.Del("Referer")
	var resp *http.Response
	up, ok := req.Context().Value(sendKey{}).(*sending)
	// Tokens are asked for with the context of what they are needed for.
	if ok && (req.Method == http.MethodPut || req.Method == http.MethodPatch) {
		resp, err = up.roundTrip(g.c.patient(inner), out, cancel)
	} else {
		resp, err = inner.RoundTrip(out)
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	limit := int64(smallTalk)
	if n, ok := req.Context().Value(limitKey{}).(int64); ok {
		limit = n
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
			limit = smallTalk
		}
	}
	var until time.Time
	if limit <= MaxManifest {
		until = time.Now().Add(slowFactor * g.c.options.Silence)
	}
	resp.Body = &guardedBody{until: until, body: resp.Body, ctx: ctx, cancel: cancel, silence: g.c.options.Silence, left: limit}
	return resp, nil
}

// slowFactor times Options.Silence is what an answer of at most MaxManifest
// bytes may take, so that no server keeps a command by a byte now and then.
const slowFactor = 5

// guardedBody bounds one answer in size and in silence. The clock runs only
// while a Read waits, so a slow disk on our side is no silence.
type guardedBody struct {
	body    io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	silence time.Duration
	until   time.Time // when all must be there; zero: whenever
	timer   *time.Timer
	left    int64
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if !b.until.IsZero() && time.Now().After(b.until) {
		b.cancel(errSlow)
		return 0, errSlow
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(b.silence, func() { b.cancel(errSilence) })
	} else {
		b.timer.Reset(b.silence)
	}
	// One byte more than allowed tells an answer that ends from one that goes on.
	n, err := b.body.Read(p[:min(int64(len(p)), max(b.left, 0)+1)])
	b.timer.Stop()
	if b.left -= int64(n); b.left < 0 {
		return n + int(b.left), errBomb
	}
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errSilence {
		err = errSilence
	}
	return n, err
}

func (b *guardedBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
	// The body first: closing it at its end gives the connection back.
	err := b.body.Close()
	b.cancel(nil)
	return err
}

const attempts = 5

// retry runs f up to five times while it fails in ways that pass: a cut
// connection, a busy or briefly broken server.
func (c *Client) retry(ctx context.Context, f func() error) error {
	for i := 0; ; i++ {
		err := f()
		if err == nil || i+1 == attempts || !transient(err) || !c.pause(ctx, i, err) {
			return err
		}
	}
}

// pause waits before try i+1, longer each time, a little at random, and as
// long as the server asked for where that is bearable. False: it is not, or
// ctx ended.
func (c *Client) pause(ctx context.Context, i int, err error) bool {
	d := c.options.Backoff << min(i, 5)
	d += time.Duration(rand.Int64N(int64(d)/2 + 1))
	var s *statusError
	if errors.As(err, &s) && s.retryAfter > 0 {
		if s.retryAfter > maxRetryAfter {
			return false
		}
		d = s.retryAfter
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// transient reports whether trying again may help.
func transient(err error) bool {
	var s *statusError
	if errors.As(err, &s) {
		return s.status == http.StatusTooManyRequests || s.status == http.StatusRequestTimeout || s.status >= 500 && s.status != http.StatusNotImplemented
	}
	var classed *errs.Error
	if errors.As(err, &classed) || errors.Is(err, context.Canceled) || errors.Is(err, errBomb) || errors.Is(err, errSilence) || errors.Is(err, errSlow) {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false // refused, unreachable: say so at once
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || isReset(err) || errors.Is(err, errResend)
}

// maxRetryAfter is the longest pause that a server can ask for and get.
const maxRetryAfter = 30 * time.Second

// retryAfter is the pause that an answer asks for, in seconds or as a date; 0
// when it does not.
func retryAfter(resp *http.Response) time.Duration {
	h := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(h); err == nil {
		return time.Duration(min(max(n, 0), 3600)) * time.Second
	}
	at, err := http.ParseTime(h)
	if err != nil {
		return 0
	}
	now := time.Now()
	// The server's own clock counts, where it tells it.
	if d, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = d
	}
	return min(max(at.Sub(now), 0), time.Hour)
}

// contentRange returns where a partial answer begins, and the size of the
// whole, -1 where the server does not know it.
func contentRange(resp *http.Response) (start, size int64, ok bool) {
	r, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	r, whole, cut := strings.Cut(r, "/")
	first, last, dash := strings.Cut(r, "-")
	if !ok || !cut || !dash {
		return 0, 0, false
	}
	start, err := strconv.ParseInt(first, 10, 64)
	end, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := int64(-1), error(nil)
	if whole != "*" {
		size, err3 = strconv.ParseInt(whole, 10, 64)
		ok = size > end
	}
	return start, size, ok && err == nil && err2 == nil && err3 == nil && start >= 0 && end >= start
}
