package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime"
	"tug/runtime/plan"
	"tug/sys"
)

// builder turns a configuration into a plan and the descriptors that go with
// it.
type builder struct {
	spec   *specs.Spec
	bundle string
	plan   *plan.Plan
	group  *runtime.Group
	self   *os.File // tug-init
	root   *os.File
	trees  []*os.File
	warn   func(string)
}

func (b *builder) close() { sys.CloseAll(append(b.trees, b.root)) }

// build makes the plan.
func (b *builder) build() error {
	l := b.spec.Linux
	p, err := processPlan(b.spec.Process, l, b.warn)
	if err != nil {
		return err
	}
	b.plan = p
	p.Hostname, p.Domainname, p.ReadOnly = b.spec.Hostname, b.spec.Domainname, b.spec.Root.Readonly
	p.OCI = &plan.OCI{
		Masked: l.MaskedPaths, ReadOnly: l.ReadonlyPaths,
		BindDevices: isNew(b.spec, specs.UserNamespace),
		NewCgroupNS: isNew(b.spec, specs.CgroupNamespace),
		NewNet:      isNew(b.spec, specs.NetworkNamespace),
	}
	if h := b.spec.Hooks; h != nil {
		p.OCI.CreateContainer, p.OCI.StartContainer = hooksOf(h.CreateContainer), hooksOf(h.StartContainer)
	}
	if size := b.spec.Process.ConsoleSize; size != nil {
		p.OCI.Rows, p.OCI.Cols = uint16(min(size.Height, math.MaxUint16)), uint16(min(size.Width, math.MaxUint16))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Sysctl)) {
		p.Sysctls = append(p.Sysctls, plan.Option{Key: dotted(name), Value: l.Sysctl[name]})
	}
	if err := b.openRoot(); err != nil {
		return err
	}
	for i := range b.spec.Mounts {
		if err := b.planMount(&b.spec.Mounts[i]); err != nil {
			return err
		}
	}
	if !p.OCI.HostDev {
		p.Devices = append(p.Devices, plan.StandardDevices()...)
	}
	b.addDevices()
	return nil
}

// openRoot takes the root file system with the mounts below it.
func (b *builder) openRoot() error {
	root := b.spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(b.bundle, root)
	}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return errs.New(errs.NotFound, "root.path: %w", err)
	}
	if fi, err := os.Stat(root); err != nil || !fi.IsDir() {
		return invalid("root.path %s is no directory", root)
	}
	if root == "/" {
		return invalid("root.path is the machine's own root")
	}
	b.plan.OCI.Root = root
	if b.root, err = sys.CloneTree(nil, root, true); err != nil {
		return err
	}
	// A root that is to be shared is so once nothing of the host is in sight.
	kind, err := propagation(b.spec.Linux.RootfsPropagation)
	if err != nil {
		return err
	}
	first := uint64(sys.PropagationSlave)
	if kind == sys.PropagationPrivate || kind == sys.PropagationUnbindable {
		first = sys.PropagationPrivate
	}
	if kind == sys.PropagationShared || kind == sys.PropagationUnbindable {
		b.plan.OCI.Propagation = kind
		if strings.HasPrefix(b.spec.Linux.RootfsPropagation, "r") {
			b.plan.OCI.Propagation |= sys.MsRec
		}
	}
	return sys.SetTreePropagation(b.root, first, true)
}

func (b *builder) addDevices() {
	for _, d := range b.spec.Linux.Devices {
		n := plan.Device{Path: filepath.Clean(d.Path), Kind: d.Type[0], Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666}
		if n.Kind == 'u' {
			n.Kind = 'c'
		}
		if d.FileMode != nil {
			n.Mode = uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			n.UID = int(*d.UID)
		}
		if d.GID != nil {
			n.GID = int(*d.GID)
		}
		same := func(old plan.Device) bool { return old.Path == n.Path }
		b.plan.Devices = append(slices.DeleteFunc(b.plan.Devices, same), n)
	}
}

// processPlan is the part of a plan that is about a process, a container's
// first one or that of an exec.
func processPlan(proc *specs.Process, l *specs.Linux, warn func(string)) (p *plan.Plan, err error) {
	p = &plan.Plan{
		Args: proc.Args, Env: slices.Clone(proc.Env), Cwd: filepath.Clean(proc.Cwd), Tty: proc.Terminal,
		NoNewPrivs: proc.NoNewPrivileges, Umask: 0o022,
		Exec:   plan.Labels{AppArmor: proc.ApparmorProfile, SELinux: proc.SelinuxLabel},
		AsItIs: true, // it is set from outside
		ID: &plan.Identity{
			UID: proc.User.UID, GID: proc.User.GID, Groups: proc.User.AdditionalGids,
		},
	}
	if proc.User.Umask != nil {
		p.Umask = *proc.User.Umask
	}
	if proc.Capabilities != nil {
		p.ID.Caps = capSets(proc.Capabilities, warn)
	}
	for _, l := range proc.Rlimits {
		n, _ := rlimitNumber(l.Type)
		p.Rlimits = append(p.Rlimits, plan.Rlimit{Name: l.Type, Resource: n, Soft: l.Soft, Hard: l.Hard})
	}
	if l.Personality != nil {
		persona := uint64(sys.PersonalityLinux)
		if l.Personality.Domain == specs.PerLinux32 {
			persona = sys.PersonalityLinux32
		}
		p.Personality = &persona
	}
	if p.Scheduling, err = scheduling(proc.Scheduler); err != nil {
		return nil, err
	}
	if p.IOPriority, err = ioPriority(proc.IOPriority); err != nil {
		return nil, err
	}
	filter := l.Seccomp
	if filter == nil {
		return p, nil
	}
	p.Seccomp, p.FilterFlags, err = runtime.CompileSeccomp(filter)
	p.Listen = filter.ListenerPath != "" && slices.ContainsFunc(filter.Syscalls, func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify })
	return p, err
}

// capSets are the sets less what this process cannot give.
func capSets(c *specs.LinuxCapabilities, warn func(string)) (s plan.CapSets) {
	mine := sys.BoundingSet()
	lost := map[string]bool{}
	set := func(names []string) uint64 {
		all, unknown := runtime.CapabilitySet(names)
		for _, name := range unknown {
			lost[name] = true
		}
		for n, name := range runtime.Capabilities() {
			if all&^mine&(1<<n) != 0 {
				lost[name] = true
			}
		}
		return all & mine
	}
	s.Bounding, s.Effective, s.Permitted = set(c.Bounding), set(c.Effective), set(c.Permitted)
	s.Inheritable, s.Ambient = set(c.Inheritable), set(c.Ambient)
	if len(lost) > 0 {
		warn("unknown or unavailable capabilities are left out: " + strings.Join(slices.Sorted(maps.Keys(lost)), " "))
	}
	return s
}

// policies of sched_setattr(2), by number.
func scheduling(s *specs.Scheduler) (*sys.Scheduling, error) {
	if s == nil || s.Policy == "" {
		return nil, nil
	}
	policies := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3,
		specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}
	flags := map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8,
		specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
	}
	n, ok := policies[s.Policy]
	if !ok {
		return nil, invalid("process.scheduler: unknown policy %q", s.Policy)
	}
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return nil, invalid("process.scheduler: nice %d is not between -20 and 19", s.Nice)
	case s.Priority != 0 && s.Policy != specs.SchedFIFO && s.Policy != specs.SchedRR:
		return nil, invalid("process.scheduler: priority is for SCHED_FIFO and SCHED_RR")
	case s.Policy != specs.SchedDeadline && (s.Runtime|s.Deadline|s.Period) != 0:
		return nil, invalid("process.scheduler: runtime, deadline and period are for SCHED_DEADLINE")
	}
	out := &sys.Scheduling{Policy: n, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	for _, f := range s.Flags {
		bit, ok := flags[f]
		if !ok {
			return nil, invalid("process.scheduler: unknown flag %q", f)
		}
		out.Flags |= bit
	}
	return out, nil
}

func ioPriority(p *specs.LinuxIOPriority) (*[2]int, error) {
	if p == nil {
		return nil, nil
	}
	classes := []specs.IOPriorityClass{"", specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE}
	class := slices.Index(classes, p.Class)
	if class <= 0 || p.Priority < 0 || p.Priority > 7 {
		return nil, invalid("process.ioPriority: class %q with priority %d", p.Class, p.Priority)
	}
	return &[2]int{class, p.Priority}, nil
}

// raiseLimits raises a process's hard limits, which it may not do itself.
func raiseLimits(pid int, limits []plan.Rlimit) error {
	for _, r := range limits {
		soft, hard, err := sys.Limit(r.Resource)
		if err == nil && r.Hard > hard {
			err = sys.SetLimitOf(pid, r.Resource, soft, r.Hard)
		}
		if err != nil {
			return fmt.Errorf("set %s to %d: %w", r.Name, r.Hard, err)
		}
	}
	return nil
}

// setOOMScore sets that of a process that is not dumpable, from outside.
func setOOMScore(pid int, adj *int) error {
	if adj == nil {
		return nil
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprint(f, *adj)
		f.Close()
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if err != nil {
		return fmt.Errorf("set process.oomScoreAdj %d: %w", *adj, err)
	}
	return nil
}
