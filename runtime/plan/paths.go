package plan

import "strconv"

// Words after the layout in the arguments of `tug-init init`: what of the host
// it does not leave.
const (
	HostNet    = "hostnet"
	HostCgroup = "hostcgroup"
	HostIPC    = "hostipc"
	JoinIPC    = "joinipc" // that of the container whose first process is passed
	UserNS     = "userns"  // it is in a user namespace of the container's, where the host's root is nobody
)

// Words in the arguments of `tug-init enter`.
const (
	JoinUser = "joinuser" // the user namespace that is passed
	AsItIs   = "asitis"   // the OOM score adjustment
)

// Masked returns the paths a container must not see, but for ThermalThrottle's.
// They are Docker's: each tells about, or reaches into, the machine rather than
// the container.
func Masked() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// ThermalThrottle is the masked path of processor n: its counters tell what
// other containers do.
func ThermalThrottle(n int) string {
	return "/sys/devices/system/cpu/cpu" + strconv.Itoa(n) + "/thermal_throttle"
}

// ReadOnlyPaths returns the paths a container may read but not change.
func ReadOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// StandardDevices are the nodes every container has.
func StandardDevices() []Device {
	return []Device{
		{Path: "/dev/null", Kind: 'c', Major: 1, Minor: 3, Mode: 0o666},
		{Path: "/dev/zero", Kind: 'c', Major: 1, Minor: 5, Mode: 0o666},
		{Path: "/dev/full", Kind: 'c', Major: 1, Minor: 7, Mode: 0o666},
		{Path: "/dev/random", Kind: 'c', Major: 1, Minor: 8, Mode: 0o666},
		{Path: "/dev/urandom", Kind: 'c', Major: 1, Minor: 9, Mode: 0o666},
		{Path: "/dev/tty", Kind: 'c', Major: 5, Minor: 0, Mode: 0o666},
	}
}
