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
	mu    sync.Mutex
	users map[string]map[string]bool // volume -> containers
}

// sharedVolume returns the root of a volume with options, mounting it where that
// is not so yet; nil for a plain directory.
func (s *Starter) sharedVolume(name, id string) (root *os.File, err error) {
	vol, err := s.Volumes.Get(name)
	if err != nil || len(vol.Options) == 0 {
		return nil, err
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
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
	if s.shared.users == nil {
		s.shared.users = map[string]map[string]bool{}
	}
	if s.shared.users[name] == nil {
		s.shared.users[name] = map[string]bool{}
	}
	s.shared.users[name][id] = true
	return sys.OpenPath(path)
}

func (s *Starter) sharedPath(name string) string { return filepath.Join(s.st.RunPath("volumes"), name) }

// mountVolume reports false for options that make no mount.
func (s *Starter) mountVolume(vol *volume.Volume, path string) (bool, error) {
	var m *os.File
	err := sys.InMounts(s.Host, func() (err error) {
		m, err = s.Volumes.Mount(vol)
		return err
	})
	if err != nil || m == nil {
		return false, err
	}
	defer m.Close()
	if err := os.MkdirAll(path, 0o700); err != nil {
		return false, err
	}
	return true, sys.AttachMount(m, nil, path)
}

// dropVolumes tells that a container does not use its volumes any more.
func (s *Starter) dropVolumes(ctr *spec.Container) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	for _, m := range ctr.Mounts {
		if m.Type != spec.MountVolume {
			continue
		}
		delete(s.shared.users[m.Volume], ctr.ID)
		if len(s.shared.users[m.Volume]) > 0 {
			continue
		}
		delete(s.shared.users, m.Volume)
		path := s.sharedPath(m.Volume)
		if there, err := sys.IsMountPoint(path); err != nil || !there || s.volumeRuns(m.Volume, ctr.ID) {
			continue
		}
		if err := sys.Unmount(path); err != nil {
			fmt.Fprintln(os.Stderr, "supervisor: unmount a volume:", err)
			continue
		}
		os.Remove(path)
	}
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
