package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
)

// resuming makes g keep the first part of what comes with each of the first
// requests that upload, end their connections, and tell what it has. It counts
// the bytes it takes.
func (g *target) resuming(parts []int64, said func(have int, w http.ResponseWriter)) (taken func() int) {
	total := 0
	g.answer(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		g.mu.Lock()
		all, ok := g.uploads[id]
		g.mu.Unlock()
		switch {
		case r.Method == http.MethodGet && ok:
			said(len(all), w)
			return true
		case r.Method != http.MethodPut && r.Method != http.MethodPatch || !ok:
			return false
		}
		if span := r.Header.Get("Content-Range"); span != "" && span != fmt.Sprintf("%d-%d", len(all), int64(len(all))+r.ContentLength-1) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}
		var b bytes.Buffer
		g.mu.Lock()
		cut := len(parts) > 0
		if cut {
			r.Body = io.NopCloser(io.LimitReader(r.Body, parts[0]))
			parts = parts[1:]
		}
		g.mu.Unlock()
		io.Copy(&b, r.Body)
		g.mu.Lock()
		total += b.Len()
		if cut {
			g.uploads[id] = append(all, b.Bytes()...)
		}
		g.mu.Unlock()
		if cut {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(&b)
		return false
	})
	return func() int { g.mu.Lock(); defer g.mu.Unlock(); return total }
}

// has204 is what the specification says that a registry answers.
func has204(have int, w http.ResponseWriter) {
	w.Header().Set("Range", fmt.Sprintf("0-%d", have-1))
	w.WriteHeader(http.StatusNoContent)
}

// An upload whose connection breaks goes on where it was, and no byte that the
// registry has is sent again.
func TestUploadResumes(t *testing.T) {
	b := someBytes(6<<20 + 5)
	for what, parts := range map[string][]int64{
		"once": {3 << 20}, "at the end": {6<<20 + 5}, "three times": {2 << 20, 1 << 20, 1 << 20},
		"more often than an upload is tried": {1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20},
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprint(what, known), func(t *testing.T) {
				g := newTarget(t)
				taken := g.resuming(parts, has204)
				want := describe(b)
				if !known {
					want = spec.Descriptor{}
				}
				got, err := testClient(Options{}).Upload(t.Context(), reference(t, g.addr+"/app"), want, from(b))
				if err != nil || got.Digest != spec.DigestOf(b) || got.Size != int64(len(b)) || !bytes.Equal(g.has["app/blobs/"+string(got.Digest)], b) {
					t.Fatalf("%+v, %v", got, err)
				}
				if n := strings.Count(strings.Join(g.seen, "\n"), "POST "); n != 1 || taken() != len(b) {
					t.Errorf("%d bytes were taken, and there were %d uploads:\n%s", taken(), n, strings.Join(g.seen, "\n"))
				}
			})
		}
	}
}

// A registry that cannot go on, or says what cannot be, gets all anew.
func TestUploadCannotResume(t *testing.T) {
	b := someBytes(2 << 20)
	ranged := func(status int, span string, head ...string) func(int, http.ResponseWriter) {
		return func(_ int, w http.ResponseWriter) {
			w.Header().Set("Range", span)
			for i := 0; i < len(head); i += 2 {
				w.Header().Set(head[i], head[i+1])
			}
			w.WriteHeader(status)
		}
	}
	for what, said := range map[string]func(int, http.ResponseWriter){
		"forgotten": ranged(404, ""), "nothing": ranged(204, "0-0"), "little": ranged(204, "0-1000"), "no range": ranged(204, ""), "no number": ranged(204, "0-x"),
		"from the middle": ranged(204, "5-1572863"), "more than was sent": ranged(204, "0-2097152"), "very much": ranged(204, "0-9223372036854775807"),
		"negative": ranged(204, "0--2"), "elsewhere": ranged(204, "0-1572863", "Location", "http://169.254.169.254/"), "a web page": ranged(200, "0-1572863"),
		"less than it has": ranged(204, "0-1048576"), "broken": func(int, http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(what, func(t *testing.T) {
			g := newTarget(t)
			g.resuming([]int64{3 << 19}, said)
			got, err := testClient(Options{}).Upload(t.Context(), reference(t, g.addr+"/app"), describe(b), from(b))
			if err != nil || !bytes.Equal(g.has["app/blobs/"+string(got.Digest)], b) {
				t.Fatal(err)
			}
			if n := strings.Count(strings.Join(g.seen, "\n"), "POST "); n != 2 {
				t.Errorf("%d uploads:\n%s", n, strings.Join(g.seen, "\n"))
			}
		})
	}
}

// A source that is not the same again is no upload.
func TestUploadResumesOther(t *testing.T) {
	b := someBytes(4 << 20)
	other := bytes.Clone(b)
	other[5]++
	for what, second := range map[string][]byte{"shorter": b[:1<<20], "other": other} {
		for _, part := range []int64{2 << 20, 4 << 20} {
			g := newTarget(t)
			g.resuming([]int64{part}, has204)
			opened := 0
			_, err := testClient(Options{}).Upload(t.Context(), reference(t, g.addr+"/app"), describe(b), func(ctx context.Context) (io.ReadCloser, error) {
				if opened++; opened > 1 {
					return from(second)(ctx)
				}
				return from(b)(ctx)
			})
			if errs.ClassOf(err) != errs.Corrupt || len(g.has) != 0 {
				t.Errorf("%s, %d: %v", what, part, err)
			}
		}
	}
}

// A registry that is busy when all is sent is waited for as it asks, and only
// the end is done again.
func TestUploadBusyAtTheEnd(t *testing.T) {
	g, b := newTarget(t), someBytes(2<<20)
	taken := g.resuming(nil, has204)
	inner, busy := g.hook, true
	g.answer(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Method == http.MethodPut && busy {
			busy = false
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return inner(w, r, n)
	})
	start := time.Now()
	got, err := testClient(Options{}).Upload(t.Context(), reference(t, g.addr+"/app"), spec.Descriptor{}, from(b))
	if err != nil || got.Digest != spec.DigestOf(b) || got.Size != int64(len(b)) || taken() != len(b) || time.Since(start) < time.Second {
		t.Errorf("%+v, %v; %d bytes in %v", got, err, taken(), time.Since(start))
	}
}
