package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
)

// target is a registry that takes uploads, and does what a test says before.
type target struct {
	addr string

	mu       sync.Mutex
	has      map[string][]byte // by path below /v2/
	uploads  map[string][]byte
	next     int
	seen     []string                                                 // METHOD path?query, of all but pings
	auth     []string                                                 // their Authorization
	hook     func(w http.ResponseWriter, r *http.Request, n int) bool // n counts requests of that method and kind; true: answered
	counts   map[string]int
	location func(id string) string
}

func newTarget(t *testing.T) *target {
	noKeychain(t)
	g := &target{has: map[string][]byte{}, uploads: map[string][]byte{}, counts: map[string]int{}}
	g.location = func(id string) string { return "/v2/app/blobs/uploads/" + id }
	g.addr = serve(t, g.serve)
	return g
}

func (g *target) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	kind := r.Method + " " + strings.Split(strings.TrimPrefix(path, "app/"), "/")[0]
	g.mu.Lock()
	g.seen = append(g.seen, r.Method+" "+r.RequestURI)
	g.auth = append(g.auth, r.Header.Get("Authorization"))
	n := g.counts[kind]
	g.counts[kind]++
	hook := g.hook
	g.mu.Unlock()
	if hook != nil && hook(w, r, n) {
		return
	}
	_, id, upload := strings.Cut(path, "app/blobs/uploads/")
	switch {
	case r.Method == http.MethodHead || r.Method == http.MethodGet:
		g.mu.Lock()
		b := g.has[path]
		g.mu.Unlock()
		if b == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	case r.Method == http.MethodPost:
		g.mu.Lock()
		g.next++
		id = "id" + strconv.Itoa(g.next)
		g.uploads[id] = []byte{}
		at := g.location(id)
		g.mu.Unlock()
		w.Header().Set("Location", at)
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case upload:
		g.upload(w, r, id)
	default:
		b, _ := io.ReadAll(r.Body)
		g.mu.Lock()
		g.has[path] = b
		g.mu.Unlock()
		w.Header().Set("Docker-Content-Digest", string(spec.DigestOf(b)))
		w.WriteHeader(http.StatusCreated)
	}
}

func (g *target) upload(w http.ResponseWriter, r *http.Request, id string) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	all, ok := g.uploads[id]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	all = append(all, b...)
	g.uploads[id] = all
	if r.Method == http.MethodPatch {
		w.Header().Set("Location", g.location(id))
		w.WriteHeader(http.StatusAccepted)
		return
	}
	delete(g.uploads, id)
	d := r.URL.Query().Get("digest")
	if d != string(spec.DigestOf(all)) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}`)
		return
	}
	g.has["app/blobs/"+d] = all
	w.Header().Set("Docker-Content-Digest", d)
	w.WriteHeader(http.StatusCreated)
}

func (g *target) answer(hook func(http.ResponseWriter, *http.Request, int) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hook = hook
}

func (g *target) requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.seen)
}

func describe(b []byte) spec.Descriptor {
	return spec.Descriptor{Digest: spec.DigestOf(b), Size: int64(len(b))}
}

// from opens b, any number of times.
func from(b []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func someBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>9) ^ byte(i*7)
	}
	return b
}

func TestUpload(t *testing.T) {
	g := newTarget(t)
	c, ref, b := testClient(Options{}), reference(t, g.addr+"/app"), someBytes(1<<20+7)
	for what, at := range map[string]func(string) string{
		"relative":         func(id string) string { return "/v2/app/blobs/uploads/" + id },
		"absolute":         func(id string) string { return "http://" + g.addr + "/v2/app/blobs/uploads/" + id },
		"relative to here": func(id string) string { return id },
		"signed":           func(id string) string { return "/v2/app/blobs/uploads/" + id + "?_state=a%2Bb%3D%3D&Z=1&a" },
	} {
		for _, known := range []bool{true, false} {
			g.location, g.seen, g.has = at, nil, map[string][]byte{}
			want := describe(b)
			if !known {
				want = spec.Descriptor{}
			}
			got, err := c.Upload(t.Context(), ref, want, from(b))
			if err != nil || got.Digest != spec.DigestOf(b) || got.Size != int64(len(b)) {
				t.Fatalf("%s: %+v %v", what, got, err)
			}
			if !bytes.Equal(g.has["app/blobs/"+string(got.Digest)], b) {
				t.Errorf("%s: other bytes", what)
			}
			if n := map[bool]int{true: 2, false: 3}[known]; len(g.seen) != n {
				t.Errorf("%s: %q", what, g.seen)
			}
			if last := g.seen[len(g.seen)-1]; what == "signed" && !strings.HasSuffix(last, "?_state=a%2Bb%3D%3D&Z=1&a&digest="+url.QueryEscape(string(got.Digest))) {
				t.Errorf("the query was changed: %s", last)
			}
		}
	}
	has, err := c.HasBlob(t.Context(), ref, describe(b))
	if err != nil || !has {
		t.Errorf("%v %v", has, err)
	}
	if has, err := c.HasBlob(t.Context(), ref, spec.Descriptor{Digest: spec.DigestOf(b), Size: 5}); err != nil || has {
		t.Errorf("a blob of another size: %v %v", has, err)
	}
	if has, err := c.HasBlob(t.Context(), ref, describe(b[1:])); err != nil || has {
		t.Errorf("%v %v", has, err)
	}
	m := []byte(testManifest)
	tagged := reference(t, g.addr+"/app:v1")
	if err := c.PutManifest(t.Context(), tagged, spec.TypeOCIManifest, m); err != nil || string(g.has["app/manifests/v1"]) != testManifest {
		t.Errorf("%v", err)
	}
	ref.Tag = ""
	if err := c.PutManifest(t.Context(), ref, spec.TypeOCIManifest, m); err != nil {
		t.Error(err)
	}
	if has, err := c.HasManifest(t.Context(), ref, describe(m)); err != nil || !has {
		t.Errorf("%v %v", has, err)
	}
	wantError(t, c.PutManifest(t.Context(), ref, spec.TypeOCIManifest, make([]byte, MaxManifest+1)), errs.Invalid, "larger than 4 MiB")
}

// What passes is tried again, and what does not pass ends.
func TestUploadAgain(t *testing.T) {
	b := someBytes(3 << 20)
	status := func(code int, head ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			io.Copy(io.Discard, r.Body)
			for i := 0; i < len(head); i += 2 {
				w.Header().Set(head[i], head[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	cut := func(w http.ResponseWriter, r *http.Request) bool {
		io.CopyN(io.Discard, r.Body, 1<<20)
		panic(http.ErrAbortHandler)
	}
	invalid := func(w http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"garbled"}]}`)
		return true
	}
	early := func(w http.ResponseWriter, r *http.Request) bool { // without reading
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	for what, c := range map[string]struct {
		method string
		bad    func(http.ResponseWriter, *http.Request) bool
		times  int // that it is bad; more than enough is for ever
		class  errs.Class
		words  string
		tries  int
	}{
		"500 at first":          {"POST", status(500), 2, 0, "", 3},
		"503 after the body":    {"PUT", status(503), 2, 0, "", 3},
		"503 before the body":   {"PUT", early, 2, 0, "", 3},
		"503 before the chunks": {"PATCH", early, 2, 0, "", 3},
		"429 and wait":          {"PUT", status(429, "Retry-After", "0"), 1, 0, "", 2},
		"cut":                   {"PUT", cut, 3, 0, "", 4},
		"cut in chunks":         {"PATCH", cut, 3, 0, "", 4},
		"garbled once":          {"PUT", invalid, 1, 0, "", 2},
		"429 for ever":          {"PUT", status(429), 100, errs.Unavailable, "429 Too Many Requests", 5},
		"cut for ever":          {"PATCH", cut, 100, errs.Unavailable, "", 5},
		"garbled for ever":      {"PUT", invalid, 100, errs.Unavailable, "digest invalid: garbled", 5},
		"413":                   {"PUT", status(413), 100, errs.Unavailable, "413 Request Entity Too Large", 1},
		"403":                   {"POST", status(403), 100, errs.Denied, "push access denied for", 1},
		"405":                   {"POST", status(405), 100, errs.Unavailable, "refused the push", 1},
		"404":                   {"POST", status(404), 100, errs.Unavailable, "refused the push", 1},
		"200 instead of 202":    {"POST", status(200), 100, errs.Unavailable, "unexpected HTTP status: 200", 1},
		"202 without Location":  {"POST", status(202), 100, errs.Unavailable, "where to upload", 1},
		"200 instead of 201":    {"PUT", status(200), 100, errs.Unavailable, "unexpected HTTP status: 200", 1},
		"another digest":        {"PUT", status(201, "Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64)), 100, errs.Corrupt, "confirmed", 1},
		"redirect of the bytes": {"PUT", status(307, "Location", "/elsewhere"), 100, errs.Unavailable, "307", 1},
		"Location of a file":    {"POST", status(202, "Location", "file:///etc/shadow"), 100, errs.Denied, "refused", 1},
		"Location inside":       {"POST", status(202, "Location", "http://169.254.169.254/latest"), 100, errs.Denied, "refused to follow to an upload at http", 1},
		"Location that is none": {"POST", status(202, "Location", "http://[::1"), 100, errs.Unavailable, "where to upload", 1},
		"confirmed before its end": {"PATCH", func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusAccepted)
			return true
		}, 100, errs.Unavailable, "", 0},
	} {
		t.Run(what, func(t *testing.T) {
			g := newTarget(t)
			tries := 0
			g.hook = func(w http.ResponseWriter, r *http.Request, _ int) bool {
				if r.Method != c.method {
					return false
				}
				g.mu.Lock()
				tries++
				n := tries
				g.mu.Unlock()
				return n <= c.times && c.bad(w, r)
			}
			want := describe(b)
			if c.method == "PATCH" {
				want = spec.Descriptor{}
			}
			_, err := testClient(Options{}).Upload(t.Context(), reference(t, g.addr+"/app"), want, from(b))
			if c.class == 0 {
				if err != nil || !bytes.Equal(g.has["app/blobs/"+string(spec.DigestOf(b))], b) {
					t.Errorf("%v", err)
				}
			} else {
				wantError(t, err, c.class, c.words)
				if errs.HintOf(err) == "" && !strings.Contains(err.Error(), "refused to follow") {
					t.Errorf("no hint: %v", err)
				}
				if len(g.has) != 0 {
					t.Error("the blob is there")
				}
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if c.tries > 0 && tries != c.tries {
				t.Errorf("%d tries, want %d", tries, c.tries)
			}
		})
	}
}

// A server that takes nothing, or says nothing at the end, is left.
func TestUploadStalls(t *testing.T) {
	g := newTarget(t)
	stop := make(chan bool)
	g.answer(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Method == http.MethodPatch {
			<-stop
		}
		return false
	})
	t.Cleanup(func() { close(stop) })
	c, ref := testClient(Options{Silence: 100 * time.Millisecond}), reference(t, g.addr+"/app")
	begin := time.Now()
	_, err := c.Upload(t.Context(), ref, spec.Descriptor{}, func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(endless{}), nil
	})
	wantError(t, err, errs.Unavailable, "does not answer", "silent")
	if n := strings.Count(strings.Join(g.requests(), "\n"), "POST "); n != uploadAttempts {
		t.Errorf("%d attempts", n)
	}
	if time.Since(begin) > 10*time.Second {
		t.Error(time.Since(begin))
	}
	g.answer(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Method == http.MethodPut {
			io.Copy(io.Discard, r.Body)
			<-stop
		}
		return false
	})
	_, err = c.Upload(t.Context(), ref, spec.Descriptor{}, from(someBytes(1<<20)))
	wantError(t, err, errs.Unavailable, "does not confirm")
	// But it may take its time to check what it got.
	g.answer(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Method == http.MethodPut {
			time.Sleep(250 * time.Millisecond)
		}
		return false
	})
	for _, want := range []spec.Descriptor{{}, describe(someBytes(1 << 20))} {
		if _, err := c.Upload(t.Context(), ref, want, from(someBytes(1<<20))); err != nil {
			t.Error(err)
		}
	}
	// And so may the source: it is not the server's silence.
	slow := func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(&slowReader{b: someBytes(10), pause: 150 * time.Millisecond}), nil
	}
	g.answer(nil)
	if _, err := c.Upload(t.Context(), ref, spec.Descriptor{}, slow); err != nil {
		t.Error(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type slowReader struct {
	b     []byte
	pause time.Duration
}

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[:min(5, len(s.b))])
	s.b = s.b[n:]
	return n, nil
}

// What is wrong with the source is told as it is, and not tried again.
func TestUploadSource(t *testing.T) {
	g := newTarget(t)
	c, ref, b := testClient(Options{}), reference(t, g.addr+"/app"), someBytes(1<<20)
	broken := errors.New("the disk is broken")
	for _, want := range []spec.Descriptor{{}, describe(b)} {
		g.mu.Lock()
		g.seen = nil
		g.mu.Unlock()
		_, err := c.Upload(t.Context(), ref, want, func(context.Context) (io.ReadCloser, error) { return nil, broken })
		if seen := g.requests(); err != broken || slices.ContainsFunc(seen, func(r string) bool { return strings.HasPrefix(r, "POST ") }) {
			t.Errorf("%v %q", err, seen)
		}
		_, err = c.Upload(t.Context(), ref, want, func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(b[:1000]), errorReader{broken})), nil
		})
		posts := 0
		for _, r := range g.requests() {
			if strings.HasPrefix(r, "POST ") {
				posts++
			}
		}
		if err != broken || posts != 1 {
			t.Errorf("%v, %d tries", err, posts)
		}
	}
	other := bytes.Clone(b)
	other[len(other)-1] ^= 1
	for what, sent := range map[string][]byte{"changed": other, "short": b[:len(b)-1], "long": append(bytes.Clone(b), 0), "empty": nil} {
		_, err := c.Upload(t.Context(), ref, describe(b), from(sent))
		if errs.ClassOf(err) != errs.Corrupt {
			t.Errorf("%s: %v", what, err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for path, got := range g.has { // of the one that was too long the beginning is right
		if !bytes.Equal(got, b) {
			t.Errorf("%s has %d other bytes", path, len(got))
		}
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

func TestUploadCancel(t *testing.T) {
	g := newTarget(t)
	started, stop := make(chan bool, 1), make(chan bool)
	t.Cleanup(func() { close(stop) })
	g.hook = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Method == http.MethodPatch {
			started <- true
			<-stop // with its body unread, a handler does not hear of the client's end
		}
		return false
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	closed := make(chan bool, 1)
	_, err := testClient(Options{}).Upload(ctx, reference(t, g.addr+"/app"), spec.Descriptor{}, func(context.Context) (io.ReadCloser, error) {
		return &closer{endless{}, closed}, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case <-closed:
	default:
		t.Error("the source is still open")
	}
}

type closer struct {
	io.Reader
	closed chan bool
}

func (c *closer) Close() error { c.closed <- true; return nil }

// keychain has credentials for host, found by the client's own ways.
func keychain(t *testing.T, host string) string {
	t.Helper()
	dir := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte("user:secret"))
	text := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	return "Basic " + auth
}

// An upload that goes to another host takes no credentials there.
func TestUploadElsewhere(t *testing.T) {
	elsewhere := newTarget(t)
	g := newTarget(t)
	basic := keychain(t, g.addr)
	g.location = func(id string) string {
		elsewhere.uploads[id] = nil
		return "http://user:pass@" + elsewhere.addr + "/v2/app/blobs/uploads/" + id + "?signature=x"
	}
	elsewhere.location = func(id string) string { return "/v2/app/blobs/uploads/" + id + "?signature=y" }
	unauthorized := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != basic {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		g.serve(w, r)
	})
	keychain(t, unauthorized)
	b := someBytes(100_000)
	for _, want := range []spec.Descriptor{{}, describe(b)} {
		if _, err := testClient(Options{}).Upload(t.Context(), reference(t, unauthorized+"/app"), want, from(b)); err != nil {
			t.Fatal(err)
		}
	}
	if len(elsewhere.seen) != 3 || slices.Contains(elsewhere.auth, basic) || strings.Join(elsewhere.auth, "") != "" {
		t.Errorf("%q %q", elsewhere.seen, elsewhere.auth)
	}
	if !slices.Contains(g.auth, basic) {
		t.Errorf("the registry got none: %q", g.auth)
	}
}

// tokens is a token server before a registry; it gives tokens that are good for
// uses requests.
type tokens struct {
	mu     sync.Mutex
	scopes [][]string
	left   int
	uses   int
	next   http.HandlerFunc
	addr   string
}

func (k *tokens) serve(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.URL.Path == "/token" {
		k.scopes = append(k.scopes, r.URL.Query()["scope"])
		k.left = k.uses
		fmt.Fprintf(w, `{"token":"t%d"}`, len(k.scopes))
		return
	}
	if r.Header.Get("Authorization") != fmt.Sprintf("Bearer t%d", len(k.scopes)) || k.left == 0 {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+k.addr+`/token",service="s",scope="repository:app:pull,push"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	k.left--
	k.next(w, r)
}

// A token that ends in the middle of an upload is renewed, whatever its request
// was; and a mount asks for reading its source.
func TestUploadTokens(t *testing.T) {
	for uses := 2; uses <= 4; uses++ {
		g := newTarget(t)
		k := &tokens{uses: uses, next: g.serve}
		k.addr = serve(t, k.serve)
		c, ref, b := testClient(Options{}), reference(t, k.addr+"/app:v1"), someBytes(1<<20)
		for _, want := range []spec.Descriptor{{}, describe(b)} {
			if _, err := c.Upload(t.Context(), ref, want, from(b)); err != nil {
				t.Fatalf("%d uses: %v", uses, err)
			}
			if err := c.PutManifest(t.Context(), ref, spec.TypeOCIManifest, []byte(testManifest)); err != nil {
				t.Fatalf("%d uses: %v", uses, err)
			}
		}
		if !bytes.Equal(g.has["app/blobs/"+string(spec.DigestOf(b))], b) || string(g.has["app/manifests/v1"]) != testManifest {
			t.Error("other bytes")
		}
		if s := k.scopes[0]; len(s) != 1 || s[0] != "repository:app:pull,push" {
			t.Errorf("%q", s)
		}
		k.uses = 100
		if _, err := c.Mount(t.Context(), ref, spec.DigestOf(b), "team/base"); err != nil {
			t.Error(err)
		}
		if s := k.scopes[len(k.scopes)-1]; !slices.Contains(s, "repository:team/base:pull") || !slices.Contains(s, "repository:app:pull,push") {
			t.Errorf("%q", s)
		}
	}
}

func TestMount(t *testing.T) {
	g := newTarget(t)
	c, ref, d := testClient(Options{}), reference(t, g.addr+"/app"), spec.DigestOf([]byte("x"))
	status := http.StatusCreated
	g.hook = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Method != http.MethodPost || status == http.StatusAccepted {
			return false
		}
		if r.URL.Query().Get("mount") != string(d) || r.URL.Query().Get("from") != "team/base" {
			t.Errorf("%s", r.URL)
		}
		w.WriteHeader(status)
		return true
	}
	mount := func() (bool, error) { return c.Mount(t.Context(), ref, d, "team/base") }
	if ok, err := mount(); !ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	status = http.StatusAccepted
	if ok, err := mount(); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if seen := g.requests(); seen[len(seen)-1] != "DELETE /v2/app/blobs/uploads/id1" {
		t.Errorf("the upload that was begun is left: %q", seen)
	}
	for _, status = range []int{403, 404, 405, 500, 200} {
		if ok, err := mount(); ok || err == nil {
			t.Errorf("%d: %v %v", status, ok, err)
		}
	}
}

func TestPushDenied(t *testing.T) {
	noKeychain(t)
	host := content(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		if r.Method != http.MethodHead {
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
		}
	})
	c, ref := testClient(Options{}), reference(t, host+"/app")
	_, err := c.HasBlob(t.Context(), ref, describe([]byte("x")))
	wantError(t, err, errs.Denied, "push access denied for "+host+"/app, repository does not exist or may require authorization: unauthorized: authentication required")
	_, err = c.Upload(t.Context(), ref, describe([]byte("x")), from([]byte("x")))
	wantError(t, err, errs.Denied, "push access denied for "+host+"/app", "denied: requested access to the resource is denied")
	keychain(t, host)
	_, err = testClient(Options{}).Upload(t.Context(), ref, describe([]byte("x")), from([]byte("x")))
	wantError(t, err, errs.Denied, "push access denied")
	if !strings.Contains(errs.HintOf(err), "refused the credentials") {
		t.Errorf("%q", errs.HintOf(err))
	}
}
