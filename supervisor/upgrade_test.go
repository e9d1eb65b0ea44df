package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tug")
	write := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte("program"), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(path, 0o755)
	file, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	p := program{path, file}
	if p.replaced() {
		t.Error("replaced by itself")
	}
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if p.replaced() {
		t.Error("replaced by chmod")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if p.replaced() {
		t.Error("replaced by nothing")
	}
	// The old file's inode must not be used again for the new ones.
	keep, err := os.Create(path + ".keep")
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	write(path+".new", 0o644)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if p.replaced() {
		t.Error("replaced by what cannot be executed")
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if !p.replaced() {
		t.Error("not replaced")
	}
	if (program{}).replaced() {
		t.Error("an unknown program was replaced")
	}
	if own := ownProgram(); own.file == nil || own.replaced() {
		t.Errorf("this program: %+v", own)
	}
}
