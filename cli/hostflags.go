package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"tug/spec"
)

// hostFlags are the flags of what the host keeps for a container: its output,
// its place among the cgroups, its writable layer.
type hostFlags struct {
	logDriver    string
	logOpts      list
	cgroupParent string
	storageOpts  list
	umask        umaskValue
}

func (f *hostFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringVar(&f.logDriver, "log-driver", "", `Logging driver for the container: json-file (default), local, journald or none`)
	fs.Var(&f.logOpts, "log-opt", "Log driver options")
	fs.Var(&f.storageOpts, "storage-opt", "Storage driver options for the container: size=BYTES")
	fs.Var(&f.umask, "umask", "Umask of the container's processes")
}

func (f *hostFlags) set(h *spec.HostConfig) (err error) {
	if f.logDriver == spec.LogNone && len(f.logOpts.values) > 0 {
		return errors.New("invalid logging opts for driver none")
	}
	h.Log.Driver = f.logDriver
	if h.Log.Options, err = optionMap("log-opt", f.logOpts.values); err != nil {
		return err
	}
	if h.StorageOpt, err = optionMap("storage-opt", f.storageOpts.values); err != nil {
		return err
	}
	h.CgroupParent, h.Umask = f.cgroupParent, f.umask.set
	return nil
}

// optionMap takes NAME=VALUE options apart.
func optionMap(flag string, values []string) (map[string]string, error) {
	var m map[string]string
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("invalid --%s %q: want NAME=VALUE", flag, oneLine(v))
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = value
	}
	return m, nil
}

// umaskValue is a file mode creation mask, in octal.
type umaskValue struct{ set *uint32 }

func (v *umaskValue) String() string {
	if v.set == nil {
		return "<nil>"
	}
	return fmt.Sprintf("%04o", *v.set)
}
func (v *umaskValue) Type() string { return "umask" }
func (v *umaskValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is no umask: want an octal number up to 0777", s)
	}
	m := uint32(n)
	v.set = &m
	return nil
}
