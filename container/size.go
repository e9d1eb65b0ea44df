package container

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"

	"tug/spec"
	"tug/state"
)

const fileSize = "size.json"

// sizeRecord is size.json: what a container that does not run has written. It
// counts for the process that it names, so a further start makes it void; who
// else changes the writable layer of a stopped container removes it.
type sizeRecord struct {
	Run   int
	Pid   int
	Start uint64
	Size  int64
}

// SizeRw returns how many bytes of files a container has written. It walks the
// writable layer; of a container that has ended only once.
func (c *Containers) SizeRw(s *Summary) (int64, error) {
	ended := s.State.Status == spec.StatusExited
	r, err := c.startRecord(s.ID)
	if ended && err == nil {
		var kept sizeRecord
		if state.ReadJSON(c.path(s.ID, fileSize), &kept) == nil && kept.Run == r.Run && kept.Pid == r.Pid && kept.Start == r.Start {
			return kept.Size, nil
		}
	}
	size, err := treeSize(c.UpperDir(s.ID))
	if err != nil || !ended {
		return size, err
	}
	if now, err := c.startRecord(s.ID); err == nil && r != nil && now.Run == r.Run && now.Pid == r.Pid && !now.alive() {
		// Not durable, and not needed: it saves a walk.
		_ = c.st.WriteJSON(c.path(s.ID, fileSize), sizeRecord{r.Run, r.Pid, r.Start, size}, false)
	}
	return size, nil
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
