package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"tug/errs"
	"tug/runtime/plan"
	"tug/spec"
	"tug/sys"
)

// UserNS makes a user namespace with these maps. It lives as long as the
// returned file and what is made with it; no process stays in it.
func (r *Runtime) UserNS(uids, gids []sys.IDMap) (*os.File, error) {
	return MakeUserNS(r.self, uids, gids)
}

// UserNSFor is UserNS with a container's ids.
func (r *Runtime) UserNSFor(ids *spec.IDMaps) (*os.File, error) {
	return r.UserNS(toSys(ids.UIDs), toSys(ids.GIDs))
}

// OpenUserNS opens the user namespace of a process.
func OpenUserNS(p Process) (*os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(p.Pid) + "/ns/user")
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err == nil && !sys.Alive(p.Pid, p.StartTicks) {
		f.Close()
		return nil, ErrNotRunning
	}
	return f, err
}

func toSys(all []spec.IDMap) (out []sys.IDMap) {
	for _, m := range all {
		out = append(out, sys.IDMap(m))
	}
	return out
}

// MakeUserNS is UserNS for who has tug-init open himself. A namespace needs a
// process to be made: a tug-init that waits at its socket and is ended.
func MakeUserNS(init *os.File, uids, gids []sys.IDMap) (*os.File, error) {
	ours, theirs, err := sys.SocketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	pid, pidfd, err := sys.CloneExec(sys.Clone{
		Path: "/proc/self/fd/4", Args: []string{"tug-init", "oci", "0", ""}, Env: InitEnv(),
		Files: []*os.File{nil, nil, nil, theirs, init}, UIDs: uids, GIDs: gids,
	})
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS) {
		return nil, errs.New(errs.Unsupported, "make a user namespace: %w", err).WithHint("the kernel's limit is in /proc/sys/user/max_user_namespaces")
	}
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	userns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
	_ = sys.PidfdSignal(pidfd, syscall.SIGKILL)
	pidfd.Close()
	if _, rerr := sys.Reap(pid); err == nil && rerr != nil {
		userns.Close()
		return nil, rerr
	}
	return userns, err
}

// inUserNS does from here what the root of a user namespace may not do to
// himself: limits above the present ones, a lower OOM score, and streams that
// are his, so that /dev/stdout can be opened.
func (p *Parked) inUserNS(pl *Plan, msg *plan.Plan, files Files) error {
	for _, l := range pl.Rlimits {
		soft, hard, err := sys.LimitOf(p.Pid, l.Resource)
		if err == nil && l.Hard > hard {
			// What this process cannot do either tug-init warns of.
			_ = sys.SetLimitOf(p.Pid, l.Resource, soft, l.Hard)
		}
	}
	uid, gid := pl.IDs.Root()
	for _, f := range []*os.File{files.Stdin, files.Stdout, files.Stderr} {
		if f != nil && !msg.Tty {
			if err := f.Chown(int(uid), int(gid)); err != nil {
				return err
			}
		}
	}
	if !p.ownCgroup {
		return nil // that of an exec is set already
	}
	// What this process may not do is for tug-init to try, and to tell.
	msg.AsItIs = os.WriteFile("/proc/"+strconv.Itoa(p.Pid)+"/oom_score_adj", []byte(strconv.Itoa(pl.OOMScoreAdj)), 0) == nil
	return nil
}

// BindDevices has the host's nodes of the plan's devices bound, as none can be
// made in a user namespace, and returns their trees for Files, in order.
func (p *Plan) BindDevices() (trees []*os.File, err error) {
	for _, d := range p.Devices {
		tree, err := sys.CloneTree(nil, d.Host, false)
		var fi os.FileInfo
		if err == nil {
			trees = append(trees, tree)
			fi, err = tree.Stat()
		}
		if err == nil && !d.Is(fi) {
			err = errors.New("the host has something else under this name")
		}
		if err != nil {
			sys.CloseAll(trees)
			return nil, errs.New(errs.Invalid, "bind device %s: %w", d.Host, err)
		}
		p.Bind(d.Path, false)
	}
	p.Devices = nil
	return trees, nil
}
