package layer

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func gzipForm(t *testing.T, l *Layers, held *Layer) ([]byte, error) {
	t.Helper()
	r, err := l.Gzip(t.Context(), held, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return io.ReadAll(r)
}

// The gzip form of a tar is the same on any number of processors, is what
// gzip(1) reads, and is not made of a tar that has changed.
func TestGzip(t *testing.T) {
	l := openTestLayers(t)
	random := make([]byte, 5<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rng.IntN(40))
	}
	tar := fixture.NewLayer().File("random", 0o644, string(random)).File("zeros", 0o644, string(make([]byte, 3<<20))).Bytes()
	held, err := l.Add(t.Context(), bytes.NewReader(tar), Expect{BlobSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var want spec.Digest
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, n := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(n)
		b, err := gzipForm(t, l, held)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, tar) {
			t.Errorf("%d processors: %d bytes, %v", n, len(got), err)
		}
		if want == "" {
			want = spec.DigestOf(b)
		}
		if d := spec.DigestOf(b); d != want {
			t.Errorf("%d processors: %s instead of %s", n, d, want)
		}
	}
	// A reader that leaves in the middle leaves nothing behind.
	before := runtime.NumGoroutine()
	for range 20 {
		r, err := l.Gzip(t.Context(), held, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if n := runtime.NumGoroutine(); n > before+5 {
		t.Errorf("%d goroutines, before %d", n, before)
	}
	path := l.path(held.DiffID, fileTar)
	tar[1<<20] ^= 1
	if err := os.WriteFile(path, tar, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := gzipForm(t, l, held); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a changed tar: %v", err)
	}
}

func TestRemember(t *testing.T) {
	l := openTestLayers(t)
	held, err := l.Add(t.Context(), bytes.NewReader(fixture.NewLayer().File("a", 0o644, "x").Bytes()), Expect{BlobSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for n := range 40 {
		d := spec.Descriptor{MediaType: spec.TypeOCILayerGzip, Digest: spec.DigestOf([]byte{byte(n)}), Size: int64(n)}
		for range 2 {
			if _, err := l.Remember(held.DiffID, d); err != nil {
				t.Fatal(err)
			}
		}
	}
	again, err := l.Get(held.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	n := len(again.Blobs)
	if n != maxForms || again.Blobs[0].Digest != held.DiffID || again.Blobs[n-1].Size != 39 {
		t.Errorf("%d forms: %+v", n, again.Blobs)
	}
}
