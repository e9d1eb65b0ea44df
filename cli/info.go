package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/engine"
)

// versionJSON is `version --format json`, with Docker's two halves. They are
// the same program here: there is no server.
type versionJSON struct {
	Client versionHalf
	Server versionHalf
}

type versionHalf struct {
	Version, GitCommit, GoVersion, Os, Arch string
}

func setupVersion(a *app, fs *pflag.FlagSet) func([]string) error {
	format := fs.StringP("format", "f", "", inspectFormatUsage)
	return func([]string) error {
		v := engine.Version()
		version, build := versionAndBuild()
		half := versionHalf{Version: version, GitCommit: build, GoVersion: v.GoVersion, Os: v.Os, Arch: v.Arch}
		if *format != "" {
			return (&inspectOptions{format: *format}).print(a.Out, []any{versionJSON{half, half}})
		}
		return a.printf("Client:\n Version:    %s\n Go version: %s\n Git commit: %s\n OS/Arch:    %s/%s\n",
			half.Version, half.GoVersion, half.GitCommit, half.Os, half.Arch)
	}
}

// infoJSON is `info --format json`: those of Docker's fields that tug has
// something to say about, with Docker's names, and its own at the end.
type infoJSON struct {
	Containers        int
	ContainersRunning int
	ContainersPaused  int
	ContainersStopped int
	Images            int
	Driver            string
	DriverStatus      [][2]string
	LoggingDriver     string
	CgroupDriver      string
	CgroupVersion     string
	KernelVersion     string
	OperatingSystem   string
	OSType            string
	Architecture      string
	NCPU              int
	MemTotal          int64
	DockerRootDir     string
	Name              string
	ServerVersion     string
	SecurityOptions   []string
	DefaultRuntime    string
	InitBinary        string
	Warnings          []string

	Root, RunRoot, CgroupParent string
	SupervisorPid               int
}

func setupInfo(a *app, fs *pflag.FlagSet) func([]string) error {
	format := fs.StringP("format", "f", "", inspectFormatUsage)
	return func([]string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		in, err := e.Info(a.ctx)
		if err != nil {
			return err
		}
		v := toInfoJSON(&in)
		if *format != "" {
			return (&inspectOptions{format: *format}).print(a.Out, []any{v})
		}
		var b bytes.Buffer
		v.write(&b)
		_, err = a.Out.Write(b.Bytes())
		return err
	}
}

func toInfoJSON(in *engine.Info) *infoJSON {
	return &infoJSON{
		Containers: in.Containers, ContainersRunning: in.Running, ContainersStopped: in.Stopped, Images: in.Images,
		Driver: "overlay", DriverStatus: [][2]string{{"Layers", in.Backend}}, LoggingDriver: "cri",
		CgroupDriver: "cgroupfs", CgroupVersion: strings.TrimPrefix(in.CgroupVersion, "v"),
		KernelVersion: in.KernelVersion, OperatingSystem: in.OS, OSType: "linux", Architecture: machine(in.Architecture),
		NCPU: in.CPUs, MemTotal: in.Memory, DockerRootDir: in.Root, Name: in.Name, ServerVersion: in.ServerVersion,
		SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		DefaultRuntime:  "tug", InitBinary: "tug-init", Warnings: []string{},
		Root: in.Root, RunRoot: in.RunRoot, CgroupParent: in.CgroupName, SupervisorPid: in.SupervisorPid,
	}
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

func (v *infoJSON) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, " "+format+"\n", args...) }
	fmt.Fprintln(w, "Server:")
	line("Containers: %d", v.Containers)
	line(" Running: %d", v.ContainersRunning)
	line(" Paused: %d", v.ContainersPaused)
	line(" Stopped: %d", v.ContainersStopped)
	line("Images: %d", v.Images)
	line("Server Version: %s", v.ServerVersion)
	line("Storage Driver: %s", v.Driver)
	for _, s := range v.DriverStatus {
		line(" %s: %s", s[0], s[1])
	}
	line("Logging Driver: %s", v.LoggingDriver)
	line("Cgroup Driver: %s", v.CgroupDriver)
	line("Cgroup Version: %s", v.CgroupVersion)
	line("Cgroup Parent: %s", v.CgroupParent)
	line("Default Runtime: %s", v.DefaultRuntime)
	line("Init Binary: %s", v.InitBinary)
	line("Security Options:")
	for _, o := range v.SecurityOptions {
		name, rest, _ := strings.Cut(strings.TrimPrefix(o, "name="), ",")
		line(" %s", name)
		if key, value, ok := strings.Cut(rest, "="); ok {
			line("  %s: %s", strings.ToUpper(key[:1])+key[1:], value)
		}
	}
	line("Kernel Version: %s", v.KernelVersion)
	line("Operating System: %s", v.OperatingSystem)
	line("OSType: %s", v.OSType)
	line("Architecture: %s", v.Architecture)
	line("CPUs: %d", v.NCPU)
	line("Total Memory: %s", units.BytesSize(float64(v.MemTotal)))
	line("Name: %s", v.Name)
	line("Tug Root Dir: %s", v.Root)
	line("Tug Run Dir: %s", v.RunRoot)
	if v.SupervisorPid > 0 {
		line("Supervisor: running, process %d", v.SupervisorPid)
	} else {
		line("Supervisor: not running, none is needed")
	}
}
