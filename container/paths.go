package container

// UpperDir is the directory of a container's writable layer.
func (c *Containers) UpperDir(id string) string { return c.path(id, dirUpper) }

// Paths of a container's files, as inspect shows them.
func (c *Containers) WorkDir(id string) string    { return c.path(id, dirWork) }
func (c *Containers) LogDir(id string) string     { return c.path(id, dirLog) }
func (c *Containers) ResolvConf(id string) string { return c.path(id, "resolv.conf") }
func (c *Containers) Hostname(id string) string   { return c.path(id, "hostname") }
func (c *Containers) Hosts(id string) string      { return c.path(id, "hosts") }
