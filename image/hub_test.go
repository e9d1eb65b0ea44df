package image

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tug/spec"
	"tug/test/fixture"
)

// hub is a registry that serves what a test puts into it, and misbehaves where
// a test says so.
type hub struct {
	t    testing.TB
	addr string

	mu    sync.Mutex
	files map[string]served
	bad   map[string]http.HandlerFunc // by path below /v2/
	hits  map[string]int
}

type served struct {
	mediaType string
	body      []byte
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{t: t, files: map[string]served{}, bad: map[string]http.HandlerFunc{}, hits: map[string]int{}}
	s := httptest.NewUnstartedServer(http.HandlerFunc(h.serve))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	h.addr = s.Listener.Addr().String()
	return h
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	h.mu.Lock()
	h.hits[path]++
	bad, f := h.bad[path], h.files[path]
	h.mu.Unlock()
	switch {
	case bad != nil:
		bad(w, r)
	case path == "":
	case f.body == nil:
		http.NotFound(w, r)
	default:
		send(w, r, f)
	}
}

// send serves f, from where a Range header asks for it.
func send(w http.ResponseWriter, r *http.Request, f served) {
	body := f.body
	status := http.StatusOK
	if asked, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		first, last, _ := strings.Cut(asked, "-")
		n, _ := strconv.Atoi(first)
		m := len(f.body) - 1
		if last != "" {
			m, _ = strconv.Atoi(last)
		}
		body, status = body[n:m+1], http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", n, m, len(f.body)))
	}
	w.Header().Set("Content-Type", f.mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// put serves body under path, which is below repository app.
func (h *hub) put(path, mediaType string, body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files["app/"+path] = served{mediaType, body}
}

// spoil has f answer for path.
func (h *hub) spoil(path string, f http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bad["app/"+path] = f
}

func (h *hub) count(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hits["app/"+path]
}

func (h *hub) blob(b []byte) spec.Descriptor {
	d := spec.DigestOf(b)
	h.put(blobPath(d), "application/octet-stream", b)
	return spec.Descriptor{Digest: d, Size: int64(len(b))}
}

func blobPath(d spec.Digest) string { return "blobs/" + string(d) }

// manifest serves a manifest or index by digest and, where given, by tags.
func (h *hub) manifest(mediaType string, v any, tags ...string) spec.Descriptor {
	h.t.Helper()
	b, err := json.Marshal(v)
	must(h.t, err)
	d := spec.DigestOf(b)
	for _, name := range append(tags, string(d)) {
		h.put("manifests/"+name, mediaType, b)
	}
	return spec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// describe serves the blobs of an image and returns its manifest, which a test
// may change before it serves that.
func (h *hub) describe(i *fixture.Image, compression string) *spec.Manifest {
	config := h.blob(i.ConfigJSON())
	config.MediaType = spec.TypeOCIConfig
	m := &spec.Manifest{SchemaVersion: 2, MediaType: spec.TypeOCIManifest, Config: config}
	for _, l := range i.Layers {
		b, mediaType := fixture.Compress(compression, l)
		d := h.blob(b)
		d.MediaType = mediaType
		m.Layers = append(m.Layers, d)
	}
	return m
}

// push serves an image under the tag and returns its manifest.
func (h *hub) push(i *fixture.Image, tag string) *spec.Manifest {
	h.t.Helper()
	m := h.describe(i, fixture.Gzip)
	h.manifest(spec.TypeOCIManifest, m, tag)
	return m
}

func (h *hub) ref(t testing.TB, suffix string) spec.Reference {
	t.Helper()
	ref, err := spec.ParseReference(h.addr + "/app" + suffix)
	must(t, err)
	return ref
}
