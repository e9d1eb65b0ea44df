package registry

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/url"

	"tug/errs"
)

// Fetch opens what a URL of the user's names, with the rules for registries,
// except that http:// is what was asked for: ten redirects, never from TLS to
// none or to this machine, no silence. Nothing is
// sent along that the URL does not hold; how much comes is the reader's to
// bound.
func (c *Client) Fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errs.New(errs.Invalid, "invalid URL %.200q", address)
	}
	name := u.Redacted()
	if u.Scheme == "http" {
		ctx = context.WithValue(ctx, plainKey{}, true)
	}
	client := &http.Client{Transport: c.base, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		switch {
		case len(via) >= 10:
			return errs.New(errs.Unavailable, "too many redirects")
		case next.URL.Scheme != u.Scheme && next.URL.Scheme != "https":
			return errs.New(errs.Denied, "refused a redirect to %s: not encrypted", next.URL.Redacted())
		case isLoopback(next.URL.Host) && !isLoopback(u.Host):
			return errs.New(errs.Denied, "refused a redirect to %s: it is on this machine", next.URL.Redacted())
		}
		next.URL.User = nil
		return nil
	}}
	var body io.ReadCloser
	err = c.retry(ctx, func() error {
		req, err := http.NewRequestWithContext(context.WithValue(ctx, limitKey{}, int64(math.MaxInt64-1)), http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			defer resp.Body.Close()
			return readStatus(resp, "file")
		}
		body = resp.Body
		return nil
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		class := errs.ClassOf(err)
		if class == errs.Internal {
			class = errs.Unavailable
		}
		return nil, errs.New(class, "fetch %s: %w", name, err)
	}
	return body, nil
}
