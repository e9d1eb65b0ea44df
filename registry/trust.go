package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tug/errs"
)

// Whom to believe. TLS is verified with the system's authorities, plus those
// that the configuration names for a host. A host on a loopback address, and
// one configured insecure, is not verified and may go without TLS, and nobody
// else ever. Settings count for the host they name and for no host that it
// redirects to; a client certificate is shown to the registry itself only.

// hostTrust is how one host is spoken to.
type hostTrust struct {
	insecure bool
	cas      []string // files, PEM
	pairs    [][2]string
}

// ownKey is the context key of the host that a request's client certificate
// may be shown to.
type ownKey struct{}

// plainHost reports whether host[:port] may be spoken to without TLS.
func (c *Client) plainHost(host string) bool {
	conf, err := c.config()
	if err != nil {
		return false
	}
	return conf.insecure(host)
}

// isLoopback reports whether host[:port] is localhost or a loopback address by
// its spelling; names are not looked up.
func isLoopback(hostport string) bool {
	host := bareHost(hostport)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// isInward reports whether host[:port] leads, by its spelling, to this machine
// or to what only this machine sees, such as a cloud's metadata.
func isInward(hostport string) bool {
	if isLoopback(hostport) {
		return true
	}
	ip, err := netip.ParseAddr(bareHost(hostport))
	return err == nil && (ip.Unmap().IsUnspecified() || ip.Unmap().IsLinkLocalUnicast() || ip.Unmap().IsMulticast())
}

// bareHost is hostport without port and brackets.
func bareHost(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

// checkHop refuses to follow e to u, where what is on it: plain HTTP, unless
// both may be spoken to without TLS, and a host on the net that leads to this
// machine.
func (c *Client) checkHop(e *endpoint, u *url.URL, what string) error {
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return errs.New(errs.Denied, "%s: refused to follow to %s at %.120q", e.host, what, u.Scheme+"://"+u.Host)
	case u.Scheme == "http" && !(e.plain && c.plainHost(u.Host)):
		return errs.New(errs.Denied, "%s: refused to follow to %s at %s://%s: not encrypted", e.host, what, u.Scheme, u.Host)
	case isInward(u.Host) && !isLoopback(e.host) && bareHost(u.Host) != bareHost(e.host):
		return errs.New(errs.Denied, "%s: refused to follow to %s at %s: an address of this machine", e.host, what, u.Host)
	}
	return nil
}

// redirectPolicy allows ten redirects to where e may lead. Nothing secret
// travels: Authorization is put on below the redirects and only for e's own
// origin, cookies are not kept, and a name and password in Location is not
// taken up.
func (c *Client) redirectPolicy(e *endpoint) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errs.New(errs.Unavailable, "too many redirects")
		}
		req.URL.User = nil
		return c.checkHop(e, req.URL, "a redirect")
	}
}

// transport is the one to use for host; own: it is the registry that the
// session is with.
func (c *Client) transport(host string, own bool) (http.RoundTripper, error) {
	conf, err := c.config()
	if err != nil {
		return nil, err
	}
	t, err := conf.trust(host)
	if err != nil {
		return nil, err
	}
	if !own {
		t.pairs = nil
	}
	key := host
	switch {
	case len(t.cas) == 0 && len(t.pairs) == 0 && t.insecure:
		key = "insecure"
	case len(t.cas) == 0 && len(t.pairs) == 0:
		key = ""
	case !own:
		key += " not own"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if rt := c.transports[key]; rt != nil {
		return rt, nil
	}
	tc, err := c.tlsConfig(t)
	if err != nil {
		return nil, err
	}
	rt := c.newTransport(tc)
	c.transports[key] = rt
	return rt, nil
}

func (c *Client) tlsConfig(t hostTrust) (*tls.Config, error) {
	tc := &tls.Config{RootCAs: c.options.RootCAs, MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.insecure}
	if len(t.cas) > 0 {
		pool := tc.RootCAs
		if pool == nil {
			var err error
			if pool, err = x509.SystemCertPool(); err != nil {
				pool = x509.NewCertPool()
			}
		}
		tc.RootCAs = pool.Clone()
	}
	for _, f := range t.cas {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, errs.New(errs.Invalid, "certificate authority: %w", err)
		}
		if !tc.RootCAs.AppendCertsFromPEM(b) {
			return nil, errs.New(errs.Invalid, "certificate authority %s: no certificate in PEM form", f)
		}
	}
	for _, p := range t.pairs {
		cert, err := tls.LoadX509KeyPair(p[0], p[1])
		if err != nil {
			return nil, errs.New(errs.Invalid, "client certificate %s with key %s: %w", p[0], p[1], err)
		}
		tc.Certificates = append(tc.Certificates, cert)
	}
	return tc, nil
}

func (c *Client) newTransport(tc *tls.Config) *http.Transport {
	silence := c.options.Silence
	dial := c.options.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: min(silence, 30*time.Second), KeepAlive: 30 * time.Second}).DialContext
	}
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: dial,
		// Without HTTP/2: layers then come over connections of their
		// own, and one slow layer holds up no other.
		TLSClientConfig:       tc,
		TLSHandshakeTimeout:   min(silence, 15*time.Second),
		ResponseHeaderTimeout: silence,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		// Or the transport would inflate blobs whose digest is of the
		// compressed bytes.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 1 << 20,
	}
}

// certsDir reads Docker's directory of a host's certificates, DIR/HOST[:PORT]:
// *.crt are authorities, NAME.cert with NAME.key a client certificate.
func certsDir(dir, host string) (cas []string, pairs [][2]string, err error) {
	if !filepath.IsLocal(host) || strings.ContainsRune(host, '/') {
		return nil, nil, nil
	}
	dir = filepath.Join(dir, host)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, errs.New(errs.Denied, "read certificates: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, n := range names {
		base, ext := strings.TrimSuffix(n, filepath.Ext(n)), filepath.Ext(n)
		switch {
		case ext == ".crt":
			cas = append(cas, filepath.Join(dir, n))
		case ext == ".cert" && !slices.Contains(names, base+".key"):
			return nil, nil, errs.New(errs.Invalid, "missing key %s for client certificate %s", base+".key", filepath.Join(dir, n)).
				WithHint("authorities are *.crt, client certificates NAME.cert with NAME.key")
		case ext == ".key" && !slices.Contains(names, base+".cert"):
			return nil, nil, errs.New(errs.Invalid, "missing client certificate %s for key %s", base+".cert", filepath.Join(dir, n)).
				WithHint("authorities are *.crt, client certificates NAME.cert with NAME.key")
		case ext == ".cert":
			pairs = append(pairs, [2]string{filepath.Join(dir, n), filepath.Join(dir, base+".key")})
		}
	}
	return cas, pairs, nil
}
