package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"tug/errs"
)

// Server is a registry as login and logout know it.
type Server struct {
	Host string // docker.io for Docker Hub
	Key  string // its name in config.json and for credential helpers
}

// IsHub reports whether it is Docker Hub.
func (s Server) IsHub() bool { return s.Host == "docker.io" }

// ParseServer reads the argument of login and logout: nothing for Docker Hub, a
// HOST[:PORT], or a URL of which only that counts.
func ParseServer(arg string) (Server, error) {
	if arg == "" || isHub(arg) {
		return Server{"docker.io", hubKey}, nil
	}
	host := arg
	if u, err := url.Parse(arg); err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		host = u.Host
	}
	host, err := registryHost(before(host, "/"))
	if err != nil {
		return Server{}, err
	}
	return Server{host, authKey(host)}, nil
}

// Login asks s whether it takes cred, and returns what to store: cred, or an
// identity token in place of the password where the registry hands out one.
func (c *Client) Login(ctx context.Context, s Server, cred Credentials) (Credentials, error) {
	all, err := c.endpoints(s.Host)
	if err != nil {
		return cred, err
	}
	a, err := c.ping(ctx, all[len(all)-1], cred)
	if err != nil {
		return cred, hostFailure(s.Host, "login to", err)
	}
	if a.ch != nil && a.ch.scheme == "bearer" {
		t, err := a.fetchToken(ctx, true)
		if err != nil {
			return cred, hostFailure(s.Host, "login to", err)
		}
		a.token = t.bearer()
		if t.RefreshToken != "" && len(t.RefreshToken) <= maxToken {
			cred.Password, cred.IdentityToken = "", t.RefreshToken
		}
	}
	if a.ch == nil {
		return cred, nil // it asks nobody
	}
	if err := a.check(ctx); err != nil {
		return cred, hostFailure(s.Host, "login to", err)
	}
	return cred, nil
}

// check asks the registry whether it takes what a has.
func (a *authorizer) check(ctx context.Context) error {
	return a.c.retry(ctx, func() error {
		req, err := http.NewRequestWithContext(a.at.own(ctx), http.MethodGet, a.url, nil)
		if err != nil {
			return err
		}
		resp, err := a.c.base.RoundTrip(authorized(req, a.header()))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return readStatus(resp, "login")
		}
		return nil
	})
}

// hostFailure is failure for what is about a registry and no image of it; doing
// is what was done "to" or "on" it.
func hostFailure(host, doing string, err error) error {
	var classed *errs.Error
	var s *statusError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &classed):
		return classed
	case !errors.As(err, &s):
		return networkFailure(host, host, err)
	}
	detail := s.Error()
	switch {
	case s.status == http.StatusUnauthorized || s.status == http.StatusForbidden || s.code == "UNAUTHORIZED" || s.code == "DENIED":
		if s.code == "" && s.msg == "" {
			detail = "unauthorized: " + statusText(s.status)
		}
		return errs.New(errs.Denied, "%s %s failed: %s", doing, host, detail).WithHint("check user name and password")
	case s.what == "ping" && s.status == http.StatusNotFound:
		return errs.New(errs.Unavailable, "%s does not answer as a registry: %s", host, detail).WithHint("check the registry's name and port")
	}
	return errs.New(errs.Unavailable, "%s %s failed: %s", doing, host, detail).WithHint("try again later; %s has a problem", host)
}

// Stored returns the credentials that are stored for s; empty when none are.
func Stored(ctx context.Context, s Server) (Credentials, error) {
	return findCredentials(ctx, s.Host, "")
}

// Store keeps cred for s: with the credential helper that config.json names,
// else in config.json itself, whose path is then returned.
func Store(ctx context.Context, s Server, cred Credentials) (plainIn string, err error) {
	path, c, err := ownConfig()
	if err != nil {
		return "", err
	}
	entry := authEntry{}
	if helper := c.helper(s.Key); helper != "" {
		out := map[string]string{"ServerURL": s.Key, "Username": cred.Username, "Secret": cred.Password}
		if cred.IdentityToken != "" {
			out["Username"], out["Secret"] = tokenUser, cred.IdentityToken
		}
		b, err := json.Marshal(out)
		if err != nil {
			return "", err
		}
		if _, err := runHelper(ctx, helper, "store", string(b)); err != nil {
			return "", errs.New(errs.ClassOf(err), "save credentials: %w", err)
		}
	} else {
		entry.Auth = base64.StdEncoding.EncodeToString([]byte(cred.Username + ":" + cred.Password))
		entry.IdentityToken = cred.IdentityToken
		plainIn = path
	}
	// Beside a helper an empty entry says whom it knows, as Docker has it.
	return plainIn, editAuths(path, func(auths map[string]json.RawMessage) error {
		b, err := json.Marshal(entry)
		auths[s.Key] = b
		return err
	})
}

// Erase forgets what is stored for s, in every spelling of its name. had tells
// whether there was something.
func Erase(ctx context.Context, s Server) (had bool, err error) {
	path, c, err := ownConfig()
	if err != nil {
		return false, err
	}
	if helper := c.helper(s.Key); helper != "" {
		if got, err := helperGet(ctx, helper, s.Key); err == nil && got != (Credentials{}) {
			had = true
		}
		if _, err := runHelper(ctx, helper, "erase", s.Key); err != nil && !errors.Is(err, errNoCredentials) {
			return had, errs.New(errs.ClassOf(err), "erase credentials: %w", err)
		}
	}
	var gone []string
	for k := range c.Auths {
		if h, ns := splitKey(k); ns == "" && (h == s.Host || isHub(h) && s.IsHub()) {
			gone = append(gone, k)
		}
	}
	if len(gone) == 0 {
		return had, nil
	}
	return true, editAuths(path, func(auths map[string]json.RawMessage) error {
		for _, k := range gone {
			delete(auths, k)
		}
		return nil
	})
}

func ownConfig() (string, *userConfig, error) {
	path, err := ConfigPath()
	if err != nil {
		return "", nil, err
	}
	c, err := readUserConfig(path)
	return path, c, err
}

// editAuths changes the auths of config.json at path. All else in it stays,
// also what tug does not know.
func editAuths(path string, f func(map[string]json.RawMessage) error) error {
	err := editFile(path, 0o600, 0o700, func(old []byte) ([]byte, error) {
		all, auths := map[string]json.RawMessage{}, map[string]json.RawMessage{}
		if len(bytes.TrimSpace(old)) > 0 {
			if err := json.Unmarshal(old, &all); err != nil {
				return nil, errs.New(errs.Invalid, "%s%s: %w", path, jsonLine(old, err), err).WithHint("mend the file")
			}
		}
		if b, ok := all["auths"]; ok {
			if err := json.Unmarshal(b, &auths); err != nil {
				return nil, errs.New(errs.Invalid, "%s: auths: %w", path, err).WithHint("mend the file")
			}
		}
		if auths == nil { // "auths": null
			auths = map[string]json.RawMessage{}
		}
		if err := f(auths); err != nil {
			return nil, err
		}
		b, err := json.Marshal(auths)
		if err != nil {
			return nil, err
		}
		all["auths"] = b
		return indented(all)
	})
	var classed *errs.Error
	if err == nil || errors.As(err, &classed) {
		return err
	}
	return errs.New(errs.Denied, "write credentials: %w", err).WithHint("check the directory of config.json, or set DOCKER_CONFIG")
}

// indented is v as Docker writes config.json.
func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// ReadSecret reads a password from r, less the line's end.
func ReadSecret(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxToken {
		return "", errs.New(errs.Invalid, "the password is larger than %d KiB", maxToken>>10)
	}
	s := string(b)
	for _, eol := range []string{"\r\n", "\n", "\r"} {
		if cut, ok := strings.CutSuffix(s, eol); ok {
			return cut, nil
		}
	}
	return s, nil
}
