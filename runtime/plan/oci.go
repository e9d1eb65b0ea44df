package plan

// Identity is who a program runs as, in numbers.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
	Caps     CapSets
}

// CapSets are the capability sets of a program; bit n is capability n.
type CapSets struct {
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// Labels are what the program is executed as by security modules.
type Labels struct {
	AppArmor string `json:",omitempty"`
	SELinux  string `json:",omitempty"`
}

// OCI is what a configuration of the OCI runtime specification says about a
// container beyond the rest of a Plan. Nothing is mounted or masked there
// unless it is listed here.
//
// Its conversation has one step more, and its end is with another process:
//
//	create                           tug-init oci
//	    |  plan + descriptors -------->  root, mounts, devices
//	    |  <----- reply ---------------
//	    |  hooks; go ----------------->  hooks, pivot, user, terminal
//	    |  <----- reply + pty master --
//	                                     waits at the passed listening socket
//	start
//	    |  connects; go -------------->  hooks, credentials, seccomp, execve
//	    |  <------ end of file --------  the program runs
//	    |  <------ reply --------------  or why not
type OCI struct {
	Root        string // the root file system's path on the host, where hooks look for it
	Propagation uint64 // of its mount in the container; 0 is as with the parent's mount, but one way
	Mounts      []FSMount
	Masked      []string
	ReadOnly    []string // paths
	BindDevices bool     // Devices are the host's, bound, as in a user namespace
	HostDev     bool     // /dev is the host's: nothing is made there
	NewCgroupNS bool
	NewNet      bool // a network namespace of its own
	Rows, Cols  uint16

	CreateContainer, StartContainer []Hook
	State                           State // for the hooks, but for pid and status
}

// FSMount is one mount of an OCI configuration: a tree that is passed, a new
// file system, or the container's cgroups.
type FSMount struct {
	Target      string
	Tree        int      `json:",omitempty"` // index+1 among the passed trees
	IsFile      bool     `json:",omitempty"` // the tree is no directory
	Type        string   `json:",omitempty"` // else, of the file system; "cgroup" is the container's own
	Source      string   `json:",omitempty"`
	Attr        uint64   `json:",omitempty"`
	Options     []Option `json:",omitempty"`
	Propagation []uint64 `json:",omitempty"` // of its mount
	Deep        []uint64 `json:",omitempty"` // and of those below
	CopyUp      bool     `json:",omitempty"` // a tmpfs begins with what it covers
	Cgroups     []int    `json:",omitempty"` // Type cgroup: the trees, by hierarchy, unless in a namespace of its own
}

// Hook is a program to run at a point of a container's life.
type Hook struct {
	Path    string
	Args    []string
	Env     []string
	Timeout int `json:",omitempty"` // seconds; 0 is none
}

// State is a container's state as hooks read it.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	Pid         int               `json:"pid,omitempty"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations,omitempty"`
}
