package container

import (
	"errors"
	"io/fs"

	"tug/runtime"
	"tug/spec"
)

// Stats is what a container uses. All is 0 for one that does not run.
type Stats struct {
	*Summary
	runtime.Usage
	CPUPercent     float64 // of one processor, since the sample before
	Received, Sent uint64  // bytes, on networks that are not the host's
}

// Sampler samples what containers use, from files, so that a thousand
// containers are no burden. The first sample has no CPUPercent.
type Sampler struct {
	c      *Containers
	system uint64
	cpu    map[process]uint64
}

// process is one run of a container.
type process struct {
	id  string
	pid int
}

// Sampler returns a new sampler.
func (c *Containers) Sampler() *Sampler { return &Sampler{c: c, cpu: map[process]uint64{}} }

// Sample samples the containers with these ids; those that are gone are left
// out. Without ids it takes all that run, newest first, or with all all.
func (s *Sampler) Sample(ids []string, all bool) ([]*Stats, error) {
	list, err := s.list(ids)
	if err != nil {
		return nil, err
	}
	system, processors := runtime.MachineCPU()
	passed := float64(system - s.system)
	seen := make(map[process]uint64, len(list))
	var out []*Stats
	for _, c := range list {
		st := &Stats{Summary: c}
		if c.State.Status != spec.StatusRunning {
			if all || len(ids) > 0 {
				out = append(out, st)
			}
			continue
		}
		if st.Usage, err = runtime.UsageOf(c.State.Cgroup); err != nil {
			return nil, err
		}
		if m := c.Host.NetworkMode; m != "host" && m != "none" {
			st.Received, st.Sent = runtime.NetworkBytes(c.State.Pid)
		}
		p := process{c.ID, c.State.Pid}
		if before, ok := s.cpu[p]; ok && passed > 0 && st.CPU > before {
			st.CPUPercent = float64(st.CPU-before) / passed * float64(processors) * 100
		}
		seen[p] = st.CPU
		out = append(out, st)
	}
	s.system, s.cpu = system, seen
	return out, nil
}

func (s *Sampler) list(ids []string) ([]*Summary, error) {
	if len(ids) == 0 {
		return s.c.List()
	}
	var list []*Summary
	for _, id := range ids {
		c, err := s.c.load(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}
