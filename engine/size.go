package engine

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"

	"tug/container"
)

// Sizes returns how many bytes of files a container has written, and how many
// it sees altogether. It walks the writable layer.
func (e *Engine) Sizes(c *container.Summary) (rw, rootfs int64, err error) {
	rw, err = treeSize(e.Containers.UpperDir(c.ID))
	if err != nil {
		return 0, 0, err
	}
	if img, err := e.Images.Resolve(string(c.ImageID)); err == nil {
		rootfs = img.Size
	}
	return rw, rw + rootfs, nil
}

// treeSize sums up the regular files below dir; one with several names counts
// once. What is removed meanwhile does not count.
func treeSize(dir string) (int64, error) {
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
