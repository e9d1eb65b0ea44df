package cli

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/pflag"

	"tug/container"
	"tug/runtime"
	"tug/spec"
)

// kernelFlags are the flags of small settings of the container's processes and
// namespaces.
type kernelFlags struct {
	annotations, sysctls mapValue
	groups               list
	shmSize              bytesValue
	cgroupns, ipc, pid   string
	uts, userns          string
	devices              deviceValue
	deviceRules          list
}

func (f *kernelFlags) define(fs *pflag.FlagSet) {
	fs.Var(&f.annotations, "annotation", "Add an annotation to the container")
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use: private (default) or host")
	fs.Var(&f.devices, "device", "Add a host device to the container")
	f.deviceRules.check = checkDeviceRule
	fs.Var(&f.deviceRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(&f.groups, "group-add", "Add additional groups to join")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use: private (default), shareable, none, host or container:NAME")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use: host or container:NAME")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use: host (default), remap[:USER] or auto[:size=N]")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use: host")
	fs.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
	f.sysctls.check = checkSysctl
	fs.Var(&f.sysctls, "sysctl", "Sysctl options")
}

func (f *kernelFlags) set(h *spec.HostConfig) error {
	h.Annotations, h.Sysctls, h.GroupAdd, h.ShmSize = f.annotations.values, f.sysctls.values, f.groups.values, int64(f.shmSize)
	h.Devices, h.DeviceCgroupRules = f.devices, f.deviceRules.values
	if _, ok := h.Annotations[""]; ok {
		return errors.New("invalid Annotation: the empty string is not permitted as an annotation key")
	}
	if err := f.setModes(h); err != nil {
		return err
	}
	return runtime.CheckSysctls(h)
}

// setModes sets whose namespaces the container has.
func (f *kernelFlags) setModes(h *spec.HostConfig) error {
	switch {
	case f.ipc == "", f.ipc == "private":
	case f.ipc == "none", f.ipc == "shareable", f.ipc == "host", joins(f.ipc):
		h.IpcMode = f.ipc
	default:
		return fmt.Errorf("invalid IPC mode: %s", oneLine(f.ipc))
	}
	switch {
	case f.pid == "", f.pid == "private":
	case f.pid == "host", joins(f.pid):
		h.PidMode = f.pid
	default:
		return errors.New("--pid: invalid PID mode")
	}
	switch f.uts {
	case "", "private":
	case "host":
		h.UTSMode = f.uts
	default:
		return errors.New("--uts: invalid UTS mode")
	}
	h.UsernsMode = f.userns
	if _, _, _, err := container.ParseUserns(f.userns); err != nil {
		return err
	}
	switch f.cgroupns {
	case "", "private":
	case "host":
		h.CgroupnsMode = f.cgroupns
	default:
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	return nil
}

// joins reports whether a mode names a container.
func joins(mode string) bool {
	name, ok := strings.CutPrefix(mode, spec.JoinPrefix)
	return ok && name != ""
}

// checkSysctl lets only those pass that the kernel keeps for each container.
func checkSysctl(s string) error {
	name, _, ok := strings.Cut(s, "=")
	if !ok || !runtime.NamespacedSysctl(name) {
		return fmt.Errorf("sysctl '%s' is not allowed", s)
	}
	return nil
}

func checkDeviceRule(s string) (string, error) {
	if !runtime.ValidDeviceRule(s) {
		return "", fmt.Errorf("invalid device cgroup format '%s'", s)
	}
	return s, nil
}

// deviceValue collects PATH[:PATH][:MODE].
type deviceValue []spec.DeviceMapping

func (v *deviceValue) String() string { return "" }
func (v *deviceValue) Type() string   { return "list" }
func (v *deviceValue) Set(s string) error {
	parts := strings.Split(s, ":")
	d := spec.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch {
	case len(parts) > 3 || parts[0] == "":
		return fmt.Errorf("bad format for path: %s", s)
	case len(parts) == 3 && !runtime.ValidDeviceAccess(parts[2]):
		return fmt.Errorf("bad mode specified: %s", parts[2])
	case len(parts) == 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	case len(parts) == 2 && runtime.ValidDeviceAccess(parts[1]):
		d.CgroupPermissions = parts[1]
	case len(parts) == 2:
		d.PathInContainer = parts[1]
	}
	for _, p := range []string{d.PathOnHost, d.PathInContainer} {
		if !path.IsAbs(p) {
			return fmt.Errorf("%s is not an absolute path", p)
		}
	}
	*v = append(*v, d)
	return nil
}

// mapValue collects KEY=VALUE; KEY alone has an empty value.
type mapValue struct {
	values map[string]string
	check  func(string) error
}

func (v *mapValue) String() string { return "map[]" }
func (v *mapValue) Type() string   { return "map" }
func (v *mapValue) Set(s string) error {
	if v.check != nil {
		if err := v.check(s); err != nil {
			return err
		}
	}
	if v.values == nil {
		v.values = map[string]string{}
	}
	key, value, _ := strings.Cut(s, "=")
	v.values[key] = value
	return nil
}
