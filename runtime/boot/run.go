package boot

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"tug/runtime/plan"
	"tug/runtime/user"
	"tug/sys"
)

// ready does what is left and can fail for reasons the user should hear of,
// in the container's mounts: user, limits, session and terminal, working
// directory, program. root is "/".
func (s *starter) ready(root *os.File, std stdio) error {
	err := s.setScheduling()
	if err != nil {
		return err
	}
	if s.user, err = s.who(root); err != nil {
		return err
	}
	s.env = s.plan.Env
	if getenv(s.env, "HOME") == "" {
		s.env = append(s.env, "HOME="+s.user.Home)
	}
	s.checkLimits()
	if err := sys.NewSession(); err != nil {
		return err
	}
	if err := s.setStdio(std); err != nil {
		return err
	}
	if s.plan.Tty {
		if err := sys.SetControllingTTY(os.Stdin); err != nil {
			return err
		}
	}
	if err := sys.SetGroups(s.user.Groups); err != nil {
		return err
	}
	if err := changeDir(root, s.plan.Cwd, &s.user); err != nil {
		return err
	}
	if s.box != nil {
		return nil
	}
	// As the user: what root may execute, the user perhaps may not.
	sys.SetFSIDs(s.user.UID, s.user.GID)
	s.program, err = lookProgram(s.plan.Args[0], getenv(s.env, "PATH"))
	sys.SetFSIDs(0, 0)
	return err
}

// setScheduling sets what belongs to this thread and survives execve.
func (s *starter) setScheduling() error {
	if p := s.plan.Personality; p != nil {
		if err := sys.SetPersonality(*p); err != nil {
			return err
		}
	}
	if p := s.plan.Scheduling; p != nil {
		if err := sys.SetScheduling(0, *p); err != nil {
			return failf(125, "set the scheduler: %v", err)
		}
	}
	if p := s.plan.IOPriority; p != nil {
		if err := sys.SetIOPriority(0, p[0], p[1]); err != nil {
			return failf(125, "set the I/O priority: %v", err)
		}
	}
	return nil
}

// who is who the program runs as.
func (s *starter) who(root *os.File) (user.User, error) {
	if id := s.plan.ID; id != nil {
		return user.User{UID: id.UID, GID: id.GID, Groups: id.Groups, Home: user.Home(root, id.UID)}, nil
	}
	u, err := user.Lookup(root, s.plan.User)
	if err == nil {
		err = user.AddGroups(root, &u, s.plan.Groups)
	}
	return u, err
}

// caps are the program's capability sets. Another user than root has lost all
// with the ids; root keeps those of the bounding set. Inheritable stays empty,
// as Docker has it since CVE-2022-24769.
func (s *starter) caps() plan.CapSets {
	if id := s.plan.ID; id != nil {
		return id.Caps
	}
	sets := plan.CapSets{Bounding: s.plan.Caps}
	if s.user.UID == 0 {
		sets.Effective, sets.Permitted = sets.Bounding, sets.Bounding
	}
	return sets
}

// checkLimits lowers what may not be raised, with a warning, so that setting
// the limits later cannot fail. It sets nothing but hard limits that rise, as
// low soft limits would hit tug-init itself.
func (s *starter) checkLimits() {
	for i := range s.plan.Rlimits {
		r := &s.plan.Rlimits[i]
		soft, hard, err := sys.Limit(r.Resource)
		if err == nil && r.Hard > hard {
			err = sys.SetLimit(r.Resource, soft, r.Hard)
			if err != nil {
				s.warnf("ulimit %s: the hard limit cannot be raised from %d to %d here and is kept", r.Name, hard, r.Hard)
				r.Hard = hard
				r.Soft = min(r.Soft, hard)
			}
		}
	}
}

// setStdio makes std the descriptors 0, 1 and 2, with the container's own
// /dev/null for those not passed, and gives them to the user, who may want to
// open /dev/stdout.
func (s *starter) setStdio(std stdio) error {
	for i, f := range std {
		if f == nil {
			null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			f = null
		}
		if err := sys.DupTo(f, i); err != nil {
			return err
		}
		sys.GiveTo(f, s.user.UID)
	}
	for i, f := range std {
		if f != nil && (i == 0 || f != std[0]) {
			f.Close()
		}
	}
	return nil
}

// changeDir makes cwd the working directory. Magic links are not followed, as
// they could lead out by a descriptor or another process (CVE-2024-21626), and
// the result is checked all the same. Root's rights are tried first, then the
// user's: a network file system may give root none.
func changeDir(root *os.File, cwd string, u *user.User) error {
	if cwd == "" {
		cwd = "/"
	}
	dir, err := sys.OpenIn(root, cwd, sys.OPath|sys.ODirectory, false)
	if errors.Is(err, syscall.EACCES) {
		sys.SetFSIDs(u.UID, u.GID)
		dir, err = sys.OpenIn(root, cwd, sys.OPath|sys.ODirectory, false)
		sys.SetFSIDs(0, 0)
	}
	if err == nil {
		err = sys.Fchdir(dir)
		dir.Close()
	}
	if err != nil {
		code := 126
		if errors.Is(err, os.ErrNotExist) { // an exec's: a container's own is made
			code = 127
		}
		return failf(code, "chdir to cwd (%q) set in config failed: %v", cwd, cause(err))
	}
	at, err := sys.Getcwd()
	if err != nil || !strings.HasPrefix(at, "/") {
		return failf(126, "current working directory is outside of container mount namespace root")
	}
	return nil
}

// lookProgram finds the program the way a shell does, with Docker's words and
// codes for what can be wrong: 127 is not found, 126 cannot be executed.
func lookProgram(name, path string) (string, error) {
	if name == "" {
		return "", failf(127, `exec: "": executable file not found in $PATH`)
	}
	if strings.Contains(name, "/") {
		switch err := executable(name); {
		case err == nil:
			return name, nil
		case errors.Is(err, os.ErrNotExist):
			return "", failf(127, "exec: %q: stat %s: %v", name, name, err)
		default:
			return "", failf(126, "exec: %q: %v", name, err)
		}
	}
	var denied error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, syscall.EACCES) {
			denied = err
		}
	}
	if denied != nil {
		return "", failf(126, "exec: %q: %v", name, denied)
	}
	return "", failf(127, "exec: %q: executable file not found in $PATH", name)
}

// executable says why file is no program, or nil.
func executable(file string) error {
	fi, err := os.Stat(file)
	if err != nil {
		return cause(err)
	}
	if fi.IsDir() {
		return syscall.EISDIR
	}
	if fi.Mode()&0o111 == 0 {
		return syscall.EACCES
	}
	return sys.Executable(file)
}

func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// run takes the last privileges away and executes the program. But for hooks
// only raw system calls are made, so no thread is started that the container's
// limits, in force by now, could refuse. It returns only on failure.
func (s *starter) run() error {
	if err := s.drop(); err != nil {
		return err
	}
	if s.box != nil {
		return failf(126, "exec tug-box: %v", sys.ExecFd(sys.Fd(s.box), s.plan.Args, s.env))
	}
	if s.plan.Init {
		args := append([]string{"tug-init", "reap", "--", s.program}, s.plan.Args...)
		err := sys.ExecFd(sys.Fd(s.self), args, s.env)
		return failf(126, "exec tug-init reap: %v", err)
	}
	execFailed(s.program, sys.Exec(s.program, s.plan.Args, s.env))
	return nil
}

// drop sets limits, identity, capabilities and the seccomp filter. The order
// is the point: each step needs a right that a later one takes.
func (s *starter) drop() error {
	p := s.plan
	if err := setLimits(p.Rlimits); err != nil {
		return err
	}
	sys.Umask(int(p.Umask))
	if err := setLabels(s.procfs, p.Exec); err != nil {
		return err
	}
	if err := sys.CloexecFrom(3); err != nil {
		return err
	}
	sys.ResetSignals()
	if len(p.FinalCPUs) > 0 {
		if err := sys.SetAffinity(0, p.FinalCPUs); err != nil {
			return err
		}
	}
	if err := s.dropCaps(); err != nil {
		return err
	}
	if s.self != nil {
		// Not an exec, whose end comes with the container's. The keeper's death
		// is the container's: nothing would hold its streams and see its end.
		// A program that changes its user is killed a moment later, by the
		// supervisor.
		if err := sys.DieWithParent(); err != nil {
			return err
		}
	}
	if s.hooks != nil {
		// With the rights of the program, as theirs may come with the image.
		if err := s.hooks(); err != nil {
			return err
		}
	}
	if err := s.preserve(); err != nil {
		return err
	}
	if !p.NoNewPrivs {
		return nil
	}
	if err := sys.SetNoNewPrivs(); err != nil {
		return err
	}
	return s.setFilter()
}

// preserve lets the program have the descriptors that are passed on to it.
// They lie from 3 on since this process began.
func (s *starter) preserve() error {
	for n := range s.plan.Preserve {
		if err := sys.KeepOnExec(3 + n); err != nil {
			return failf(125, "preserve descriptor %d: %v", 3+n, err)
		}
	}
	return nil
}

// dropCaps sets identity and capabilities and, unless it comes last, the
// filter.
func (s *starter) dropCaps() error {
	caps := s.caps()
	if err := sys.ClearAmbient(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	if err := sys.LimitBounding(caps.Bounding); err != nil {
		return err
	}
	// Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the
	// capabilities go, and has to allow what follows; with no_new_privs it
	// comes last.
	if !s.plan.NoNewPrivs {
		if err := s.setFilter(); err != nil {
			return err
		}
	}
	if caps.Permitted|caps.Inheritable != 0 && s.user.UID != 0 {
		if err := sys.KeepCaps(); err != nil {
			return err
		}
	}
	if err := sys.SetIDs(s.user.UID, s.user.GID, s.user.Groups); err != nil {
		return err
	}
	if err := sys.Capset(caps.Effective, caps.Permitted, caps.Inheritable); err != nil {
		return err
	}
	if caps.Ambient == 0 {
		return nil
	}
	return sys.RaiseAmbient(caps.Ambient)
}

// setFilter installs the seccomp filter, if there is one. With a listener it
// waits until the other side has taken its descriptor from this process. That
// the filter may notify about the very calls that wait is no matter: whoever
// takes the descriptor can answer then.
func (s *starter) setFilter() error {
	if len(s.plan.Seccomp) == 0 {
		return nil
	}
	if !s.plan.Listen {
		return sys.SetSeccomp(s.plan.Seccomp, s.plan.FilterFlags)
	}
	if err := sys.SetSeccompListener(s.plan.Seccomp, s.plan.FilterFlags); err != nil {
		return err
	}
	return plan.ReceiveGo(s.sock)
}

func setLimits(limits []plan.Rlimit) error {
	for _, r := range limits {
		if err := sys.SetLimit(r.Resource, r.Soft, r.Hard); err != nil {
			return failf(125, "ulimit %s=%d:%d: %v", r.Name, int64(r.Soft), int64(r.Hard), err)
		}
	}
	return nil
}

// getenv returns the last value of key in env.
func getenv(env []string, key string) string {
	v := ""
	for _, e := range env {
		if k, val, ok := strings.Cut(e, "="); ok && k == key {
			v = val
		}
	}
	return v
}
