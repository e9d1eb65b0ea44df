package runtime

import (
	"slices"
	"strings"

	"tug/errs"
	"tug/runtime/plan"
	"tug/spec"
)

// NamespacedSysctl reports whether the kernel keeps a value of name for each
// IPC or network namespace. All others are the host's.
func NamespacedSysctl(name string) bool { return ipcSysctl(name) || netSysctl(name) }

// SysctlNamespace is the type of namespace that has a value of name, as an OCI
// configuration calls it, or "".
func SysctlNamespace(name string) string {
	switch {
	case ipcSysctl(name):
		return "ipc"
	case netSysctl(name):
		return "network"
	case name == "kernel.domainname":
		return "uts"
	}
	return ""
}

func netSysctl(name string) bool { return sysctlBelow(name, "net.") }

func ipcSysctl(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return sysctlBelow(name, "fs.mqueue.")
}

// sysctlBelow reports whether name is a proper name that begins with prefix:
// no empty part and none of slashes alone, which become dots in a file's name:
// net.ipv4.conf.eth0/1.rp_filter is fine, net.//.kernel.panic would leave net.
func sysctlBelow(name, prefix string) bool {
	hollow := func(part string) bool { return strings.Trim(part, "/") == "" }
	return strings.HasPrefix(name, prefix) && !slices.ContainsFunc(strings.Split(name, "."), hollow) && !strings.ContainsRune(name, 0)
}

// CheckSysctls refuses what would set the host's value, since the container
// shares the host's namespace.
func CheckSysctls(h *spec.HostConfig) error {
	_, err := sysctls(h)
	return err
}

func sysctls(h *spec.HostConfig) (all []plan.Option, err error) {
	for name, value := range h.Sysctls {
		switch {
		case !NamespacedSysctl(name):
			return nil, errs.New(errs.Invalid, "sysctl '%s' is not allowed", name).WithHint("it is the host's: set it there")
		case netSysctl(name) && h.NetworkMode == "host":
			return nil, errs.New(errs.Invalid, "sysctl %q not allowed in host network namespace", name)
		case ipcSysctl(name) && h.IpcMode == "host":
			return nil, errs.New(errs.Invalid, "sysctl %q is not allowed in the hosts ipc namespace", name)
		}
		all = append(all, plan.Option{Key: name, Value: value})
	}
	slices.SortFunc(all, func(a, b plan.Option) int { return strings.Compare(a.Key, b.Key) })
	return all, nil
}
