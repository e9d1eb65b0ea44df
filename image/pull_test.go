package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func pullOK(t testing.TB, s *Images, ref spec.Reference) (*Pulled, *recorder) {
	t.Helper()
	var r recorder
	p, err := s.Pull(t.Context(), ref, PullOptions{Progress: &r})
	if err != nil {
		t.Fatal(err)
	}
	return p, &r
}

func TestPull(t *testing.T) {
	t.Parallel()
	h, s, i := newHub(t), newImages(t, t.TempDir()), twoLayers("app:v1")
	m := h.push(i, "v1")
	digest := spec.DigestOf(toJSON(m))
	p, r := pullOK(t, s, h.ref(t, ":v1"))
	name := h.addr + "/app:v1"
	if !p.Newer || p.Digest != digest || p.Image.ID != idOf(i) || p.Status() != "Status: Downloaded newer image for "+name {
		t.Errorf("%+v %s", p, p.Status())
	}
	if !slices.Equal(p.Image.Names, []string{name}) || !slices.Equal(p.Image.Digests, []string{h.addr + "/app@" + string(digest)}) {
		t.Errorf("%+v", p.Image)
	}
	if !slices.Equal(r.messages, []string{"v1: Pulling from app"}) {
		t.Errorf("%q", r.messages)
	}
	var none recorder
	if _, err := s.Pull(t.Context(), h.ref(t, ":none"), PullOptions{Progress: &none}); !errs.Is(err, errs.NotFound) || len(none.messages) != 0 {
		t.Errorf("a tag that is not there: %v, %q", err, none.messages)
	}
	for _, l := range m.Layers {
		got := r.statuses[l.Digest.Short()]
		if len(got) == 0 || got[0] != "Pulling fs layer" || got[len(got)-1] != "Pull complete" {
			t.Errorf("layer %s: %q", l.Digest.Short(), got)
		}
		info, err := s.layers.Get(i0(i, m, l.Digest))
		must(t, err)
		if len(info.Blobs) != 1 || info.Blobs[0].Digest != l.Digest || info.Source != h.addr+"/app@"+string(l.Digest) {
			t.Errorf("%+v", info.Info)
		}
		info.Close()
	}
	whole(t, s)

	before := files(t, s)
	p, r = pullOK(t, s, h.ref(t, ":v1"))
	if p.Newer || p.Status() != "Status: Image is up to date for "+name || len(r.statuses) != 0 {
		t.Errorf("again: %s %v", p.Status(), r.statuses)
	}
	if h.count(blobPath(m.Config.Digest)) != 1 || h.count(blobPath(m.Layers[0].Digest)) != 1 {
		t.Error("what is here is fetched again")
	}
	if after := files(t, s); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// i0 returns the diffID of the layer with that compressed digest.
func i0(i *fixture.Image, m *spec.Manifest, blob spec.Digest) spec.Digest {
	n := slices.IndexFunc(m.Layers, func(d spec.Descriptor) bool { return d.Digest == blob })
	return spec.DigestOf(i.Layers[n])
}

// The name moves when the tag does, and the old image loses it.
func TestPullMovedTag(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), newImages(t, t.TempDir())
	old, now := twoLayers("old"), twoLayers("new")
	h.push(old, "latest")
	pullOK(t, s, h.ref(t, ""))
	h.push(now, "latest")
	p, r := pullOK(t, s, h.ref(t, ""))
	if !p.Newer || p.Image.ID != idOf(now) {
		t.Errorf("%+v", p)
	}
	if got := r.statuses[h.describe(now, fixture.Gzip).Layers[0].Digest.Short()]; !slices.Equal(got, []string{"Already exists"}) {
		t.Errorf("the common layer: %q", got)
	}
	if img := resolve(t, s, string(idOf(old))); len(img.Names) != 0 || len(img.Digests) != 1 {
		t.Errorf("the old image: %+v", img)
	}
	whole(t, s)
}

func TestPullByDigestAndIndex(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	mine, other := twoLayers("mine"), oneLayer("other", "x")
	host := spec.HostPlatform()
	mine.Arch, other.Arch = host.Architecture, "s390x"
	entry := func(i *fixture.Image) spec.Descriptor {
		d := h.manifest(spec.TypeOCIManifest, h.describe(i, fixture.Zstd))
		d.Platform = &spec.Platform{OS: "linux", Architecture: i.Arch}
		return d
	}
	index := h.manifest(spec.TypeOCIIndex, spec.Index{SchemaVersion: 2, MediaType: spec.TypeOCIIndex, Manifests: []spec.Descriptor{entry(other), entry(mine)}}, "multi")
	list := h.manifest(spec.TypeDockerList, spec.Index{SchemaVersion: 2, MediaType: spec.TypeDockerList, Manifests: []spec.Descriptor{entry(other), entry(mine)}}, "list")
	nested := h.manifest(spec.TypeOCIIndex, spec.Index{SchemaVersion: 2, Manifests: []spec.Descriptor{index}}, "nested")

	for suffix, want := range map[string]spec.Digest{
		":multi": index.Digest, ":list": list.Digest, ":nested": nested.Digest,
		"@" + string(index.Digest): index.Digest, ":ignored@" + string(index.Digest): index.Digest,
		"@" + string(entry(mine).Digest): entry(mine).Digest,
	} {
		s := newImages(t, t.TempDir())
		p, _ := pullOK(t, s, h.ref(t, suffix))
		if p.Image.ID != idOf(mine) || p.Digest != want || p.Image.Target.Digest != want || p.Image.Manifest != entry(mine).Digest {
			t.Errorf("%s: %+v %+v", suffix, p, p.Image)
		}
		if !slices.Equal(p.Image.Digests, []string{h.addr + "/app@" + string(want)}) {
			t.Errorf("%s: %q", suffix, p.Image.Digests)
		}
		if tagged := !strings.Contains(suffix, "@"); tagged != (len(p.Image.Names) == 1) {
			t.Errorf("%s: %q", suffix, p.Image.Names)
		}
		whole(t, s)
		if _, err := s.Remove(p.Ref.Familiar(), false, nil); err != nil {
			t.Errorf("%s: %v", suffix, err)
		}
		empty(t, s)
	}

	s := newImages(t, t.TempDir())
	s390 := spec.Platform{OS: "linux", Architecture: "s390x"}
	p, err := s.Pull(t.Context(), h.ref(t, ":multi"), PullOptions{Platform: &s390})
	if err != nil || p.Image.ID != idOf(other) {
		t.Errorf("--platform: %+v %v", p, err)
	}
	_, err = s.Pull(t.Context(), h.ref(t, "@"+string(entry(mine).Digest)), PullOptions{Platform: &s390})
	wantError(t, "a manifest of another platform", err, errs.NotFound, "does not match the specified platform (linux/s390x)")
	vax := spec.Platform{OS: "linux", Architecture: "vax"}
	_, err = s.Pull(t.Context(), h.ref(t, ":multi"), PullOptions{Platform: &vax})
	wantError(t, "--platform that is not there", err, errs.NotFound, "no matching manifest for linux/vax")
}

// Each lie is found, told, and leaves nothing under the image's name.
func TestPullLies(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	other := []byte("something else entirely")
	host := spec.HostPlatform()
	index := func(h *hub, change func(*spec.Descriptor)) {
		d := h.manifest(spec.TypeOCIManifest, h.describe(i, fixture.Gzip))
		d.Platform = &host
		change(&d)
		h.manifest(spec.TypeOCIIndex, spec.Index{SchemaVersion: 2, Manifests: []spec.Descriptor{d}}, "v1")
	}
	manifest := func(change func(h *hub, m *spec.Manifest)) func(h *hub) {
		return func(h *hub) {
			m := h.describe(i, fixture.Gzip)
			change(h, m)
			h.manifest(spec.TypeOCIManifest, m, "v1")
		}
	}
	body := func(path func(m *spec.Manifest) string, b []byte) func(h *hub) {
		return manifest(func(h *hub, m *spec.Manifest) { h.put(path(m), "application/octet-stream", b) })
	}
	layer1 := func(m *spec.Manifest) string { return blobPath(m.Layers[1].Digest) }
	config := func(m *spec.Manifest) string { return blobPath(m.Config.Digest) }
	good, _ := fixture.Compress(fixture.Gzip, i.Layers[1])
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for what, c := range map[string]struct {
		set   func(h *hub)
		class errs.Class
		word  string
	}{
		"index entry's size":   {func(h *hub) { index(h, func(d *spec.Descriptor) { d.Size++ }) }, errs.Corrupt, "its index says"},
		"index entry's digest": {func(h *hub) { index(h, func(d *spec.Descriptor) { d.Digest = spec.DigestOf(other) }) }, errs.NotFound, "not found"},
		"index entry's type":   {func(h *hub) { index(h, func(d *spec.Descriptor) { d.MediaType = "application/x-thing" }) }, errs.NotFound, "no matching manifest"},
		"index without platform": {func(h *hub) {
			index(h, func(d *spec.Descriptor) { d.Platform = &spec.Platform{OS: "plan9", Architecture: "mips"} })
		}, errs.NotFound, "no matching manifest for " + host.String()},
		"indexes without end": {func(h *hub) {
			var d spec.Descriptor
			for n := range maxNesting + 1 {
				x := spec.Index{SchemaVersion: 2, Manifests: []spec.Descriptor{}}
				if n > 0 {
					x.Manifests = append(x.Manifests, d)
				}
				d = h.manifest(spec.TypeOCIIndex, x, "v1")
			}
		}, errs.Unsupported, "nested more than 3 deep"},
		"manifest changed": {func(h *hub) {
			index(h, func(d *spec.Descriptor) {
				h.put("manifests/"+string(d.Digest), spec.TypeOCIManifest, []byte(goodImage))
			})
		}, errs.Corrupt, "manifest verification failed"},
		"manifest of unknown type":  {func(h *hub) { h.put("manifests/v1", "application/x-thing", []byte(goodImage)) }, errs.Unsupported, "x-thing"},
		"manifest of schema 1":      {func(h *hub) { h.put("manifests/v1", schema1Type, []byte("{}")) }, errs.Unsupported, "schema 1"},
		"manifest is a page":        {func(h *hub) { h.put("manifests/v1", "text/html", []byte("<html>")) }, errs.Unavailable, "web page"},
		"config size too small":     {manifest(func(_ *hub, m *spec.Manifest) { m.Config.Size-- }), errs.Corrupt, "the manifest says"},
		"config size too large":     {manifest(func(_ *hub, m *spec.Manifest) { m.Config.Size++ }), errs.Corrupt, "the manifest says"},
		"config size of a monster":  {manifest(func(_ *hub, m *spec.Manifest) { m.Config.Size = 1 << 60 }), errs.Invalid, "more than 8 MiB"},
		"config changed":            {body(config, bytes.Replace(i.ConfigJSON(), []byte("A=b"), []byte("A=c"), 1)), errs.Corrupt, "config"},
		"config not JSON":           {manifest(func(h *hub, m *spec.Manifest) { m.Config = h.blob([]byte("no JSON")) }), errs.Corrupt, "JSON"},
		"config of Windows":         {manifest(func(h *hub, m *spec.Manifest) { m.Config = h.blob([]byte(`{"os":"windows"}`)) }), errs.Unsupported, "windows"},
		"layer missing in manifest": {manifest(func(_ *hub, m *spec.Manifest) { m.Layers = m.Layers[:1] }), errs.Corrupt, "names 2 layers, its manifest 1"},
		"layers swapped":            {manifest(func(_ *hub, m *spec.Manifest) { slices.Reverse(m.Layers) }), errs.Corrupt, "the uncompressed tar has digest"},
		"layer of unknown type":     {manifest(func(_ *hub, m *spec.Manifest) { m.Layers[1].MediaType = "application/x-thing" }), errs.Unsupported, "x-thing"},
		"layer size too small":      {manifest(func(_ *hub, m *spec.Manifest) { m.Layers[1].Size-- }), errs.Corrupt, "the manifest says"},
		"layer size too large":      {manifest(func(_ *hub, m *spec.Manifest) { m.Layers[1].Size++ }), errs.Corrupt, "the manifest says"},
		"layer changed":             {body(layer1, flipped), errs.Corrupt, "layer"},
		"layer shorter":             {body(layer1, good[:len(good)-1]), errs.Corrupt, "the manifest says"},
		"layer longer":              {body(layer1, append(bytes.Clone(good), 0)), errs.Corrupt, "the manifest says"},
		"wrong diffID, right blob": {manifest(func(h *hub, m *spec.Manifest) {
			b, mediaType := fixture.Compress(fixture.Gzip, fileLayer("x", "not what the config names"))
			m.Layers[1] = h.blob(b)
			m.Layers[1].MediaType = mediaType
		}), errs.Corrupt, "the uncompressed tar has digest"},
		"layer is no tar": {func(h *hub) {
			junk := oneLayer("junk", "")
			junk.Layers[0] = bytes.Repeat([]byte("no tar"), 500)
			h.push(junk, "v1")
		}, errs.Invalid, "no tar header"},
		"layer not there":  {manifest(func(_ *hub, m *spec.Manifest) { m.Layers[1].Digest = spec.DigestOf(other) }), errs.NotFound, "missing in the registry"},
		"config not there": {manifest(func(_ *hub, m *spec.Manifest) { m.Config.Digest = spec.DigestOf(other) }), errs.NotFound, "missing in the registry"},
		"no such tag":      {func(*hub) {}, errs.NotFound, "manifest unknown"},
	} {
		h, s := newHub(t), newImages(t, t.TempDir())
		c.set(h)
		_, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{})
		wantError(t, what, err, c.class, c.word, h.addr)
		if imgs, err := s.List(); err != nil || len(imgs) != 0 {
			t.Errorf("%s: %d images, %v", what, len(imgs), err)
		}
		// Good layers may stay for the next pull, for a while.
		age(t, s)
		must(t, s.Sweep())
		empty(t, s)
	}
}

// A chunked answer tells no length in advance; the bytes are counted.
func TestPullLiesWithoutLength(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	for what, cut := range map[string]func([]byte) []byte{
		"shorter": func(b []byte) []byte { return b[:len(b)-1] },
		"longer":  func(b []byte) []byte { return append(bytes.Clone(b), 'x') },
		"nothing": func([]byte) []byte { return nil },
	} {
		for _, compression := range []string{fixture.Plain, fixture.Gzip, fixture.Zstd} {
			h, s := newHub(t), newImages(t, t.TempDir())
			m := h.describe(i, compression)
			h.manifest(spec.TypeOCIManifest, m, "v1")
			b, _ := fixture.Compress(compression, i.Layers[0])
			h.spoil(blobPath(m.Layers[0].Digest), func(w http.ResponseWriter, _ *http.Request) {
				w.(http.Flusher).Flush()
				_, _ = w.Write(cut(b))
			})
			_, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{})
			if err == nil || errs.ClassOf(err) == errs.Internal {
				t.Errorf("%s %s: %v", what, compression, err)
			}
			if imgs, _ := s.List(); len(imgs) != 0 {
				t.Errorf("%s %s: the image is there", what, compression)
			}
		}
	}
}

func TestPullStatuses(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for n := 0; n+1 < len(header); n += 2 {
				w.Header().Set(header[n], header[n+1])
			}
			w.WriteHeader(code)
		}
	}
	for what, c := range map[string]struct {
		path  func(m *spec.Manifest) string
		f     http.HandlerFunc
		class errs.Class // Internal: it must work
		word  string
	}{
		"manifest 404":          {manifestV1, status(404), errs.NotFound, "manifest unknown"},
		"manifest 401":          {manifestV1, status(401), errs.Denied, "pull access denied"},
		"manifest 403":          {manifestV1, status(403), errs.Denied, "pull access denied"},
		"manifest 418":          {manifestV1, status(418), errs.Unavailable, "418"},
		"manifest 500 for ever": {manifestV1, status(500), errs.Unavailable, "500"},
		"manifest 429":          {manifestV1, status(429, "Retry-After", "0"), errs.Unavailable, "429"},
		"layer 404":             {layerPath, status(404), errs.NotFound, "missing in the registry"},
		"layer 503 for ever":    {layerPath, status(503), errs.Unavailable, "503"},
		"layer 204":             {layerPath, status(204), errs.Unavailable, "204"},
		"redirect to nowhere":   {layerPath, status(307), errs.Unavailable, "app"},
		"redirect in a circle": {layerPath, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, errs.Unavailable, "too many redirects"},
		"redirect off loopback": {layerPath, status(307, "Location", "http://registry.example/x"), errs.Denied, "not encrypted"},
	} {
		h, s := newHub(t), newImages(t, t.TempDir())
		h.spoil(c.path(h.push(i, "v1")), c.f)
		_, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{})
		wantError(t, what, err, c.class, c.word)
	}
}

func manifestV1(*spec.Manifest) string  { return "manifests/v1" }
func layerPath(m *spec.Manifest) string { return blobPath(m.Layers[0].Digest) }

// What passes is tried again: a status, a cut connection, which goes on where
// it broke, a redirect to where the bytes are.
func TestPullGoesOn(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	// Random, so that it does not compress into one packet.
	noise := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for n := range noise {
		noise[n] = byte(r.Uint32())
	}
	i.Layers = append(i.Layers, fileLayer("noise", string(noise)))
	var h *hub
	var m *spec.Manifest
	first := func(n int32, f http.HandlerFunc, path string) http.HandlerFunc {
		var calls atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) <= n {
				f(w, r)
				return
			}
			h.mu.Lock()
			file := h.files["app/"+path]
			h.mu.Unlock()
			send(w, r, file)
		}
	}
	cut := func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		f := h.files[strings.TrimPrefix(r.URL.Path, "/v2/")]
		h.mu.Unlock()
		w.Header().Set("Content-Length", fmt.Sprint(len(f.body)))
		_, _ = w.Write(f.body[:len(f.body)/3])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	busy := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	for what, set := range map[string]func(){
		"manifest 503 once": func() { h.spoil("manifests/v1", first(1, busy, "manifests/v1")) },
		"layer 503 twice": func() {
			p := blobPath(m.Layers[2].Digest)
			h.spoil(p, first(2, busy, p))
		},
		"layer cut": func() {
			p := blobPath(m.Layers[2].Digest)
			h.spoil(p, first(1, cut, p))
		},
		"layer silent": func() {
			p := blobPath(m.Layers[2].Digest)
			h.spoil(p, first(1, func(w http.ResponseWriter, r *http.Request) {
				h.mu.Lock()
				f := h.files[strings.TrimPrefix(r.URL.Path, "/v2/")]
				h.mu.Unlock()
				w.Header().Set("Content-Length", fmt.Sprint(len(f.body)))
				_, _ = w.Write(f.body[:1000])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}, p))
		},
		"layer elsewhere": func() {
			elsewhere := newHub(t)
			b, _ := fixture.Compress(fixture.Gzip, i.Layers[2])
			elsewhere.put("cdn", "application/octet-stream", b)
			h.spoil(blobPath(m.Layers[2].Digest), func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://"+elsewhere.addr+"/v2/app/cdn?signed=1", http.StatusTemporaryRedirect)
			})
		},
	} {
		h = newHub(t)
		m = h.push(i, "v1")
		set()
		s := newImages(t, t.TempDir())
		if _, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		whole(t, s)
	}
}

// A registry that stops in the middle of every answer is given up, in words.
func TestPullAlwaysCut(t *testing.T) {
	t.Parallel()
	h, s, i := newHub(t), newImages(t, t.TempDir()), twoLayers("app:v1")
	m := h.push(i, "v1")
	h.spoil(layerPath(m), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(m.Layers[0].Size))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	_, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{})
	wantError(t, "always cut", err, errs.Unavailable, "broke off after 0 of", m.Layers[0].Digest.Short())
}

// A registry that wants a token gets one from where it says.
func TestPullToken(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	for what, c := range map[string]struct {
		answer string
		class  errs.Class
	}{
		"given":   {`{"token":"secret"}`, errs.Internal},
		"refused": {"", errs.Denied},
		"wrong":   {`{"token":"another"}`, errs.Denied},
	} {
		h := newHub(t)
		m := h.push(i, "v1")
		challenge := func(w http.ResponseWriter) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+h.addr+`/v2/app/token",service="hub"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		h.mu.Lock()
		h.bad[""] = func(w http.ResponseWriter, _ *http.Request) { challenge(w) }
		h.mu.Unlock()
		h.spoil("token", func(w http.ResponseWriter, r *http.Request) {
			if c.answer == "" || r.URL.Query().Get("service") != "hub" || r.URL.Query().Get("scope") != "repository:app:pull" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, c.answer)
		})
		for _, path := range []string{"manifests/v1", blobPath(m.Config.Digest), blobPath(m.Layers[0].Digest), blobPath(m.Layers[1].Digest)} {
			h.mu.Lock()
			f := h.files["app/"+path]
			h.mu.Unlock()
			h.spoil(path, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer secret" {
					challenge(w)
					return
				}
				send(w, r, f)
			})
		}
		s := newImages(t, t.TempDir())
		_, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{})
		if c.class == errs.Internal {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		wantError(t, what, err, c.class, "pull access denied for "+h.addr+"/app")
	}
}

// Many pulls of one image at once fetch each layer once, in one process and,
// by other Images of the same store, in several.
func TestPullTogether(t *testing.T) {
	t.Parallel()
	h, i, dir := newHub(t), twoLayers("app:v1"), t.TempDir()
	i.Layers = append(i.Layers, fileLayer("third", "3"), fileLayer("fourth", "4"), fileLayer("fifth", "5"))
	m := h.push(i, "v1")
	for _, l := range m.Layers {
		p := blobPath(l.Digest)
		f := h.files["app/"+p]
		h.spoil(p, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(50 * time.Millisecond) // long enough for all to be here
			send(w, r, f)
		})
	}
	one := newImages(t, dir)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			s := one
			if n%2 == 1 {
				s = newImages(t, dir)
			}
			if p, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err != nil || p.Image.ID != idOf(i) {
				t.Errorf("%d: %v", n, err)
			}
		})
	}
	wg.Wait()
	for _, l := range m.Layers {
		if n := h.count(blobPath(l.Digest)); n != 1 {
			t.Errorf("layer %s was fetched %d times", l.Digest.Short(), n)
		}
	}
	whole(t, one)
	left, err := os.ReadDir(one.st.RunPath("fetch"))
	if err != nil || len(left) != 0 {
		t.Errorf("left of the turns: %v %v", left, err)
	}
}

// Who waits for another's download takes over when that fails, and can be
// interrupted.
func TestPullTakesOver(t *testing.T) {
	t.Parallel()
	h, i, s := newHub(t), oneLayer("app:v1", "x"), newImages(t, t.TempDir())
	m := h.push(i, "v1")
	d := spec.DigestOf(i.Layers[0])
	held, err := s.takeTurn(t.Context(), d, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ends := func(ctx context.Context) (w waiter, done chan error) {
		w, done = make(waiter, 1), make(chan error, 1)
		go func() {
			_, err := s.Pull(ctx, h.ref(t, ":v1"), PullOptions{Progress: w})
			done <- err
		}()
		return w, done
	}
	first, interrupted := ends(ctx)
	second, waits := ends(t.Context())
	<-first
	<-second
	cancel()
	if err := <-interrupted; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if n := h.count(layerPath(m)); n != 0 {
		t.Errorf("fetched %d times while another had the turn", n)
	}
	held.end()
	if err := <-waits; err != nil {
		t.Error(err)
	}
	whole(t, s)
}

// waiter is a Progress that tells when a layer waits.
type waiter chan struct{}

func (w waiter) Message(string) {}
func (w waiter) Layer(_, status string, _, _ int64) {
	if status == "Waiting" {
		w <- struct{}{}
	}
}

// A cancelled pull ends at once, though the registry says nothing, and leaves
// no image.
func TestPullCancelled(t *testing.T) {
	t.Parallel()
	h, s, i := newHub(t), newImages(t, t.TempDir()), twoLayers("app:v1")
	m := h.push(i, "v1")
	ctx, cancel := context.WithCancel(t.Context())
	h.spoil(layerPath(m), func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done() // not before the client is gone
	})
	start := time.Now()
	_, err := s.Pull(ctx, h.ref(t, ":v1"), PullOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	age(t, s)
	must(t, s.Sweep())
	empty(t, s)
}

// A damaged layer in the store is fetched anew.
func TestPullMendsLayer(t *testing.T) {
	t.Parallel()
	h, s, i := newHub(t), newImages(t, t.TempDir()), twoLayers("app:v1")
	h.push(i, "v1")
	pullOK(t, s, h.ref(t, ":v1"))
	must(t, os.Truncate(s.st.Layer(spec.DigestOf(i.Layers[0]).Hex())+"/tar", 100))
	if _, err := s.layers.Get(spec.DigestOf(i.Layers[0])); !errs.Is(err, errs.Corrupt) {
		t.Fatalf("the damage is not seen: %v", err)
	}
	pullOK(t, s, h.ref(t, ":v1"))
	whole(t, s)
	// A damaged config, too.
	must(t, os.Truncate(s.st.Blob(idOf(i).Hex()), 5))
	pullOK(t, s, h.ref(t, ":v1"))
	whole(t, s)
}

// The same layer twice in an image is fetched once and stacked twice.
func TestPullRepeatedLayer(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), newImages(t, t.TempDir())
	i := twoLayers("app:v1")
	i.Layers = append(i.Layers, i.Layers[0])
	m := h.push(i, "v1")
	p, _ := pullOK(t, s, h.ref(t, ":v1"))
	if len(p.Image.Layers()) != 3 || h.count(layerPath(m)) != 1 {
		t.Errorf("%d layers, fetched %d times", len(p.Image.Layers()), h.count(layerPath(m)))
	}
	// Of an image that is here no layers are told, by whatever name it comes.
	h.push(i, "v2")
	for tag, newer := range map[string]bool{":v1": false, ":v2": true} {
		if again, r := pullOK(t, s, h.ref(t, tag)); again.Newer != newer || len(r.statuses) != 0 || len(r.messages) != 1 {
			t.Errorf("%s again: newer %v, %q %q", tag, again.Newer, r.messages, r.statuses)
		}
		remove(t, s, h.ref(t, tag).Familiar(), false)
		pullOK(t, s, h.ref(t, tag))
	}
	remove(t, s, h.ref(t, ":v1").Familiar(), false)
	remove(t, s, h.ref(t, ":v2").Familiar(), false)
	empty(t, s)
}
