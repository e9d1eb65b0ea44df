package runtime

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"tug/sys"
)

// spawn is one process to make.
type spawn struct {
	path   string
	args   []string
	files  []*os.File
	flags  uintptr
	slot   string   // cgroup
	apart  string   // directory of a cgroup below it to start in, or ""
	pidns  *os.File // pidfd of a process whose pid namespace to enter, or nil
	score  int      // exec: OOM score adjustment
	target int      // exec: pid of that process
	join   *os.File // pidfd of a process for tug-init, or nil
	user   *os.File // user namespace to start in, or nil
}

// selfFd is where tug-init finds its own program.
const selfFd = 4

// spawner makes processes from one thread of its own. A child inherits its
// parent thread's cgroups, and a thread may move itself cheaply: on cgroup v1
// writing "0" to `tasks` needs no grace period, while moving another process by
// cgroup.procs takes 7-12 ms of RCU. So the thread enters the new cgroup,
// clones, and goes back to tug's own one.
type spawner struct {
	cg   *cgroups
	jobs chan job
	quit chan struct{} // closed to end the thread
	done chan struct{} // closed by the thread at its end
}

type job struct {
	spawn
	result chan<- result
}

type result struct {
	pid   int
	pidfd *os.File
	err   error
}

func newSpawner(cg *cgroups) *spawner {
	s := &spawner{cg: cg, jobs: make(chan job), quit: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *spawner) do(sp spawn) (int, *os.File, error) {
	ch := make(chan result, 1)
	select {
	case s.jobs <- job{sp, ch}:
	case <-s.quit:
		return 0, nil, os.ErrClosed
	}
	r := <-ch
	return r.pid, r.pidfd, r.err
}

// stop ends the thread and waits until it is out of its cgroup, nearly.
func (s *spawner) stop() {
	close(s.quit)
	<-s.done
}

// run serves jobs on one thread, which ends with it. After a job that left the
// thread where it should not stay, another thread takes over.
func (s *spawner) run() {
	runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
	if sys.Gettid() == os.Getpid() {
		// The main thread cannot end. Leave it to others: while this goroutine
		// holds it, the next one gets another.
		next := make(chan struct{})
		go func() { s.run(); close(next) }()
		<-next
		runtime.UnlockOSThread()
		return
	}
	for {
		var j job
		select {
		case j = <-s.jobs:
		case <-s.quit:
			close(s.done)
			return
		}
		r, clean := s.serve(j.spawn)
		j.result <- r
		if !clean {
			go s.run()
			return
		}
	}
}

// InitEnv is the environment of tug-init's Go runtime: no garbage collector for
// a program that ends in milliseconds, and no descriptors on the cgroup kept
// open to follow its CPU limit.
func InitEnv() []string {
	return []string{"GOGC=off", "GOMAXPROCS=1", "GOTRACEBACK=single", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}
}

// serve makes one process. clean tells that the thread is back where it was.
func (s *spawner) serve(sp spawn) (r result, clean bool) {
	clean = true
	c := sys.Clone{Path: sp.path, Args: sp.args, Env: InitEnv(), Files: sp.files, Flags: sp.flags, UserNS: sp.user}
	if sp.user != nil {
		// By descriptor, as /proc may not be for it, and with memory of its own:
		// another's identity would make this process's undumpable.
		c.Path, c.ExecFd, c.Apart = "", selfFd, true
	}
	if s.cg.v2 != "" {
		r.pid, r.pidfd, r.err = s.cloneIntoCgroup(c, sp)
		return r, clean
	}
	more, err := s.cg.enter(sp.slot)
	defer func() { clean = clean && s.cg.leave(more) == nil }()
	if err == nil && sp.apart != "" {
		err = writeFile(sp.apart+"/tasks", "0")
	}
	if err != nil {
		return result{err: err}, clean
	}
	r.pid, r.pidfd, r.err = sys.CloneExec(c)
	return r, clean
}

// cloneIntoCgroup starts the process inside its v2 cgroup. A container that
// manages cgroups itself may have moved its first process into a child, after
// which none can start in the parent (EBUSY): then an exec goes where the
// first process is.
func (s *spawner) cloneIntoCgroup(c sys.Clone, sp spawn) (pid int, pidfd *os.File, err error) {
	dir, err := os.Open(cmp.Or(sp.apart, filepath.Join(s.cg.v2, sp.slot)))
	if err != nil {
		return 0, nil, err
	}
	c.Cgroup = dir
	pid, pidfd, err = sys.CloneExec(c)
	dir.Close()
	if sp.target == 0 || !errors.Is(err, syscall.EBUSY) {
		return pid, pidfd, err
	}
	own, rerr := cgroupOf(sp.target)
	if rerr != nil || !strings.HasPrefix(own, sp.slot+"/") {
		return 0, nil, err
	}
	if dir, rerr = os.Open(filepath.Join(s.cg.v2, own)); rerr != nil {
		return 0, nil, err
	}
	defer dir.Close()
	c.Cgroup = dir
	return sys.CloneExec(c)
}
