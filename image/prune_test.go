package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/layer"
	"tug/spec"
	"tug/state"
	"tug/test/fixture"
)

// useImage writes a container of an image.
func useImage(t testing.TB, s *Images, id string, i *fixture.Image) {
	t.Helper()
	dir := s.st.Container(strings.Repeat(id, 64))
	must(t, os.MkdirAll(dir, 0o700))
	var layers []spec.Digest
	for _, l := range i.Layers {
		layers = append(layers, spec.Digest(fixture.Digest(l)))
	}
	must(t, s.st.WriteJSON(filepath.Join(dir, "config.json"), containerUse{ID: strings.Repeat(id, 64), ImageID: idOf(i), Layers: layers}, false))
}

// bytesOf sums up the files of layers and blobs.
func bytesOf(t testing.TB, s *Images) (sum int64) {
	t.Helper()
	for _, dir := range []string{s.st.Layers(), filepath.Dir(s.st.Blob("x"))} {
		must(t, filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				fi, err := d.Info()
				if err != nil {
					return err
				}
				sum += fi.Size()
			}
			return err
		}))
	}
	return sum
}

func TestPrune(t *testing.T) {
	s := newImages(t, t.TempDir())
	tagged, used, plain, shares := oneLayer("tagged:1", "a"), oneLayer("used:1", "b"), twoLayers("plain:1"), twoLayers("shares:1")
	shares.Layers[1] = fileLayer("only", "here")
	loadImages(t, s, tagged, used, plain, shares)
	useImage(t, s, "c", used)
	for _, n := range []string{"used:1", "plain:1"} {
		ref, err := spec.ParseReference(n)
		must(t, err)
		must(t, os.Remove(s.namePath(ref.String())))
	}
	orphan := addLayer(t, s, fileLayer("orphan", "x"))
	must(t, orphan.Close())

	before := bytesOf(t, s)
	dry, err := s.Prune(PruneOptions{DryRun: true})
	must(t, err)
	if bytesOf(t, s) != before {
		t.Error("a dry run removed something")
	}
	got, err := s.Prune(PruneOptions{})
	must(t, err)
	if d := cmp.Diff(dry, got); d != "" {
		t.Errorf("dry run and prune (-dry +prune):\n%s", d)
	}
	// One layer is another image's as well.
	chains := chainIDs([]spec.Digest{spec.Digest(fixture.Digest(plain.Layers[0])), spec.Digest(fixture.Digest(plain.Layers[1]))})
	if d := cmp.Diff([]Removed{{Deleted: string(idOf(plain))}, {Deleted: string(chains[1])}}, got.Removed); d != "" {
		t.Errorf("removed (-want +got):\n%s", d)
	}
	if after := bytesOf(t, s); before-after != got.Space || got.Space == 0 {
		t.Errorf("said %d bytes, were %d", got.Space, before-after)
	}
	whole(t, s)

	old := func(img *Image) bool { return img.Config.Config.Labels["none"] == "has this" }
	if got, err := s.Prune(PruneOptions{All: true, Match: old}); err != nil || len(got.Removed) > 0 {
		t.Errorf("a filter that nothing meets: %v, %v", got, err)
	}
	before = bytesOf(t, s)
	if dry, err = s.Prune(PruneOptions{All: true, DryRun: true, Gone: []string{strings.Repeat("c", 64)}}); err != nil || !slices.Contains(dry.Removed, Removed{Deleted: string(idOf(used))}) || dry.Space != before {
		t.Errorf("dry run without its container: %v, %v", dry, err)
	}
	got, err = s.Prune(PruneOptions{All: true})
	must(t, err)
	for _, want := range []Removed{{Untagged: "tagged:1"}, {Untagged: "shares:1"}, {Deleted: string(idOf(tagged))}, {Deleted: string(orphan.DiffID)}} {
		if !slices.Contains(got.Removed, want) {
			t.Errorf("%v is missing in %v", want, got.Removed)
		}
	}
	if after := bytesOf(t, s); before-after != got.Space {
		t.Errorf("said %d bytes, were %d", got.Space, before-after)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].ID != idOf(used) {
		t.Errorf("left: %v, %v", list, err)
	}
	whole(t, s)
}

// What cannot be read may need anything.
func TestPruneKeepsWhatItCannotJudge(t *testing.T) {
	s := newImages(t, t.TempDir())
	loadImages(t, s, oneLayer("a:1", "a"))
	dir := s.st.Container(strings.Repeat("d", 64))
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte("{broken"), 0o600))
	before := files(t, s)
	_, err := s.Prune(PruneOptions{All: true})
	wantError(t, "broken container", err, errs.Corrupt, "config.json")
	must(t, os.RemoveAll(dir))
	record := s.st.Image(strings.Repeat("e", 64))
	must(t, os.WriteFile(record, []byte("{broken"), 0o600))
	_, err = s.Prune(PruneOptions{All: true})
	wantError(t, "broken record", err, errs.Corrupt, "read "+record)
	must(t, os.Remove(record))
	before = strings.ReplaceAll(before, "/containers/"+strings.Repeat("d", 64)+"/config.json 7\n", "")
	if got := files(t, s); got != before {
		t.Errorf("now there is\n%sbefore\n%s", got, before)
	}
}

// Loads, tags and prunes at the same time: the store is whole, and a name that
// was just given to an image that is there stays.
func TestPruneWhileLoading(t *testing.T) {
	dir := t.TempDir()
	s := newImages(t, dir)
	base := oneLayer("base:1", "base")
	loadImages(t, s, base)
	useImage(t, s, "a", base)
	var wg sync.WaitGroup
	stop := time.Now().Add(700 * time.Millisecond)
	for n := range 3 {
		wg.Go(func() {
			i := twoLayers(fmt.Sprintf("image%d:1", n))
			for time.Now().Before(stop) {
				if _, err := s.Load(t.Context(), bytes.NewReader(fixture.DockerArchive(i).Bytes()), nil); err != nil {
					t.Errorf("load: %v", err)
				}
				if err := s.Tag("base:1", fmt.Sprintf("tag%d:1", n)); err != nil {
					t.Errorf("tag: %v", err)
				}
			}
		})
	}
	for n := range 2 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				if _, err := s.Prune(PruneOptions{All: true, DryRun: n == 1}); err != nil {
					t.Errorf("prune: %v", err)
				}
				if _, err := s.Total(); err != nil {
					t.Errorf("total: %v", err)
				}
			}
		})
	}
	wg.Wait()
	whole(t, s)
	resolve(t, s, "base:1")
}

func TestTotalAndUsages(t *testing.T) {
	for _, storage := range []string{"erofs", "dir"} {
		dir := t.TempDir()
		s := newImages(t, dir)
		if storage == "dir" {
			st, err := state.Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
			must(t, err)
			s = Open(st, layer.Open(st, storage), nil)
		}
		a, b := twoLayers("a:1"), twoLayers("b:1")
		b.Layers[1] = fileLayer("only", "here")
		if _, err := s.Load(t.Context(), bytes.NewReader(fixture.DockerArchive(a, b).Bytes()), nil); err != nil {
			t.Skipf("%s: %v", storage, err)
		}
		useImage(t, s, "c", b)
		got, err := s.Total()
		must(t, err)
		if got.Images != 2 || got.Active != 1 || got.Size != bytesOf(t, s) {
			t.Errorf("%s: %+v, on the disk are %d bytes", storage, got, bytesOf(t, s))
		}
		pruned, err := s.Prune(PruneOptions{All: true, DryRun: true})
		must(t, err)
		if pruned.Space != got.Reclaimable || got.Reclaimable == 0 {
			t.Errorf("%s: reclaimable are %d bytes, a prune brings %d", storage, got.Reclaimable, pruned.Space)
		}
		list, err := s.List()
		must(t, err)
		u, err := s.Usages(list)
		must(t, err)
		for _, img := range list {
			if one := u[img.ID]; one.Shared+one.Unique != img.Size || one.Shared == 0 || one.Unique == 0 || (one.Containers == 1) != (img.ID == idOf(b)) {
				t.Errorf("%s: %+v of %d bytes", img.Names, one, img.Size)
			}
		}
		u, err = s.Usages(list[:1])
		if must(t, err); u[list[0].ID].Shared == 0 {
			t.Error("what images share depends on those that are asked for")
		}
	}
}

func TestHistory(t *testing.T) {
	s := newImages(t, t.TempDir())
	i := twoLayers("a:1")
	loadImages(t, s, i)
	img := resolve(t, s, "a:1")
	sizes := func(steps []Step) (all []string) {
		for _, st := range steps {
			all = append(all, fmt.Sprintf("%s %d %v", st.CreatedBy, st.Size, st.ID != ""))
		}
		return all
	}
	first, err := s.layers.Info(img.Layers()[0])
	must(t, err)
	second, err := s.layers.Info(img.Layers()[1])
	must(t, err)
	row := func(by string, size int64, id bool) string { return fmt.Sprintf("%s %d %v", by, size, id) }
	if d := cmp.Diff([]string{row("layer 1", second.Content, true), row("layer 0", first.Content, false)}, sizes(s.History(img))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// Rows without layers, layers without rows, and more rows than layers.
	for _, tt := range []struct {
		rows []spec.HistoryRow
		want []string
	}{
		{nil, []string{row("", second.Content, true), row("", first.Content, false)}},
		{[]spec.HistoryRow{{CreatedBy: "x", EmptyLayer: true}, {CreatedBy: "y"}}, []string{row("", second.Content, true), row("y", first.Content, false), row("x", 0, false)}},
		{[]spec.HistoryRow{{CreatedBy: "x"}, {CreatedBy: "y"}, {CreatedBy: "z"}}, []string{row("z", 0, true), row("y", second.Content, false), row("x", first.Content, false)}},
	} {
		img.Config.History = tt.rows
		if d := cmp.Diff(tt.want, sizes(s.History(img))); d != "" {
			t.Errorf("%v (-want +got):\n%s", tt.rows, d)
		}
	}
}
