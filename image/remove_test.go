package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func lines(removed []Removed) []string {
	var out []string
	for _, r := range removed {
		out = append(out, r.String())
	}
	return out
}

func remove(t testing.TB, s *Images, name string, force bool, users ...User) []string {
	t.Helper()
	removed, err := s.Remove(name, force, func(spec.Digest) []User { return users })
	if err != nil {
		t.Fatalf("remove %s: %v", name, err)
	}
	return lines(removed)
}

func wantLines(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// pulled gives an image the digest that a pull of name would have given it.
func pulled(t testing.TB, s *Images, name string, i *fixture.Image) string {
	t.Helper()
	ref, err := spec.ParseReference(name)
	must(t, err)
	ref.Digest = spec.DigestOf([]byte("manifest of " + ref.Name()))
	ref.Tag = ""
	must(t, s.writeName(ref, idOf(i)))
	return ref.Familiar()
}

var (
	stopped = User{Container: strings.Repeat("ab", 32)}
	running = User{Container: strings.Repeat("cd", 32), Running: true}
)

func TestRemoveLines(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	i := twoLayers("app:v1")
	loadImages(t, s, i)
	digest := pulled(t, s, "app", i)
	chains := chainIDs(resolve(t, s, "app:v1").Layers())
	wantLines(t, "rmi", remove(t, s, "app:v1", false), "Untagged: app:v1", "Untagged: "+digest,
		"Deleted: "+string(idOf(i)), "Deleted: "+string(chains[1]), "Deleted: "+string(chains[0]))
	empty(t, s)
	_, err := s.Remove("app:v1", false, nil)
	wantError(t, "again", err, errs.NotFound, "No such image: app:v1")
	_, err = s.Remove("app:v1", true, nil)
	wantError(t, "again by force", err, errs.NotFound, "No such image: app:v1")
}

// A layer that was made for hard links into lower layers is the image's, but
// none of those that Docker knows.
func TestMadeLayers(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	linked := func(name, link string) *fixture.Image {
		return &fixture.Image{Name: name, Layers: [][]byte{
			fixture.NewLayer().Dir("d", 0o755).File("d/f", 0o644, "shared").Bytes(),
			fixture.NewLayer().Link(link, "d/f").Bytes(),
			fixture.NewLayer().File("top", 0o644, name).Bytes(),
		}}
	}
	one, two, again := linked("one:v1", "l"), linked("two:v1", "l"), linked("one:v1", "l")
	loadImages(t, s, one, two)
	img := resolve(t, s, "one:v1")
	if len(img.Stack) != 4 || img.Stack[0] != img.Layers()[0] || img.Stack[1] != img.Layers()[1] || img.Stack[3] != img.Layers()[2] {
		t.Fatalf("layers %v, stack %v", img.Layers(), img.Stack)
	}
	made := img.Stack[2]
	if other := resolve(t, s, "two:v1").Stack[2]; other != made {
		t.Errorf("the same links made %s and %s", made, other)
	}
	if img.Size != int64(len("shared")+len("one:v1")) {
		t.Errorf("size %d", img.Size)
	}
	loadImages(t, s, again)
	chains := chainIDs(img.Layers())
	wantLines(t, "rmi one", remove(t, s, "one:v1", false), "Untagged: one:v1", "Deleted: "+string(idOf(one)), "Deleted: "+string(chains[2]))
	if _, err := s.layers.Info(made); err != nil {
		t.Errorf("the other image's layer: %v", err)
	}
	// One that got lost is made again when the image comes again.
	must(t, s.layers.Remove(made))
	loadImages(t, s, two)
	if _, err := s.layers.Info(made); err != nil {
		t.Errorf("made again: %v", err)
	}
	must(t, s.Sweep())
	remove(t, s, "two:v1", false)
	empty(t, s)

	bad := linked("bad:v1", "l")
	bad.Layers[1] = fixture.NewLayer().Link("l", "d/never").Bytes()
	_, err := s.Load(t.Context(), bytes.NewReader(fixture.DockerArchive(one, bad).Bytes()), nil)
	wantError(t, "link to nothing", err, errs.Invalid, `hard link to "d/never", which is neither in the layer nor below it`)
	empty(t, s)
}

// Layers of other images stay.
func TestRemoveSharedLayers(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	one, two := twoLayers("one:v1"), twoLayers("two:v1")
	loadImages(t, s, one, two)
	chains := chainIDs(resolve(t, s, "one:v1").Layers())
	wantLines(t, "rmi", remove(t, s, "one:v1", false), "Untagged: one:v1", "Deleted: "+string(idOf(one)), "Deleted: "+string(chains[1]))
	whole(t, s)
	remove(t, s, "two:v1", false)
	empty(t, s)
}

func TestRemoveNames(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	setup := func(names ...string) *Images {
		s := newImages(t, t.TempDir())
		loadImages(t, s, i)
		for _, n := range names {
			must(t, s.Tag("app:v1", n))
		}
		return s
	}
	short := idOf(i).Hex()[:12]

	s := setup("app:v2", "other:v1")
	wantLines(t, "one of three names", remove(t, s, "app:v2", false), "Untagged: app:v2")
	wantLines(t, "used, not the last name", remove(t, s, "other:v1", false, running), "Untagged: other:v1")
	_, err := s.Remove("app:v1", false, func(spec.Digest) []User { return []User{stopped} })
	wantError(t, "the last name, used", err, errs.Conflict,
		`conflict: unable to remove repository reference "app:v1" (must force) - container abababababab is using its referenced image `+short)
	wantLines(t, "the last name, running, by force", remove(t, s, "app:v1", true, running), "Untagged: app:v1")
	if img := resolve(t, s, short); len(img.Names) != 0 {
		t.Errorf("names %q", img.Names)
	}
	whole(t, s)

	s = setup()
	got := remove(t, s, "app:v1", true, stopped)
	if len(got) != 4 || got[0] != "Untagged: app:v1" {
		t.Errorf("the last name, stopped container, by force: %q", got)
	}

	s = setup("other:v1")
	_, err = s.Remove(short, false, nil)
	wantError(t, "by ID with two repositories", err, errs.Conflict,
		"conflict: unable to delete "+short+" (must be forced) - image is referenced in multiple repositories")
	_, err = s.Remove(short, false, func(spec.Digest) []User { return []User{running} })
	wantError(t, "by ID with two repositories, running", err, errs.Conflict, "(cannot be forced)", "running container cdcdcdcdcdcd")
	got = remove(t, s, short, true)
	if !slices.Contains(got, "Untagged: app:v1") || !slices.Contains(got, "Untagged: other:v1") || !slices.Contains(got, "Deleted: "+string(idOf(i))) {
		t.Errorf("%q", got)
	}
	empty(t, s)

	s = setup()
	_, err = s.Remove(short, true, func(spec.Digest) []User { return []User{stopped, running} })
	wantError(t, "by ID, running, by force", err, errs.Conflict,
		"conflict: unable to delete "+short+" (cannot be forced) - image is being used by running container cdcdcdcdcdcd")
	_, err = s.Remove(short, false, func(spec.Digest) []User { return []User{stopped} })
	wantError(t, "by ID, stopped", err, errs.Conflict,
		"conflict: unable to delete "+short+" (must be forced) - image is being used by stopped container abababababab")
	whole(t, s)
	digest := pulled(t, s, "app", i)
	got = remove(t, s, short, false)
	if !slices.Contains(got, "Untagged: "+digest) {
		t.Errorf("by ID, with name and digest of one repository: %q", got)
	}
	empty(t, s)
}

// A digest of a repository goes with the last tag of that repository, and
// removing by digest takes only that away while there are tags.
func TestRemoveDigests(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	i := twoLayers("app:v1")
	loadImages(t, s, i)
	must(t, s.Tag("app:v1", "app:v2"))
	must(t, s.Tag("app:v1", "host.example/app:v1"))
	here, there := pulled(t, s, "app", i), pulled(t, s, "host.example/app", i)
	wantLines(t, "one of two tags", remove(t, s, "app:v1", false), "Untagged: app:v1")
	wantLines(t, "the repository's last tag", remove(t, s, "app:v2", false), "Untagged: app:v2", "Untagged: "+here)
	wantLines(t, "the digest", remove(t, s, there, false), "Untagged: "+there)
	if got := remove(t, s, "host.example/app:v1", false); len(got) != 4 {
		t.Errorf("%q", got)
	}
	empty(t, s)
}

// container writes what create leaves of an image's use.
func container(t testing.TB, s *Images, id string, layers []spec.Digest) {
	t.Helper()
	must(t, os.MkdirAll(s.st.Container(id), 0o700))
	must(t, s.st.WriteJSON(filepath.Join(s.st.Container(id), "config.json"), containerUse{Layers: layers}, false))
}

// Containers keep their layers, whatever happens to the image.
func TestRemoveKeepsContainersLayers(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	i := twoLayers("app:v1")
	loadImages(t, s, i)
	layers := resolve(t, s, "app:v1").Layers()
	container(t, s, stopped.Container, layers)
	wantLines(t, "forced", remove(t, s, "app:v1", true, stopped), "Untagged: app:v1", "Deleted: "+string(idOf(i)))
	age(t, s)
	must(t, s.Sweep())
	for _, d := range layers {
		l, err := s.layers.Get(d)
		if err != nil {
			t.Fatalf("a container's layer: %v", err)
		}
		l.Close()
	}
	// With an unreadable container nothing may go.
	broken := filepath.Join(s.st.Container(stopped.Container), "config.json")
	write(t, broken, "{")
	if err := s.Sweep(); !errs.Is(err, errs.Corrupt) {
		t.Errorf("sweep with a broken container: %v", err)
	}
	if _, err := os.Stat(s.st.Layer(layers[0].Hex())); err != nil {
		t.Error(err)
	}
	must(t, os.RemoveAll(s.st.Container(stopped.Container)))
	must(t, s.Sweep())
	empty(t, s)
}

// A layer that a command holds is left to a later Sweep.
func TestRemoveLeavesHeldLayers(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	i := twoLayers("app:v1")
	loadImages(t, s, i)
	held, err := s.layers.Get(resolve(t, s, "app:v1").Layers()[0])
	must(t, err)
	if got := remove(t, s, "app:v1", false); len(got) != 3 {
		t.Errorf("%q", got)
	}
	if _, err := s.layers.Tar(held.DiffID); err != nil {
		t.Errorf("the held layer: %v", err)
	}
	held.Close()
	age(t, s)
	must(t, s.Sweep())
	empty(t, s)
}

// Layers of an interrupted pull are kept for a day, blobs without a record not
// at all, and what a living process is making is left alone.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	loadImages(t, s, twoLayers("app:v1"))
	before := files(t, s)
	l := addLayer(t, s, fileLayer("half", "of a pull"))
	l.Close()
	write(t, s.st.Blob(strings.Repeat("0", 64)), "{}")
	write(t, filepath.Join(filepath.Dir(s.st.Blob("x")), ".new-1"), "{")
	write(t, filepath.Join(s.st.Tmp(), "dead"), "x")
	living, lock, err := s.st.TempDir("living-*")
	must(t, err)
	write(t, filepath.Join(living, "tar"), "x")
	mine, err := s.takeTurn(t.Context(), spec.DigestOf([]byte("mine")), nil)
	must(t, err)
	dead := s.st.RunPath("fetch", strings.Repeat("0", 64))
	write(t, dead, "")
	must(t, s.Sweep())
	if _, err := os.Stat(dead); err == nil {
		t.Error("the turn of a dead process is there")
	}
	if _, err := os.Stat(mine.f.Name()); err != nil {
		t.Errorf("a living turn: %v", err)
	}
	mine.end()
	if _, err := os.Stat(filepath.Join(living, "tar")); err != nil {
		t.Errorf("what somebody makes: %v", err)
	}
	if got, err := s.layers.Get(l.DiffID); err != nil {
		t.Errorf("a young layer: %v", err)
	} else {
		got.Close()
	}
	lock.Close()
	age(t, s)
	must(t, s.Sweep())
	if after := files(t, s); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	whole(t, s)
}

func TestChainIDs(t *testing.T) {
	t.Parallel()
	// The example of OCI's config.md: ChainID(L0|L1) = Digest(ChainID(L0) + " " + DiffID(L1)).
	a, b := spec.DigestOf([]byte("a")), spec.DigestOf([]byte("b"))
	ab := spec.DigestOf([]byte(fmt.Sprintf("%s %s", a, b)))
	abb := spec.DigestOf([]byte(fmt.Sprintf("%s %s", ab, b)))
	if got := chainIDs([]spec.Digest{a, b, b}); !slices.Equal(got, []spec.Digest{a, ab, abb}) {
		t.Error(got)
	}
}
