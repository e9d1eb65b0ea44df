package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
)

// A part is what was asked for, whatever the registry makes of ranges; where
// it must be exact, a registry that sends something else is told from one that
// fails.
func TestBlobPart(t *testing.T) {
	noKeychain(t)
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(i>>9 ^ i)
	}
	d := spec.Descriptor{Digest: spec.DigestOf(data), Size: int64(len(data))}
	ranged := func(header string, from, to int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				_, _ = w.Write(data)
				return
			}
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data[from:to])
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				_, _ = w.Write(data)
				return
			}
			w.WriteHeader(code)
		}
	}
	const from, to = 100_000, 200_000
	for name, c := range map[string]struct {
		serve  http.HandlerFunc
		ranges bool // it can be trusted with them
	}{
		"good": {func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}, true},
		"size unknown":     {ranged("bytes 100000-199999/*", from, to), true},
		"longer than told": {ranged("bytes 100000-299999/300000", from, len(data)), true},
		"ignored":          {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }, false},
		"other start":      {ranged("bytes 0-199999/300000", 0, to), false},
		"other size":       {ranged("bytes 100000-199999/300001", from, to), false},
		"backwards":        {ranged("bytes 100000-99999/300000", from, to), false},
		"no numbers":       {ranged("bytes a-b/c", from, to), false},
		"negative":         {ranged("bytes -100000-199999/300000", from, to), false},
		"no header":        {ranged("", from, to), false},
		"416":              {status(http.StatusRequestedRangeNotSatisfiable), false},
		"400":              {status(http.StatusBadRequest), false},
		"501":              {status(http.StatusNotImplemented), false},
	} {
		t.Run(name, func(t *testing.T) {
			client, ref := testClient(Options{}), reference(t, content(t, c.serve)+"/a")
			b, err := client.BlobPart(t.Context(), ref, d, from, to, false)
			if err != nil {
				t.Fatal(err)
			}
			want := data[from:to]
			if !c.ranges {
				want = data[from:]
			}
			if b.End() != from+int64(len(want)) {
				t.Errorf("ends at %d", b.End())
			}
			got, err := io.ReadAll(b)
			b.Close()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			b, err = client.BlobPart(t.Context(), ref, d, from, to, true)
			if !c.ranges {
				if !errors.Is(err, ErrNoRanges) || errs.ClassOf(err) != errs.Unavailable {
					t.Errorf("exact: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err = io.ReadAll(b)
			b.Close()
			if err != nil || !bytes.Equal(got, data[from:to]) {
				t.Errorf("exact: %d bytes, %v", len(got), err)
			}
		})
	}
}

// A registry that sends fewer bytes than the range it tells is asked for the
// rest; one that never sends any is given up.
func TestBlobPartShort(t *testing.T) {
	noKeychain(t)
	data := bytes.Repeat([]byte("0123456789"), 1000)
	d := spec.Descriptor{Digest: spec.DigestOf(data), Size: int64(len(data))}
	for _, step := range []int{700, 0} {
		host := content(t, func(w http.ResponseWriter, r *http.Request) {
			var from, to int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			_, _ = w.Write(data[from:min(from+step, to+1)])
		})
		b, err := testClient(Options{}).BlobPart(t.Context(), reference(t, host+"/a"), d, 1000, 9000, true)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b)
		b.Close()
		if step == 0 {
			wantError(t, err, errs.Unavailable, "broke off after 1000 of 10000 bytes")
		} else if err != nil || !bytes.Equal(got, data[1000:9000]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	_, err := testClient(Options{}).BlobPart(t.Context(), reference(t, "127.0.0.1:1/a"), d, 9000, 10001, false)
	wantError(t, err, errs.Invalid, "no bytes 9000 to 10001")
}

// A mirror that stays away in the middle of a blob is left for the registry,
// which is asked for the rest only.
func TestMirrorLeavesInTheMiddle(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	n := newNet(t)
	var served atomic.Int32
	n.tls("mirror.example:443", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if served.Add(1) > 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:40_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	var asked atomic.Value
	n.tls("r.example:443", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			asked.Store(r.Header.Get("Range"))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}
	})
	registries(t, `registry."r.example".mirrors = ["https://mirror.example"]`)
	c := n.client(Options{RootCAs: n.pool(), Anonymous: true})
	rc, err := c.Blob(t.Context(), reference(t, "r.example/a"), spec.Descriptor{Digest: spec.DigestOf(data), Size: int64(len(data))})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if asked.Load() != "bytes=40000-" {
		t.Errorf("the registry was asked for %v", asked.Load())
	}
}
