package spec

import "time"

// Container is a container as created: everything that a start needs, so that
// the supervisor can restart it without the command that made it and without
// looking at images. It is what containers/<id>/config.json holds.
type Container struct {
	ID       string    // 64 hex digits
	Name     string    // without Docker's leading slash
	Created  time.Time // UTC
	ImageID  Digest    // digest of the image's config
	Image    string    // as the user wrote it
	Platform Platform
	Layers   []Digest // diffIDs, lowest first

	Box  bool     `json:",omitempty"` // the program is tug-box, which is not in the image (tug debug IMAGE)
	Path string   // program, resolved from entrypoint and command
	Args []string // its arguments, without argv[0]

	// The four below are Docker's container Config, beyond RunConfig.
	Hostname   string
	Domainname string
	Tty        bool
	OpenStdin  bool // keep standard input open (-i)
	StdinOnce  bool // close it when the first attached client leaves
	AttachIn   bool
	AttachOut  bool
	AttachErr  bool

	Config RunConfig  // image's config with the user's changes applied
	Host   HostConfig // what depends on this host

	Mounts []Mount `json:",omitempty"` // in the order in which they are made
}

// HostConfig is the non-portable part of a container: limits, privileges,
// namespaces. Zero values are Docker's defaults.
type HostConfig struct {
	NetworkMode string // "none" or "host"
	AutoRemove  bool   // --rm

	Restart         RestartPolicy `json:",omitzero"`
	HealthOnFailure string        `json:",omitempty"` // OnFailureRestart, OnFailureStop or OnFailureKill

	CapAdd         []string          `json:",omitempty"` // names with or without CAP_, or ALL
	CapDrop        []string          `json:",omitempty"`
	Privileged     bool              `json:",omitempty"`
	SecurityOpt    []string          `json:",omitempty"` // as given: no-new-privileges[:true|false], seccomp=unconfined|builtin|JSON, Unmasked
	ReadonlyRootfs bool              `json:",omitempty"`
	Tmpfs          map[string]string `json:",omitempty"` // target -> mount options
	Binds          []string          `json:",omitempty"` // as given: SOURCE:TARGET[:OPTIONS]
	Mounts         []MountSpec       `json:",omitempty"`
	VolumesFrom    []string          `json:",omitempty"` // as given
	VolumeDriver   string            `json:",omitempty"` // of volumes that are made for the container
	Init           bool              `json:",omitempty"` // --init
	Ulimits        []Ulimit          `json:",omitempty"`

	Memory    int64  `json:",omitempty"` // bytes; 0 is no limit
	NanoCPUs  int64  `json:",omitempty"` // 1e9 is one CPU; 0 is no limit
	PidsLimit *int64 `json:",omitempty"` // nil or <= 0 is no limit

	ShmSize      int64             `json:",omitempty"` // bytes of /dev/shm; 0 is DefaultShmSize
	GroupAdd     []string          `json:",omitempty"` // names, from the container's group file, or numbers
	Sysctls      map[string]string `json:",omitempty"`
	IpcMode      string            `json:",omitempty"` // "none", "shareable", "host" or "container:ID"; empty is the container's own
	PidMode      string            `json:",omitempty"` // "host" or "container:ID"; empty is the container's own
	UTSMode      string            `json:",omitempty"` // "host"; empty is the container's own
	UsernsMode   string            `json:",omitempty"` // "remap", "remap:USER" or "auto[:size=N]"; "host" and empty are none of its own
	IDs          *IDMaps           `json:",omitempty"` // of its user namespace, as chosen at create; nil without one
	CgroupnsMode string            `json:",omitempty"` // "host"; empty is the container's own
	Annotations  map[string]string `json:",omitempty"`

	Log          LogConfig         `json:",omitzero"`
	StorageOpt   map[string]string `json:",omitempty"` // size: how large the writable layer may get
	Project      uint32            `json:",omitempty"` // quota project of the writable layer, with StorageOpt
	CgroupParent string            `json:",omitempty"` // absolute, or below tug's own cgroup; empty is that
	Umask        *uint32           `json:",omitempty"` // nil is DefaultUmask

	// Runtime is another OCI runtime that stands in for tug's own, as the user
	// named it, and RuntimePath where its program is. Empty is tug's.
	Runtime     string `json:",omitempty"`
	RuntimePath string `json:",omitempty"`

	Devices           []DeviceMapping `json:",omitempty"`
	DeviceCgroupRules []string        `json:",omitempty"` // as "c 42:* rmw"

	MemoryReservation int64  `json:",omitempty"` // bytes that are left to it when memory is short
	MemorySwap        int64  `json:",omitempty"` // memory and swap together; 0 is twice Memory, -1 no limit
	MemorySwappiness  *int64 `json:",omitempty"` // 0 to 100; nil is the kernel's
	OomKillDisable    bool   `json:",omitempty"`
	OomScoreAdj       int    `json:",omitempty"`

	CPUShares          int64  `json:",omitempty"` // 0 is 1024, an equal share
	CPUPeriod          int64  `json:",omitempty"` // microseconds; 0 is 100000
	CPUQuota           int64  `json:",omitempty"` // microseconds in each period; <= 0 is no limit
	CPURealtimePeriod  int64  `json:",omitempty"` // microseconds
	CPURealtimeRuntime int64  `json:",omitempty"`
	CpusetCpus         string `json:",omitempty"` // as "0-3,5"
	CpusetMems         string `json:",omitempty"`

	BlkioWeight          uint16           `json:",omitempty"` // 10 to 1000; 0 is the kernel's
	BlkioWeightDevice    []WeightDevice   `json:",omitempty"`
	BlkioDeviceReadBps   []ThrottleDevice `json:",omitempty"` // bytes per second
	BlkioDeviceWriteBps  []ThrottleDevice `json:",omitempty"`
	BlkioDeviceReadIOps  []ThrottleDevice `json:",omitempty"` // operations per second
	BlkioDeviceWriteIOps []ThrottleDevice `json:",omitempty"`
}

// Unmasked is the SecurityOpt of a container that sees and may change what is
// the machine's in /proc and /sys.
const Unmasked = "systempaths=unconfined"

// MayRestart reports whether there is anything that starts the container again
// when it has ended.
func (h *HostConfig) MayRestart() bool {
	return h.Restart.On() || h.HealthOnFailure == OnFailureRestart
}

// HealthWord is the container's health in one word.
func (s *State) HealthWord() string {
	if s.Health == nil {
		return HealthNone
	}
	return s.Health.Status
}

// JoinPrefix is before the id of a container in IpcMode and PidMode.
const JoinPrefix = "container:"

// DefaultShmSize is the size of /dev/shm.
const DefaultShmSize = 64 << 20

// DefaultUmask is that of a container's processes.
const DefaultUmask = 0o022

// DeviceMapping is a device of the host, or a directory of them, and where the
// container sees it.
type DeviceMapping struct {
	PathOnHost, PathInContainer string
	CgroupPermissions           string // of r, w and m
}

// WeightDevice is a block device of the host and the container's weight in
// what it does.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// ThrottleDevice is a block device of the host and how much the container may
// do with it each second; 0 is no limit.
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// Ulimit is one resource limit; -1 is unlimited.
type Ulimit struct {
	Name       string // as in setrlimit(2) without RLIMIT_, lower case: nofile
	Soft, Hard int64
}

// Status words of a container, as Docker's State.Status.
const (
	StatusCreated = "created"
	StatusRunning = "running"
	StatusPaused  = "paused" // of a running one, see State.Word
	StatusExited  = "exited"
	StatusDead    = "dead"
	// StatusRestarting is that of a container that has ended and is about to
	// be started again by its restart policy.
	StatusRestarting = "restarting"
)

// State is what a container does now. It is derived from files (see package
// container), never stored as such.
type State struct {
	Status     string
	Paused     bool // running, and its processes are stopped by the freezer
	Pid        int  // 0 unless running
	ExitCode   int
	OOMKilled  bool
	Error      string // why the last start failed; else empty
	StartedAt  time.Time
	FinishedAt time.Time
	Cgroup     string // path below each cgroup mount while running

	// Restarts counts the starts by the restart policy, and for bad health,
	// since the last start by a user, with the one that is due at RestartAt
	// when restarting.
	Restarts  int
	RestartAt time.Time

	Health *Health // nil without a health check, and before the first start
}

// Word is the state in one word, as Docker's State.Status: a paused container
// runs, but is called paused.
func (s *State) Word() string {
	if s.Paused {
		return StatusPaused
	}
	return s.Status
}

// ExecSpec is one `exec`: a further program in a running container.
type ExecSpec struct {
	Args       []string
	Env        []string // added to the container's
	User       string   // empty is the container's user
	WorkingDir string   // empty is the container's
	Tty        bool
	Stdin      bool
	Privileged bool

	// Box runs tug-box, which needs not be in the container, with Args, and
	// ends it when its client is gone (tug debug).
	Box bool `json:",omitempty"`
}
