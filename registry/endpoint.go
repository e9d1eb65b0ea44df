package registry

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"tug/errs"
	"tug/spec"
)

// An endpoint is one place that has a registry's content: the registry itself,
// or a mirror of it. Each is trusted for itself and gets its own host's
// credentials, never another's.
type endpoint struct {
	host   string // HOST[:PORT]; docker.io for Docker Hub
	prefix string // of a mirror's repositories: "" or "path/"
	mirror bool
	plain  bool // may be spoken to without TLS

	failed atomic.Int64 // when a mirror could not be reached last, Unix nanoseconds
}

// mirrorRest is how long a mirror that could not be reached is left alone.
const mirrorRest = time.Minute

func (e *endpoint) resting() bool {
	at := e.failed.Load()
	return at != 0 && time.Since(time.Unix(0, at)) < mirrorRest
}

// What a session may be for.
const (
	actionPull = "pull"
	actionPush = "pull,push"
)

// session is the authenticated way to one repository at one endpoint.
type session struct {
	at     *endpoint
	ref    spec.Reference
	once   sync.Once
	client *http.Client
	err    error
	cred   bool   // credentials were found
	url    string // https://HOST/v2/NAME/; what is asked for is put behind it
}

// home is the registry of ref itself, where a push goes.
func (c *Client) home(ref spec.Reference) (*endpoint, error) {
	if ref.Domain == "" {
		return nil, errs.New(errs.Invalid, "invalid reference %q: %s is no registry's host name", ref.Familiar(), before(ref.Path, "/"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.homes[ref.Domain]
	if e == nil {
		e = &endpoint{host: ref.Domain, plain: isLoopback(ref.Domain)}
		c.homes[ref.Domain] = e
	}
	return e, nil
}

// sources are the endpoints that a pull of ref asks, in this order: the
// registry's mirrors, then the registry.
func (c *Client) sources(ref spec.Reference) ([]*endpoint, error) {
	e, err := c.home(ref)
	return []*endpoint{e}, err
}

// pull does f with a session for each source of ref until one succeeds. A
// mirror that fails in any way is passed over; the registry's error counts.
// f is tried again at the same endpoint while it fails in ways that pass.
func (c *Client) pull(ctx context.Context, ref spec.Reference, f func(*session) error) error {
	all, err := c.sources(ref)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.resting() {
			continue
		}
		var s *session
		if s, err = c.session(ctx, e, ref, actionPull); err == nil {
			if err = c.retry(ctx, func() error { return f(s) }); err != nil {
				err = failure(ref, s.cred, err)
			}
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if e.mirror && errs.Is(err, errs.Unavailable) {
			e.failed.Store(time.Now().UnixNano())
		}
	}
	return err
}

// session returns the authenticated client for ref's repository at e, and
// makes it at first use. actions are those that a token is asked for.
func (c *Client) session(ctx context.Context, e *endpoint, ref spec.Reference, actions string) (*session, error) {
	key := e.host + "/" + e.prefix + ref.Name() + " " + actions
	c.mu.Lock()
	s := c.sessions[key]
	if s == nil {
		s = &session{at: e, ref: ref, url: "https://" + hubHost(e.host) + "/v2/" + e.prefix + ref.Path + "/"}
		c.sessions[key] = s
	}
	c.mu.Unlock()
	s.once.Do(func() { s.err = s.login(ctx, c, actions) })
	if s.err != nil {
		// The next caller may have a better day, or a context that still runs.
		c.mu.Lock()
		if c.sessions[key] == s {
			delete(c.sessions, key)
		}
		c.mu.Unlock()
		return nil, s.err
	}
	return s, nil
}

// hubHost is the host to connect to for registry host.
func hubHost(host string) string {
	if host == "docker.io" {
		return "index.docker.io"
	}
	return host
}

// login finds credentials, asks the registry how it wants them, and gets a
// token where it wants one.
func (s *session) login(ctx context.Context, c *Client, actions string) error {
	var opts []name.Option
	if s.at.plain {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(s.at.host, opts...)
	if err != nil {
		return errs.New(errs.Invalid, "invalid registry %q: %w", s.at.host, err)
	}
	repo := reg.Repo(s.at.prefix + s.ref.Path)
	auth := authn.Anonymous
	if !c.anon {
		if auth, err = authn.Resolve(ctx, authn.DefaultKeychain, repo); err != nil {
			return errs.New(errs.Denied, "credentials for %s: %w", s.at.host, err).
				WithHint("mend or remove the entry in ~/.docker/config.json (or $DOCKER_CONFIG/config.json)")
		}
	}
	s.cred = auth != authn.Anonymous
	var rt http.RoundTripper
	err = c.retry(ctx, func() error {
		rt, err = transport.NewWithContext(ctx, reg, auth, c.base, []string{repo.Scope(actions)})
		return err
	})
	if err != nil {
		return failure(s.ref, s.cred, err)
	}
	s.client = &http.Client{Transport: rt, CheckRedirect: redirectPolicy(s.at.plain)}
	return nil
}

// request makes a request for path below the repository. The answer may have
// limit bytes. The scheme is put right by the session's transport, which knows
// from the ping what the registry speaks.
func (s *session) request(ctx context.Context, method, path string, limit int64) (*http.Request, error) {
	return http.NewRequestWithContext(context.WithValue(ctx, limitKey{}, limit), method, s.url+path, nil)
}
