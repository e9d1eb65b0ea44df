package registry

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"tug/errs"
	"tug/spec"
)

// Pushes go to the registry that a reference names and never to a mirror.
//
//	HEAD  blobs/DIGEST                            200: there
//	POST  blobs/uploads/?mount=DIGEST&from=REPO   201: mounted; 202: an upload was begun instead
//	POST  blobs/uploads/                          202, Location: of the upload
//	PUT   Location&digest=DIGEST                  201: bytes whose digest is known come with it
//	PATCH Location                                202, Location: bytes whose digest is not
//	PUT   Location&digest=DIGEST                  201
//	GET   Location                                204, Range: what came of an upload that broke; it goes on with PATCH
//	PUT   manifests/TAG                           201
//
// The registry says where an upload goes (distribution-spec v1.1, "Push"), and
// that may be another host. It then gets the bytes, which it could also have got
// from the registry, but no credentials.

// push does f with a session for pushing to ref's registry; from is a further
// repository there to read from, or "".
func (c *Client) push(ctx context.Context, ref spec.Reference, from string, f func(*session) error) error {
	e, err := c.home(ref)
	if err != nil {
		return err
	}
	var also []string
	if from != "" {
		also = append(also, from)
	}
	s, err := c.session(ctx, e, ref, actionPush, also...)
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		return pushFailure(ref, s.cred, err)
	}
	return nil
}

// HasBlob reports whether ref's repository has the blob that d names.
func (c *Client) HasBlob(ctx context.Context, ref spec.Reference, d spec.Descriptor) (has bool, err error) {
	err = c.push(ctx, ref, "", func(s *session) error {
		return c.retry(ctx, func() error {
			has, err = s.has(ctx, "blobs/"+string(d.Digest), d.Size)
			return err
		})
	})
	return has, err
}

// HasManifest reports whether ref's repository has the manifest d.
func (c *Client) HasManifest(ctx context.Context, ref spec.Reference, d spec.Descriptor) (has bool, err error) {
	err = c.push(ctx, ref, "", func(s *session) error {
		return c.retry(ctx, func() error {
			has, err = s.has(ctx, "manifests/"+string(d.Digest), d.Size)
			return err
		})
	})
	return has, err
}

// has asks for the head of path. What has another size is not what is meant.
func (s *session) has(ctx context.Context, path string, size int64) (bool, error) {
	req, err := s.request(ctx, http.MethodHead, path, 0)
	if err != nil {
		return false, err
	}
	req.Header["Accept"] = []string{"*/*"}
	if strings.HasPrefix(path, "manifests/") {
		req.Header["Accept"] = []string{strings.Join([]string{
			spec.TypeOCIIndex, spec.TypeDockerList, spec.TypeOCIManifest, spec.TypeDockerManifest,
		}, ", ")}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		return size <= 0 || resp.ContentLength <= 0 || resp.ContentLength == size, nil
	case resp.StatusCode == http.StatusNotFound:
		return false, nil
	}
	return false, readStatus(resp, "head")
}

// Mount asks ref's registry to give the repository the blob d from the
// repository whose path is from. False: it did not, for whatever reason it has.
func (c *Client) Mount(ctx context.Context, ref spec.Reference, d spec.Digest, from string) (mounted bool, err error) {
	err = c.push(ctx, ref, from, func(s *session) error {
		return c.retry(ctx, func() error {
			mounted, err = s.mount(ctx, c, d, from)
			return err
		})
	})
	return mounted, err
}

func (s *session) mount(ctx context.Context, c *Client, d spec.Digest, from string) (bool, error) {
	query := "?mount=" + url.QueryEscape(string(d)) + "&from=" + url.QueryEscape(from)
	resp, err := s.post(ctx, query)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, nil
	case http.StatusAccepted:
		// An upload that nobody goes on with is better taken back.
		if at, err := s.location(c, resp); err == nil {
			s.cancel(ctx, at)
		}
		return false, nil
	}
	return false, readStatus(resp, "mount")
}

func (s *session) post(ctx context.Context, query string) (*http.Response, error) {
	req, err := s.request(ctx, http.MethodPost, "blobs/uploads/"+query, smallTalk)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Length", "0")
	return s.client.Do(req)
}

// cancel ends an upload, where the registry can do that.
func (s *session) cancel(ctx context.Context, at *url.URL) {
	req, err := http.NewRequestWithContext(s.at.own(ctx), http.MethodDelete, at.String(), nil)
	if err != nil {
		return
	}
	if resp, err := s.client.Do(req); err == nil {
		resp.Body.Close()
	}
}

// location is where an answer says that the upload goes on: relative to what
// was asked, or anywhere that a redirect may lead.
func (s *session) location(c *Client, resp *http.Response) (*url.URL, error) {
	at, err := resp.Location()
	if err != nil {
		return nil, errs.New(errs.Unavailable, "%s did not say where to upload to", s.at.host).WithHint("check that it is a registry")
	}
	// A registry behind a proxy may not know that it is spoken to with TLS.
	if here := resp.Request.URL; at.Host == here.Host && at.Scheme == "http" {
		at.Scheme = here.Scheme
	}
	if err := c.checkHop(s.at, at, "an upload"); err != nil {
		return nil, err
	}
	at.User, at.Fragment = nil, ""
	return at, nil
}

// withDigest adds the digest to what is there, which may be signed as it is.
func withDigest(at *url.URL, d spec.Digest) *url.URL {
	u := *at
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "digest=" + url.QueryEscape(string(d))
	return &u
}

// send makes a request with the body of up; size -1 is not known.
func (s *session) send(ctx context.Context, method string, at *url.URL, up *sending, size int64) (*http.Response, error) {
	ctx = context.WithValue(s.at.own(ctx), sendKey{}, up)
	req, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
	if err != nil {
		return nil, err
	}
	if up.src != nil && size != 0 {
		req.Body, req.ContentLength = up, size
	}
	if up.span != "" {
		req.Header.Set("Content-Range", up.span)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return s.client.Do(req)
}

// uploaded checks the answer to the end of an upload.
func uploaded(resp *http.Response, d spec.Digest) error {
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return readStatus(resp, "upload")
	}
	return sameDigest(resp, d)
}

func sameDigest(resp *http.Response, d spec.Digest) error {
	told := resp.Header.Get("Docker-Content-Digest")
	if strings.HasPrefix(told, "sha256:") && told != string(d) {
		return errs.New(errs.Corrupt, "%s was sent %s and confirmed %.80q", resp.Request.URL.Host, d, told).
			WithHint("the registry or a proxy before it changes what it gets; do not trust it")
	}
	return nil
}

// PutManifest gives ref's repository a manifest or an index, under ref's tag
// where it has one.
func (c *Client) PutManifest(ctx context.Context, ref spec.Reference, mediaType string, body []byte) error {
	d := spec.DigestOf(body)
	if len(body) > MaxManifest {
		return tooLarge(ref)
	}
	what := ref.Tag
	if what == "" {
		what = string(d)
	}
	return c.push(ctx, ref, "", func(s *session) error {
		return c.retry(ctx, func() error {
			up := c.newSending(bytes.NewReader(body), spec.Descriptor{Digest: d, Size: int64(len(body))})
			return s.putManifest(ctx, what, mediaType, up)
		})
	})
}

func (s *session) putManifest(ctx context.Context, what, mediaType string, up *sending) error {
	req, err := s.request(context.WithValue(ctx, sendKey{}, up), http.MethodPut, "manifests/"+what, smallTalk)
	if err != nil {
		return err
	}
	req.Body, req.ContentLength = up, up.want.Size
	req.Header.Set("Content-Type", mediaType)
	resp, err := s.client.Do(req)
	up.end()
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return readStatus(resp, "put")
	}
	return sameDigest(resp, up.want.Digest)
}

// pushFailure is failure for what went wrong with pushing to ref.
func pushFailure(ref spec.Reference, cred bool, err error) error {
	var classed *errs.Error
	var own *sourceError
	if errors.As(err, &own) {
		return err
	}
	if errors.Is(err, errEarly) || errors.Is(err, errResend) || errors.Is(err, errCommit) {
		return errs.New(errs.Unavailable, "%s: %w", ref.FamiliarName(), err).WithHint("try again later; %s has a problem", ref.Domain)
	}
	var s *statusError
	if !errors.As(err, &s) || errors.As(err, &classed) {
		return failure(ref, cred, err)
	}
	detail := s.Error()
	switch {
	case s.denied() && s.code == "" && s.msg == "":
		detail = "unauthorized: authentication required"
		fallthrough
	case s.denied():
		hint := "check the name, and log in as somebody who may push there: tug login %s"
		if cred {
			hint = "the registry refused the credentials: check that they are for %s and may push there"
		}
		return errs.New(errs.Denied, "push access denied for %s, repository does not exist or may require authorization: %s", ref.FamiliarName(), detail).
			WithHint(hint, ref.Domain)
	case s.status == http.StatusRequestEntityTooLarge:
		return errs.New(errs.Unavailable, "%s: %s", ref.FamiliarName(), detail).
			WithHint("%s, or a proxy before it, limits the size of uploads", ref.Domain)
	case s.status >= 400 && s.status < 500 && !transient(s):
		return errs.New(errs.Unavailable, "%s: the registry refused the push: %s", ref.FamiliarName(), detail).
			WithHint("check the name, and that %s takes pushes", ref.Domain)
	}
	return failure(ref, cred, s)
}
