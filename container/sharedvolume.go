package container

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"tug/spec"
	"tug/sys"
	"tug/volume"
)

// Volumes with options are file systems that are mounted while containers use
// them: one mount for all, or each would have a tmpfs of its own. It is made by
// the first and lies in the keeper's mount namespace at <run>/volumes/<name>, so
// that it outlives a killed supervisor as layer mounts do. The last who ends
// takes it away. Who uses one is known from those who are starting, which this
// counts, and from those who run, which files tell.
type sharedVolumes struct {
	mu  sync.Mutex
	all map[string]*sharedVolume
}

// sharedVolume is one of them. A server that does not answer keeps only those
// waiting who want the same.
type sharedVolume struct {
	mu      sync.Mutex // held while it is mounted and unmounted
	starts  map[string]bool
	holders int // who has it from take
}

// take returns a volume's entry, locked, until give.
func (s *sharedVolumes) take(name string) *sharedVolume {
	s.mu.Lock()
	v := s.all[name]
	if v == nil {
		v = &sharedVolume{starts: map[string]bool{}}
		if s.all == nil {
			s.all = map[string]*sharedVolume{}
		}
		s.all[name] = v
	}
	v.holders++
	s.mu.Unlock()
	v.mu.Lock()
	return v
}

func (s *sharedVolumes) give(name string, v *sharedVolume) {
	v.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	// Without holders nobody looks into it.
	if v.holders--; v.holders == 0 && len(v.starts) == 0 {
		delete(s.all, name)
	}
}

// sharedRoot returns the root of a volume with options, mounting it where that
// is not so yet; nil for a plain directory.
func (s *Starter) sharedRoot(name, id string) (root *os.File, err error) {
	vol, err := s.Volumes.Get(name)
	if err != nil || len(vol.Options) == 0 {
		return nil, err
	}
	v := s.shared.take(name)
	defer s.shared.give(name, v)
	path := s.sharedPath(name)
	there, err := sys.IsMountPoint(path)
	if err != nil {
		return nil, err
	}
	if !there {
		if there, err = s.mountVolume(vol, path); err != nil || !there {
			return nil, err
		}
	}
	v.starts[id] = true
	return sys.OpenPath(path)
}

func (s *Starter) sharedPath(name string) string { return filepath.Join(s.st.RunPath("volumes"), name) }

// mountVolume reports false for options that make no mount. The directory is
// there before: it tells dropVolumes where to look.
func (s *Starter) mountVolume(vol *volume.Volume, path string) (mounted bool, err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return false, err
	}
	defer func() {
		if !mounted {
			os.Remove(path)
		}
	}()
	var m *os.File
	err = sys.InMounts(s.Host, func() (err error) {
		m, err = s.Volumes.Mount(vol)
		return err
	})
	if err != nil || m == nil {
		return false, err
	}
	defer m.Close()
	if err := sys.AttachMount(m, nil, path); err != nil {
		return false, err
	}
	return true, nil
}

// dropVolumes tells that a container does not use its volumes any more.
func (s *Starter) dropVolumes(ctr *spec.Container) {
	for _, m := range ctr.Mounts {
		if m.Type != spec.MountVolume {
			continue
		}
		if _, err := os.Lstat(s.sharedPath(m.Volume)); err == nil {
			s.dropVolume(m.Volume, ctr.ID)
		}
	}
}

func (s *Starter) dropVolume(name, id string) {
	v := s.shared.take(name)
	defer s.shared.give(name, v)
	delete(v.starts, id)
	path := s.sharedPath(name)
	if there, err := sys.IsMountPoint(path); err != nil || !there || len(v.starts) > 0 || s.volumeRuns(name, id) {
		return
	}
	if err := sys.Unmount(path); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor: unmount a volume:", err)
		return
	}
	os.Remove(path)
}

// volumeRuns reports whether a running container but id uses a volume, or may.
func (s *Starter) volumeRuns(name, id string) bool {
	uses, err := s.VolumeUses()
	if err != nil {
		return true
	}
	for _, u := range uses[name] {
		if u.Running && u.Container != id {
			return true
		}
	}
	return false
}
