package layer

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"tug/errs"
	"tug/spec"
)

func gzipBytes(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstdBytes(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// addBlob stores b as it comes from a registry: with its digest and size.
func addBlob(t *testing.T, l *Layers, b []byte) (Info, error) {
	t.Helper()
	got, err := l.Add(t.Context(), bytes.NewReader(b), Expect{Blob: spec.DigestOf(b), BlobSize: int64(len(b))})
	if err != nil {
		return Info{}, err
	}
	got.Close()
	return got.Info, nil
}

// What a layer is compressed with, in however many pieces, and what follows the
// compressed data or the archive in it: the tar is the tar.
func TestFraming(t *testing.T) {
	archive := makeTar(t, file("a", strings.Repeat("data ", 10000)))
	big := make([]byte, 5<<20) // more than all buffers on the way
	rand.NewChaCha8([32]byte{}).Read(big)
	half := len(archive) / 3
	plain := map[string][]byte{
		"archive":                     archive,
		"zeros after the end":         append(bytes.Clone(archive), make([]byte, 8192)...),
		"garbage after the end":       append(bytes.Clone(archive), big...),
		"half a block after the end":  append(bytes.Clone(archive), big[:700]...),
		"another archive after it":    append(bytes.Clone(archive), archive...),
		"without the end":             bytes.TrimSuffix(archive, endMarker),
		"with half of the end marker": archive[:len(archive)-512],
	}
	for name, tar := range plain {
		forms := map[string][]byte{
			"plain":             tar,
			"gzip":              gzipBytes(t, tar),
			"several members":   join(gzipBytes(t, tar[:half]), gzipBytes(t, nil), gzipBytes(t, tar[half:])),
			"zeros":             append(gzipBytes(t, tar), make([]byte, 100000)...),
			"garbage":           append(gzipBytes(t, tar), "\x1fgarbage"...),
			"zeros, a member":   join(gzipBytes(t, tar), make([]byte, 512), gzipBytes(t, tar)),
			"zstd":              zstdBytes(t, tar),
			"several frames":    join(zstdBytes(t, tar[:half]), zstdBytes(t, tar[half:])),
			"a skippable frame": join([]byte("\x5e\x2a\x4d\x18\x04\x00\x00\x00skip"), zstdBytes(t, tar)),
		}
		l := openTestLayers(t)
		for form, b := range forms {
			if name != "archive" && form != "plain" && form != "garbage" && form != "zstd" {
				continue
			}
			info, err := addBlob(t, l, b)
			if err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
				continue
			}
			if info.DiffID != spec.DigestOf(tar) || info.Size != int64(len(tar)) || info.Content != 50000 {
				t.Errorf("%s, %s: %+v", name, form, info)
			}
		}
	}
}

// The bytes that come out are those that gzip(1) writes.
func TestGarbageAsGzip(t *testing.T) {
	for name, tail := range map[string]string{"zeros": "\x00\x00\x00", "text": "text", "zeros and text": "\x00\x00text", "another magic": "\x1f\x9d\x90"} {
		b := append(gzipBytes(t, []byte("content\n")), tail...)
		cmd := exec.Command("gzip", "-dc")
		cmd.Stdin = bytes.NewReader(b)
		want, err := cmd.Output()
		if len(want) == 0 {
			t.Skipf("gzip: %v", err)
		}
		z, _, err := inflater(gzipped, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestBadFraming(t *testing.T) {
	archive := makeTar(t, file("a", strings.Repeat("data ", 10000)))
	z := gzipBytes(t, archive)
	flipped := bytes.Clone(z)
	flipped[len(z)/2] ^= 0x55
	sum := bytes.Clone(z)
	sum[len(z)-7] ^= 1
	for name, b := range map[string][]byte{
		"cut":               z[:len(z)/2],
		"cut in the sum":    z[:len(z)-3],
		"damaged":           flipped,
		"wrong sum":         sum,
		"cut member":        join(gzipBytes(t, archive[:600]), gzipBytes(t, archive[600:])[:100]),
		"only a magic":      []byte("\x1f\x8b"),
		"only a header":     []byte("\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\x03"),
		"second header cut": join(z, []byte("\x1f\x8b\x08\x04\x00\x00")),
		"zstd cut":          zstdBytes(t, archive)[:60],
		"zstd with garbage": append(zstdBytes(t, archive), "garbage"...),
	} {
		l := openTestLayers(t)
		if _, err := addBlob(t, l, b); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if all, err := l.List(); len(all) > 0 || err != nil {
			t.Errorf("%s: left %v, %v", name, all, err)
		}
	}
}

// A bomb ends at the limit, and the error says what to do.
func TestBombs(t *testing.T) {
	zeros := append(makeTar(t, file("a", "")), make([]byte, 64<<20)...)
	for name, b := range map[string][]byte{"gzip": gzipBytes(t, zeros), "zstd": zstdBytes(t, zeros), "plain": zeros} {
		l := openTestLayers(t)
		l.Limits.Tar = 8 << 20
		_, err := addBlob(t, l, b)
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "limit of 8388608 bytes") || !strings.Contains(errs.HintOf(err), SizeVar) {
			t.Errorf("%s: %v (%s)", name, err, errs.HintOf(err))
		}
	}
	l := openTestLayers(t)
	l.Limits.Entries = 2
	_, err := addBlob(t, l, makeTar(t, file("a", ""), file("b", ""), file("c", "")))
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "more than 2 entries") || !strings.Contains(errs.HintOf(err), EntriesVar) {
		t.Errorf("entries: %v", err)
	}
}

// FuzzInflate: whatever the compressed bytes are, reading them ends, and what
// fails has a class. Gzip is compared with the standard library.
func FuzzInflate(f *testing.F) {
	archive := makeTar(f, file("a", strings.Repeat("data ", 100)))
	for _, b := range [][]byte{
		gzipBytes(f, archive), zstdBytes(f, archive), archive, join(gzipBytes(f, archive), gzipBytes(f, nil), []byte("garbage")),
		join(zstdBytes(f, archive), []byte("\x5e\x2a\x4d\x18\x04\x00\x00\x00skip"), zstdBytes(f, nil)), []byte("\x1f\x8b\x08\x1c\x00\x00\x00\x00\x00\x03\x02\x00xxname\x00comment\x00"),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kind := detect(b)
		z, free, err := inflater(kind, bytes.NewReader(b))
		if err == nil {
			defer free()
			var got []byte
			const most = 4 << 20
			got, err = io.ReadAll(io.LimitReader(z, most))
			if kind == gzipped && err == nil && len(got) < most {
				compareGzip(t, b, got)
			}
		}
		if err != nil && errs.ClassOf(err) == errs.Internal {
			t.Fatalf("error without a class: %v", err)
		}
	})
}

// compareGzip: the standard library reads the first member at least as ours.
func compareGzip(t *testing.T, b, got []byte) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("ours reads %d bytes, compress/gzip: %v", len(got), err)
	}
	r.Multistream(false)
	want, err := io.ReadAll(r)
	if err != nil || !bytes.HasPrefix(got, want) {
		t.Fatalf("ours reads %d bytes, compress/gzip %d: %v", len(got), len(want), err)
	}
}
