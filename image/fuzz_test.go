package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
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
	f.Fuzz(func(t *testing.T, b []byte) { loadAnything(t, s, b, before) })
}

// loadAnything loads b, checks the store, and empties it again.
func loadAnything(t *testing.T, s *Images, b []byte, before string) {
	loaded, err := s.Load(t.Context(), bytes.NewReader(b), nil)
	if err != nil && errs.ClassOf(err) == errs.Internal {
		t.Errorf("an archive's fault without a class: %v", err)
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
}

// FuzzLoadMembers changes the members of archives which are sound as such. The
// words LAYER, CONFIG and MANIFEST become the digests of what they name.
func FuzzLoadMembers(f *testing.F) {
	layerTar := fileLayer("file", "content")
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:LAYER"]}}`
	docker := `[{"Config":"CONFIG.json","RepoTags":["a:b"],"Layers":["LAYER.tar"]}]`
	layerGrows, configGrows := 64-len("LAYER"), 64-len("CONFIG")
	manifest := fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":"sha256:CONFIG","size":%d},"layers":[{"mediaType":%q,"digest":"sha256:LAYER","size":%d}]}`,
		len(config)+layerGrows, spec.TypeOCILayer, len(layerTar))
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":"sha256:MANIFEST","size":%d,"annotations":{%q:"a:b"}}]}`,
		len(manifest)+layerGrows+configGrows, annotationImageName)
	for _, d := range []string{docker, ""} {
		f.Add(layerTar, []byte(config), []byte(d), []byte(manifest), []byte(index))
		f.Add(layerTar, []byte(config), []byte(d), []byte(index), []byte(index))
		f.Add([]byte{}, []byte("{}"), []byte(d), []byte("{}"), []byte("{}"))
	}
	s := newImages(f, f.TempDir())
	before := files(f, s)
	f.Fuzz(func(t *testing.T, layerTar, config, docker, manifest, index []byte) {
		a := &fixture.Archive{}
		add := func(word string, b []byte, names ...string) func([]byte) []byte {
			digest := fixture.Digest(b)[7:]
			for _, n := range names {
				a.Add(strings.ReplaceAll(n, word, digest), b)
			}
			return func(text []byte) []byte { return bytes.ReplaceAll(text, []byte(word), []byte(digest)) }
		}
		withLayer := add("LAYER", layerTar, "LAYER.tar", "blobs/sha256/LAYER")
		withConfig := add("CONFIG", withLayer(config), "CONFIG.json", "blobs/sha256/CONFIG")
		withManifest := add("MANIFEST", withConfig(withLayer(manifest)), "blobs/sha256/MANIFEST")
		a.Add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
		a.Add("index.json", withManifest(index))
		if len(docker) > 0 {
			a.Add("manifest.json", withConfig(withLayer(docker)))
		}
		loadAnything(t, s, a.Bytes(), before)
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
