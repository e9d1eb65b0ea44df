package cli

import (
	"os"
	"slices"
	"strings"
	"time"

	"tug/engine"
	"tug/spec"
	"tug/volume"
)

// infoJSON is `info --format json`: Docker's fields in Docker's order (Engine
// API, GET /info), and tug's own at the end. What tug does not have is empty.
type infoJSON struct {
	ID                  string
	Containers          int
	ContainersRunning   int
	ContainersPaused    int
	ContainersStopped   int
	Images              int
	Driver              string
	DriverStatus        [][2]string
	Plugins             pluginsJSON
	MemoryLimit         bool
	SwapLimit           bool
	CPUCfsPeriod        bool `json:"CpuCfsPeriod"`
	CPUCfsQuota         bool `json:"CpuCfsQuota"`
	CPUShares           bool
	CPUSet              bool
	PidsLimit           bool
	IPv4Forwarding      bool
	Debug               bool
	NFd                 int
	OomKillDisable      bool
	NGoroutines         int
	SystemTime          string
	LoggingDriver       string
	CgroupDriver        string
	CgroupVersion       string
	NEventsListener     int
	KernelVersion       string
	OperatingSystem     string
	OSVersion           string
	OSType              string
	Architecture        string
	IndexServerAddress  string
	RegistryConfig      registryJSON
	NCPU                int
	MemTotal            int64
	GenericResources    []string
	DockerRootDir       string
	HTTPProxy           string `json:"HttpProxy"`
	HTTPSProxy          string `json:"HttpsProxy"`
	NoProxy             string
	Name                string
	Labels              []string
	ExperimentalBuild   bool
	ServerVersion       string
	Runtimes            map[string]runtimeJSON
	DefaultRuntime      string
	Swarm               swarmJSON
	LiveRestoreEnabled  bool
	Isolation           string
	InitBinary          string
	ContainerdCommit    commitJSON
	RuncCommit          commitJSON
	InitCommit          commitJSON
	SecurityOptions     []string
	ProductLicense      string     `json:",omitempty"`
	DefaultAddressPools []struct{} `json:",omitempty"`
	CDISpecDirs         []string
	Warnings            []string

	Root, RunRoot string
	CgroupLayout  string // "1", "2" or "hybrid"
	CgroupParent  string
	SupervisorPid int // 0 when none runs

	ClientInfo clientInfoJSON
}

type pluginsJSON struct {
	Volume, Network, Authorization, Log []string
}

type registryJSON struct {
	InsecureRegistryCIDRs []string
	IndexConfigs          map[string]indexJSON
	Mirrors               []string
}

type indexJSON struct {
	Name     string
	Mirrors  []string
	Secure   bool
	Official bool
}

type runtimeJSON struct {
	Path string `json:"path,omitempty"`
}

type commitJSON struct{ ID string }

type swarmJSON struct {
	NodeID           string
	NodeAddr         string
	LocalNodeState   string
	ControlAvailable bool
	Error            string
	RemoteManagers   []string
}

type clientInfoJSON struct {
	Debug bool
	clientVersion
	Plugins  []string
	Warnings []string
}

func toInfoJSON(in *engine.Info) *infoJSON {
	has := func(controller string) bool { return slices.Contains(in.Controllers, controller) }
	return &infoJSON{
		Containers: in.Containers, ContainersRunning: in.Running, ContainersPaused: in.Paused, ContainersStopped: in.Stopped, Images: in.Images,
		Driver: storageDriver, DriverStatus: storageStatus(in), LoggingDriver: spec.LogJSONFile,
		Plugins:     pluginsJSON{Volume: []string{volume.Local}, Network: []string{"host", "none"}, Log: []string{spec.LogJournald, spec.LogJSONFile, spec.LogLocal}},
		MemoryLimit: has("memory"), CPUCfsPeriod: has("cpu"), CPUCfsQuota: has("cpu"), PidsLimit: has("pids"),
		IPv4Forwarding: in.IPv4Forwarding, SystemTime: time.Now().Format(time.RFC3339Nano),
		CgroupDriver: "cgroupfs", CgroupVersion: dockerCgroupVersion(in.CgroupVersion),
		KernelVersion: in.KernelVersion, OperatingSystem: in.OS, OSVersion: in.OSVersion, OSType: "linux", Architecture: machine(in.Architecture),
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: toRegistryJSON(),
		NCPU: in.CPUs, MemTotal: in.Memory, DockerRootDir: in.Root,
		HTTPProxy: proxy("HTTP_PROXY"), HTTPSProxy: proxy("HTTPS_PROXY"), NoProxy: proxy("NO_PROXY"),
		Name: in.Name, Labels: []string{}, ServerVersion: in.ServerVersion,
		Runtimes: toRuntimesJSON(in.Runtimes), DefaultRuntime: "tug", InitBinary: "tug-init",
		Swarm: swarmJSON{LocalNodeState: "inactive"},
		// Containers outlive the supervisor, also while tug is replaced.
		LiveRestoreEnabled: true,
		SecurityOptions:    []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		CDISpecDirs:        []string{}, Warnings: []string{},
		Root: in.Root, RunRoot: in.RunRoot, CgroupLayout: in.CgroupVersion, CgroupParent: in.CgroupName, SupervisorPid: in.SupervisorPid,
		ClientInfo: clientInfoJSON{clientVersion: toVersionJSON().Client, Plugins: []string{}},
	}
}

// toRuntimesJSON lists tug's own runtime and the others that are here.
func toRuntimesJSON(others map[string]string) map[string]runtimeJSON {
	all := map[string]runtimeJSON{"tug": {Path: "tug-init"}}
	for name, path := range others {
		all[name] = runtimeJSON{Path: path}
	}
	return all
}

// storageDriver is what stacks the layers.
const storageDriver = "overlayfs"

// storageStatus says in which form layers are on disk, and why not in a better
// one.
func storageStatus(in *engine.Info) [][2]string {
	rows := [][2]string{{"Layers", in.Backend}}
	for _, why := range in.BackendsRefused {
		rows = append(rows, [2]string{"Not used", why})
	}
	return rows
}

// dockerCgroupVersion is "1" or "2". In the hybrid layout limits are v1's.
func dockerCgroupVersion(layout string) string {
	if layout == "2" {
		return "2"
	}
	return "1"
}

// toRegistryJSON says which registries are spoken to without TLS: those of this
// machine.
func toRegistryJSON() registryJSON {
	return registryJSON{
		InsecureRegistryCIDRs: []string{"::1/128", "127.0.0.0/8"},
		IndexConfigs:          map[string]indexJSON{"docker.io": {Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true}},
		Mirrors:               []string{},
	}
}

// proxy is a proxy's address from the environment, which has it in upper or
// lower case, without a password.
func proxy(name string) string {
	v := os.Getenv(name)
	if v == "" {
		v = os.Getenv(strings.ToLower(name))
	}
	scheme, rest, ok := strings.Cut(v, "://")
	if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 {
		return scheme + "://xxxxx:xxxxx@" + rest[at+1:]
	}
	return v
}

// machine is an architecture as uname(1) calls it.
func machine(goarch string) string {
	switch goarch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return goarch
}
