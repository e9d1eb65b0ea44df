package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func TestNameFile(t *testing.T) {
	t.Parallel()
	long := "registry.example/" + strings.Repeat("a/", 200) + "b:c"
	for full, want := range map[string]string{
		"docker.io/library/a:b":  "docker.io%2Flibrary%2Fa:b",
		"localhost:5000/a:b":     "localhost:5000%2Fa:b",
		long:                     "%" + spec.DigestOf([]byte(long)).Hex(),
		"a@sha256:" + "0":        "a@sha256:0",
		strings.Repeat("x", 240): strings.Repeat("x", 240),
	} {
		if got := nameFile(full); got != want || len(got) > 255 {
			t.Errorf("%s: %s", full, got)
		}
	}
}

// Names that are too long for a file work like others.
func TestLongName(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	name := "registry.example/" + strings.Repeat("part/", 45) + "image:" + strings.Repeat("t", 100)
	i := oneLayer(name, "x")
	loadImages(t, s, i)
	if img := resolve(t, s, name); img.ID != idOf(i) || !slices.Equal(img.Names, []string{name}) {
		t.Errorf("%+v", img)
	}
	_, err := s.Remove(name, false, nil)
	must(t, err)
	empty(t, s)
}

// write puts bytes where a crash, a bug or a user may have put them.
func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// Every state that a crash can leave, and some that none can, is read as if
// the broken thing were not there or says what is wrong; and it can be mended
// by loading the image again.
func TestCrashStates(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	id := idOf(i)
	record := func(s *Images) string { return s.st.Image(id.Hex()) }
	nameOf := func(s *Images) string { return s.namePath("docker.io/library/app:v1") }
	blob := func(s *Images) string { return s.st.Blob(id.Hex()) }
	for what, c := range map[string]struct {
		damage  func(t *testing.T, s *Images)
		class   errs.Class // of resolving the name; Internal: none
		word    string
		visible int // images listed
	}{
		"name of nothing": {func(t *testing.T, s *Images) { must(t, os.Remove(record(s))) }, errs.NotFound, "No such image: app:v1", 0},
		"no name":         {func(t *testing.T, s *Images) { must(t, os.Remove(nameOf(s))) }, errs.NotFound, "No such image: app:v1", 1},
		"name empty":      {func(t *testing.T, s *Images) { write(t, nameOf(s), "") }, errs.Corrupt, "app:v1", 1},
		"name garbled":    {func(t *testing.T, s *Images) { write(t, nameOf(s), `{"name":"doc`) }, errs.Corrupt, "app:v1", 1},
		"name of another": {func(t *testing.T, s *Images) {
			write(t, nameOf(s), `{"name":"docker.io/library/x:y","image":"`+string(id)+`"}`)
		}, errs.Corrupt, "name of something else", 1},
		"name without image": {func(t *testing.T, s *Images) {
			write(t, nameOf(s), `{"name":"docker.io/library/app:v1","image":"../../etc/passwd"}`)
		}, errs.Corrupt, "name of something else", 1},
		"record empty":       {func(t *testing.T, s *Images) { write(t, record(s), "") }, errs.Corrupt, id.Hex(), 1},
		"record of another":  {func(t *testing.T, s *Images) { write(t, record(s), `{"id":"sha256:`+strings.Repeat("0", 64)+`"}`) }, errs.Corrupt, "no record of image", 1},
		"record with a path": {func(t *testing.T, s *Images) { write(t, record(s), `{"id":"`+string(id)+`","layers":["../../etc"]}`) }, errs.Corrupt, "no record of image", 1},
		"config missing":     {func(t *testing.T, s *Images) { must(t, os.Remove(blob(s))) }, errs.Corrupt, "config is missing", 1},
		"config changed":     {func(t *testing.T, s *Images) { write(t, blob(s), "{}") }, errs.Corrupt, "bytes have changed", 1},
		"config cut":         {func(t *testing.T, s *Images) { must(t, os.Truncate(blob(s), 10)) }, errs.Corrupt, "bytes have changed", 1},
		"temporary files": {func(t *testing.T, s *Images) {
			for _, dir := range []string{s.st.Names(), s.st.Images(), filepath.Dir(blob(s))} {
				write(t, filepath.Join(dir, ".new-123"), "half")
			}
			write(t, filepath.Join(s.st.Tmp(), "layer-1"), "half")
		}, errs.Internal, "", 1},
	} {
		t.Run(what, func(t *testing.T) {
			s := newImages(t, t.TempDir())
			loadImages(t, s, i)
			c.damage(t, s)
			_, err := s.Resolve("app:v1")
			if c.class != errs.Internal {
				wantError(t, "resolve", err, c.class, c.word)
				_, err = s.Lookup("app:v1")
				wantError(t, "look up", err, c.class, c.word)
			} else if err != nil {
				t.Error(err)
			}
			imgs, err := s.List()
			if err != nil || len(imgs) != c.visible {
				t.Errorf("list: %d images, want %d: %v", len(imgs), c.visible, err)
			}
			for _, img := range imgs {
				if img.ID != id {
					t.Errorf("listed: %s", img.ID)
				}
			}
			loadImages(t, s, i)
			whole(t, s)
			if img := resolve(t, s, "app:v1"); img.ID != id {
				t.Errorf("after loading again: %s", img.ID)
			}
			if _, err := s.Remove("app:v1", false, nil); err != nil {
				t.Errorf("remove: %v", err)
			}
			empty(t, s)
		})
	}
}

// A broken image can be removed, by ID, without loading it again.
func TestRemoveBroken(t *testing.T) {
	t.Parallel()
	for what, damage := range map[string]func(t *testing.T, s *Images, id spec.Digest){
		"record": func(t *testing.T, s *Images, id spec.Digest) { write(t, s.st.Image(id.Hex()), "{") },
		"config": func(t *testing.T, s *Images, id spec.Digest) { must(t, os.Remove(s.st.Blob(id.Hex()))) },
		"name":   func(t *testing.T, s *Images, _ spec.Digest) { write(t, s.namePath("docker.io/library/app:v1"), "") },
		"layer": func(t *testing.T, s *Images, _ spec.Digest) {
			must(t, os.Remove(filepath.Join(s.st.Layer(spec.DigestOf(twoLayers("app:v1").Layers[0]).Hex()), "tar")))
		},
	} {
		s := newImages(t, t.TempDir())
		i := twoLayers("app:v1")
		loadImages(t, s, i)
		damage(t, s, idOf(i))
		if _, err := s.Remove(string(idOf(i)), false, nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		age(t, s)
		must(t, s.Sweep())
		empty(t, s)
	}
}

// age makes all layers look as if they had been there for long.
func age(t *testing.T, s *Images) {
	t.Helper()
	old := time.Now().Add(-2 * keepUnused)
	eachEntry(s.st.Layers(), func(_ os.DirEntry, path string) { must(t, os.Chtimes(path, old, old)) })
}

// What a record holds stays when the image comes again by another way.
func TestRecordGrows(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	i := twoLayers("app:v1")
	loadImages(t, s, i)
	first := resolve(t, s, "app:v1")
	if first.Target != nil || first.LastTag.IsZero() || first.Pulled.IsZero() {
		t.Errorf("%+v", first)
	}
	load(t, s, fixture.OCIArchive(fixture.Gzip, i).Bytes())
	second := resolve(t, s, "app:v1")
	if second.Target == nil || !second.Pulled.Equal(first.Pulled) || !second.LastTag.Equal(first.LastTag) {
		t.Errorf("%+v, before %+v", second, first)
	}
	loadImages(t, s, i)
	if third := resolve(t, s, "app:v1"); third.Target == nil || third.Manifest != second.Manifest {
		t.Errorf("the manifest is forgotten: %+v", third)
	}
	whole(t, s)
}

func TestUsed(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	i := twoLayers("app:v1")
	loadImages(t, s, i)
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(s.st.Image(idOf(i).Hex()), old, old))
	if img := resolve(t, s, "app:v1"); time.Since(img.LastUsed) < time.Minute {
		t.Error("looking at an image counts as using it")
	}
	if _, err := s.Lookup("app:v1"); err != nil {
		t.Error(err)
	}
	if img := resolve(t, s, "app:v1"); time.Since(img.LastUsed) > time.Minute {
		t.Error(img.LastUsed)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	i, other := twoLayers("host.example:5000/team/app:v1"), oneLayer("latest-only", "x")
	other.Name = "plain:latest"
	loadImages(t, s, i, other)
	id := idOf(i)
	for name, want := range map[string]spec.Digest{
		"host.example:5000/team/app:v1": id,
		string(id):                      id,
		id.Hex():                        id,
		id.Hex()[:12]:                   id,
		"sha256:" + id.Hex()[:20]:       id,
		"plain":                         idOf(other),
		"plain:latest":                  idOf(other),
		"library/plain":                 idOf(other),
		"docker.io/library/plain":       idOf(other),
		"index.docker.io/library/plain": idOf(other),
	} {
		if img, err := s.Resolve(name); err != nil || img.ID != want {
			t.Errorf("%s: %v", name, err)
		}
		if img, err := s.Lookup(name); err != nil || img.ID != want {
			t.Errorf("look up %s: %v", name, err)
		}
	}
	for name, word := range map[string]string{
		"team/app:v1":                             "No such image: team/app:v1",
		"nothing":                                 "No such image: nothing:latest",
		"sha256:" + strings.Repeat("0", 64):       "No such image: sha256:0000",
		strings.Repeat("0", 64):                   "No such image: 0000",
		"plain@sha256:" + strings.Repeat("0", 64): "No such image: plain@sha256:0000",
	} {
		_, err := s.Resolve(name)
		wantError(t, name, err, errs.NotFound, word)
	}
	for _, name := range []string{"", "UPPER", "a b", "../x", "a:", ":a", "a@sha256:1"} {
		_, err := s.Resolve(name)
		wantError(t, name, err, errs.Invalid)
	}
}

// A short ID that several images share is not guessed.
func TestAmbiguousID(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	var imgs []*fixture.Image
	seen := map[byte]bool{}
	for n := 0; ; n++ {
		i := &fixture.Image{Name: "many:" + string(rune('a'+n)), Config: map[string]any{"User": string(rune('a' + n))}}
		imgs = append(imgs, i)
		first := idOf(i).Hex()[0]
		if seen[first] {
			loadImages(t, s, imgs...)
			// One hex digit alone is a fine name of an image, too.
			_, err := s.Resolve(string(first))
			wantError(t, "one digit", err, errs.Invalid, "ambiguous")
			must(t, s.Tag(string(idOf(i)), string(first)))
			if img := resolve(t, s, string(first)); img.ID != idOf(i) {
				t.Error("a name does not go before an ID")
			}
			return
		}
		seen[first] = true
	}
}

func TestTag(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	one, two := oneLayer("one:v1", "1"), oneLayer("two:v1", "2")
	loadImages(t, s, one, two)
	must(t, s.Tag("one:v1", "mine"))
	must(t, s.Tag(idOf(one).Hex()[:12], "localhost:5000/mine:v2"))
	if img := resolve(t, s, "one:v1"); !slices.Equal(img.Names, []string{"mine:latest", "one:v1", "localhost:5000/mine:v2"}) {
		t.Errorf("%q", img.Names)
	}
	must(t, s.Tag("two:v1", "mine:latest"))
	if img := resolve(t, s, "mine"); img.ID != idOf(two) {
		t.Error("the name did not move")
	}
	before := files(t, s)
	for target, class := range map[string]errs.Class{
		"a@sha256:" + strings.Repeat("0", 64): errs.Invalid,
		"sha256:abc":                          errs.Invalid,
		"sha256":                              errs.Invalid,
		"UPPER":                               errs.Invalid,
		"a:b:c":                               errs.Invalid,
		"":                                    errs.Invalid,
		strings.Repeat("a", 256):              errs.Invalid,
		strings.Repeat("ab", 32):              errs.Invalid,
	} {
		wantError(t, target, s.Tag("one:v1", target), class)
	}
	wantError(t, "absent", s.Tag("nothing", "x"), errs.NotFound, "No such image: nothing:latest")
	if files(t, s) != before {
		t.Error("the store changed")
	}
	whole(t, s)
}

// What was recorded and is removed by another command before it is read back.
func TestRecordedAndRemovedAgain(t *testing.T) {
	s, i := newImages(t, t.TempDir()), oneLayer("app:1", "content")
	loadImages(t, s, i)
	there := resolve(t, s, "app:1")
	_, err := s.Remove("app:1", false, nil)
	must(t, err)
	in := &incoming{id: there.ID, blobs: map[spec.Digest][]byte{there.ID: i.ConfigJSON()}, layers: there.Layers(), size: there.Size}
	got, err := s.recorded(in)
	if err != nil || got.ID != there.ID || !slices.Equal(got.Stack, there.Stack) || got.Config.Config.Cmd[0] != "app:1" {
		t.Errorf("%+v, %v", got, err)
	}
}
