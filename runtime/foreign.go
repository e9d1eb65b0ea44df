package runtime

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// Foreign is another OCI runtime at work on one run of a container: a program
// with runc's command line. It is a value, which the keeper carries from one
// supervisor to the next.
//
// Its directory, with what nobody needs any longer than the run, is the bundle:
//
//	foreign.json   this value, for whoever finds the directory left over
//	config.json    the bundle's
//	rootfs, mounts mount points, of use only while the container is created;
//	               the mounts are in the keeper's mount namespace
//	state          the runtime's own
//
// The container's cgroup is one like all others, so what goes by it (limits,
// freezer, statistics, killing) needs no word from the runtime.
type Foreign struct {
	Path   string // of the program
	ID     string // the container's, for the runtime as well
	Dir    string
	Cgroup string
}

const (
	foreignFile = "foreign.json"
	foreignRoot = "rootfs"
	foreignTree = "mounts"
)

// ForeignNames are the runtimes that are looked for to tell the user about.
func ForeignNames() []string {
	return []string{"runc", "crun", "youki", "runsc", "kata-runtime", "tug-oci"}
}

// FindForeign finds the program of a runtime by its name, or path.
func FindForeign(name string) (string, error) {
	unknown := func(why string) error {
		return errs.New(errs.Invalid, "unknown or invalid runtime name: %s", name).
			WithHint("%s; here are: %s", why, strings.Join(append([]string{"tug"}, foreignHere()...), ", "))
	}
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			return "", unknown("a path has to be absolute")
		}
		if fi, err := os.Stat(name); err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
			return "", unknown("there is no program at this path")
		}
		return filepath.Clean(name), nil
	}
	if at := lookForeign(name); at != "" {
		return at, nil
	}
	return "", unknown("no program of this name is on PATH: install it, or give its absolute path")
}

// lookForeign looks on PATH, where administrators have programs, and beside
// tug, in this order.
func lookForeign(name string) string {
	if name == "" || name == "." || name == ".." {
		return ""
	}
	dirs := append(filepath.SplitList(os.Getenv("PATH")), strings.Split(defaultPath, ":")...)
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
	}
	for _, dir := range dirs {
		at := filepath.Join(dir, name)
		if fi, err := os.Stat(at); filepath.IsAbs(dir) && err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return at
		}
	}
	return ""
}

func foreignHere() (names []string) {
	for _, name := range ForeignNames() {
		if lookForeign(name) != "" {
			names = append(names, name)
		}
	}
	return names
}

// Foreigns are the other runtimes that are on this machine, by name.
func Foreigns() map[string]string {
	all := map[string]string{}
	for _, name := range foreignHere() {
		all[name] = lookForeign(name)
	}
	return all
}

// CheckForeign refuses what tug does not do with another runtime.
func CheckForeign(c *spec.Container) error {
	for _, f := range []struct {
		asked bool
		what  string
	}{
		{c.Box, "tug-box as the program"},
		{!slices.Contains([]string{"", "none", "host"}, c.Host.NetworkMode), "--network " + c.Host.NetworkMode},
		{strings.HasPrefix(c.Host.PidMode, spec.JoinPrefix), "--pid container:"},
		{!slices.Contains([]string{"", "host"}, c.Host.UsernsMode), "--userns " + c.Host.UsernsMode},
		{strings.HasPrefix(c.Host.IpcMode, spec.JoinPrefix), "--ipc container:"},
	} {
		if f.asked {
			return errs.New(errs.Unsupported, "--runtime %s: %s works with tug's own runtime only", c.Host.Runtime, f.what)
		}
	}
	for _, m := range c.Mounts {
		if p := strings.TrimPrefix(m.Propagation, "r"); p != "" && p != "private" {
			return errs.New(errs.Unsupported, "--runtime %s: the mount propagation %s of %s works with tug's own runtime only", c.Host.Runtime, m.Propagation, m.Target)
		}
	}
	return nil
}

// NewForeign readies a run: a directory and a cgroup.
func (r *Runtime) NewForeign(c *ForeignPlan, ns Namespaces) (*Foreign, error) {
	id := newSlotID()
	f := &Foreign{Path: c.Path, ID: c.ID, Dir: filepath.Join(r.bundles, id), Cgroup: r.cgroups.parent + "/" + id}
	if ns.Parent != "" && r.cgroups.parentDir(ns.Parent) != r.cgroups.parent {
		f.Cgroup = path.Join(r.cgroups.parentDir(ns.Parent), r.cgroups.prefix()+id)
	}
	all, err := r.cgroups.everywhere()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return nil, err
	}
	err = f.write(foreignFile, f)
	if err == nil {
		_, err = all.createNamed(id, ns.Parent, all.roots(), nil)
	}
	if err != nil {
		os.RemoveAll(f.Dir)
		return nil, err
	}
	return f, nil
}

// everywhere is the layout with all hierarchies of the machine: other runtimes
// have a container in each.
func (c *cgroups) everywhere() (*cgroups, error) {
	if c.v2 != "" {
		return c, nil
	}
	mountinfo, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer mountinfo.Close()
	all, err := parseHierarchies(bufio.NewScanner(mountinfo), isController)
	if err != nil {
		return nil, err
	}
	all.v1, all.spare = append(all.v1, all.spare...), nil
	if all.v2 != "" { // in the hybrid layout
		all.v1, all.v2 = append(all.v1, hierarchy{mount: all.v2}), ""
	}
	all.parent, all.notes = c.parent, c.notes
	return all, nil
}

func (f *Foreign) at(name string) string { return filepath.Join(f.Dir, name) }

func (f *Foreign) write(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(f.at(name), b, 0o600)
}

// CreateForeign has the runtime make the container, up to the point where its
// program is executed. It returns the first process, a child of the keeper's,
// and the terminal's master if the plan has one.
func (r *Runtime) CreateForeign(f *Foreign, pl *Plan, ns Namespaces, files Files) (p Process, console *os.File, warnings []string, err error) {
	defer f.unmount()
	if err := f.mount(pl, files); err != nil {
		return p, nil, nil, err
	}
	config, err := r.foreignSpec(f, pl, ns, files)
	if err != nil {
		return p, nil, nil, err
	}
	if pl.Init {
		if err := r.bindInit(f, config); err != nil {
			return p, nil, nil, err
		}
	}
	if err := f.write("config.json", config); err != nil {
		return p, nil, nil, err
	}
	pid, console, err := f.make(pl.Tty, files, "create", "--bundle", f.Dir)
	if err == nil {
		p, err = f.firstProcess(pid)
	}
	if err == nil {
		// Not before: as with tug's own, what makes the container needs more
		// than its program may have.
		warnings, err = r.cgroups.limit(f.Cgroup, pl.Limits)
	}
	if err != nil {
		sys.CloseAll([]*os.File{console})
		return p, nil, nil, err
	}
	return p, console, warnings, nil
}

// firstProcess describes the process that the runtime has made. The keeper has
// to be its parent, or nobody would learn how it ends.
func (f *Foreign) firstProcess(pid int) (Process, error) {
	p := Process{Pid: pid, Cgroup: f.Cgroup}
	var err error
	if p.StartTicks, err = sys.StartTicks(pid); err != nil {
		return p, &StartError{Code: 125, Msg: fmt.Sprintf("%s create: the container's first process (pid %d) has ended at once", f.name(), pid)}
	}
	if parent := parentOf(pid); parent != os.Getppid() {
		return p, &StartError{Code: 125, Msg: fmt.Sprintf("%s create: pid %d is not left to tug: its parent is pid %d", f.name(), pid, parent)}
	}
	return p, nil
}

func parentOf(pid int) int {
	n, _ := strconv.Atoi(strings.TrimSpace(line("/proc/"+strconv.Itoa(pid)+"/status", "PPid:")))
	return n
}

// Start executes the program of a container whose first process is pid.
// Runtimes as runc end before that has happened, and who was told that the
// container runs might signal what is not the program yet. So it waits a moment
// for that.
func (f *Foreign) Start(pid int) error {
	exe := "/proc/" + strconv.Itoa(pid) + "/exe"
	before, err := os.Stat(exe)
	if _, err := f.run(foreignLimit(), "start", stdio{}, f.ID); err != nil || before == nil {
		return err
	}
	for end := time.Now().Add(250 * time.Millisecond); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		var now os.FileInfo
		if now, err = os.Stat(exe); err == nil && !os.SameFile(before, now) {
			break
		}
	}
	return nil
}

// Resume does what Start does, unless a dead supervisor had it done.
func (f *Foreign) Resume(pid int) error {
	out, err := f.run(foreignLimit(), "state", stdio{}, f.ID)
	if err != nil {
		return err
	}
	var state struct{ Status string }
	if err := json.Unmarshal([]byte(out), &state); err != nil {
		return fmt.Errorf("%s state: %w", f.name(), err)
	}
	if state.Status != "created" {
		return nil
	}
	return f.Start(pid)
}

// ExecForeign has the runtime execute a further program; target is the
// container's first process. The process may have ended: then its StartTicks
// are 0.
func (r *Runtime) ExecForeign(f *Foreign, target Process, pl *ExecPlan, files Files) (p Process, console *os.File, err error) {
	root, err := f.rootOf(target)
	if err != nil {
		return p, nil, err
	}
	process, err := foreignProcess(pl, root, files)
	root.Close()
	if err != nil {
		return p, nil, err
	}
	name := "exec-" + newSlotID()
	if err := f.write(name+".json", process); err != nil {
		return p, nil, err
	}
	defer os.Remove(f.at(name + ".json"))
	p.Pid, console, err = f.make(pl.Tty, files, "exec", "--detach", "--process", f.at(name+".json"))
	if err != nil {
		if !sys.Alive(target.Pid, target.StartTicks) {
			err = ErrNotRunning
		}
		return p, nil, err
	}
	p.StartTicks, _ = sys.StartTicks(p.Pid)
	if parent := parentOf(p.Pid); p.StartTicks != 0 && parent != os.Getppid() {
		p.StartTicks = 0 // the pid is another's by now
	}
	return p, console, nil
}

// rootOf opens the root of a running container. A runtime may have its
// containers elsewhere, as in a virtual machine, and then the process shows the
// host's root, where no user of the container is to be looked for.
func (f *Foreign) rootOf(target Process) (*os.File, error) {
	dir := "/proc/" + strconv.Itoa(target.Pid)
	own, err1 := os.Readlink("/proc/self/ns/mnt")
	its, err2 := os.Readlink(dir + "/ns/mnt")
	root, err3 := os.OpenFile(dir+"/root", sys.OPath|sys.ODirectory, 0)
	if err := errors.Join(err1, err2, err3); err != nil || !sys.Alive(target.Pid, target.StartTicks) {
		sys.CloseAll([]*os.File{root})
		return nil, ErrNotRunning
	}
	if own == its {
		root.Close()
		return os.OpenFile(f.at(foreignRoot), sys.OPath|sys.ODirectory, 0) // nothing is there any more
	}
	return root, nil
}

// DeleteForeign ends what is left of a run and removes all of it. It is
// harmless when there is nothing any more. The error is for the administrator:
// all that can be done without the runtime is done.
func (r *Runtime) DeleteForeign(f *Foreign) (said error) {
	if err := r.cgroups.check(f.Cgroup); err != nil {
		return err
	}
	if filepath.Dir(f.Dir) != filepath.Clean(r.bundles) {
		return errs.New(errs.Invalid, "%q is no bundle of tug", f.Dir)
	}
	if _, err := os.Stat(f.at("state")); err == nil {
		_, said = f.run(min(foreignLimit(), 10*time.Second), "delete", stdio{}, "--force", f.ID)
	}
	all, err := r.cgroups.everywhere()
	if err != nil {
		all = r.cgroups
	}
	r.cgroups.removing.Go(func() {
		for wait := time.Millisecond; wait < 8*time.Second && !all.tryRemove(f.Cgroup); wait *= 2 {
			all.killStill(f.Cgroup)
			time.Sleep(wait)
		}
	})
	if err := f.remove(); err != nil {
		said = errors.Join(said, fmt.Errorf("remove %s: %w", f.Dir, err))
	}
	return said
}

// removeForeignParents removes tug's own directories in the hierarchies that
// only other runtimes use.
func (r *Runtime) removeForeignParents() {
	if !hasFile(r.bundles) {
		return // there has been none
	}
	if all, err := r.cgroups.everywhere(); err == nil {
		all.removeParent()
	}
}

// SweepForeign removes what dead supervisors left of runs, except of those
// whose cgroups keep wants.
func (r *Runtime) SweepForeign(keep func(cgroup string) bool) {
	entries, err := os.ReadDir(r.bundles)
	if err != nil {
		return
	}
	for _, e := range entries {
		f := &Foreign{}
		dir := filepath.Join(r.bundles, e.Name())
		b, err := os.ReadFile(filepath.Join(dir, foreignFile))
		if err == nil {
			err = json.Unmarshal(b, f)
		}
		switch {
		case err != nil || f.Dir != dir:
			_ = (&Foreign{Dir: dir}).remove() // it was not begun
		case !keep(f.Cgroup):
			r.cgroups.removing.Go(func() { _ = r.DeleteForeign(f) })
		}
	}
}

// remove removes the directory. Nothing is deleted while anything is mounted
// there: it might be the container's files.
func (f *Foreign) remove() error {
	f.unmount()
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var below []string
	for l := range strings.Lines(string(mountinfo)) {
		if w := strings.Fields(l); len(w) > 4 && strings.HasPrefix(sys.UnescapeMount(w[4]), f.Dir+"/") {
			below = append(below, sys.UnescapeMount(w[4]))
		}
	}
	for _, at := range slices.Backward(below) {
		if err := sys.UnmountNow(at, true); err != nil {
			return err
		}
	}
	for _, dir := range []string{foreignRoot, foreignTree} {
		if err := removeEmpty(f.at(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.RemoveAll(f.Dir)
}

// removeEmpty removes a directory of mount points: empty files and directories.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// stdio are a command's standard streams; nil ones are /dev/null and, for
// output, a file whose beginning is returned or told with an error.
type stdio [3]*os.File

// make runs a command that makes a process, and returns its pid and, with tty,
// its terminal.
func (f *Foreign) make(tty bool, files Files, verb string, args ...string) (pid int, console *os.File, err error) {
	name := verb + "-" + newSlotID()
	pidFile := f.at(name + ".pid")
	defer os.Remove(pidFile)
	args = append(args, "--pid-file", pidFile)
	std := stdio{files.Stdin, files.Stdout, files.Stderr}
	var take func() (*os.File, error)
	if tty {
		socket := name + ".sock"
		var end func()
		if take, end, err = listenConsole(f.Dir, socket); err != nil {
			return 0, nil, err
		}
		defer end()
		// From the working directory: a long path would be no address.
		args, std = append(args, "--console-socket", socket), stdio{}
	}
	if _, err := f.run(foreignLimit(), verb, std, append(args, f.ID)...); err != nil {
		return 0, nil, err
	}
	b, err := os.ReadFile(pidFile)
	if err == nil {
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if err != nil || pid <= 1 {
		return 0, nil, &StartError{Code: 125, Msg: fmt.Sprintf("%s %s: it tells no process id in its --pid-file", f.name(), verb)}
	}
	if take == nil {
		return pid, nil, nil
	}
	if console, err = take(); err != nil {
		return 0, nil, &StartError{Code: 125, Msg: fmt.Sprintf("%s %s: it gives no terminal to its --console-socket: %v", f.name(), verb, err)}
	}
	return pid, console, nil
}

func (f *Foreign) name() string { return filepath.Base(f.Path) }

// foreignLimit is how long one call of a runtime may take. TUG_RUNTIME_LIMIT, a
// Go duration, sets another time.
func foreignLimit() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TUG_RUNTIME_LIMIT")); err == nil && d > 0 {
		return d
	}
	return 30 * time.Second
}

// run runs one command of the runtime to its end and returns the beginning of
// its output. It dies with this process, and with all that it has started in
// its process group when it takes too long.
func (f *Foreign) run(limit time.Duration, verb string, std stdio, args ...string) (out string, err error) {
	log := f.at(verb + "-" + newSlotID() + ".log")
	defer os.Remove(log)
	said, err := sys.Memfd("runtime-output")
	if err != nil {
		return "", err
	}
	defer said.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	args = append([]string{"--root", f.at("state"), "--log", log, "--log-format", "json", verb}, args...)
	cmd := exec.CommandContext(ctx, f.Path, args...)
	cmd.Dir, cmd.Env = f.Dir, []string{"PATH=" + defaultPath, "HOME=/root"}
	if std[0] != nil {
		cmd.Stdin = std[0]
	}
	cmd.Stdout, cmd.Stderr = cmp.Or(std[1], said), cmp.Or(std[2], said)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// The kernel sends the death signal at the end of the thread.
	runtime.LockOSThread()
	err = cmd.Run()
	runtime.UnlockOSThread()
	switch {
	case ctx.Err() != nil:
		return "", &StartError{Code: 125, Msg: fmt.Sprintf("%s %s: it has not ended after %v and was killed", f.name(), verb, limit)}
	case err != nil:
		e := &StartError{Code: 125, silent: f.name() + " " + verb + ": "}
		e.Msg = e.silent + err.Error()
		e.Explain(cmp.Or(lastError(log), lastLine(beginning(said))))
		return "", e
	}
	return beginning(said), nil
}

// Explain adds what is known of why another runtime has failed, if it has not
// said so yet: it may have told only the container's standard error.
func (e *StartError) Explain(said string) {
	if why := lastLine(said); e.silent != "" && why != "" {
		e.Code, e.Msg, e.silent = foreignCode(why), e.silent+why, ""
	}
}

// maxSaid bounds what is read of what a runtime says.
const maxSaid = 16 << 10

func beginning(f io.ReaderAt) string {
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, maxSaid))
	return string(b)
}

func lastLine(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return oneLine(lines[len(lines)-1])
}

// lastError is the last error in a runtime's log.
func lastError(log string) (why string) {
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer f.Close()
	for l := range strings.Lines(beginning(f)) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(l), &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			why = oneLine(entry.Msg)
		}
	}
	return why
}

// oneLine makes what a runtime says fit into one line of a message.
func oneLine(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(strings.TrimSpace(s), "?"))
	return s[:min(len(s), 1000)]
}

// foreignCode is the exit code for a runtime's error, by the words that Docker
// goes by as well.
func foreignCode(why string) int {
	why = strings.ToLower(why)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(why, w) })
	}
	switch {
	case !has("exec:", "executable file", "chdir to cwd"):
		return 125
	case has("executable file not found", "no such file or directory", "cannot find the file"):
		return 127
	case has("permission denied", "is a directory", "not a directory"):
		return 126
	}
	return 125
}
