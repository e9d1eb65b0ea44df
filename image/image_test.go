package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/registry"
	"tug/spec"
	"tug/state"
	"tug/test/fixture"
)

// newImages opens the images of a store at dir, as every command does anew.
func newImages(t testing.TB, dir string) *Images {
	t.Helper()
	st, err := state.Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	return Open(st, layer.Open(st, "erofs"), registry.New(registry.Options{
		Anonymous: true, Backoff: time.Millisecond, Silence: 2 * time.Second,
	}))
}

// oneLayer is an image whose only layer holds only a file with that content.
func oneLayer(name, content string) *fixture.Image {
	return &fixture.Image{Name: name, Layers: [][]byte{fileLayer("file", content)}, Config: map[string]any{"Cmd": []string{name}}}
}

func fileLayer(name, content string) []byte {
	return fixture.NewLayer().File(name, 0o644, content).Bytes()
}

func idOf(i *fixture.Image) spec.Digest { return spec.Digest(fixture.Digest(i.ConfigJSON())) }

func load(t testing.TB, s *Images, b []byte) []Loaded {
	t.Helper()
	loaded, err := s.Load(t.Context(), bytes.NewReader(b), nil)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func loadImages(t testing.TB, s *Images, imgs ...*fixture.Image) {
	t.Helper()
	load(t, s, fixture.DockerArchive(imgs...).Bytes())
}

func resolve(t testing.TB, s *Images, name string) *Image {
	t.Helper()
	img, err := s.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// wantError checks class and words of an error, that it is one line, and that
// it does not say what it is about twice.
func wantError(t testing.TB, what string, err error, class errs.Class, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one with %q", what, words)
		return
	}
	if got := errs.ClassOf(err); got != class {
		t.Errorf("%s: class %v, want %v: %v", what, got, class, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %q does not say %q", what, err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: more than one line: %q", what, err)
	}
}

// files lists what is in the store, with sizes and without locks.
func files(t testing.TB, s *Images) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(s.st.Root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() || strings.HasSuffix(path, ".lock") {
			return nil
		}
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, strings.TrimPrefix(path, s.st.Root), fi.Size())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// whole checks what must be true of a store at any time: names point at
// records, and records at blobs and layers that are as their digests say.
func whole(t testing.TB, s *Images) {
	t.Helper()
	names, err := s.names()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if _, err := s.readRecord(n.Image); err != nil {
			t.Errorf("name %s: %v", n.Name, err)
		}
	}
	recs, err := s.records()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		for _, d := range r.Blobs {
			if _, err := s.readBlob(d); err != nil {
				t.Errorf("image %s: %v", r.ID.Short(), err)
			}
		}
		if !slices.Contains(r.Blobs, r.ID) {
			t.Errorf("image %s does not keep its config", r.ID.Short())
		}
		for _, d := range r.Layers {
			b, err := os.ReadFile(filepath.Join(s.st.Layer(d.Hex()), "tar"))
			if err != nil || spec.DigestOf(b) != d {
				t.Errorf("image %s: layer %s: %v", r.ID.Short(), d.Short(), err)
			}
		}
	}
}

// empty checks that nothing is left in the store but what was there first.
func empty(t testing.TB, s *Images) {
	t.Helper()
	if got := files(t, s); got != "/version 2\n" {
		t.Errorf("left in the store:\n%s", got)
	}
}

func addLayer(t testing.TB, s *Images, tar []byte) *layer.Layer {
	t.Helper()
	l, err := s.layers.Add(t.Context(), bytes.NewReader(tar), layer.Expect{BlobSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	return l
}
