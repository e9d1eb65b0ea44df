package runtime

import (
	"fmt"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime/plan"
	"tug/runtime/seccomp"
	"tug/spec"
	"tug/sys"
)

// Plan is one process to start: what tug-init is told, and what is done from
// here.
type Plan struct {
	plan.Plan
	Limits Limits

	// Probe says of an exec that it checks the container's health: KillProbe
	// is to find all that it starts.
	Probe bool

	// IDs are those of the container's user namespace, or nil without one.
	IDs *spec.IDMaps

	rules []deviceRule // beyond the usual ones

	// Foreign is set for a container of another OCI runtime.
	Foreign *ForeignPlan
}

// ExecPlan is a Plan for a further process in a running container.
type ExecPlan = Plan

// Bind adds a mount of the next of Files.Trees at target.
func (p *Plan) Bind(target string, readOnly bool) {
	p.Mounts = append(p.Mounts, plan.Mount{Target: target, Tree: p.nextTree(), ReadOnly: readOnly})
}

// Attach is Bind for a tree that is as it is to be.
func (p *Plan) Attach(target string) {
	p.Mounts = append(p.Mounts, plan.Mount{Target: target, Tree: p.nextTree(), AsItIs: true})
}

func (p *Plan) nextTree() int {
	n := 1
	for _, m := range p.Mounts {
		n = max(n, m.Tree+1)
	}
	return n
}

// SortMounts puts outer mounts before those in them.
func (p *Plan) SortMounts() {
	slices.SortStableFunc(p.Mounts, func(a, b plan.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
}

// MakePlan turns a container's configuration into a plan for its process 1.
// Warnings tell what of it this machine cannot do. It reads nothing of the
// container's file system: users and programs are looked up in the container.
func MakePlan(c *spec.Container) (*Plan, []string, error) {
	p, warnings, err := makePlan(c)
	if err != nil {
		return nil, nil, err
	}
	if c.Host.Privileged {
		p.Devices = hostDevices()
	}
	if err := p.addDevices(&c.Host); err != nil {
		return nil, nil, err
	}
	if p.Limits.Block, err = blockLimits(&c.Host); err != nil {
		return nil, nil, err
	}
	if c.Host.Runtime != "" {
		if p.Foreign, err = foreignPlan(c, p.Caps); err != nil {
			return nil, nil, err
		}
	}
	return p, warnings, nil
}

// makePlan is MakePlan without the host's devices, which an exec has no use for.
func makePlan(c *spec.Container) (*Plan, []string, error) {
	opts, err := parseSecurity(c.Host.SecurityOpt)
	if err != nil {
		return nil, nil, err
	}
	if c.Path == "" {
		return nil, nil, errs.New(errs.Invalid, "no command specified").WithHint("give one after the image's name")
	}
	p := &Plan{IDs: c.Host.IDs, Plan: plan.Plan{
		Args:       append([]string{c.Path}, c.Args...),
		Cwd:        path.Join("/", c.Config.WorkingDir),
		User:       c.Config.User,
		Groups:     c.Host.GroupAdd,
		ShmSize:    c.Host.ShmSize,
		Tty:        c.Tty,
		Init:       c.Host.Init && !c.Box,
		Box:        c.Box,
		Hostname:   hostname(c),
		Domainname: c.Domainname,
		Privileged: c.Host.Privileged,
		ReadOnly:   c.Host.ReadonlyRootfs,
		NoNewPrivs: opts.noNewPrivs,
		Unmasked:   opts.unmasked,
		Umask:      umask(&c.Host),
	}}
	p.Env = environment(p.Hostname, c.Tty, c.Config.Env, nil)
	if c.Host.UTSMode == "host" {
		p.Hostname, p.Domainname = "", "" // they are the host's
	}
	switch mode := c.Host.IpcMode; {
	case mode == "none":
		p.ShmSize, p.NoShm = 0, true
	case mode == "host", strings.HasPrefix(mode, spec.JoinPrefix):
		p.ShmSize = 0 // it is another's
	}
	p.Limits = limitsOf(&c.Host)
	p.OOMScoreAdj = c.Host.OomScoreAdj
	if p.Sysctls, err = sysctls(&c.Host); err != nil {
		return nil, nil, err
	}
	if p.Rlimits, err = rlimits(c.Host.Ulimits); err != nil {
		return nil, nil, err
	}
	if p.Mounts, err = tmpfsMounts(c); err != nil {
		return nil, nil, err
	}
	warnings, err := p.setCaps(c)
	if err != nil {
		return nil, nil, err
	}
	f, err := opts.filter(p.Caps, c.Host.Privileged)
	p.Seccomp, p.FilterFlags = f.prog, f.flags
	return p, warnings, err
}

// MakeExecPlan makes the plan of an exec in a container that runs as c says.
// With Privileged it has all capabilities; the seccomp filter stays.
func MakeExecPlan(c *spec.Container, e *spec.ExecSpec) (*ExecPlan, error) {
	if len(e.Args) == 0 || e.Args[0] == "" {
		return nil, errs.New(errs.Invalid, "no command specified")
	}
	whole, _, err := makePlan(c)
	if err != nil {
		return nil, err
	}
	p := &Plan{IDs: c.Host.IDs, Plan: plan.Plan{
		Args:        e.Args,
		Cwd:         whole.Cwd,
		User:        whole.User,
		Groups:      whole.Groups,
		Tty:         e.Tty,
		Env:         environment(hostname(c), e.Tty, c.Config.Env, e.Env),
		Caps:        whole.Caps,
		NoNewPrivs:  whole.NoNewPrivs,
		Seccomp:     whole.Seccomp,
		FilterFlags: whole.FilterFlags,
		Rlimits:     whole.Rlimits,
		OOMScoreAdj: whole.OOMScoreAdj,
		Umask:       whole.Umask,
	}}
	if e.User != "" {
		p.User = e.User
	}
	if e.WorkingDir != "" {
		p.Cwd = path.Join("/", e.WorkingDir)
	}
	if e.Privileged {
		p.Caps = allCaps & sys.BoundingSet()
	}
	if e.Box {
		err = p.setBox(c, e)
	}
	return p, err
}

// setBox makes the plan one for tug-box: as root, for an image whose users are
// none of our business, and allowed to look into the container's processes. That
// is CAP_SYS_PTRACE, which ends where these do in a pid namespace of the
// container's own, and is not given in another's.
func (p *Plan) setBox(c *spec.Container, e *spec.ExecSpec) error {
	p.Box = true
	if e.User == "" {
		p.User = "0:0"
	}
	if c.Host.PidMode != "" {
		return nil
	}
	opts, err := parseSecurity(c.Host.SecurityOpt)
	if err != nil {
		return err
	}
	p.Caps |= capSet([]string{"SYS_PTRACE"}) & sys.BoundingSet()
	f, err := opts.filter(p.Caps, c.Host.Privileged)
	p.Seccomp, p.FilterFlags = f.prog, f.flags
	return err
}

func umask(h *spec.HostConfig) uint32 {
	if h.Umask != nil {
		return *h.Umask
	}
	return spec.DefaultUmask
}

func hostname(c *spec.Container) string {
	switch {
	case c.Hostname != "":
		return c.Hostname
	case c.Host.NetworkMode == "host" || c.Host.UTSMode == "host":
		if name, err := os.Hostname(); err == nil {
			return name
		}
	}
	return c.ID[:min(12, len(c.ID))]
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is Docker's: PATH, HOSTNAME and TERM are there unless the
// container says otherwise, later values of a name replace earlier ones in
// place, and a name alone takes the variable away. HOME comes from the
// container's passwd file, later.
func environment(host string, tty bool, sets ...[]string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + host}
	if tty {
		env = append(env, "TERM=xterm")
	}
	for _, set := range sets {
		for _, e := range set {
			key, _, ok := strings.Cut(e, "=")
			at := slices.IndexFunc(env, func(old string) bool { return strings.HasPrefix(old, key+"=") })
			switch {
			case ok && at >= 0:
				env[at] = e
			case ok:
				env = append(env, e)
			case at >= 0:
				env = slices.Delete(env, at, at+1)
			}
		}
	}
	return env
}

// setCaps decides the capabilities. What this process does not have itself it
// cannot give; that is worth a warning when it was asked for by name.
func (p *Plan) setCaps(c *spec.Container) (warnings []string, err error) {
	mine := sys.BoundingSet()
	if c.Host.Privileged {
		p.Caps = allCaps & mine
		return nil, nil
	}
	want, err := containerCaps(c.Host.CapAdd, c.Host.CapDrop)
	if err != nil {
		return nil, err
	}
	p.Caps = want & mine
	named, _, _ := parseCaps(c.Host.CapAdd)
	for _, name := range CapNames(named &^ mine) {
		warnings = append(warnings, fmt.Sprintf("tug itself does not have %s, so the container does not get it", name))
	}
	return warnings, nil
}

// security is what --security-opt says.
type security struct {
	noNewPrivs bool
	unmasked   bool
	seccomp    string // "", "unconfined", "builtin" or a profile in JSON
}

// CheckSecurity refuses what --security-opt cannot be on this machine.
func CheckSecurity(opts []string) error {
	_, err := parseSecurity(opts)
	return err
}

// checkLabel refuses a profile of AppArmor and labels of SELinux: without the
// kernel's part they would confine nothing. To have none is what all have.
func checkLabel(key, value string) error {
	on, name := "/sys/module/apparmor/parameters/enabled", "AppArmor"
	if key == "label" {
		on, name = "/sys/fs/selinux/enforce", "SELinux"
	}
	if value == "unconfined" || value == "disable" {
		return nil
	}
	if b, err := os.ReadFile(on); err != nil || strings.HasPrefix(string(b), "N") {
		return errs.New(errs.Unsupported, "--security-opt %s=%s: this kernel has no %s", key, value, name)
	}
	return errs.New(errs.Unsupported, "--security-opt %s=%s: tug does not use %s", key, value, name)
}

func parseSecurity(opts []string) (security, error) {
	var s security
	for _, o := range opts {
		i := strings.IndexAny(o, "=:")
		key, value := o, ""
		if i >= 0 {
			key, value = o[:i], o[i+1:]
		}
		switch key {
		case "no-new-privileges":
			on := true
			if i >= 0 {
				var err error
				if on, err = strconv.ParseBool(value); err != nil {
					return s, errs.New(errs.Invalid, "invalid --security-opt %q: want true or false", o)
				}
			}
			s.noNewPrivs = on
		case "seccomp":
			s.seccomp = value
		case "systempaths":
			if s.unmasked = value == "unconfined"; !s.unmasked {
				return s, errs.New(errs.Invalid, "invalid --security-opt %q: there is systempaths=unconfined", o)
			}
		case "apparmor", "label":
			if err := checkLabel(key, value); err != nil {
				return s, err
			}
		default:
			return s, errs.New(errs.Invalid, "invalid --security-opt: %q", o).WithHint("tug knows no-new-privileges, seccomp, systempaths, apparmor and label")
		}
	}
	return s, nil
}

// filter is a compiled seccomp filter; no prog is none.
type filter struct {
	prog  []byte
	flags uint
}

// filter returns what the options and the capabilities ask for.
func (s security) filter(caps uint64, privileged bool) (filter, error) {
	switch {
	case s.seccomp == "unconfined", s.seccomp == "" && privileged:
		return filter{}, nil
	case s.seccomp == "", s.seccomp == "builtin":
		return defaultFilter(caps)
	}
	major, minor := sys.KernelVersion()
	return compile(seccomp.ParseProfile([]byte(s.seccomp), runtime.GOARCH, CapNames(caps), [2]int{major, minor}))
}

func compile(prof *seccomp.Profile, err error) (filter, error) {
	if err != nil {
		return filter{}, err
	}
	prog, err := seccomp.Compile(prof)
	if err != nil {
		return filter{}, err
	}
	return filter{seccomp.Bytes(prog), prof.Flags}, nil
}

// CompileSeccomp compiles the filter of an OCI configuration for this machine.
func CompileSeccomp(s *specs.LinuxSeccomp) (prog []byte, flags uint, err error) {
	f, err := compile(seccomp.FromSpec(s, runtime.GOARCH))
	return f.prog, f.flags, err
}

// filters keeps compiled default filters by capability set; nearly all
// containers share one, and making it costs half a millisecond.
var filters struct {
	sync.Mutex
	byCaps map[uint64]filter
}

// Warm compiles the filter that nearly all containers share, for a supervisor
// that has something else to wait for meanwhile.
func Warm() { _, _ = defaultFilter(capSet(defaultCaps()) & sys.BoundingSet()) }

func defaultFilter(caps uint64) (filter, error) {
	filters.Lock()
	defer filters.Unlock()
	if f, ok := filters.byCaps[caps]; ok {
		return f, nil
	}
	major, minor := sys.KernelVersion()
	f, err := compile(seccomp.Default(runtime.GOARCH, CapNames(caps), [2]int{major, minor}))
	if err != nil {
		return filter{}, err
	}
	if filters.byCaps == nil || len(filters.byCaps) > 64 {
		filters.byCaps = map[uint64]filter{}
	}
	filters.byCaps[caps] = f
	return f, nil
}

// rlimits turns --ulimit into numbers. Descriptors have a limit always: what
// the supervisor happens to have must not decide it, so the soft limit is the
// kernel's default of 1024 unless asked for.
func rlimits(ulimits []spec.Ulimit) ([]plan.Rlimit, error) {
	var all []plan.Rlimit
	const nofile = "nofile"
	for _, u := range ulimits {
		n, ok := RlimitNumber(u.Name)
		if !ok {
			return nil, errs.New(errs.Invalid, "invalid ulimit type: %s", u.Name)
		}
		r := plan.Rlimit{Name: u.Name, Resource: n, Soft: limitValue(u.Soft), Hard: limitValue(u.Hard)}
		if r.Soft > r.Hard {
			return nil, errs.New(errs.Invalid, "ulimit %s: soft limit must not be above hard limit", u.Name)
		}
		all = slices.DeleteFunc(all, func(old plan.Rlimit) bool { return old.Resource == n })
		all = append(all, r)
	}
	n, _ := RlimitNumber(nofile)
	if !slices.ContainsFunc(all, func(r plan.Rlimit) bool { return r.Resource == n }) {
		_, hard, err := sys.Limit(n)
		if err != nil {
			return nil, err
		}
		all = append(all, plan.Rlimit{Name: nofile, Resource: n, Soft: min(1024, hard), Hard: hard})
	}
	return all, nil
}

func limitValue(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64 // RLIM_INFINITY
	}
	return uint64(n)
}

// RlimitNumber is the number of a limit by its name, as "nofile", on all 64-bit
// Linux architectures but mips, sparc and alpha.
func RlimitNumber(name string) (int, bool) {
	names := []string{
		"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as",
		"locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
	}
	n := slices.Index(names, strings.ToLower(name))
	return n, n >= 0
}

// tmpfsMounts turns --tmpfs and --mount type=tmpfs into mounts, outer ones
// first.
func tmpfsMounts(c *spec.Container) ([]plan.Mount, error) {
	var all []plan.Mount
	add := func(target, opts string) error {
		m, err := tmpfsMount(target, opts)
		all = append(all, m)
		return err
	}
	for target, opts := range c.Host.Tmpfs {
		if err := add(target, opts); err != nil {
			return nil, err
		}
	}
	for _, m := range c.Mounts {
		if m.Type != spec.MountTmpfs {
			continue
		}
		if err := add(m.Target, m.Options); err != nil {
			return nil, err
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Target < all[j].Target })
	return all, nil
}

// tmpfsMount parses one. Docker's defaults are noexec, nosuid and nodev.
func tmpfsMount(target, opts string) (plan.Mount, error) {
	clean := path.Clean(target)
	m := plan.Mount{Target: clean, Attr: sys.AttrNoExec | sys.AttrNoSuid | sys.AttrNoDev}
	switch {
	case !path.IsAbs(target):
		return m, errs.New(errs.Invalid, "invalid --tmpfs %q: the path must be absolute", target)
	case clean == "/":
		return m, errs.New(errs.Invalid, "invalid --tmpfs %q: the root cannot be covered", target)
	case clean == "/proc", strings.HasPrefix(clean, "/proc/"):
		return m, errs.New(errs.Invalid, "invalid --tmpfs %q: /proc cannot be covered", target)
	}
	for o := range strings.SplitSeq(opts, ",") {
		if o != "" && !m.SetOption(o) {
			return m, errs.New(errs.Invalid, "invalid --tmpfs option %q for %s", o, target)
		}
	}
	return m, nil
}
