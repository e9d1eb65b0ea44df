package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// depot is a registry that takes pushes to any repository.
type depot struct {
	*httptest.Server
	addr string

	mu      sync.Mutex
	files   map[string]served // by path below /v2/
	uploads map[string][]byte
	seen    []string
	bad     func(w http.ResponseWriter, r *http.Request) bool // true: answered
	mounts  bool
}

func newDepot(t testing.TB) *depot {
	d := &depot{files: map[string]served{}, uploads: map[string][]byte{}, mounts: true}
	d.Server = httptest.NewUnstartedServer(http.HandlerFunc(d.serve))
	d.Config.ErrorLog = log.New(io.Discard, "", 0)
	d.Start()
	t.Cleanup(d.Close)
	d.addr = d.Listener.Addr().String()
	return d
}

func (d *depot) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	body, err := io.ReadAll(r.Body)
	if path == "" || err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, r.Method+" "+path)
	if d.bad != nil && d.bad(w, r) {
		return
	}
	repo, _, upload := strings.Cut(path, "/blobs/uploads/")
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		if f, ok := d.files[path]; ok {
			send(w, r, f)
			return
		}
		http.NotFound(w, r)
	case r.Method == http.MethodPost:
		q := r.URL.Query()
		if f, ok := d.files[q.Get("from")+"/blobs/"+q.Get("mount")]; ok && d.mounts {
			d.files[repo+"/blobs/"+q.Get("mount")] = f
			w.WriteHeader(http.StatusCreated)
			return
		}
		id := repo + "/blobs/uploads/" + strconv.Itoa(len(d.seen))
		d.uploads[id] = nil
		w.Header().Set("Location", "/v2/"+id)
		w.WriteHeader(http.StatusAccepted)
	case upload && r.Method == http.MethodPatch:
		d.uploads[path] = append(d.uploads[path], body...)
		w.WriteHeader(http.StatusAccepted)
	case upload && r.Method == http.MethodPut:
		b, q := append(d.uploads[path], body...), r.URL.Query().Get("digest")
		if q != fixture.Digest(b) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		d.files[repo+"/blobs/"+q] = served{"application/octet-stream", b}
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut:
		d.manifest(w, path, r.Header.Get("Content-Type"), body)
	}
}

// manifest takes a manifest or index whose parts are all there, as registries do.
func (d *depot) manifest(w http.ResponseWriter, path, mediaType string, body []byte) {
	repo, _, _ := strings.Cut(path, "/manifests/")
	m, x, err := parseManifest(body, mediaType)
	missing := err != nil
	if m != nil {
		for _, b := range append(slices.Clone(m.Layers), m.Config) {
			f, ok := d.files[repo+"/blobs/"+string(b.Digest)]
			missing = missing || !ok || int64(len(f.body)) != b.Size
		}
	}
	if x != nil {
		for _, e := range x.Manifests {
			f, ok := d.files[repo+"/manifests/"+string(e.Digest)]
			missing = missing || !ok || int64(len(f.body)) != e.Size
		}
	}
	if missing {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"%v"}]}`, err)
		return
	}
	d.files[path] = served{mediaType, body}
	d.files[repo+"/manifests/"+fixture.Digest(body)] = served{mediaType, body}
	w.Header().Set("Docker-Content-Digest", fixture.Digest(body))
	w.WriteHeader(http.StatusCreated)
}

// sent counts the requests whose METHOD and path begin so, and forgets all.
func (d *depot) sent(prefix string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, s := range d.seen {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func (d *depot) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = nil
}

func (d *depot) file(path string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[path].body
}

func pushOK(t testing.TB, s *Images, name string, o PushOptions) (Pushed, *recorder) {
	t.Helper()
	var r recorder
	o.Progress = &r
	ref, err := spec.ParseReference(name)
	must(t, err)
	p, err := s.Push(t.Context(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	return p[len(p)-1], &r
}

// last returns the last status of each layer, lowest first.
func last(r *recorder, i *fixture.Image) []string {
	var all []string
	for _, l := range i.Layers {
		s := r.statuses[spec.Digest(fixture.Digest(l)).Short()]
		all = append(all, s[len(s)-1])
	}
	return all
}

func parsed(t testing.TB, b []byte) *spec.Manifest {
	t.Helper()
	m, _, err := parseManifest(b, "")
	must(t, err)
	return m
}

func tag(t testing.TB, s *Images, source, target string) {
	t.Helper()
	must(t, s.Tag(source, target))
}

// An image that was loaded gets a manifest of Docker's; the second push sends
// nothing, another repository mounts, another registry gets the same blobs, and
// what is pulled again is what was pushed.
func TestPushLoaded(t *testing.T) {
	t.Parallel()
	s, d, other, i := newImages(t, t.TempDir()), newDepot(t), newDepot(t), twoLayers("app:v1")
	loadImages(t, s, i)
	tag(t, s, "app:v1", d.addr+"/team/app:v1")
	p, r := pushOK(t, s, d.addr+"/team/app:v1", PushOptions{})
	raw := d.file("team/app/manifests/v1")
	if p.Digest != spec.DigestOf(raw) || p.Size != int64(len(raw)) || p.Instead != "" {
		t.Errorf("%+v", p)
	}
	want := []string{"The push refers to repository [" + d.addr + "/team/app]", fmt.Sprintf("v1: digest: %s size: %d", p.Digest, p.Size)}
	if !slices.Equal(r.messages, want) {
		t.Errorf("%q", r.messages)
	}
	if got := last(r, i); !slices.Equal(got, []string{"Pushed", "Pushed"}) {
		t.Errorf("%q", got)
	}
	m := parsed(t, raw)
	if m.MediaType != spec.TypeDockerManifest || m.Config.MediaType != spec.TypeDockerConfig || m.Layers[0].MediaType != spec.TypeDockerLayer || m.Config.Digest != idOf(i) {
		t.Errorf("%s", raw)
	}
	img := resolve(t, s, "app:v1")
	if !slices.Equal(img.Digests, []string{d.addr + "/team/app@" + string(p.Digest)}) || img.Manifest != p.Digest {
		t.Errorf("%+v", img)
	}
	whole(t, s)

	before := files(t, s)
	d.forget()
	p2, r := pushOK(t, s, d.addr+"/team/app:v1", PushOptions{})
	if got := last(r, i); p2.Digest != p.Digest || !slices.Equal(got, []string{"Layer already exists", "Layer already exists"}) || d.sent("POST") != 0 {
		t.Errorf("again: %+v %q %q", p2, got, d.seen)
	}
	if after := files(t, s); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	tag(t, s, "app:v1", d.addr+"/copy")
	p2, r = pushOK(t, s, d.addr+"/copy", PushOptions{})
	if got := last(r, i); p2.Digest != p.Digest || !slices.Equal(got, []string{"Mounted from team/app", "Mounted from team/app"}) {
		t.Errorf("mounted: %+v %q", p2, got)
	}
	d.mounts = false
	tag(t, s, "app:v1", d.addr+"/third")
	if p2, r = pushOK(t, s, d.addr+"/third", PushOptions{}); p2.Digest != p.Digest || last(r, i)[0] != "Pushed" {
		t.Errorf("not mounted: %+v %q", p2, last(r, i))
	}
	d.Close()
	tag(t, s, "app:v1", other.addr+"/app")
	if p2, _ = pushOK(t, s, other.addr+"/app", PushOptions{}); p2.Digest != p.Digest {
		t.Errorf("elsewhere: %+v", p2)
	}
	fresh := newImages(t, t.TempDir())
	ref, _ := spec.ParseReference(other.addr + "/app")
	pulled, _ := pullOK(t, fresh, ref)
	if pulled.Image.ID != idOf(i) || pulled.Digest != p.Digest {
		t.Errorf("%+v", pulled)
	}
	whole(t, fresh)
}

// A pulled image keeps its manifest, byte for byte, as long as its blobs can be
// had; afterwards all else in the manifest stays.
func TestPushPulled(t *testing.T) {
	t.Parallel()
	for _, compression := range []string{fixture.Gzip, fixture.Zstd, fixture.Plain} {
		h, i := newHub(t), twoLayers("app:v1")
		m := h.describe(i, compression)
		m.Layers[0].Annotations = map[string]string{"layer": "kept"}
		raw := map[string]any{}
		must(t, json.Unmarshal(toJSON(m), &raw))
		raw["annotations"], raw["x-unknown"] = map[string]string{"a": "b"}, []int{1, 2}
		top := h.manifest(spec.TypeOCIManifest, raw, "v1")

		s, d := newImages(t, t.TempDir()), newDepot(t)
		pullOK(t, s, h.ref(t, ":v1"))
		name := h.addr + "/app:v1"
		tag(t, s, name, d.addr+"/app:v1")
		p, r := pushOK(t, s, d.addr+"/app:v1", PushOptions{})
		if p.Digest != top.Digest || !slices.Equal(last(r, i), []string{"Pushed", "Pushed"}) {
			t.Errorf("%s: %+v %q", compression, p, last(r, i))
		}
		whole(t, s)

		// The source lost one layer.
		gone := newDepot(t)
		h.spoil(blobPath(m.Layers[1].Digest), http.NotFound)
		d.Close()
		tag(t, s, name, gone.addr+"/app:v1")
		p, _ = pushOK(t, s, gone.addr+"/app:v1", PushOptions{})
		b := gone.file("app/manifests/v1")
		if compression == fixture.Plain {
			if p.Digest != top.Digest {
				t.Errorf("a plain layer needs no source: %s", b)
			}
			continue
		}
		now := parsed(t, b)
		if p.Digest == top.Digest || now.Layers[0].Digest != m.Layers[0].Digest || now.Layers[0].Annotations["layer"] != "kept" || now.Layers[1].MediaType != spec.TypeOCILayerGzip {
			t.Errorf("%s: %s", compression, b)
		}
		if !bytes.Contains(b, []byte(`"annotations":{"a":"b"}`)) || !bytes.Contains(b, []byte(`"x-unknown":[1,2]`)) {
			t.Errorf("unknown fields are lost: %s", b)
		}
		img := resolve(t, s, name)
		if img.Manifest != top.Digest || !slices.Contains(img.Digests, gone.addr+"/app@"+string(p.Digest)) {
			t.Errorf("%+v", img)
		}
		again, _ := pushOK(t, s, gone.addr+"/app:v1", PushOptions{})
		if again.Digest != p.Digest {
			t.Errorf("another manifest the next time: %+v", again)
		}
		fresh := newImages(t, t.TempDir())
		ref, _ := spec.ParseReference(gone.addr + "/app:v1")
		if pulled, _ := pullOK(t, fresh, ref); pulled.Image.ID != idOf(i) {
			t.Errorf("%+v", pulled)
		}
		whole(t, s)
	}
}

// A source that sends something else, or breaks off, spoils nothing.
func TestPushLyingSource(t *testing.T) {
	t.Parallel()
	for what, bad := range map[string]func(m *spec.Manifest) http.HandlerFunc{
		"other bytes": func(m *spec.Manifest) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Write(make([]byte, m.Layers[0].Size))
			}
		},
		"refuses": func(*spec.Manifest) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
		},
		"breaks off": func(m *spec.Manifest) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(m.Layers[0].Size))
				panic(http.ErrAbortHandler)
			}
		},
	} {
		h, i, s, d := newHub(t), twoLayers("app:v1"), newImages(t, t.TempDir()), newDepot(t)
		m := h.push(i, "v1")
		pullOK(t, s, h.ref(t, ":v1"))
		h.spoil(blobPath(m.Layers[0].Digest), bad(m))
		tag(t, s, h.addr+"/app:v1", d.addr+"/app:v1")
		p, _ := pushOK(t, s, d.addr+"/app:v1", PushOptions{})
		now := parsed(t, d.file("app/manifests/v1"))
		if now.Layers[0].Digest == m.Layers[0].Digest || spec.DigestOf(d.file("app/"+blobPath(now.Layers[0].Digest))) != now.Layers[0].Digest {
			t.Errorf("%s: %+v", what, p)
		}
		whole(t, s)
	}
}

// multi serves an index of two platforms and what else belongs to it.
func multi(t *testing.T, h *hub) (index spec.Descriptor, images []*fixture.Image) {
	var entries []spec.Descriptor
	for _, arch := range []string{spec.HostPlatform().Architecture, "s390x"} {
		i := twoLayers("multi " + arch)
		i.Arch = arch
		d := h.manifest(spec.TypeOCIManifest, h.describe(i, fixture.Gzip))
		d.Platform = &spec.Platform{OS: "linux", Architecture: arch}
		entries, images = append(entries, d), append(images, i)
	}
	return h.manifest(spec.TypeOCIIndex, spec.Index{SchemaVersion: 2, MediaType: spec.TypeOCIIndex, Manifests: entries}, "multi"), images
}

func TestPushIndex(t *testing.T) {
	t.Parallel()
	h, d := newHub(t), newDepot(t)
	index, images := multi(t, h)
	s := newImages(t, t.TempDir())
	pullOK(t, s, h.ref(t, ":multi"))
	name := d.addr + "/app:multi"
	tag(t, s, h.addr+"/app:multi", name)
	p, _ := pushOK(t, s, name, PushOptions{})
	own := resolve(t, s, name)
	if p.Digest != own.Manifest || p.Instead != index.Digest {
		t.Errorf("one of two: %+v", p)
	}
	s390 := spec.Platform{OS: "linux", Architecture: "s390x"}
	ref, _ := spec.ParseReference(name)
	_, err := s.Push(t.Context(), ref, PushOptions{Platform: &s390})
	wantError(t, "a platform that is not here", err, errs.NotFound, "does not match the specified platform (linux/s390x)")
	if _, err := s.Pull(t.Context(), h.ref(t, ":multi"), PullOptions{Platform: &s390}); err != nil {
		t.Fatal(err)
	}
	p, _ = pushOK(t, s, name, PushOptions{Platform: &s390})
	if m := parsed(t, d.file("app/manifests/multi")); m.Config.Digest != idOf(images[1]) || p.Instead != "" {
		t.Errorf("--platform: %+v", p)
	}
	p, _ = pushOK(t, s, name, PushOptions{})
	if p.Digest != index.Digest || p.Instead != "" {
		t.Errorf("both of two: %+v", p)
	}
	whole(t, s)

	// What only the registry has counts, too.
	_, err = s.Remove(string(idOf(images[1])), true, nil)
	must(t, err)
	d.forget()
	tag(t, s, name, d.addr+"/app:again")
	if p, _ = pushOK(t, s, d.addr+"/app:again", PushOptions{}); p.Digest != index.Digest || d.sent("POST") != 0 {
		t.Errorf("one here, one there: %+v %q", p, d.seen)
	}
}

// An index of which a layer had to be compressed anew names the new manifests.
func TestPushChangedIndex(t *testing.T) {
	t.Parallel()
	h, d, s := newHub(t), newDepot(t), newImages(t, t.TempDir())
	index, images := multi(t, h)
	s390 := spec.Platform{OS: "linux", Architecture: "s390x"}
	_, err := s.Pull(t.Context(), h.ref(t, ":multi"), PullOptions{Platform: &s390})
	must(t, err)
	pullOK(t, s, h.ref(t, ":multi"))
	own := h.describe(images[0], fixture.Gzip).Layers[1].Digest
	h.spoil(blobPath(own), http.NotFound)
	tag(t, s, h.addr+"/app:multi", d.addr+"/app")
	p, _ := pushOK(t, s, d.addr+"/app", PushOptions{})
	_, x, err := parseManifest(d.file("app/manifests/latest"), "")
	must(t, err)
	if p.Digest == index.Digest || len(x.Manifests) != 2 || x.Manifests[0].Platform == nil {
		t.Errorf("%+v %+v", p, x)
	}
	fresh := newImages(t, t.TempDir())
	ref, _ := spec.ParseReference(d.addr + "/app")
	if pulled, _ := pullOK(t, fresh, ref); pulled.Image.ID != idOf(images[0]) {
		t.Errorf("%+v", pulled)
	}
	whole(t, s)
}

func TestPushAllTags(t *testing.T) {
	t.Parallel()
	s, d := newImages(t, t.TempDir()), newDepot(t)
	loadImages(t, s, twoLayers("one:v1"), oneLayer("other:v1", "x"))
	for name, source := range map[string]string{"/app:a": "one:v1", "/app:b": "one:v1", "/app:c": "other:v1", "/more:a": "other:v1"} {
		tag(t, s, source, d.addr+name)
	}
	ref, _ := spec.ParseReference(d.addr + "/app")
	all, err := s.Push(t.Context(), ref, PushOptions{AllTags: true})
	if err != nil || len(all) != 3 || all[0].Digest != all[1].Digest || all[2].Ref.Tag != "c" {
		t.Errorf("%+v %v", all, err)
	}
	if d.sent("PUT app/manifests/") != 3 || d.file("more/manifests/a") != nil {
		t.Errorf("%q", d.seen)
	}
	for name, words := range map[string]string{
		"/app:none":                     "tag does not exist: " + d.addr + "/app:none",
		"/none":                         "An image does not exist locally with the tag: " + d.addr + "/none",
		"/app@" + string(all[0].Digest): "cannot push a digest reference",
	} {
		ref, err := spec.ParseReference(d.addr + name)
		must(t, err)
		_, err = s.Push(t.Context(), ref, PushOptions{})
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ref.Path = "none"
	if _, err := s.Push(t.Context(), ref, PushOptions{AllTags: true}); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

// Pushes at the same time and removals in between: each image goes whole or not
// at all.
func TestPushWhileRemoving(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, d, i := newImages(t, dir), newDepot(t), twoLayers("app:v1")
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for round := range 5 {
				name := fmt.Sprintf("%s/app%d:v%d", d.addr, n, round)
				ref, _ := spec.ParseReference(name)
				_, err := s.Load(t.Context(), bytes.NewReader(fixture.DockerArchive(i).Bytes()), nil)
				if err == nil {
					err = s.Tag("app:v1", name)
				}
				if err == nil {
					_, err = s.Push(t.Context(), ref, PushOptions{})
				}
				if err == nil {
					_, err = s.Remove(string(idOf(i)), true, nil)
				}
				if err != nil && !errs.Is(err, errs.NotFound) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	settled(t, s)
}

// An image that is removed while a push reads it is one that is not there; one
// that has lost a part is a fault of the store.
func TestPushLost(t *testing.T) {
	t.Parallel()
	s, i := newImages(t, t.TempDir()), twoLayers("app:v1")
	loadImages(t, s, i)
	rec, err := s.readRecord(idOf(i))
	must(t, err)
	must(t, os.Remove(s.st.Blob(idOf(i).Hex())))
	_, err = (&push{s: s}).image(t.Context(), rec, "")
	wantError(t, "without its config", err, errs.Corrupt, "no such file")
	must(t, os.RemoveAll(s.st.Image(idOf(i).Hex())))
	_, err = (&push{s: s}).image(t.Context(), rec, "")
	wantError(t, "removed", err, errs.NotFound, "No such image")
}

// A push that fails says why and leaves the store as it was.
func TestPushFailures(t *testing.T) {
	t.Parallel()
	s, d, i := newImages(t, t.TempDir()), newDepot(t), twoLayers("app:v1")
	loadImages(t, s, i)
	names := func() []string { return resolve(t, s, "app:v1").Digests }
	for what, bad := range map[string]func(r *http.Request) int{
		"layers": func(r *http.Request) int { return map[bool]int{true: 403}[r.Method == "PATCH"] },
		"config": func(r *http.Request) int {
			return map[bool]int{true: 413}[r.Method == "PUT" && strings.Contains(r.URL.RawQuery, idOf(i).Hex())]
		},
		"manifest": func(r *http.Request) int { return map[bool]int{true: 400}[strings.Contains(r.URL.Path, "/manifests/")] },
	} {
		tag(t, s, "app:v1", d.addr+"/"+what)
		ref, _ := spec.ParseReference(d.addr + "/" + what)
		d.bad = func(w http.ResponseWriter, r *http.Request) bool {
			code := bad(r)
			if code != 0 {
				w.WriteHeader(code)
			}
			return code != 0
		}
		if p, err := s.Push(t.Context(), ref, PushOptions{}); err == nil || len(p) != 0 || errs.HintOf(err) == "" || len(names()) != 0 {
			t.Errorf("%s: %v %v %q", what, p, err, names())
		}
		whole(t, s)
	}
	d.Close()
	ref, _ := spec.ParseReference(d.addr + "/layers")
	_, err := s.Push(t.Context(), ref, PushOptions{})
	wantError(t, "no registry", err, errs.Unavailable, "connection refused")
	// A tar that has changed on the disk is not pushed as the image's.
	fresh := newDepot(t)
	tag(t, s, "app:v1", fresh.addr+"/app:v1")
	ref, _ = spec.ParseReference(fresh.addr + "/app:v1")
	layer := spec.Digest(fixture.Digest(i.Layers[0]))
	changeByte(t, s.st.Layer(layer.Hex())+"/tar")
	_, err = s.Push(t.Context(), ref, PushOptions{})
	wantError(t, "a changed tar", err, errs.Corrupt, "damaged")
	if fresh.file("app/manifests/v1") != nil {
		t.Error("the image is in the registry")
	}
}

func changeByte(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
}
