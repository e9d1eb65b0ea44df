package state

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// TreeSize sums up the regular files below dir; one with several names counts
// once. What is removed meanwhile does not count.
func TreeSize(dir string) (int64, error) {
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.Type().IsRegular() {
			return nil
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			id := file{uint64(st.Dev), st.Ino}
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
