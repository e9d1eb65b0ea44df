package cli

import (
	"slices"
	"time"

	"tug/container"
	"tug/engine"
	"tug/runtime/plan"
	"tug/spec"
)

// The JSON of `inspect` for a container: Docker's fields in Docker's order
// (Engine API v1.50, GET /containers/{id}/json). Fields of things that tug does
// not have yet are there with Docker's empty values, since scripts read them.

type containerJSON struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           stateJSON
	Image           string
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      hostConfigJSON
	GraphDriver     graphDriverJSON
	SizeRw          *int64 `json:",omitempty"`
	SizeRootFs      *int64 `json:",omitempty"`
	Mounts          []mountJSON
	Config          configJSON
	NetworkSettings networkJSON
}

type stateJSON struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  string
	FinishedAt string
	Health     *healthJSON `json:",omitempty"`
}

type healthJSON struct {
	Status        string
	FailingStreak int
	Log           []healthResultJSON
}

type healthResultJSON struct {
	Start    string
	End      string
	ExitCode int
	Output   string
}

type graphDriverJSON struct {
	Data map[string]string
	Name string
}

type hostConfigJSON struct {
	Binds           []string
	ContainerIDFile string
	LogConfig       logConfigJSON
	NetworkMode     string
	PortBindings    map[string]any
	RestartPolicy   restartJSON
	AutoRemove      bool
	VolumeDriver    string
	VolumesFrom     []string
	ConsoleSize     [2]uint
	CapAdd          []string
	CapDrop         []string
	CgroupnsMode    string
	DNS             []string `json:"Dns"`
	DNSOptions      []string `json:"DnsOptions"`
	DNSSearch       []string `json:"DnsSearch"`
	ExtraHosts      []string
	GroupAdd        []string
	IpcMode         string
	Cgroup          string
	Links           []string
	OomScoreAdj     int
	PidMode         string
	Privileged      bool
	PublishAllPorts bool
	ReadonlyRootfs  bool
	SecurityOpt     []string
	StorageOpt      map[string]string `json:",omitempty"`
	Tmpfs           map[string]string `json:",omitempty"`
	UTSMode         string
	UsernsMode      string
	IDMappings      *idMapsJSON `json:",omitempty"` // as podman's
	ShmSize         int64
	Sysctls         map[string]string `json:",omitempty"`
	Annotations     map[string]string `json:",omitempty"`
	Umask           *uint32           `json:",omitempty"`
	Runtime         string
	Isolation       string

	CPUShares            int64 `json:"CpuShares"`
	Memory               int64
	NanoCPUs             int64 `json:"NanoCpus"`
	CgroupParent         string
	BlkioWeight          uint16
	BlkioWeightDevice    []spec.WeightDevice
	BlkioDeviceReadBps   []spec.ThrottleDevice
	BlkioDeviceWriteBps  []spec.ThrottleDevice
	BlkioDeviceReadIOps  []spec.ThrottleDevice
	BlkioDeviceWriteIOps []spec.ThrottleDevice
	CPUPeriod            int64 `json:"CpuPeriod"`
	CPUQuota             int64 `json:"CpuQuota"`
	CPURealtimePeriod    int64 `json:"CpuRealtimePeriod"`
	CPURealtimeRuntime   int64 `json:"CpuRealtimeRuntime"`
	CpusetCpus           string
	CpusetMems           string
	Devices              []spec.DeviceMapping
	DeviceCgroupRules    []string
	DeviceRequests       []any
	MemoryReservation    int64
	MemorySwap           int64
	MemorySwappiness     *int64
	OomKillDisable       *bool
	PidsLimit            *int64
	Ulimits              []spec.Ulimit
	CPUCount             int64 `json:"CpuCount"`
	CPUPercent           int64 `json:"CpuPercent"`
	IOMaximumIOps        uint64
	IOMaximumBandwidth   uint64
	Mounts               []spec.MountSpec `json:",omitempty"`
	MaskedPaths          []string
	ReadonlyPaths        []string
	Init                 *bool `json:",omitempty"`
}

type logConfigJSON struct {
	Type   string
	Config map[string]string
}

type restartJSON struct {
	Name              string
	MaximumRetryCount int
}

type configJSON struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Healthcheck  *spec.Healthcheck `json:",omitempty"`
	ArgsEscaped  bool              `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	StopTimeout  *int     `json:",omitempty"`
	Shell        []string `json:",omitempty"`
	// Podman's name; Docker has nothing like it.
	HealthOnFailure string `json:"HealthcheckOnFailureAction,omitempty"`
}

type networkJSON struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  map[string]any
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []any
	SecondaryIPv6Addresses []any
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]endpointJSON
}

type endpointJSON struct {
	IPAMConfig          any
	Links               []string
	Aliases             []string
	MacAddress          string
	DriverOpts          map[string]string
	GwPriority          int
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	DNSNames            []string
}

func toContainerJSON(e *engine.Engine, c *container.Summary) *containerJSON {
	cs := e.Containers
	return &containerJSON{
		ID: c.ID, Created: stamp(c.Created), Path: c.Path, Args: notNil(c.Args),
		State: toStateJSON(&c.State), Image: c.ImageID.String(),
		ResolvConfPath: cs.ResolvConf(c.ID), HostnamePath: cs.Hostname(c.ID), HostsPath: cs.Hosts(c.ID),
		LogPath: cs.LogPath(&c.Container), Name: "/" + c.Name, RestartCount: c.State.Restarts, Driver: storageDriver, Platform: c.Platform.OS,
		HostConfig: toHostConfigJSON(c), Mounts: toMountsJSON(cs, &c.Container), Config: toConfigJSON(c),
		GraphDriver: graphDriverJSON{Name: storageDriver, Data: map[string]string{
			"UpperDir": cs.UpperDir(c.ID), "WorkDir": cs.WorkDir(c.ID),
		}},
		NetworkSettings: networkJSON{
			Ports: map[string]any{}, Networks: map[string]endpointJSON{c.Host.NetworkMode: {}},
		},
	}
}

func toStateJSON(s *spec.State) stateJSON {
	again := s.Status == spec.StatusRestarting // which counts as running, as with Docker
	return stateJSON{
		Health: toHealthJSON(s.Health),
		Status: s.Word(), Running: again || s.Status == spec.StatusRunning, Restarting: again, Paused: s.Paused, OOMKilled: s.OOMKilled, Dead: s.Status == spec.StatusDead,
		Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error, StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
	}
}

func toHealthJSON(h *spec.Health) *healthJSON {
	if h == nil {
		return nil
	}
	out := &healthJSON{Status: h.Status, FailingStreak: h.FailingStreak, Log: []healthResultJSON{}}
	for _, r := range h.Log {
		out.Log = append(out.Log, healthResultJSON{Start: stamp(r.Start), End: stamp(r.End), ExitCode: r.ExitCode, Output: r.Output})
	}
	return out
}

// stamp is a time in Docker's JSON; the zero time is 0001-01-01T00:00:00Z.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// notNil keeps an empty list from being null.
func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func toHostConfigJSON(c *container.Summary) hostConfigJSON {
	h := &c.Host
	out := hostConfigJSON{
		LogConfig: logConfigJSON{Type: h.Log.Name(), Config: notNilMap(h.Log.Options)}, StorageOpt: h.StorageOpt, CgroupParent: h.CgroupParent, Umask: h.Umask,
		NetworkMode: h.NetworkMode, PortBindings: map[string]any{}, RestartPolicy: restartJSON{orElse(h.Restart.Name, spec.RestartNo), h.Restart.MaximumRetryCount},
		AutoRemove: h.AutoRemove, CapAdd: h.CapAdd, CapDrop: h.CapDrop, CgroupnsMode: orElse(h.CgroupnsMode, "private"), GroupAdd: h.GroupAdd, Sysctls: h.Sysctls, Annotations: h.Annotations,
		DNS: []string{}, DNSOptions: []string{}, DNSSearch: []string{}, IpcMode: orElse(h.IpcMode, "private"), PidMode: h.PidMode, UTSMode: h.UTSMode, UsernsMode: h.UsernsMode, IDMappings: toIDMapsJSON(h.IDs),
		Privileged: h.Privileged, ReadonlyRootfs: h.ReadonlyRootfs, SecurityOpt: securityOpts(h), Tmpfs: h.Tmpfs,
		ShmSize: h.ShmSize, Runtime: orElse(h.Runtime, "tug"), Memory: h.Memory, NanoCPUs: h.NanoCPUs, PidsLimit: h.PidsLimit,
		Devices: notNil(h.Devices), DeviceCgroupRules: h.DeviceCgroupRules, Ulimits: notNil(h.Ulimits), MaskedPaths: maskedPaths(h), ReadonlyPaths: readonlyPaths(h),
	}
	out.Binds, out.Mounts, out.VolumesFrom, out.VolumeDriver = h.Binds, h.Mounts, h.VolumesFrom, h.VolumeDriver
	if out.ShmSize == 0 {
		out.ShmSize = spec.DefaultShmSize
	}
	out.setLimits(h)
	if h.Init {
		out.Init = &h.Init
	}
	return out
}

// setLimits fills in the limits that depend on cgroups.
func (out *hostConfigJSON) setLimits(h *spec.HostConfig) {
	out.MemoryReservation, out.MemorySwap, out.MemorySwappiness = h.MemoryReservation, h.MemorySwap, h.MemorySwappiness
	if h.Memory > 0 && h.MemorySwap == 0 {
		out.MemorySwap = 2 * h.Memory
	}
	if h.OomKillDisable {
		out.OomKillDisable = &h.OomKillDisable
	}
	out.OomScoreAdj = h.OomScoreAdj
	out.CPUShares, out.CPUPeriod, out.CPUQuota = h.CPUShares, h.CPUPeriod, h.CPUQuota
	out.CPURealtimePeriod, out.CPURealtimeRuntime = h.CPURealtimePeriod, h.CPURealtimeRuntime
	out.CpusetCpus, out.CpusetMems = h.CpusetCpus, h.CpusetMems
	out.BlkioWeight, out.BlkioWeightDevice = h.BlkioWeight, notNil(h.BlkioWeightDevice)
	out.BlkioDeviceReadBps, out.BlkioDeviceWriteBps = notNil(h.BlkioDeviceReadBps), notNil(h.BlkioDeviceWriteBps)
	out.BlkioDeviceReadIOps, out.BlkioDeviceWriteIOps = notNil(h.BlkioDeviceReadIOps), notNil(h.BlkioDeviceWriteIOps)
}

// orElse is s, or what stands for an empty one.
func orElse(s, empty string) string {
	if s == "" {
		return empty
	}
	return s
}

func toConfigJSON(c *container.Summary) configJSON {
	r := &c.Config
	labels := r.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return configJSON{
		Hostname: c.Hostname, Domainname: c.Domainname, User: r.User,
		AttachStdin: c.AttachIn, AttachStdout: c.AttachOut, AttachStderr: c.AttachErr,
		ExposedPorts: r.ExposedPorts, Tty: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce,
		Env: r.Env, Cmd: r.Cmd, Healthcheck: r.Healthcheck, ArgsEscaped: r.ArgsEscaped,
		Image: c.Image, Volumes: r.Volumes, WorkingDir: r.WorkingDir, Entrypoint: r.Entrypoint, OnBuild: r.OnBuild,
		Labels: labels, StopSignal: r.StopSignal, StopTimeout: r.StopTimeout, Shell: r.Shell, HealthOnFailure: c.Host.HealthOnFailure,
	}
}

// maskedPaths and readonlyPaths are what the container cannot see or change; a
// privileged one sees all.
func maskedPaths(h *spec.HostConfig) []string {
	switch {
	case h.Privileged:
		return nil
	case unmasked(h):
		return []string{}
	}
	return plan.Masked()
}

func readonlyPaths(h *spec.HostConfig) []string {
	switch {
	case h.Privileged:
		return nil
	case unmasked(h):
		return []string{}
	}
	return plan.ReadOnlyPaths()
}

func unmasked(h *spec.HostConfig) bool { return slices.Contains(h.SecurityOpt, spec.Unmasked) }

// securityOpts leaves out what Docker shows as masked and read-only paths.
func securityOpts(h *spec.HostConfig) []string {
	return slices.DeleteFunc(slices.Clone(h.SecurityOpt), func(o string) bool { return o == spec.Unmasked })
}

// notNilMap keeps an empty map from being null.
func notNilMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
