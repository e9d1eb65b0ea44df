package image

import (
	"bytes"
	"encoding/json"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// FuzzLoad gives Load any bytes as an archive: a clear error and a store as it
// was, or images that are whole.
func FuzzLoad(f *testing.F) {
	i, other := twoLayers("app:v1"), oneLayer("other:v1", "x")
	seeds := [][]byte{
		fixture.DockerArchive(i, other).Bytes(), oldDocker(f, i, other), podmanDocker(f, i), bothLayouts(f, i, true, nil),
		fixture.OCIArchive(fixture.Plain, i, other).Bytes(), fixture.OCIArchive(fixture.Zstd, i).Bytes(),
	}
	for _, b := range seeds {
		f.Add(b)
		gz, _ := fixture.Compress(fixture.Gzip, b)
		f.Add(gz)
	}
	s := newImages(f, f.TempDir())
	before := files(f, s)
	f.Fuzz(func(t *testing.T, b []byte) {
		loaded, err := s.Load(t.Context(), bytes.NewReader(b), nil)
		if err != nil {
			if errs.ClassOf(err) == errs.Internal {
				t.Errorf("an archive's fault without a class: %v", err)
			}
		}
		whole(t, s)
		for _, l := range loaded {
			if _, err := s.Remove(string(l.ID), true, nil); err != nil && !errs.Is(err, errs.NotFound) {
				t.Error(err)
			}
		}
		if after := files(t, s); after != before {
			t.Errorf("left in the store:\n%s", after)
		}
	})
}

// FuzzParseManifest checks that what is accepted means one thing, and that
// nothing in it can lead out of the store.
func FuzzParseManifest(f *testing.F) {
	for _, b := range []string{goodImage, goodIndex, withLayer(goodLayer + "," + goodLayer), `{"schemaVersion":2}`} {
		f.Add([]byte(b), "")
		f.Add([]byte(b), spec.TypeOCIManifest)
	}
	f.Fuzz(func(t *testing.T, b []byte, mediaType string) {
		m, x, err := parseManifest(b, mediaType)
		if err != nil {
			return
		}
		if (m == nil) == (x == nil) {
			t.Fatal("it is both or neither")
		}
		var all []spec.Descriptor
		if m != nil {
			all = append(m.Layers, m.Config)
		} else {
			all = x.Manifests
		}
		for _, d := range all {
			if !spec.IsHex64(d.Digest.Hex()) || d.Size < 0 {
				t.Errorf("accepted %+v", d)
			}
		}
		if x != nil {
			if d, err := choose(x, spec.HostPlatform()); err == nil && !spec.IsHex64(d.Digest.Hex()) {
				t.Errorf("chose %+v", d)
			}
		}
		if _, err := json.Marshal(all); err != nil {
			t.Error(err)
		}
	})
}
