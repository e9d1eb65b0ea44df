package oci

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime"
	"tug/sys"
)

// loadBundle reads and checks the configuration of a bundle, an absolute path,
// and returns it with its text.
func loadBundle(bundle string) (*specs.Spec, []byte, error) {
	s, text, err := readConfig(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, nil, err
	}
	return s, text, validate(s)
}

// validate refuses what the specification forbids and what tug cannot do.
func validate(s *specs.Spec) error {
	if v := s.Version; v == "" || v != "1" && !strings.HasPrefix(v, "1.") {
		return invalid("ociVersion %q is not 1.x", v)
	}
	if s.Root == nil || s.Root.Path == "" {
		return invalid("root.path is missing")
	}
	if s.Linux == nil {
		return invalid("linux is missing: this is no configuration of a Linux container")
	}
	if s.Process != nil {
		if err := validateProcess(s.Process); err != nil {
			return err
		}
	}
	for _, check := range []func(*specs.Spec) error{validateNamespaces, validateNames, validateMounts, validateHooks, validateSysctls, unsupported} {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	return errs.New(errs.Invalid, "config.json: "+format, args...)
}

func validateProcess(p *specs.Process) error {
	switch {
	case len(p.Args) == 0 || p.Args[0] == "":
		return invalid("process.args is empty")
	case !filepath.IsAbs(p.Cwd):
		return invalid("process.cwd %q is not an absolute path", p.Cwd)
	}
	for i, e := range slices.Concat(p.Env, p.Args) {
		if strings.ContainsRune(e, 0) {
			return invalid("process: entry %d of env or args has a NUL byte", i)
		}
	}
	seen := map[string]bool{}
	for _, l := range p.Rlimits {
		if _, ok := rlimitNumber(l.Type); !ok {
			return invalid("process.rlimits: unknown limit %q", l.Type)
		}
		if seen[l.Type] {
			return invalid("process.rlimits: %s is there twice", l.Type)
		}
		if l.Soft > l.Hard {
			return invalid("process.rlimits: the soft limit of %s is above the hard limit", l.Type)
		}
		seen[l.Type] = true
	}
	if n := p.OOMScoreAdj; n != nil && (*n < -1000 || *n > 1000) {
		return invalid("process.oomScoreAdj %d is not between -1000 and 1000", *n)
	}
	if p.User.Umask != nil && *p.User.Umask > 0o777 {
		return invalid("process.user.umask %#o is no mask", *p.User.Umask)
	}
	if _, err := scheduling(p.Scheduler); err != nil {
		return err
	}
	_, err := ioPriority(p.IOPriority)
	return err
}

func rlimitNumber(name string) (int, bool) {
	plain, ok := strings.CutPrefix(name, "RLIMIT_")
	if !ok || plain != strings.ToUpper(plain) {
		return 0, false
	}
	return runtime.RlimitNumber(plain)
}

// namespaceFlag is the kernel's name of a type of namespace.
func namespaceFlag(t specs.LinuxNamespaceType) (int, bool) {
	switch t {
	case specs.PIDNamespace:
		return sys.NewPID, true
	case specs.NetworkNamespace:
		return sys.NewNet, true
	case specs.MountNamespace:
		return sys.NewNS, true
	case specs.IPCNamespace:
		return sys.NewIPC, true
	case specs.UTSNamespace:
		return sys.NewUTS, true
	case specs.UserNamespace:
		return sys.NewUser, true
	case specs.CgroupNamespace:
		return sys.NewCgroup, true
	case specs.TimeNamespace:
		return sys.NewTime, true
	}
	return 0, false
}

// namespace returns the entry of a type, or nil.
func namespace(s *specs.Spec, t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range s.Linux.Namespaces {
		if n := &s.Linux.Namespaces[i]; n.Type == t {
			return n
		}
	}
	return nil
}

func isNew(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	n := namespace(s, t)
	return n != nil && n.Path == ""
}

func validateNamespaces(s *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range s.Linux.Namespaces {
		if _, ok := namespaceFlag(n.Type); !ok {
			return invalid("linux.namespaces: unknown type %q", n.Type)
		}
		if seen[n.Type] {
			return invalid("linux.namespaces: %s is there twice", n.Type)
		}
		if n.Path != "" && !filepath.IsAbs(n.Path) {
			return invalid("linux.namespaces: the path %q of %s is not absolute", n.Path, n.Type)
		}
		seen[n.Type] = true
	}
	if !isNew(s, specs.MountNamespace) {
		return errs.New(errs.Unsupported, "config.json: a container without a mount namespace of its own is not supported").
			WithHint("what is mounted and masked for it would be so for the machine")
	}
	if n := namespace(s, specs.UserNamespace); n != nil && n.Path != "" {
		return errs.New(errs.Unsupported, "config.json: a user namespace that exists is not supported, only a new one with mappings")
	}
	maps := len(s.Linux.UIDMappings) + len(s.Linux.GIDMappings)
	switch user := isNew(s, specs.UserNamespace); {
	case user && (len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0):
		return invalid("a user namespace needs linux.uidMappings and linux.gidMappings")
	case !user && maps > 0:
		return invalid("linux.uidMappings and gidMappings are for a user namespace, and there is none")
	}
	if len(s.Linux.TimeOffsets) > 0 && !isNew(s, specs.TimeNamespace) {
		return invalid("linux.timeOffsets are for a time namespace of its own, and there is none")
	}
	for clock := range s.Linux.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalid("linux.timeOffsets: unknown clock %q", clock)
		}
	}
	return nil
}

func validateNames(s *specs.Spec) error {
	if (s.Hostname != "" || s.Domainname != "") && namespace(s, specs.UTSNamespace) == nil {
		return invalid("hostname and domainname need a UTS namespace")
	}
	return nil
}

func validateMounts(s *specs.Spec) error {
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Destination == "" || strings.ContainsRune(m.Destination, 0) {
			return invalid("mounts[%d]: no destination", i)
		}
		if filepath.Clean("/"+m.Destination) == "/" {
			return invalid("mounts[%d]: the root cannot be covered", i)
		}
		if (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0) {
			return invalid("mounts[%d]: uidMappings and gidMappings go together", i)
		}
	}
	for _, d := range s.Linux.Devices {
		switch {
		case !filepath.IsAbs(d.Path):
			return invalid("linux.devices: the path %q is not absolute", d.Path)
		case !slices.Contains([]string{"c", "u", "b", "p"}, d.Type):
			return invalid("linux.devices: %s: type %q is none of c, b, u and p", d.Path, d.Type)
		case d.Type != "p" && (d.Major < 0 || d.Minor < 0):
			return invalid("linux.devices: %s: %d:%d is no device number", d.Path, d.Major, d.Minor)
		}
	}
	for _, p := range slices.Concat(s.Linux.MaskedPaths, s.Linux.ReadonlyPaths) {
		if !filepath.IsAbs(p) {
			return invalid("maskedPaths and readonlyPaths: %q is not absolute", p)
		}
	}
	return nil
}

func validateHooks(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	//lint:ignore SA1019 prestart is old and still in use
	prestart := s.Hooks.Prestart
	for _, h := range slices.Concat(prestart, s.Hooks.CreateRuntime, s.Hooks.CreateContainer, s.Hooks.StartContainer, s.Hooks.Poststart, s.Hooks.Poststop) {
		if !filepath.IsAbs(h.Path) {
			return invalid("hooks: the path %q is not absolute", h.Path)
		}
		if h.Timeout != nil && *h.Timeout <= 0 {
			return invalid("hooks: %s: timeout %d is not above zero", h.Path, *h.Timeout)
		}
	}
	return nil
}

// validateSysctls refuses what would set the host's value.
func validateSysctls(s *specs.Spec) error {
	for name := range s.Linux.Sysctl {
		t := runtime.SysctlNamespace(dotted(name))
		if t == "" {
			return invalid("linux.sysctl: %q is the machine's and not a container's", name)
		}
		n := namespace(s, specs.LinuxNamespaceType(t))
		if n == nil || n.Path != "" && isOwn(n) {
			return invalid("linux.sysctl: %q is not the container's without a %s namespace", name, t)
		}
	}
	return nil
}

// dotted is a sysctl's name with dots between its parts, as plans have it. Like
// sysctl(8) it goes by the first separator, so that a part may have the other
// one in it: net/ipv4/conf/eth0.1/rp_filter is net.ipv4.conf.eth0/1.rp_filter.
func dotted(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return strings.NewReplacer("/", ".", ".", "/").Replace(name)
	}
	return name
}

// isOwn reports whether a namespace to join is the caller's own.
func isOwn(n *specs.LinuxNamespace) bool {
	a, err := os.Stat(n.Path)
	if err != nil {
		return false
	}
	b, err := os.Stat("/proc/self/ns/" + nsFile(n.Type))
	return err == nil && os.SameFile(a, b)
}

// nsFile is a type's name in /proc/PID/ns.
func nsFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// unsupported refuses what tug cannot do, so that nobody believes it done.
func unsupported(s *specs.Spec) error {
	l := s.Linux
	no := func(what string) error { return errs.New(errs.Unsupported, "config.json: %s is not supported", what) }
	switch {
	case l.IntelRdt != nil:
		return no("linux.intelRdt")
	case len(l.NetDevices) > 0:
		return no("linux.netDevices")
	case l.MemoryPolicy != nil:
		return no("linux.memoryPolicy")
	case l.MountLabel != "":
		return no("linux.mountLabel")
	case l.Personality != nil && l.Personality.Domain != specs.PerLinux && l.Personality.Domain != specs.PerLinux32:
		return invalid("linux.personality.domain %q is neither LINUX nor LINUX32", l.Personality.Domain)
	case l.Personality != nil && len(l.Personality.Flags) > 0:
		return no("linux.personality.flags")
	}
	if c := l.Seccomp; c != nil {
		for _, call := range c.Syscalls {
			if call.Action == specs.ActNotify && c.ListenerPath == "" {
				return invalid("linux.seccomp: SCMP_ACT_NOTIFY without listenerPath")
			}
		}
	}
	_, err := propagation(l.RootfsPropagation)
	return err
}
