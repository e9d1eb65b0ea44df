package boot

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// OCI is `tug-init oci PRESERVED LAYOUT`: the first process of a container that
// an OCI configuration describes. It does what Init does with the same means,
// but nothing is mounted that is not listed, the host's mounts are there until
// the hooks have run, and whoever starts the program comes later, by a socket.
//
// Started without a plan it only holds its namespaces until the other side
// closes the socket.
func OCI(args []string) int {
	runtime.LockOSThread()
	if len(args) < 2 {
		return 125
	}
	sock, _, err := socketBehind(args[0])
	if err != nil {
		return 125
	}
	defer protect(sock)
	if err := sys.SetDumpable(false); err != nil {
		return 125
	}
	p, files, err := plan.ReceivePlan(sock)
	if errors.Is(err, io.EOF) {
		return 0
	}
	if err == nil && p.OCI == nil {
		err = errors.New("tug-init: no OCI plan")
	}
	if err != nil {
		return answer(sock, err)
	}
	c := &ociStarter{starter: starter{sock: sock, plan: p, layout: args[1]}, oci: p.OCI}
	return c.serve(files)
}

// socketBehind opens the socket to the other side, which lies behind the
// descriptors that are the program's. Until the program comes, nobody else is
// to have them.
func socketBehind(preserved string) (sock *os.File, n int, err error) {
	if n, err = strconv.Atoi(preserved); err == nil {
		err = sys.CloexecFrom(3)
	}
	return os.NewFile(uintptr(sockFd+n), "other side"), n, err
}

func answer(sock *os.File, err error) int {
	r := replyOf(err)
	_ = plan.SendReply(sock, r)
	return r.Code
}

// ociStarter is a starter with what an OCI configuration needs more.
type ociStarter struct {
	starter
	oci      *plan.OCI
	root     *os.File // the root file system's mount
	listener *os.File // for whoever starts the program
	std      stdio
}

func (c *ociStarter) serve(files []*os.File) int {
	if len(files) == 0 {
		return answer(c.sock, errMissing)
	}
	std, trees, err := takeStdio(c.plan, files[1:])
	if err == nil && len(trees) == 0 {
		err = errMissing
	}
	if err != nil {
		return answer(c.sock, err)
	}
	c.root, c.std = files[0], std
	c.listener, trees = trees[len(trees)-1], trees[:len(trees)-1]
	if err := c.build(trees); err != nil {
		return answer(c.sock, err)
	}
	sys.CloseAll(trees)
	if err := plan.SendReply(c.sock, &plan.Reply{Warnings: c.warnings}); err != nil {
		return 125
	}
	c.warnings = nil
	// The hooks of the runtime's namespace run now, and may mount below the root.
	if err := plan.ReceiveGo(c.sock); err != nil {
		return 125
	}
	master, err := c.enter()
	if err != nil {
		return answer(c.sock, err)
	}
	var out []*os.File
	if master != nil {
		out = append(out, master)
	}
	if err := plan.SendReply(c.sock, &plan.Reply{Warnings: c.warnings}, out...); err != nil {
		return 125
	}
	sys.CloseAll(out)
	// Created. What made it ends now and is waited for by nobody here.
	c.sock.Close()
	return c.await()
}

// build makes the container's file system below its root, while the host's is
// still in sight.
func (c *ociStarter) build(trees []*os.File) error {
	sys.Umask(0)
	if err := sys.SetPropagation("/", true); err != nil {
		return err
	}
	if err := sys.NewSessionKeyring(); err != nil && !errors.Is(err, syscall.ENOSYS) {
		return err
	}
	if c.oci.NewCgroupNS {
		// It sits in its cgroup since before it was made, so this namespace's
		// root is the container's cgroup.
		if err := sys.Unshare(sys.NewCgroup); err != nil {
			return err
		}
	}
	if c.oci.NewNet {
		if err := sys.LoopbackUp(); err != nil {
			return err
		}
	}
	if err := c.setNames(); err != nil {
		return err
	}
	c.procfs = ownProc()
	if err := c.attachRoot(); err != nil {
		return failf(125, "mount the root file system: %v", err)
	}
	for i := range c.oci.Mounts {
		m := &c.oci.Mounts[i]
		if err := c.mount(m, trees); err != nil {
			return failf(125, "mount %s at %s: %v", describe(m), m.Target, err)
		}
	}
	return c.makeDevices()
}

func describe(m *plan.FSMount) string {
	if m.Tree > 0 {
		return m.Source
	}
	return m.Type
}

// ownProc opens a procfs for this process's own use, or else /proc; nil where
// there is none.
func ownProc() *os.File {
	proc, err := sys.NewMount("proc", int(sys.AttrNoSuid|sys.AttrNoDev|sys.AttrNoExec))
	if err != nil {
		// As in the host's pid namespace seen from a user namespace.
		if proc, err = os.OpenFile("/proc", sys.OPath|sys.ODirectory, 0); err != nil {
			return nil
		}
	}
	if magic, err := sys.FileSystem(proc); err != nil || magic != sys.MagicProc {
		proc.Close()
		return nil
	}
	return proc
}

// writeProc writes a file of procfs, wherever the container's /proc leads.
func (c *ociStarter) writeProc(file, value string) error { return writeBelow(c.procfs, file, value) }

func writeBelow(proc *os.File, file, value string) error {
	if proc == nil {
		return errors.New("no /proc")
	}
	f, err := sys.OpenIn(proc, file, os.O_WRONLY, true)
	if err == nil {
		_, err = f.WriteString(value)
		f.Close()
	}
	return cause(err)
}

// enter runs the hooks of the container's namespace, makes its root the root
// and does what Init does from there on.
func (c *ociStarter) enter() (master *os.File, err error) {
	if err := c.runHooks("createContainer", c.oci.CreateContainer, "creating"); err != nil {
		return nil, err
	}
	if err := c.setSysctls(); err != nil {
		return nil, err
	}
	if err := c.hide(); err != nil {
		return nil, err
	}
	if c.plan.Tty {
		if master, err = c.openConsole(); err != nil {
			return nil, err
		}
	}
	if err := makeWorkDir(c.root, c.plan.Cwd); err != nil {
		return nil, err
	}
	if c.plan.ReadOnly {
		// After the last mount point was made in it.
		if err := sys.SetMountAttr(c.root, "", sys.AttrReadOnly, 0, false); err != nil {
			return nil, err
		}
	}
	if err := sys.PivotInto(c.root); err != nil {
		return nil, err
	}
	if c.oci.Propagation != 0 {
		if err := sys.Mount("", "/", "", uintptr(c.oci.Propagation), ""); err != nil {
			return nil, failf(125, "set the propagation of the root file system: %v", err)
		}
	}
	if err := c.ready(c.root, c.std); err != nil {
		return nil, err
	}
	return master, checkLabels(c.procfs, c.plan.Exec)
}

// setSysctls writes them where no mount of the container's can lead them astray.
func (c *ociStarter) setSysctls() error {
	for _, o := range c.plan.Sysctls {
		if err := c.writeProc(sysctlFile(o.Key), o.Value); err != nil {
			return failf(125, "set sysctl %s=%s: %v", o.Key, o.Value, err)
		}
	}
	return nil
}

// await waits until somebody comes to start the program. One who goes again
// without a word leaves it as it is.
func (c *ociStarter) await() int {
	for {
		conn, err := sys.Accept(c.listener)
		if err != nil {
			return 125
		}
		c.sock = conn
		if plan.ReceiveGo(conn) == nil {
			break
		}
		conn.Close()
	}
	c.listener.Close()
	c.root.Close()
	c.hooks = func() error { return c.runHooks("startContainer", c.oci.StartContainer, "created") }
	return answer(c.sock, c.run())
}

// checkLabels refuses labels that no security module of the kernel knows.
func checkLabels(proc *os.File, l plan.Labels) error {
	if l.AppArmor != "" && labelFile(proc, "apparmor") == "" {
		return failf(125, "apparmor profile %s: this kernel has no AppArmor", l.AppArmor)
	}
	if l.SELinux != "" && !hasSELinux(proc) {
		return failf(125, "selinux label %s: this kernel has no SELinux", l.SELinux)
	}
	return nil
}

// labelFile is where a module takes what the next execve runs as.
func labelFile(proc *os.File, module string) string {
	if proc == nil {
		return ""
	}
	for _, dir := range []string{"thread-self/attr/" + module, "thread-self/attr"} {
		if f, err := sys.OpenIn(proc, dir+"/exec", os.O_WRONLY, true); err == nil {
			f.Close()
			if strings.HasSuffix(dir, module) || loadedModule(proc, module) {
				return dir + "/exec"
			}
		}
	}
	return ""
}

// loadedModule tells AppArmor by the form of its labels: "name (mode)" or
// "unconfined".
func loadedModule(proc *os.File, module string) bool {
	text := readBelow(proc, "thread-self/attr/current")
	apparmor := text == "unconfined" || strings.HasSuffix(text, ")")
	return text != "" && apparmor == (module == "apparmor")
}

func hasSELinux(proc *os.File) bool {
	for line := range strings.Lines(readBelow(proc, "filesystems")) {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == "selinuxfs" {
			return loadedModule(proc, "selinux")
		}
	}
	return false
}

func readBelow(proc *os.File, file string) string {
	if proc == nil {
		return ""
	}
	f, err := sys.OpenIn(proc, file, os.O_RDONLY, true)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\n\x00")
}

// setLabels tells the security modules what the program is to run as.
func setLabels(proc *os.File, l plan.Labels) error {
	if l.AppArmor != "" {
		if err := writeBelow(proc, labelFile(proc, "apparmor"), "exec "+l.AppArmor); err != nil {
			return failf(125, "apparmor profile %s: %v", l.AppArmor, err)
		}
	}
	if l.SELinux != "" {
		if err := writeBelow(proc, "thread-self/attr/exec", l.SELinux); err != nil {
			return failf(125, "selinux label %s: %v", l.SELinux, err)
		}
	}
	return nil
}
