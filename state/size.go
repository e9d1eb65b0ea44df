package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"tug/sys"
)

// longPath is from where on a path is too long to be gone on with: the kernel
// takes 4095 bytes. A container can make trees that are much deeper.
const longPath = 3000

// TreeSize sums up the regular files below dir; one with several names counts
// once. What is removed meanwhile does not count.
func TreeSize(dir string) (int64, error) {
	return treeSize(dir, map[treeFile]bool{})
}

type treeFile struct{ dev, ino uint64 }

func treeSize(dir string, seen map[treeFile]bool) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && len(path) > longPath {
			more, err := deepSize(path, seen)
			sum += more
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				err = fs.SkipDir
			}
			return err
		}
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
			id := treeFile{uint64(st.Dev), st.Ino}
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

// deepSize is treeSize of a directory with a long path, by a short one.
func deepSize(path string, seen map[treeFile]bool) (int64, error) {
	f, err := sys.OpenPath(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return treeSize(sys.FdPath(f)+"/.", seen)
}

// RemoveAll is os.RemoveAll, also of trees that are deeper than this process
// may have open files: what lies deep in them is moved up first.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	for n := 0; errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE); n++ {
		lifted := 0
		werr := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || len(path) < len(dir)+liftFrom {
				return err
			}
			lifted++
			to := filepath.Join(dir, ".lifted-"+strconv.Itoa(n)+"-"+strconv.Itoa(lifted))
			if err := os.Rename(path, to); err != nil {
				return err
			}
			return fs.SkipDir
		})
		if werr != nil || lifted == 0 {
			return err
		}
		err = os.RemoveAll(dir)
	}
	return err
}

// liftFrom is how long a path below the directory may be at most, so half as
// many files are open while all below is removed.
const liftFrom = 1000
