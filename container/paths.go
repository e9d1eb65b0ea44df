package container

import (
	"tug/spec"
	"tug/supervisor"
)

// UpperDir is the directory of a container's writable layer.
func (c *Containers) UpperDir(id string) string { return c.path(id, dirUpper) }

// Paths of a container's files, as inspect shows them.
func (c *Containers) WorkDir(id string) string    { return c.path(id, dirWork) }
func (c *Containers) ResolvConf(id string) string { return c.path(id, "resolv.conf") }
func (c *Containers) Hostname(id string) string   { return c.path(id, "hostname") }
func (c *Containers) Hosts(id string) string      { return c.path(id, "hosts") }

// LogPath is the file that a container's output goes to now. As with Docker
// there is one only of the driver json-file, once something was started.
func (c *Containers) LogPath(ctr *spec.Container) string {
	dir := c.path(ctr.ID, dirLog)
	gens, err := supervisor.LogGenerations(dir)
	if ctr.Host.Log.Name() != spec.LogJSONFile || err != nil || len(gens) == 0 {
		return ""
	}
	return supervisor.LogFile(dir, gens[len(gens)-1])
}
