package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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

// noise is content that does not compress.
func noise(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// A wire is how a hub sends one blob: it counts, cuts and slows down.
type wire struct {
	blob spec.Descriptor
	sent atomic.Int64
	open atomic.Int32

	mu     sync.Mutex
	f      served
	most   int32 // requests at the same time
	ranges []string
	manner
}

// manner is what may be odd about a wire. The zero value is a good one.
type manner struct {
	upTo    int                                               // if not 0: the connection is cut there
	rate    int                                               // bytes a second of each connection; 0: as fast as can be
	instead func(w http.ResponseWriter, r *http.Request) bool // false: not this time
}

// bigImage serves an image whose only layer is size bytes of noise over a wire.
func bigImage(t testing.TB, h *hub, size int) (*fixture.Image, *wire) {
	t.Helper()
	i := oneLayer("app:v1", noise(size))
	m := h.describe(i, fixture.Gzip)
	h.manifest(spec.TypeOCIManifest, m, "v1")
	w := &wire{blob: m.Layers[0]}
	w.f = h.files["app/"+layerPath(m)]
	h.spoil(layerPath(m), w.serve)
	return i, w
}

func (w *wire) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.ranges = append(w.ranges, r.Header.Get("Range"))
	w.most = max(w.most, w.open.Add(1))
	m, f := w.manner, w.f
	w.mu.Unlock()
	defer w.open.Add(-1)
	if m.instead != nil && m.instead(rw, r) {
		return
	}
	send(&wired{rw, w, m, r}, r, f)
}

// now sets what is odd from now on, and forgets what was.
func (w *wire) now(m manner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manner, w.ranges, w.most = m, nil, 0
	w.sent.Store(0)
}

// body sets what is sent.
func (w *wire) body(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.f.body = b
}

// seen returns the ranges that were asked for, and how many at once.
func (w *wire) seen() ([]string, int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ranges), w.most
}

type wired struct {
	http.ResponseWriter
	w *wire
	m manner
	r *http.Request
}

func (c *wired) Write(b []byte) (int, error) {
	at := 0
	_, _ = fmt.Sscanf(c.r.Header.Get("Range"), "bytes=%d-", &at)
	cut := c.m.upTo > 0 && at+len(b) > c.m.upTo
	if cut {
		b = b[:max(c.m.upTo-at, 0)]
	}
	for len(b) > 0 && c.r.Context().Err() == nil {
		n := len(b)
		if c.m.rate > 0 {
			n = min(n, c.m.rate/100)
			time.Sleep(10 * time.Millisecond)
		}
		_, err := c.ResponseWriter.Write(b[:n])
		c.ResponseWriter.(http.Flusher).Flush()
		c.w.sent.Add(int64(n))
		if err != nil {
			return 0, err
		}
		b = b[n:]
	}
	if cut {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return len(b), nil
}

// quick is the pace of the tests.
var quick = pace{large: 1 << 20, segment: 256 << 10, window: 1 << 20, patience: 20 * time.Millisecond}

func quickImages(t testing.TB, dir string) *Images {
	s := newImages(t, dir)
	s.pace = quick
	return s
}

func partials(t testing.TB, s *Images) []string {
	t.Helper()
	var names []string
	eachEntry(s.st.Partials(), func(e os.DirEntry, _ string) { names = append(names, e.Name()) })
	return names
}

const slack = minChunk * (connections + 2)

// A pull that was cut goes on where it was, in another process, after a reboot,
// with any number of cuts.
func TestResume(t *testing.T) {
	t.Parallel()
	h, dir := newHub(t), t.TempDir()
	i, w := bigImage(t, h, 3<<20)
	size := int(w.blob.Size)
	for _, cut := range []int{minChunk, minChunk + 1, 1 << 20, 2<<20 + 12345, size - 1} {
		w.now(manner{upTo: cut})
		s := newImages(t, dir)
		_, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{})
		wantError(t, fmt.Sprint("cut at ", cut), err, errs.Unavailable, "broke off after "+fmt.Sprint(cut)+" of", h.addr)
		if n := strings.Count(err.Error(), h.addr); n != 1 {
			t.Errorf("says %d times what it is about: %v", n, err)
		}
		if got := partials(t, s); !slices.Equal(got, []string{w.blob.Digest.Hex()}) {
			t.Errorf("cut at %d: kept %q", cut, got)
		}
		must(t, s.Sweep()) // which must keep it
		must(t, os.RemoveAll(s.st.Run))
	}
	w.now(manner{})
	s := newImages(t, dir)
	p, r := pullOK(t, s, h.ref(t, ":v1"))
	if got := w.sent.Load(); got > minChunk || p.Image.ID != idOf(i) {
		t.Errorf("%d bytes sent of %d", got, size)
	}
	if got := r.statuses[w.blob.Digest.Short()]; got[len(got)-1] != "Pull complete" {
		t.Errorf("%q", got)
	}
	if got := partials(t, s); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	whole(t, s)
}

// When all bytes are there already nothing is fetched.
func TestResumeAtTheEnd(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), newImages(t, t.TempDir())
	_, w := bigImage(t, h, 2<<20)
	p := s.openPartial(w.blob)
	must(t, (&filling{p: p}).write(w.f.body))
	p.close()
	pullOK(t, s, h.ref(t, ":v1"))
	if asked, _ := w.seen(); asked != nil {
		t.Errorf("asked for %q", asked)
	}
	whole(t, s)
}

// What a registry makes of ranges is its business; the layer comes whole.
func TestResumeWithoutRanges(t *testing.T) {
	t.Parallel()
	for what, odd := range map[string]func(w *wire) func(http.ResponseWriter, *http.Request) bool{
		"ignored": func(w *wire) func(http.ResponseWriter, *http.Request) bool {
			return func(rw http.ResponseWriter, _ *http.Request) bool {
				_, _ = rw.Write(w.f.body)
				return true
			}
		},
		"wrong": func(w *wire) func(http.ResponseWriter, *http.Request) bool {
			return func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") == "" {
					return false
				}
				rw.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", w.blob.Size-1, w.blob.Size))
				rw.WriteHeader(http.StatusPartialContent)
				_, _ = rw.Write(w.f.body)
				return true
			}
		},
		"refused": func(*wire) func(http.ResponseWriter, *http.Request) bool {
			return func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") == "" {
					return false
				}
				rw.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			}
		},
		"short": func(w *wire) func(http.ResponseWriter, *http.Request) bool {
			return func(rw http.ResponseWriter, r *http.Request) bool {
				var from int
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err != nil {
					return false
				}
				to := min(from+300_000, len(w.f.body))
				rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(w.f.body)))
				rw.WriteHeader(http.StatusPartialContent)
				_, _ = rw.Write(w.f.body[from:to])
				return true
			}
		},
	} {
		h, dir := newHub(t), t.TempDir()
		_, w := bigImage(t, h, 2<<20)
		w.now(manner{upTo: 1 << 20})
		if _, err := newImages(t, dir).Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err == nil {
			t.Fatalf("%s: not cut", what)
		}
		w.now(manner{instead: odd(w)})
		s := newImages(t, dir)
		if _, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		whole(t, s)
		if left := partials(t, s); len(left) != 0 {
			t.Errorf("%s: left %q", what, left)
		}
	}
}

// What a power failure made of a partial, or a registry that lied, costs bytes
// and is no failure.
func TestResumeFromGarbage(t *testing.T) {
	t.Parallel()
	sum := func(b []byte) []byte {
		return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	for what, c := range map[string]struct {
		spoil func(t *testing.T, f *os.File, size int64)
		most  int64 // bytes to fetch then, of two million
	}{
		"a lost chunk": {func(t *testing.T, f *os.File, _ int64) {
			_, err := f.WriteAt(make([]byte, minChunk), 3*minChunk)
			must(t, err)
		}, 1<<20 + 2*minChunk},
		"a chunk with a good sum": {func(t *testing.T, f *os.File, size int64) {
			_, err := f.WriteAt(make([]byte, minChunk), 3*minChunk)
			must(t, err)
			_, err = f.WriteAt(sum(make([]byte, minChunk)), size+4*3)
			must(t, err)
		}, 4 << 20},
		"the first chunk": {func(t *testing.T, f *os.File, size int64) {
			_, err := f.WriteAt(make([]byte, minChunk), 0)
			must(t, err)
			_, err = f.WriteAt(sum(make([]byte, minChunk)), size)
			must(t, err)
		}, 4 << 20},
		"all sums": {func(t *testing.T, f *os.File, size int64) {
			fi, err := f.Stat()
			must(t, err)
			_, err = f.WriteAt(bytes.Repeat([]byte{7}, int(fi.Size()-size)), size)
			must(t, err)
		}, 2<<20 + 2*minChunk},
		"cut":        {func(t *testing.T, f *os.File, size int64) { must(t, f.Truncate(size)) }, 2<<20 + minChunk},
		"longer":     {func(t *testing.T, f *os.File, size int64) { must(t, f.Truncate(2*size)) }, 2<<20 + minChunk},
		"empty":      {func(t *testing.T, f *os.File, _ int64) { must(t, f.Truncate(0)) }, 2<<20 + minChunk},
		"not at all": {func(*testing.T, *os.File, int64) {}, 1<<20 + 2*minChunk},
	} {
		h, dir := newHub(t), t.TempDir()
		_, w := bigImage(t, h, 2<<20)
		w.now(manner{upTo: 1 << 20})
		if _, err := newImages(t, dir).Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err == nil {
			t.Fatalf("%s: not cut", what)
		}
		w.now(manner{})
		s := newImages(t, dir)
		f, err := os.OpenFile(s.st.Partial(w.blob.Digest.Hex()), os.O_RDWR, 0)
		must(t, err)
		c.spoil(t, f, w.blob.Size)
		f.Close()
		if _, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := w.sent.Load(); got > c.most {
			t.Errorf("%s: %d bytes sent, want at most %d", what, got, c.most)
		}
		whole(t, s)
	}
}

// A registry that lies is told as one, also when the first part of the blob was
// there, and leaves no bytes for others.
func TestResumeOfLies(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), newImages(t, t.TempDir())
	_, w := bigImage(t, h, 2<<20)
	good := w.f.body
	w.now(manner{upTo: 1 << 20})
	if _, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err == nil {
		t.Fatal("not cut")
	}
	w.now(manner{})
	bad := bytes.Clone(good)
	bad[len(good)-100] ^= 1
	w.body(bad)
	_, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{})
	wantError(t, "lies at the end", err, errs.Corrupt, w.blob.Digest.Short())
	if asked, _ := w.seen(); len(asked) != 2 {
		t.Errorf("asked for %q, want once more for all", asked)
	}
	if left := partials(t, s); len(left) != 0 {
		t.Errorf("left %q", left)
	}
	w.body(good)
	pullOK(t, s, h.ref(t, ":v1"))
	whole(t, s)
}

// More connections fetch what one would take long for, and whatever fails of
// that, the layer comes.
func TestAhead(t *testing.T) {
	t.Parallel()
	const rate = 4 << 20
	isSegment := func(r *http.Request) bool {
		return strings.HasPrefix(r.Header.Get("Range"), "bytes=") && !strings.HasSuffix(r.Header.Get("Range"), "-")
	}
	var calls atomic.Int32
	for what, c := range map[string]struct {
		instead func(w *wire) func(http.ResponseWriter, *http.Request) bool
		most    int32 // requests at the same time
		bytes   int64 // more than the blob
	}{
		"good": {nil, connections + 1, slack},
		"no ranges": {func(w *wire) func(http.ResponseWriter, *http.Request) bool {
			return func(rw http.ResponseWriter, r *http.Request) bool {
				r.Header.Del("Range")
				return false
			}
		}, 2, 2 << 20},
		"refused": {func(w *wire) func(http.ResponseWriter, *http.Request) bool {
			return func(rw http.ResponseWriter, r *http.Request) bool {
				if isSegment(r) {
					rw.WriteHeader(http.StatusForbidden)
				}
				return isSegment(r)
			}
		}, 2, slack},
		"the third fails": {func(w *wire) func(http.ResponseWriter, *http.Request) bool {
			return func(rw http.ResponseWriter, r *http.Request) bool {
				if isSegment(r) && calls.Add(1) == 3 {
					rw.WriteHeader(http.StatusNotFound)
					return true
				}
				return false
			}
		}, connections + 1, 2 << 20},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h, s := newHub(t), quickImages(t, t.TempDir())
			_, w := bigImage(t, h, 4<<20)
			m := manner{rate: rate}
			if c.instead != nil {
				m.instead = c.instead(w)
			}
			w.now(m)
			start := time.Now()
			if _, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err != nil {
				t.Errorf("%v", err)
			}
			took := time.Since(start)
			asked, got := w.seen()
			t.Logf("%v, %d at once, %d of %d bytes, %d requests", took, got, w.sent.Load(), w.blob.Size, len(asked))
			if got > c.most || what == "good" && got < connections {
				t.Errorf("%d requests at the same time, want %d", got, c.most)
			}
			if got := w.sent.Load(); got > w.blob.Size+c.bytes {
				t.Errorf("%d bytes sent of %d", got, w.blob.Size)
			}
			whole(t, s)
			if left := partials(t, s); len(left) != 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

// A small blob, and one that comes fast, comes over one connection.
func TestNotAhead(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), newImages(t, t.TempDir())
	_, w := bigImage(t, h, 3<<20)
	pullOK(t, s, h.ref(t, ":v1"))
	if asked, _ := w.seen(); len(asked) != 1 || asked[0] != "" {
		t.Errorf("%q", asked)
	}
}

// Cut while several connections fetch: what each has got is there.
func TestResumeOfAhead(t *testing.T) {
	t.Parallel()
	h, dir := newHub(t), t.TempDir()
	_, w := bigImage(t, h, 6<<20)
	var all int64
	for cut := range 3 {
		w.now(manner{rate: 2 << 20})
		s := quickImages(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for w.sent.Load() < 1500_000 && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err := s.Pull(ctx, h.ref(t, ":v1"), PullOptions{})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cut %d: %v", cut, err)
		}
		if _, most := w.seen(); cut == 0 && most < connections {
			t.Errorf("%d at once", most)
		}
		all += w.sent.Load()
	}
	w.now(manner{})
	s := newImages(t, dir)
	pullOK(t, s, h.ref(t, ":v1"))
	all += w.sent.Load()
	if most := w.blob.Size + 3*(slack+512<<10); all > most { // and what was in the sockets
		t.Errorf("%d bytes sent in all, want at most %d", all, most)
	}
	whole(t, s)
}

// Two layers of one blob, one of which is a lie; several pulls at once.
func TestPartialsMeet(t *testing.T) {
	t.Parallel()
	h, dir := newHub(t), t.TempDir()
	i, w := bigImage(t, h, 2<<20)
	lie := *i
	lie.Config = map[string]any{"User": "lie"}
	lie.Layers = [][]byte{fileLayer("other", "x"), i.Layers[0]}
	m := h.describe(&lie, fixture.Gzip)
	m.Layers[0] = m.Layers[1] // the same blob for both diffIDs
	h.manifest(spec.TypeOCIManifest, m, "lie")
	h.spoil(layerPath(m), w.serve)
	w.now(manner{rate: 10 << 20})
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			s := newImages(t, dir)
			if n%2 == 1 {
				_, err := s.Pull(t.Context(), h.ref(t, ":lie"), PullOptions{})
				wantError(t, "a lie", err, errs.Corrupt, "digest")
				return
			}
			if _, err := s.Pull(t.Context(), h.ref(t, ":v1"), PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := newImages(t, dir)
	whole(t, s)
	if left := partials(t, s); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestSweepPartials(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), newImages(t, t.TempDir())
	must(t, s.Sweep()) // no directory
	i, w := bigImage(t, h, 2<<20)
	other := func(n string) spec.Descriptor {
		return spec.Descriptor{Digest: spec.DigestOf([]byte(n)), Size: 2 << 20}
	}
	fill := func(d spec.Descriptor) *partial {
		p := s.openPartial(d)
		must(t, (&filling{p: p}).write(make([]byte, minChunk)))
		return p
	}
	stale := func(d spec.Descriptor) {
		old := time.Now().Add(-2 * keepUnused)
		must(t, os.Chtimes(s.st.Partial(d.Digest.Hex()), old, old))
	}
	young, old, used := other("young"), other("old"), other("used")
	fill(young).close()
	fill(old).close()
	busy := fill(used)
	stale(old)
	stale(used)
	fill(w.blob).close()
	load(t, s, fixture.OCIArchive(fixture.Gzip, i).Bytes()) // the layer, from elsewhere
	must(t, s.Sweep())
	want := []string{young.Digest.Hex(), used.Digest.Hex()}
	slices.Sort(want)
	if got := partials(t, s); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	busy.drop()
	stale(young)
	must(t, s.Sweep())
	if got := partials(t, s); len(got) != 0 {
		t.Errorf("left %q", got)
	}
}

// Sizes that a manifest only claims cost neither memory nor disk.
func TestPartialOfAbsurdSize(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	for _, size := range []int64{0, 1, minPartial - 1, 1 << 50, 1<<63 - 1} {
		if p := s.openPartial(spec.Descriptor{Digest: spec.DigestOf(nil), Size: size}); p != nil {
			t.Errorf("size %d: a partial with %d chunks", size, len(p.sums))
		}
	}
	empty(t, s)
}

func BenchmarkFilling(b *testing.B) {
	s := newImages(b, b.TempDir())
	data := []byte(noise(128 << 10))
	d := spec.Descriptor{Digest: spec.DigestOf(nil), Size: 256 << 20}
	b.SetBytes(d.Size)
	for b.Loop() {
		p := s.openPartial(d)
		w := &filling{p: p}
		for w.off < d.Size {
			must(b, w.write(data))
		}
		p.drop()
	}
}
