package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	memory "github.com/google/go-containerregistry/pkg/registry"

	"tug/errs"
	"tug/spec"
)

const testManifest = `{"schemaVersion":2,"mediaType":"` + spec.TypeOCIManifest + `","config":{"digest":"x","size":1},"layers":[]}`

func testClient(o Options) *Client {
	if o.Silence == 0 {
		o.Silence = 5 * time.Second
	}
	o.Backoff = time.Millisecond
	return New(o)
}

// serve starts a server on 127.0.0.1 and returns its host:port.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

// content serves a ping and leaves the rest to h.
func content(t *testing.T, h http.HandlerFunc) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			h(w, r)
		}
	})
}

func reference(t *testing.T, s string) spec.Reference {
	t.Helper()
	r, err := spec.ParseDockerReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantError(t *testing.T, err error, class errs.Class, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if errs.ClassOf(err) != class {
		t.Errorf("class %d, want %d: %v", errs.ClassOf(err), class, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q lacks %q", err, w)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\r\x1b") {
		t.Errorf("%q is not one clean line", err)
	}
}

func noKeychain(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("DOCKER_CONFIG", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_AUTH_CONFIG", "")
	t.Setenv("TUG_REGISTRIES", "/dev/null")
}

func TestFetchFromRegistry(t *testing.T) {
	noKeychain(t)
	h := memory.New(memory.Logger(log.New(io.Discard, "", 0)))
	host := serve(t, h.ServeHTTP)
	put := func(method, path, ctype string, body []byte) {
		t.Helper()
		req, _ := http.NewRequest(method, "http://"+host+path, bytes.NewReader(body))
		req.Header.Set("Content-Type", ctype)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatal(resp.Status)
		}
	}
	layer := bytes.Repeat([]byte("layer "), 100_000)
	d := spec.DigestOf(layer)
	put("POST", "/v2/team/app/blobs/uploads/?digest="+url.QueryEscape(string(d)), "application/octet-stream", layer)
	put("PUT", "/v2/team/app/manifests/v1", spec.TypeOCIManifest, []byte(testManifest))

	c := testClient(Options{})
	ref := reference(t, host+"/team/app:v1")
	desc, body, err := c.Manifest(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	want := spec.Descriptor{MediaType: spec.TypeOCIManifest, Digest: spec.DigestOf([]byte(testManifest)), Size: int64(len(testManifest))}
	if string(body) != testManifest || desc.Digest != want.Digest || desc.Size != want.Size || desc.MediaType != want.MediaType {
		t.Errorf("%+v %s", desc, body)
	}
	if _, _, err := c.Manifest(t.Context(), reference(t, host+"/team/app@"+string(desc.Digest))); err != nil {
		t.Error(err)
	}
	rc, err := c.Blob(t.Context(), ref, spec.Descriptor{Digest: d, Size: int64(len(layer))})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, layer) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, _, err = c.Manifest(t.Context(), reference(t, host+"/team/app:v2"))
	wantError(t, err, errs.NotFound, "manifest for "+host+"/team/app:v2 not found: manifest unknown")
	_, _, err = c.Manifest(t.Context(), reference(t, host+"/team/none"))
	wantError(t, err, errs.NotFound, "repository "+host+"/team/none not found: name unknown")
	_, err = c.Blob(t.Context(), ref, spec.Descriptor{Digest: want.Digest[:70] + "0", Size: 5})
	wantError(t, err, errs.NotFound, "blob")
}

func TestConnectionRefused(t *testing.T) {
	noKeychain(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, _, err = testClient(Options{}).Manifest(t.Context(), reference(t, addr+"/a"))
	wantError(t, err, errs.Unavailable, "dial tcp "+addr+": connection refused")
	if errs.HintOf(err) == "" {
		t.Error("no hint")
	}
}

func TestSilentServer(t *testing.T) {
	noKeychain(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	_, _, err = testClient(Options{Silence: 100 * time.Millisecond}).Manifest(t.Context(), reference(t, l.Addr().String()+"/a"))
	wantError(t, err, errs.Unavailable, "does not answer")
}

func TestSilentInTheMiddle(t *testing.T) {
	noKeychain(t)
	host := content(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", spec.TypeOCIManifest)
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c := testClient(Options{Silence: 50 * time.Millisecond})
	_, _, err := c.Manifest(t.Context(), reference(t, host+"/a"))
	wantError(t, err, errs.Unavailable, "does not answer", "silent")
	rc, err := c.Blob(t.Context(), reference(t, host+"/a"), spec.Descriptor{Digest: spec.DigestOf(nil), Size: 1000})
	if err == nil {
		_, err = io.ReadAll(rc)
		rc.Close()
	}
	wantError(t, err, errs.Unavailable, "does not answer", "1 of 1000 bytes")
}

func TestCancel(t *testing.T) {
	noKeychain(t)
	started := make(chan bool, 1)
	host := content(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		started <- true
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := testClient(Options{}).Blob(ctx, reference(t, host+"/a"), spec.Descriptor{Digest: spec.DigestOf(nil), Size: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	go func() { <-started; cancel() }()
	if _, err = io.ReadAll(rc); err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}

func TestHostileManifests(t *testing.T) {
	noKeychain(t)
	type answer struct {
		ctype string
		head  map[string]string
		body  string
		n     int64 // repeat body up to n bytes
	}
	sum := sha256.Sum256([]byte("other"))
	for name, tc := range map[string]struct {
		answer answer
		digest bool
		class  errs.Class
		words  string
	}{
		"html":               {answer{ctype: "text/html; charset=utf-8", body: "<html>"}, false, errs.Unavailable, "web page"},
		"schema 1":           {answer{ctype: "application/vnd.docker.distribution.manifest.v1+prettyjws", body: "{}"}, false, errs.Unsupported, "schema 1"},
		"unknown type":       {answer{ctype: "application/vnd.evil+json", body: "{}"}, false, errs.Unsupported, "unsupported media type"},
		"other digest":       {answer{ctype: spec.TypeOCIManifest, body: testManifest}, true, errs.Corrupt, "verification failed"},
		"lying header":       {answer{ctype: spec.TypeOCIManifest, body: testManifest, head: map[string]string{"Docker-Content-Digest": "sha256:" + hex.EncodeToString(sum[:])}}, false, errs.Corrupt, "announced"},
		"huge":               {answer{ctype: spec.TypeOCIManifest, body: strings.Repeat(" ", 1<<20), n: 5 << 20}, false, errs.Invalid, "larger than 4 MiB"},
		"huge, said so":      {answer{ctype: spec.TypeOCIManifest, head: map[string]string{"Content-Length": "9999999999"}, body: "x"}, false, errs.Invalid, "larger than 4 MiB"},
		"truncated":          {answer{ctype: spec.TypeOCIManifest, head: map[string]string{"Content-Length": "99"}, body: "{"}, false, errs.Unavailable, "unexpected EOF"},
		"endless":            {answer{ctype: spec.TypeOCIManifest, body: strings.Repeat(" ", 1<<16), n: 1 << 40}, false, errs.Invalid, "larger than 4 MiB"},
		"control characters": {answer{ctype: "evil/\x1b[31mred", body: "{}"}, false, errs.Internal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			host := content(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tc.answer.ctype)
				for k, v := range tc.answer.head {
					w.Header().Set(k, v)
				}
				for n := int64(0); n <= tc.answer.n; n += int64(len(tc.answer.body)) {
					if _, err := io.WriteString(w, tc.answer.body); err != nil {
						return
					}
				}
			})
			ref := reference(t, host+"/a")
			if tc.digest {
				ref = reference(t, host+"/a@"+string(spec.DigestOf([]byte("wanted"))))
			}
			_, _, err := testClient(Options{}).Manifest(t.Context(), ref)
			if tc.words == "" {
				return // just must not hang or panic
			}
			wantError(t, err, tc.class, tc.words)
		})
	}
}

func TestHostileBlobs(t *testing.T) {
	noKeychain(t)
	const size = 1000
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		class errs.Class
		words string
	}{
		"says another size": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "999")
			w.Write(make([]byte, 999))
		}, errs.Corrupt, "1000 bytes, the registry has 999"},
		"too long": {func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush() // chunked
			for range 1 << 20 {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, errs.Corrupt, "more than the 1000 bytes"},
		"always short": {func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			if r.Header.Get("Range") == "" {
				w.Write(make([]byte, 10))
			}
		}, errs.Unavailable, "broke off after 10 of 1000 bytes"},
		"other range": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes 0-999/1000")
				w.WriteHeader(http.StatusPartialContent)
			}
			w.(http.Flusher).Flush()
			w.Write(make([]byte, 10))
		}, errs.Unavailable, "broke off after 10 of 1000 bytes"},
		"range unasked": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-999/1000")
			w.WriteHeader(http.StatusPartialContent)
		}, errs.Unavailable, "another part"},
		"broken": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "\x1b[2Jboom\n")
		}, errs.Unavailable, "500 Internal Server Error"},
		"redirect loop": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, errs.Unavailable, "too many redirects"},
		"redirect to file": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/shadow", http.StatusTemporaryRedirect)
		}, errs.Denied, "refused to follow to a redirect at \"file://"},
		"redirect to plain http elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
		}, errs.Denied, "refused to follow to a redirect at http://169.254.169.254: not encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			host := content(t, tc.serve)
			rc, err := testClient(Options{}).Blob(t.Context(), reference(t, host+"/a"), spec.Descriptor{Digest: spec.DigestOf(nil), Size: size})
			if err == nil {
				_, err = io.ReadAll(rc)
				rc.Close()
			}
			wantError(t, err, tc.class, tc.words)
		})
	}
}

// A connection that breaks every 100,000 bytes, with and without a server that
// knows ranges, still gives all bytes once.
func TestBlobResumes(t *testing.T) {
	noKeychain(t)
	data := make([]byte, 1_000_000)
	for i := range data {
		data[i] = byte(i >> 8)
	}
	for _, ranges := range []bool{true, false} {
		var requests atomic.Int32
		host := content(t, func(w http.ResponseWriter, r *http.Request) {
			n := requests.Add(1)
			var from int
			if ranges {
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
					w.WriteHeader(http.StatusPartialContent)
				}
			}
			to := min(from+100_000, len(data))
			if !ranges {
				to = min(int(n)*200_000, len(data))
			}
			w.(http.Flusher).Flush()
			w.Write(data[from:to])
			if to < len(data) {
				panic(http.ErrAbortHandler)
			}
		})
		rc, err := testClient(Options{}).Blob(t.Context(), reference(t, host+"/a"), spec.Descriptor{Digest: spec.DigestOf(data), Size: int64(len(data))})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("ranges %v: %d bytes, %v", ranges, len(got), err)
		}
		if requests.Load() < 4 {
			t.Errorf("%d requests", requests.Load())
		}
	}
}

func TestTransientStatusIsRetried(t *testing.T) {
	noKeychain(t)
	var n atomic.Int32
	host := content(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", spec.TypeOCIManifest)
		io.WriteString(w, testManifest)
	})
	if _, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, host+"/a")); err != nil {
		t.Error(err)
	}
}

func dockerConfig(t *testing.T, json string) {
	t.Helper()
	noKeychain(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(json), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
}

func TestDenied(t *testing.T) {
	noKeychain(t)
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		}
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	})
	_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, host+"/a"))
	wantError(t, err, errs.Denied, "pull access denied for "+host+"/a, repository does not exist or may require 'docker login': unauthorized: authentication required")
}

// A registry with a token server that is never content must not keep us busy.
func TestEndless401(t *testing.T) {
	dockerConfig(t, `{"auths":{}}`)
	var n atomic.Int32
	var host string
	host = serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if r.URL.Path == "/token" {
			io.WriteString(w, `{"token":"nope"}`)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="s",scope="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, host+"/a"))
	wantError(t, err, errs.Denied, "pull access denied")
	if n.Load() > 10 {
		t.Errorf("%d requests", n.Load())
	}
}

// Credentials go to the registry and its token server and to nobody else.
func TestCredentialsStayHome(t *testing.T) {
	blob := []byte("bytes of a layer")
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			var mu sync.Mutex
			var leaked []string
			other := serve(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				for k, v := range r.Header {
					if k == "Authorization" || k == "Cookie" || strings.Contains(strings.Join(v, ""), "geheim") {
						leaked = append(leaked, k)
					}
				}
				w.Write(blob)
			})
			_, port, _ := net.SplitHostPort(other)
			targets := []string{"http://" + other, "http://localhost:" + port}
			var host string
			host = serve(t, func(w http.ResponseWriter, r *http.Request) {
				user, pass, _ := r.BasicAuth()
				ok := user == "u" && pass == "geheim" || r.Header.Get("Authorization") == "Bearer geheim-token"
				switch {
				case r.URL.Path == "/token" && ok:
					io.WriteString(w, `{"token":"geheim-token"}`)
				case !ok && scheme == "Basic":
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
				case !ok:
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="s"`)
					w.WriteHeader(http.StatusUnauthorized)
				case strings.Contains(r.URL.Path, "/blobs/"):
					http.SetCookie(w, &http.Cookie{Name: "c", Value: "geheim"})
					http.Redirect(w, r, targets[0]+"/data", http.StatusTemporaryRedirect)
				}
			})
			dockerConfig(t, `{"auths":{"`+host+`":{"username":"u","password":"geheim"}}}`)
			c := testClient(Options{})
			for len(targets) > 0 {
				rc, err := c.Blob(t.Context(), reference(t, host+"/a"), spec.Descriptor{Digest: spec.DigestOf(blob), Size: int64(len(blob))})
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, blob) {
					t.Errorf("%q %v", got, err)
				}
				rc.Close()
				targets = targets[1:]
			}
			if len(leaked) > 0 {
				t.Errorf("the other host got %q", leaked)
			}
		})
	}
}

// A registry reached by TLS may not lead us to plain HTTP, also not on
// loopback, and its certificate counts.
func TestTLS(t *testing.T) {
	noKeychain(t)
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Error("reached by plain http") })
	n := newNet(t)
	pool := n.tls("r.example:443", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "manifests") {
			http.Redirect(w, r, "http://"+plain+"/x", http.StatusFound)
		}
	})
	_, _, err := n.client(Options{RootCAs: pool}).Manifest(t.Context(), reference(t, "r.example/a"))
	wantError(t, err, errs.Denied, "refused to follow to a redirect at http://"+plain, "not encrypted")

	_, _, err = n.client(Options{}).Manifest(t.Context(), reference(t, "r.example/a"))
	wantError(t, err, errs.Denied, "r.example/a:latest", "certificate")
}

func TestPlainHTTPOnlyOnLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]:5000": true, "[::1]": true, "::1": true, "LOCALHOST:1": true,
		"docker.io": false, "10.0.0.1:5000": false, "192.168.0.1": false, "localhost.example": false, "x.localhost": false, "128.0.0.1": false, "[::2]:1": false,
		"127.0.0.1.evil.example": false, "0.0.0.0": false,
	} {
		if isLoopback(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
	_, err := testClient(Options{}).base.RoundTrip(httptest.NewRequest("GET", "http://10.1.2.3/v2/", nil))
	wantError(t, err, errs.Denied, "refused to speak http to 10.1.2.3")
}

func TestNoRegistryInName(t *testing.T) {
	_, _, err := New(Options{}).Manifest(t.Context(), reference(t, "a_b.c/x"))
	wantError(t, err, errs.Invalid, "a_b.c is no registry's host name")
}

func TestBrokenConfig(t *testing.T) {
	dockerConfig(t, `{"auths":`)
	_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, "127.0.0.1:1/x"))
	wantError(t, err, errs.Denied, "credentials for 127.0.0.1:1")
}
