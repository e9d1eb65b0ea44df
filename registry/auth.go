package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"tug/errs"
)

// How tug shows who it is (distribution-spec and Docker's token documentation):
//
//	tug                       registry                     token server (realm)
//	 |-- GET /v2/ ------------->|                              |
//	 |<- 401 Bearer realm,------|                              |
//	 |       service            |                              |
//	 |-- GET realm?service&scope, Basic user:password -------->|
//	 |   or POST, refresh token                                |
//	 |<- {"token", "expires_in"} ------------------------------|
//	 |-- GET /v2/..., Bearer -->|
//
// A registry that says Basic gets user and password itself. The credentials of
// a registry go to its own origin (scheme, host and port) and to the realm it
// names, which may be another host, as with Docker Hub: whoever trusts a
// registry with a password trusts its choice of token server. Nobody else gets
// anything: Authorization is put on below redirects, request by request.

// authorizer is the transport of a session: it puts on Authorization where the
// request goes to the registry itself.
type authorizer struct {
	c      *Client
	at     *endpoint
	url    string // of the API: https://HOST/v2/
	origin string
	cred   Credentials

	mu      sync.Mutex
	ch      *challenge // nil: the registry asked for nothing yet
	scopes  []string
	token   string
	expires time.Time
}

// maxScopes bounds what a registry can make tug ask for.
const maxScopes = 8

func (a *authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	if originOf(req.URL) != a.origin {
		return a.c.base.RoundTrip(req)
	}
	used, err := a.authorization(req.Context())
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := a.c.base.RoundTrip(authorized(req, used))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	again, ok := rewound(req)
	if !a.learn(pickChallenge(resp.Header), used) {
		return resp, nil
	}
	resp.Body.Close()
	if !ok {
		return nil, errResend
	}
	if used, err = a.authorization(req.Context()); err != nil {
		closeBody(again)
		return nil, err
	}
	return a.c.base.RoundTrip(authorized(again, used))
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

func authorized(req *http.Request, header string) *http.Request {
	if header == "" {
		return req
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", header)
	return req
}

// rewound is req ready to be sent again, if its body can be had again.
func rewound(req *http.Request) (*http.Request, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	again := req.Clone(req.Context())
	again.Body = body
	return again, true
}

// learn takes note of a 401 that answered the header used, and reports whether
// another try makes sense.
func (a *authorizer) learn(ch *challenge, used string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ch == nil {
		return false
	}
	if now := a.header(); now != used && now != "" {
		return true // somebody else got a new token meanwhile
	}
	a.ch = ch
	if ch.scheme == "basic" {
		return a.header() != used
	}
	// Wanted scopes go first: some servers read only the first one.
	if s := ch.params["scope"]; s != "" && len(a.scopes) < maxScopes && !slices.Contains(a.scopes, s) {
		a.scopes = append([]string{s}, a.scopes...)
	}
	a.token = ""
	return a.cred.RegistryToken == "" || used == ""
}

// authorization is the header to send, with a new token where one is due.
func (a *authorizer) authorization(ctx context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ch != nil && a.ch.scheme == "bearer" && a.cred.RegistryToken == "" && (a.token == "" || time.Now().After(a.expires)) {
		t, err := a.fetchToken(ctx, false)
		if err != nil {
			return "", err
		}
		a.token, a.expires = t.bearer(), time.Now().Add(t.life())
	}
	return a.header(), nil
}

func (a *authorizer) header() string {
	switch {
	case a.ch == nil:
		return ""
	case a.ch.scheme == "basic" && a.cred.Username != "":
		return basicAuth(a.cred)
	case a.ch.scheme != "bearer":
		return ""
	case a.cred.RegistryToken != "":
		return "Bearer " + a.cred.RegistryToken
	case a.token != "":
		return "Bearer " + a.token
	}
	return ""
}

func basicAuth(c Credentials) string {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(c.Username, c.Password)
	return req.Header.Get("Authorization")
}

// tokenAnswer is what a token server sends. The names are two: Docker's and
// OAuth2's.
type tokenAnswer struct {
	Token        string `json:"token"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    int64  `json:"expires_in"`
}

func (t *tokenAnswer) bearer() string {
	if t.AccessToken != "" {
		return t.AccessToken
	}
	return t.Token
}

// life is how long the token is used: what the server says less a little, at
// least the minute that it may leave unsaid, at most an hour.
func (t *tokenAnswer) life() time.Duration {
	s := min(max(t.ExpiresIn, 60), 3600)
	return time.Duration(s-s/10) * time.Second
}

// fetchToken asks the realm of the challenge. offline also asks for a refresh
// token, to be kept instead of the password.
func (a *authorizer) fetchToken(ctx context.Context, offline bool) (*tokenAnswer, error) {
	realm, err := a.realm()
	if err != nil {
		return nil, err
	}
	var t *tokenAnswer
	err = a.c.retry(ctx, func() error {
		req, err := a.tokenRequest(ctx, realm, a.cred.IdentityToken != "", offline)
		if err != nil {
			return err
		}
		t, err = a.askToken(req)
		return err
	})
	return t, err
}

// realm is where tokens are to be had. It may be anywhere on the net that the
// registry could redirect to.
func (a *authorizer) realm() (*url.URL, error) {
	u, err := url.Parse(a.ch.params["realm"])
	if err != nil || u.Host == "" || u.Opaque != "" {
		return nil, errs.New(errs.Unavailable, "%s names a token server that is no URL: %.80q", a.at.host, a.ch.params["realm"])
	}
	u.User, u.Fragment = nil, ""
	if originOf(u) != a.origin {
		if err := a.c.checkHop(a.at, u, "the token server"); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (a *authorizer) tokenRequest(ctx context.Context, realm *url.URL, oauth, offline bool) (*http.Request, error) {
	q := url.Values{}
	if s := a.ch.params["service"]; s != "" {
		q.Set("service", s)
	}
	if oauth {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", a.cred.IdentityToken)
		q.Set("client_id", "tug")
		if len(a.scopes) > 0 {
			q.Set("scope", strings.Join(a.scopes, " "))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	for _, s := range a.scopes {
		q.Add("scope", s)
	}
	if offline {
		q.Set("offline_token", "true")
		q.Set("client_id", "tug")
	}
	if a.cred.Username != "" {
		q.Set("account", a.cred.Username)
	}
	u := *realm
	for k, v := range u.Query() { // a realm may have a query of its own
		if _, ours := q[k]; !ours {
			q[k] = v
		}
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && a.cred.Username != "" {
		req.Header.Set("Authorization", basicAuth(a.cred))
	}
	return req, err
}

// askToken sends req and reads the token. A request with a secret follows no
// redirect to another origin.
func (a *authorizer) askToken(req *http.Request) (*tokenAnswer, error) {
	secret := req.Method == http.MethodPost || req.Header.Get("Authorization") != ""
	policy := a.c.redirectPolicy(a.at)
	client := &http.Client{Transport: a.c.base, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if secret && originOf(next.URL) != originOf(req.URL) {
			return errs.New(errs.Denied, "%s: the token server at %s sends on to %s, which does not get your credentials", a.at.host, req.URL.Host, next.URL.Host)
		}
		return policy(next, via)
	}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, readStatus(resp, "token")
	}
	b, err := io.ReadAll(resp.Body)
	if errors.Is(err, errBomb) {
		return nil, errs.New(errs.Unavailable, "%s: the token server at %s sent more than %d KiB", a.at.host, req.URL.Host, smallTalk>>10)
	}
	if err != nil {
		return nil, err
	}
	t := &tokenAnswer{}
	if err := json.Unmarshal(b, t); err != nil || !validToken(t.bearer()) {
		return nil, errs.New(errs.Unavailable, "%s: the token server at %s answered with something that is no token (%.80q)", a.at.host, req.URL.Host, resp.Header.Get("Content-Type")).
			WithHint("check that no login page or proxy is in between")
	}
	return t, nil
}

// maxToken is more than the 16 KiB that servers take in a header.
const maxToken = 64 << 10

// validToken reports whether t can stand in a header.
func validToken(t string) bool {
	return t != "" && len(t) <= maxToken && strings.IndexFunc(t, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// originOf is scheme, host and port of u, in one spelling.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[bool]string{true: "443", false: "80"}[u.Scheme == "https"]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}
