package container

import (
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
	size, err := state.TreeSize(c.UpperDir(s.ID))
	if err != nil || !ended {
		return size, err
	}
	if now, err := c.startRecord(s.ID); err == nil && r != nil && now.Run == r.Run && now.Pid == r.Pid && !now.alive() {
		// Not durable, and not needed: it saves a walk.
		_ = c.st.WriteJSON(c.path(s.ID, fileSize), sizeRecord{r.Run, r.Pid, r.Start, size}, false)
	}
	return size, nil
}
