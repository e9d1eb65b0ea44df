package runtime

import (
	"fmt"
	"os"
	"syscall"

	"tug/sys"
)

// UserNS makes a user namespace with these maps. It lives as long as the
// returned file and what is made with it; no process stays in it.
func (r *Runtime) UserNS(uids, gids []sys.IDMap) (*os.File, error) {
	return MakeUserNS(r.self, uids, gids)
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
		Path: sys.FdPath(init), Args: []string{"tug-init", "oci", "0", ""}, Env: InitEnv(),
		Files: []*os.File{nil, nil, nil, theirs}, UIDs: uids, GIDs: gids,
	})
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	_ = sys.PidfdSignal(pidfd, syscall.SIGKILL)
	pidfd.Close()
	if _, rerr := sys.Reap(pid); err == nil && rerr != nil {
		userns.Close()
		return nil, rerr
	}
	return userns, err
}
