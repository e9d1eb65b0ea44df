package layer

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/state"
	"tug/test/fixture"
)

func openTestLayers(t testing.TB) *Layers {
	t.Helper()
	dir := t.TempDir()
	st, err := state.Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	return Open(st, "erofs")
}

func TestWalk(t *testing.T) {
	l := openTestLayers(t)
	tar := fixture.NewLayer().Dir("b", 0o700).File("b/two", 0o644, "22").File("a", 0o4755, "one").
		Symlink("c", "a").Link("d", "a").File(".wh.gone", 0o600, "").Bytes()
	got, err := l.Add(t.Context(), bytes.NewReader(tar), Expect{BlobSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	var lines []string
	inodes := map[string]int64{}
	err = l.Walk(got.DiffID, func(f *File) error {
		inodes[f.Path] = f.Inode
		lines = append(lines, fmt.Sprintf("%q %o %d links=%d target=%q whiteout=%v", f.Path, f.Mode, f.Size, f.Links, f.Target, f.Whiteout))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`"" 40755 0 links=3 target="" whiteout=false`,
		`"a" 104755 3 links=2 target="" whiteout=false`,
		`"b" 40700 0 links=2 target="" whiteout=false`,
		`"b/two" 100644 2 links=1 target="" whiteout=false`,
		`"c" 120777 1 links=1 target="a" whiteout=false`,
		`"d" 104755 3 links=2 target="" whiteout=false`,
		`"gone" 0 0 links=0 target="" whiteout=true`,
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.Join(lines, "\n")); diff != "" {
		t.Error(diff)
	}
	if inodes["a"] != inodes["d"] || inodes["a"] == inodes["c"] || inodes[""] != 1 {
		t.Errorf("inodes: %v", inodes)
	}
}
