package boot

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"

	"tug/runtime/plan"
	"tug/sys"
)

// Enter is `tug-init enter FLAGS OOM init|exec ARG...`, for an exec with ARG
// being [PRESERVED [joinuser]]: it makes a process in the pid namespace of the
// process whose pidfd it inherits, with the clone flags FLAGS, tells the
// supervisor which it is, and ends. For an exec it joins the other namespaces
// first, and sets the OOM score adjustment. When FLAGS ask for a new pid
// namespace none is joined: this process is then in the user namespace that is
// to own the new one, and all the others that it makes.
//
// It stands between the two because a process in that namespace is at the mercy
// of a container with CAP_SYS_PTRACE, from the moment it is made: its root and
// descriptors can be followed and its memory changed. So it must not have the
// host's root, nor be made by vfork(2) from the supervisor, whose memory it
// would share. This process is out of sight, and what it makes has nothing but
// what it needs: for an exec that is the container's own root, and until its
// program runs an empty one, so that it opens nothing that the container has
// put there.
func Enter(args []string) int {
	runtime.LockOSThread()
	_ = sys.SetDumpable(false)
	sock := os.NewFile(sockFd, "supervisor")
	defer protect(sock)
	r, pidfd := enter(sock, args)
	var files []*os.File
	if pidfd != nil {
		files = append(files, pidfd)
	}
	if err := plan.SendReply(sock, r, files...); err != nil {
		return 125
	}
	return r.Code
}

func enter(sock *os.File, args []string) (*plan.Reply, *os.File) {
	if len(args) < 3 {
		return replyOf(errors.New("usage: tug-init enter FLAGS OOM init|exec ARG...")), nil
	}
	flags, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return replyOf(err), nil
	}
	target := os.NewFile(enterFd, "container")
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	own := []*os.File{sock, os.NewFile(selfFd, "tug-init")}
	preserved := 0
	var userns *os.File
	s := &starter{plan: &plan.Plan{}}
	if args[2] == "exec" {
		root, err := s.joinAll(target, args[1])
		if err != nil {
			return failed(err), nil
		}
		own = append(own, root)
		if len(args) > 3 {
			if preserved, err = strconv.Atoi(args[3]); err != nil {
				return failed(err), nil
			}
		}
		for n := range preserved {
			files = append(files, os.NewFile(uintptr(enterFd+1+n), "preserved"))
		}
		if slices.Contains(args, plan.JoinUser) {
			userns = os.NewFile(uintptr(enterFd+1+preserved), "user namespace")
		}
	} else {
		if flags&sys.NewPID == 0 {
			if err := sys.Setns(target, sys.NewPID); err != nil {
				return failed(err), nil
			}
		}
		if slices.Contains(args, plan.JoinIPC) {
			own = append(own, os.NewFile(enterFd+1, "process"))
		}
	}
	pid, pidfd, err := sys.CloneExec(sys.Clone{
		ExecFd: selfFd + preserved, Args: append([]string{"tug-init"}, args[2:]...), Env: os.Environ(),
		Files: append(files, own...), Flags: uintptr(flags), Apart: true, UserNS: userns,
	})
	if err != nil {
		return failed(err), nil
	}
	return &plan.Reply{Pid: pid, Warnings: s.warnings}, pidfd
}

// failed is replyOf with the error number, by which the supervisor tells a
// container that ends.
func failed(err error) *plan.Reply {
	r := replyOf(err)
	_ = errors.As(err, &r.Errno)
	return r
}

// joinAll joins all namespaces of the container and returns its root. The
// thread's own is an empty one then.
func (s *starter) joinAll(target *os.File, score string) (root *os.File, err error) {
	if s.plan.AsItIs = score == plan.AsItIs; !s.plan.AsItIs {
		if s.plan.OOMScoreAdj, err = strconv.Atoi(score); err != nil {
			return nil, err
		}
	}
	// While /proc is the host's.
	if err := s.setOOMScore(); err != nil {
		return nil, err
	}
	// A mount namespace is joined only by a thread that shares its root and
	// working directory with no other.
	if err := sys.Unshare(sys.CloneFS); err != nil {
		return nil, err
	}
	if err := sys.Setns(target, sys.NewNS|sys.NewPID|sys.NewNet|sys.NewIPC|sys.NewUTS|sys.NewCgroup); err != nil {
		return nil, err
	}
	if root, err = os.OpenFile("/", sys.OPath|sys.ODirectory, 0); err != nil {
		return nil, err
	}
	// Mounted nowhere, so there is no way up from it either.
	empty, err := sys.NewMount("tmpfs", sys.AttrReadOnly|sys.AttrNoSuid|sys.AttrNoExec, sys.Option{Key: "size", Value: "4k"}, sys.Option{Key: "mode", Value: "555"})
	if err != nil {
		return nil, err
	}
	defer empty.Close()
	return root, sys.EnterRoot(empty)
}
