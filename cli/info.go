package cli

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"
)

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
			return printOne(a.Out, *format, v)
		}
		var b bytes.Buffer
		v.write(&b)
		_, err = a.Out.Write(b.Bytes())
		return err
	}
}

func (v *infoJSON) write(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, " "+format+"\n", args...) }
	fmt.Fprintln(w, "Client:")
	line("Version: %s", v.ClientInfo.Version)
	fmt.Fprintln(w, "\nServer:")
	line("Containers: %d", v.Containers)
	line(" Running: %d", v.ContainersRunning)
	line(" Paused: %d", v.ContainersPaused)
	line(" Stopped: %d", v.ContainersStopped)
	line("Images: %d", v.Images)
	line("Server Version: %s", v.ServerVersion)
	line("Storage Driver: %s", v.Driver)
	for _, s := range v.DriverStatus {
		line(" %s: %s", s[0], oneLine(s[1]))
	}
	line("Logging Driver: %s", v.LoggingDriver)
	line("Cgroup Driver: %s", v.CgroupDriver)
	line("Cgroup Version: %s", v.CgroupLayout)
	line("Cgroup Parent: %s", v.CgroupParent)
	line("Runtimes: %s", strings.Join(slices.Sorted(maps.Keys(v.Runtimes)), " "))
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
