package cli

import (
	"slices"
	"strings"

	"tug/container"
	"tug/spec"
)

// mountJSON is one of a container's mounts in Docker's inspect.
type mountJSON struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
	Owner       string `json:",omitempty"` // Docker has nothing like it
}

func toMountsJSON(cs *container.Containers, c *spec.Container) []mountJSON {
	out := []mountJSON{}
	for i := range c.Mounts {
		m := &c.Mounts[i]
		j := mountJSON{
			Type: m.Type, Source: cs.Mountpoint(m), Destination: m.Target, RW: !m.ReadOnly, Mode: m.Mode, Owner: m.Owner,
		}
		switch m.Type {
		case spec.MountBind:
			j.Propagation = orElse(m.Propagation, "rprivate")
		case spec.MountVolume:
			j.Name, j.Driver = m.Volume, m.Driver
			if j.Mode == "" && !m.Anonymous {
				j.Mode = "z" // Docker's default
			}
		case spec.MountImage:
			j.Source = m.Source
		case spec.MountTmpfs:
			j.RW = !slices.Contains(strings.Split(m.Options, ","), "ro")
		}
		out = append(out, j)
	}
	return out
}

// mountNames are what ps shows of mounts: names of volumes, paths of the host.
func mountNames(c *spec.Container) []string {
	var out []string
	for _, m := range c.Mounts {
		switch {
		case m.Volume != "":
			out = append(out, m.Volume)
		case m.Source != "":
			out = append(out, m.Source)
		}
	}
	return out
}

// hasVolume reports whether a container has a mount of that volume or source, or
// at that place, for ps --filter volume=.
func hasVolume(c *spec.Container, v string) bool {
	return slices.ContainsFunc(c.Mounts, func(m spec.Mount) bool {
		return v != "" && (v == m.Volume || v == m.Source || v == m.Target)
	})
}

// localVolumes counts a container's volumes.
func localVolumes(c *spec.Container) (n int) {
	for _, m := range c.Mounts {
		if m.Volume != "" {
			n++
		}
	}
	return n
}
