// Package registry fetches manifests and blobs from OCI and Docker registries
// (distribution-spec v1.1, "Pull"). It is the only package that dials out. The
// client is its own, because what it must check (whom credentials reach, sizes
// before bytes, types, digests, redirects, silence) is its reason to be.
//
// It knows no image: what a manifest means and whether a blob's bytes match
// their digest is the caller's to check, while streaming.
//
// Surprising: a registry on a loopback address may be spoken to without TLS,
// as with Docker, and no other host ever is that the registries file does not
// call insecure, also not by way of a redirect.
package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"tug/errs"
	"tug/spec"
)

// MaxManifest is the size beyond which a manifest or index is refused; the
// distribution specification asks registries to take up to 4 MiB.
const MaxManifest = 4 << 20

// Options are for tests and embedders; the zero value is right for everybody
// else.
type Options struct {
	UserAgent string         // default tug/VERSION
	RootCAs   *x509.CertPool // default the system's
	Anonymous bool           // look for no credentials

	// InsecureHost may go without TLS, unless the registries file says that it
	// may not.
	InsecureHost string

	// Silence is how long a server may take for the next byte, be it of a TLS
	// handshake, of an answer's head or of its body. Default one minute.
	Silence time.Duration
	// Backoff is the first pause before trying again. Default 250 ms.
	Backoff time.Duration

	// dial stands in for the network in tests.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client fetches from any number of registries. It may be used by many
// goroutines. Making one costs nothing; connections and tokens are kept until
// the process ends.
type Client struct {
	options Options
	base    *guard

	confOnce sync.Once
	conf     *config
	confErr  error

	mu         sync.Mutex
	places     map[string][]*endpoint       // by registry
	sessions   map[string]*session          // by endpoint, repository and actions
	transports map[string]http.RoundTripper // by host, where it has settings of its own
	patients   map[*http.Transport]*http.Transport
}

// New returns a Client. It dials nothing and reads no file.
func New(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "tug/" + spec.Version
	}
	if o.Silence == 0 {
		o.Silence = time.Minute
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	c := &Client{
		options:    o,
		places:     map[string][]*endpoint{},
		sessions:   map[string]*session{},
		transports: map[string]http.RoundTripper{},
	}
	c.base = &guard{c: c}
	return c
}

// Manifest fetches the manifest or index that ref names: by digest if it has
// one, else by tag. The bytes match the descriptor, and ref's digest if it has
// one; their media type is one that tug reads. Absent is NotFound.
func (c *Client) Manifest(ctx context.Context, ref spec.Reference) (spec.Descriptor, []byte, error) {
	var desc spec.Descriptor
	var body []byte
	what := string(ref.Digest)
	if what == "" {
		what = ref.WithDefaultTag().Tag
	}
	err := c.pull(ctx, ref, func(s *session) error {
		req, err := s.request(ctx, http.MethodGet, "manifests/"+what, MaxManifest)
		if err != nil {
			return err
		}
		req.Header["Accept"] = []string{strings.Join([]string{
			spec.TypeOCIIndex, spec.TypeDockerList, spec.TypeOCIManifest, spec.TypeDockerManifest,
		}, ", ")}
		resp, err := s.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		desc, body, err = readManifest(ref, resp)
		return err
	})
	if err != nil {
		return spec.Descriptor{}, nil, err
	}
	return desc, body, nil
}

func readManifest(ref spec.Reference, resp *http.Response) (spec.Descriptor, []byte, error) {
	var none spec.Descriptor
	if resp.StatusCode != http.StatusOK {
		return none, nil, readStatus(resp, "manifest")
	}
	mediaType, err := manifestType(ref, resp.Header.Get("Content-Type"))
	if err != nil {
		return none, nil, err
	}
	if resp.ContentLength > MaxManifest {
		return none, nil, tooLarge(ref)
	}
	body, err := io.ReadAll(resp.Body)
	if errors.Is(err, errBomb) {
		return none, nil, tooLarge(ref)
	}
	if err != nil {
		return none, nil, err
	}
	d := spec.DigestOf(body)
	if ref.Digest != "" && d != ref.Digest {
		return none, nil, errs.New(errs.Corrupt, "manifest verification failed for %s: the registry sent %s", ref.Familiar(), d).
			WithHint("the registry or something between it and here changed the manifest; do not trust it")
	}
	told := resp.Header.Get("Docker-Content-Digest")
	if strings.HasPrefix(told, "sha256:") && told != string(d) {
		return none, nil, errs.New(errs.Corrupt, "manifest of %s: the registry announced %.80q and sent %s", ref.Familiar(), told, d).
			WithHint("try again; if it stays, the registry or a proxy before it is broken")
	}
	return spec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}, body, nil
}

func tooLarge(ref spec.Reference) error {
	return errs.New(errs.Invalid, "manifest of %s is larger than %d MiB", ref.Familiar(), MaxManifest>>20)
}

// manifestType checks the Content-Type of a manifest. It returns "" where the
// registry did not say anything useful, as plain file servers do; then the
// manifest's own mediaType counts.
func manifestType(ref spec.Reference, header string) (string, error) {
	t, _, err := mime.ParseMediaType(header)
	if err != nil {
		t = ""
	}
	switch t {
	case spec.TypeOCIIndex, spec.TypeDockerList, spec.TypeOCIManifest, spec.TypeDockerManifest:
		return t, nil
	case "", "application/json", "text/plain", "application/octet-stream":
		return "", nil
	case "application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws":
		return "", errs.New(errs.Unsupported, "manifest of %s has Docker's schema 1, which was given up in 2023", ref.Familiar()).
			WithHint("push the image again with a current tool")
	case "text/html":
		return "", errs.New(errs.Unavailable, "%s answered with a web page instead of a manifest", ref.Domain).
			WithHint("check that %s is a registry and that no login page or proxy is in between", ref.Domain)
	}
	return "", errs.New(errs.Unsupported, "unsupported media type %.100q of the manifest of %s", t, ref.Familiar())
}

func before(s, sep string) string {
	s, _, _ = strings.Cut(s, sep)
	return s
}
