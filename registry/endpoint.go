package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
	plain  bool   // may be spoken to without TLS
	scheme string // the only one to try; "" tries https first and http after

	avoid  atomic.Bool  // for good
	failed atomic.Int64 // when a mirror could not be reached last, Unix nanoseconds
}

// mirrorRest is how long a mirror that could not be reached is left alone.
const mirrorRest = time.Minute

// AvoidMirrors makes this Client leave ref's mirrors alone from now on, and
// reports whether ref has any. It is for readers who find that what they got is
// not what they asked for: trying again, once, is then worth it.
func (c *Client) AvoidMirrors(ref spec.Reference) bool {
	all, err := c.sources(ref)
	found := false
	for _, e := range all {
		if err == nil && e.mirror {
			e.avoid.Store(true)
			found = true
		}
	}
	return found
}

func (e *endpoint) resting() bool {
	at := e.failed.Load()
	return e.avoid.Load() || at != 0 && time.Since(time.Unix(0, at)) < mirrorRest
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
	all, err := c.sources(ref)
	if err != nil {
		return nil, err
	}
	return all[len(all)-1], nil
}

// sources are the endpoints that a pull of ref asks, in this order: the
// registry's mirrors, then the registry.
func (c *Client) sources(ref spec.Reference) ([]*endpoint, error) {
	if ref.Domain == "" {
		return nil, errs.New(errs.Invalid, "invalid reference %q: %s is no registry's host name", ref.Familiar(), before(ref.Path, "/"))
	}
	return c.endpoints(ref.Domain)
}

// endpoints returns the mirrors of registry host, and behind them itself.
func (c *Client) endpoints(host string) ([]*endpoint, error) {
	conf, err := c.config()
	if err != nil {
		return nil, err
	}
	host = canonicalHost(host)
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := c.places[host]; all != nil {
		return all, nil
	}
	var all []*endpoint
	for _, m := range conf.Registry[host].Mirrors {
		u, err := parseMirror(m)
		if err != nil {
			return nil, err
		}
		e := &endpoint{host: canonicalHost(u.Host), mirror: true, plain: conf.insecure(u.Host)}
		if u.Scheme == "http" {
			e.scheme = u.Scheme
		}
		if p := strings.Trim(u.Path, "/"); p != "" {
			e.prefix = p + "/"
		}
		all = append(all, e)
	}
	all = append(all, &endpoint{host: host, plain: conf.insecure(host)})
	c.places[host] = all
	return all, nil
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
// makes it at first use. actions are those that a token is asked for; it may
// also pull from the repositories from, of the same registry.
func (c *Client) session(ctx context.Context, e *endpoint, ref spec.Reference, actions string, from ...string) (*session, error) {
	key := e.host + "/" + e.prefix + ref.Name() + " " + actions + " " + strings.Join(from, " ")
	c.mu.Lock()
	s := c.sessions[key]
	if s == nil {
		s = &session{at: e, ref: ref}
		c.sessions[key] = s
	}
	c.mu.Unlock()
	s.once.Do(func() { s.err = s.login(ctx, c, actions, from) })
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

// address is the host to connect to for registry host.
func address(host string) string {
	if host == "docker.io" {
		return "registry-1.docker.io"
	}
	return host
}

// login finds credentials, and asks the registry what it speaks and how it
// wants credentials.
func (s *session) login(ctx context.Context, c *Client, actions string, from []string) error {
	var cred Credentials
	path := s.at.prefix + s.ref.Path
	if !c.options.Anonymous {
		var err error
		if cred, err = findCredentials(ctx, s.at.host, path); err != nil {
			return errs.New(errs.Denied, "credentials for %s: %w", s.at.host, err).
				WithHint("mend or remove the entry in ~/.docker/config.json (or $DOCKER_CONFIG/config.json)")
		}
	}
	s.cred = cred != Credentials{}
	a, err := c.ping(ctx, s.at, cred)
	if err == nil {
		a.scopes = []string{"repository:" + path + ":" + actions}
		for _, other := range from {
			a.scopes = append(a.scopes, "repository:"+other+":"+actionPull)
		}
		s.client = &http.Client{Transport: a, CheckRedirect: c.redirectPolicy(s.at)}
		s.url = a.url + path + "/"
		// Wrong credentials are told before anything is asked for.
		_, err = a.authorization(ctx)
	}
	switch {
	case err == nil:
		return nil
	case actions == actionPush:
		return pushFailure(s.ref, s.cred, err)
	}
	return failure(s.ref, s.cred, err)
}

// ping asks e what it speaks. It follows no redirect: whoever answers from
// elsewhere must not say where credentials go.
func (c *Client) ping(ctx context.Context, e *endpoint, cred Credentials) (*authorizer, error) {
	return c.pingAt(ctx, e, cred, "/v2/", func(status int) bool {
		return status < 400 || status == http.StatusForbidden
	})
}

// pingAt is ping at a path; fine says which statuses, beside 401, will do.
func (c *Client) pingAt(ctx context.Context, e *endpoint, cred Credentials, path string, fine func(int) bool) (*authorizer, error) {
	schemes := []string{"https"}
	switch {
	case e.scheme != "":
		schemes = []string{e.scheme}
	case e.plain:
		schemes = append(schemes, "http")
	}
	var failed []error
	for _, scheme := range schemes {
		a := &authorizer{c: c, at: e, cred: cred, url: scheme + "://" + address(e.host) + path}
		err := c.retry(ctx, func() error { return a.ping(ctx, fine) })
		if err == nil {
			return a, nil
		}
		failed = append(failed, err)
		var answered *statusError
		if ctx.Err() != nil || errors.As(err, &answered) {
			break
		}
	}
	return nil, errors.Join(failed...)
}

func (a *authorizer) ping(ctx context.Context, fine func(int) bool) error {
	client := &http.Client{Transport: a.c.base, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(a.at.own(ctx), http.MethodGet, a.url, nil)
	if err != nil {
		return errs.New(errs.Invalid, "invalid registry %q: %w", a.at.host, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a.origin, a.ch = originOf(req.URL), nil
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		a.ch = pickChallenge(resp.Header)
	case !fine(resp.StatusCode):
		return readStatus(resp, "ping")
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // the connection can be used again
	return nil
}

// own marks requests as being for the registry itself, which may see a client
// certificate.
func (e *endpoint) own(ctx context.Context) context.Context {
	return context.WithValue(ctx, ownKey{}, address(e.host))
}

// request makes a request for path below the repository. The answer may have
// limit bytes.
func (s *session) request(ctx context.Context, method, path string, limit int64) (*http.Request, error) {
	return http.NewRequestWithContext(context.WithValue(s.at.own(ctx), limitKey{}, limit), method, s.url+path, nil)
}
