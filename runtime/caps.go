package runtime

import (
	"slices"
	"strings"

	"tug/errs"
)

// capNames are the capabilities by number (capability.h, Linux 5.9 and later).
func capNames() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
		"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
		"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
		"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
		"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
		"CHECKPOINT_RESTORE",
	}
}

// defaultCaps are Docker's: what package managers and servers need in a
// container, and nothing that reaches beyond it.
func defaultCaps() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
		"SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
	}
}

// capSet makes a set of capability names; bit n is capability n.
func capSet(names []string) uint64 {
	var set uint64
	for n, name := range capNames() {
		if slices.Contains(names, name) {
			set |= 1 << n
		}
	}
	return set
}

// CapNames is the reverse, with the CAP_ prefix.
func CapNames(set uint64) []string {
	var list []string
	for n, name := range capNames() {
		if set&(1<<n) != 0 {
			list = append(list, "CAP_"+name)
		}
	}
	return list
}

// Capabilities are the names of all capabilities.
func Capabilities() []string { return CapNames(capSet(capNames())) }

// CapabilitySet makes a set of names as CAP_CHOWN; bit n is capability n. It
// leaves out those that it does not know.
func CapabilitySet(names []string) (set uint64, unknown []string) {
	for _, name := range names {
		n := slices.Index(capNames(), strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
		if n < 0 {
			unknown = append(unknown, name)
			continue
		}
		set |= 1 << n
	}
	return set, unknown
}

const allCaps = ^uint64(0)

// containerCaps applies --cap-add and --cap-drop to the default set by Docker's
// rules: dropping ALL leaves only what is added, adding ALL leaves out only
// what is dropped, else additions win over drops.
func containerCaps(add, drop []string) (uint64, error) {
	added, addAll, err := parseCaps(add)
	if err != nil {
		return 0, err
	}
	dropped, dropAll, err := parseCaps(drop)
	if err != nil {
		return 0, err
	}
	switch {
	case dropAll && addAll:
		return capSet(capNames()), nil
	case dropAll:
		return added, nil
	case addAll:
		return capSet(capNames()) &^ dropped, nil
	}
	return capSet(defaultCaps())&^dropped | added, nil
}

func parseCaps(names []string) (set uint64, all bool, err error) {
	for _, given := range names {
		name := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(given)), "CAP_")
		if name == "ALL" {
			all = true
			continue
		}
		n := slices.Index(capNames(), name)
		if n < 0 {
			return 0, false, errs.New(errs.Invalid, "unknown capability %q", given).WithHint("see capabilities(7) for the names")
		}
		set |= 1 << n
	}
	return set, all, nil
}
