package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func save(t testing.TB, s *Images, o SaveOptions, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(t.Context(), &b, names, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// members lists the files in a tar.
func members(t testing.TB, b []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if _, ok := out[h.Name]; ok {
			t.Errorf("%s is there twice", h.Name)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	s := newImages(t, t.TempDir())
	a, b := twoLayers("team/a:1"), twoLayers("team/b:2")
	b.Config = map[string]any{"Cmd": []string{"other"}}
	none := &fixture.Image{Name: "none:1", Config: map[string]any{}}
	loadImages(t, s, a, b, none)
	must(t, s.Tag("team/a:1", "team/a:again"))
	for _, oci := range []bool{false, true} {
		o := SaveOptions{OCI: oci}
		names := []string{"team/a", string(idOf(b))[7:19], "none:1", "team/a:1"}
		out := save(t, s, o, names...)
		if !bytes.Equal(out, save(t, s, o, names...)) {
			t.Error("two saves differ")
		}
		if len(out)%512 != 0 {
			t.Errorf("%d bytes", len(out))
		}
		files := members(t, out)
		for name, b := range files {
			if d, blob := nameDigest(name); blob && spec.DigestOf(b) != d {
				t.Errorf("%s has other bytes", name)
			}
		}
		if _, ok := files["manifest.json"]; ok == oci {
			t.Errorf("manifest.json: %v, OCI: %v", ok, oci)
		}
		for _, l := range a.Layers {
			if !bytes.Equal(files["blobs/sha256/"+fixture.Digest(l)[7:]], l) {
				t.Error("a layer is missing")
			}
		}
		to := newImages(t, t.TempDir())
		var got []string
		for _, l := range load(t, to, out) {
			got = append(got, l.Name+" "+string(l.ID))
		}
		slices.Sort(got)
		want := []string{" " + string(idOf(b)), "none:1 " + string(idOf(none)), "team/a:1 " + string(idOf(a)), "team/a:again " + string(idOf(a))}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("OCI %v (-want +got):\n%s", oci, d)
		}
		whole(t, to)
		if again := save(t, to, o, "team/a", string(idOf(b)), "none:1"); !bytes.Equal(out, again) {
			t.Error("what was loaded is saved as something else")
		}
	}
}

func TestSaveDamaged(t *testing.T) {
	s := newImages(t, t.TempDir())
	i := twoLayers("a:1")
	loadImages(t, s, i)
	path := filepath.Join(s.st.Layer(fixture.Digest(i.Layers[1])[7:]), "tar")
	good, err := os.ReadFile(path)
	must(t, err)
	bad := slices.Clone(good)
	bad[600] ^= 1
	meta := filepath.Join(filepath.Dir(path), "meta.json")
	for _, checksum := range []bool{true, false} {
		must(t, os.WriteFile(path, bad, 0o600))
		if !checksum { // as stores of before have it
			b, err := os.ReadFile(meta)
			must(t, err)
			at := bytes.Index(b, []byte(`"CRC32C":`))
			end := at + bytes.IndexByte(b[at:], ',') + 1
			must(t, os.WriteFile(meta, slices.Concat(b[:at], b[end:]), 0o600))
		}
		wantError(t, "changed", s.Save(t.Context(), io.Discard, []string{"a:1"}, SaveOptions{}), errs.Corrupt, "layer "+fixture.Digest(i.Layers[1]), "damaged")
		must(t, os.WriteFile(path, good, 0o600))
		save(t, s, SaveOptions{}, "a:1")
	}
	must(t, os.Truncate(path, 512))
	wantError(t, "short", s.Save(t.Context(), io.Discard, []string{"a:1"}, SaveOptions{}), errs.Corrupt, "512 bytes instead of")
	must(t, os.WriteFile(path, good, 0o600))
	must(t, os.WriteFile(s.st.Blob(idOf(i).Hex()), []byte("{}"), 0o600))
	wantError(t, "config", s.Save(t.Context(), io.Discard, []string{"a:1"}, SaveOptions{}), errs.Corrupt, "its bytes have changed")
}

// failWriter fails after n bytes.
type failWriter struct{ n int }

func (w *failWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errors.New("the pipe broke")
	}
	return len(p), nil
}

func TestSaveErrors(t *testing.T) {
	s := newImages(t, t.TempDir())
	loadImages(t, s, twoLayers("a:1"))
	for _, tt := range []struct {
		name  string
		o     SaveOptions
		class errs.Class
		words string
	}{
		{"b:1", SaveOptions{}, errs.NotFound, "No such image: b:1"},
		{"b", SaveOptions{}, errs.NotFound, "No such image: b:latest"},
		{"A:1", SaveOptions{}, errs.Invalid, "lowercase"},
		{"a:1", SaveOptions{Platforms: []spec.Platform{{OS: "linux", Architecture: "s390x"}}}, errs.NotFound, "does not match the specified platform (linux/s390x)"},
	} {
		var b bytes.Buffer
		wantError(t, tt.name, s.Save(t.Context(), &b, []string{"a:1", tt.name}, tt.o), tt.class, tt.words)
		if b.Len() > 0 {
			t.Errorf("%s: %d bytes were written", tt.name, b.Len())
		}
	}
	for n := range 12 {
		if err := s.Save(t.Context(), &failWriter{n * 512}, []string{"a:1"}, SaveOptions{}); err == nil || err.Error() == "" {
			t.Errorf("no error with a writer that takes %d bytes", n*512)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ctx, io.Discard, []string{"a:1"}, SaveOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// Nothing is held any more.
	_, err := s.Remove("a:1", false, nil)
	must(t, err)
	empty(t, s)
}

// Variants of one index are found by platform, whichever the name means now.
func TestSavePlatform(t *testing.T) {
	s := newImages(t, t.TempDir())
	amd, arm := twoLayers("multi:1"), oneLayer("multi:1", "arm")
	arm.Arch = "arm64"
	loadVariants(t, s, "multi:1", amd, arm)
	for _, i := range []*fixture.Image{amd, arm} {
		arch := i.Arch
		if arch == "" {
			arch = "amd64"
		}
		out := save(t, s, SaveOptions{Platforms: []spec.Platform{{OS: "linux", Architecture: arch}}}, "multi:1")
		to := newImages(t, t.TempDir())
		loaded := load(t, to, out)
		if want := []Loaded{{"multi:1", idOf(i)}}; !slices.Equal(loaded, want) {
			t.Errorf("%s: %v, want %v", arch, loaded, want)
		}
	}
	both := save(t, s, SaveOptions{Platforms: []spec.Platform{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "amd64"}}}, "multi:1")
	if got := len(members(t, both)); got != 4+2*2+3 {
		t.Errorf("%d members", got)
	}
}

// loadVariants puts images into the store as pulls of one index for each of
// their platforms do.
func loadVariants(t testing.TB, s *Images, name string, imgs ...*fixture.Image) {
	t.Helper()
	x := spec.Index{SchemaVersion: 2, MediaType: spec.TypeOCIIndex}
	var in []*incoming
	for _, i := range imgs {
		m := &outgoing{}
		loadImages(t, s, i)
		img := resolve(t, s, string(idOf(i)))
		m, err := s.outgoing(img)
		must(t, err)
		defer m.release()
		x.Manifests = append(x.Manifests, spec.Descriptor{MediaType: spec.TypeOCIManifest, Digest: spec.DigestOf(m.manifest), Size: int64(len(m.manifest)), Platform: &img.Config.Platform})
		in = append(in, &incoming{
			id: img.ID, manifest: spec.DigestOf(m.manifest), layers: img.Layers(), size: img.Size,
			blobs: map[spec.Digest][]byte{img.ID: m.config, spec.DigestOf(m.manifest): m.manifest},
		})
	}
	index := toJSON(x)
	ref, err := spec.ParseReference(name)
	must(t, err)
	for _, n := range in {
		n.target = &spec.Descriptor{MediaType: spec.TypeOCIIndex, Digest: spec.DigestOf(index), Size: int64(len(index))}
		n.blobs[n.target.Digest] = index
		n.names = []spec.Reference{ref}
	}
	_, err = s.commit(t.Context(), in)
	must(t, err)
}
