//go:build root

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where the ids of containers with --userns begin in these tests.
const remapBase, autoBase = 2_000_000, 3_000_000

// withSubIDs gives tug files of subordinate ids of the test's own: 65,536 to
// share and 200,000 for auto.
func (g *tug) withSubIDs() {
	g.t.Helper()
	dir := filepath.Join(g.dir, "subids")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		g.t.Fatal(err)
	}
	text := fmt.Sprintf("# who has what\nsomebody:100000:65536\ntug:%d:65536\ncontainers:%d:200000\n", remapBase, autoBase)
	for _, name := range []string{"subuid", "subgid"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	g.env = append(g.env, "TUG_SUBIDS="+dir)
}

func newUserns(t *testing.T) *tug {
	t.Helper()
	g := newBusybox(t)
	g.withSubIDs()
	return g
}

// owner returns who owns a file of the host's.
func owner(t *testing.T, path string) [2]uint32 {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

// hostIDs returns a line of /proc/PID/status of a container's first process.
func (g *tug) hostIDs(name, field_ string) []string {
	g.t.Helper()
	b, err := os.ReadFile("/proc/" + g.ok("inspect", "-f", "{{.State.Pid}}", name) + "/status")
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.Fields(field(string(b), field_))
}

// Inside all is as without it, and outside nobody is root.
func TestCoreUserns(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	g.ok("run", "-d", "--name", "up", "--userns", "remap", "--oom-score-adj", "300", "--ulimit", "nofile=1000:3000", "--shm-size", "1m",
		"--sysctl", "net.ipv4.ip_forward=1", "--tmpfs", "/t:uid=5", "--device", "/dev/full:/dev/other", "--group-add", "7", image, "sleep", "1000")
	in := func(script string) string { t.Helper(); return g.ok("exec", "up", "sh", "-c", script) }

	same(t, "uid_map", strings.Join(strings.Fields(in("cat /proc/self/uid_map /proc/1/gid_map")), " "), fmt.Sprintf("0 %d 65536 0 %[1]d 65536", remapBase))
	same(t, "id", in("id"), "uid=0(root) gid=0(root) groups=0(root),7")
	base := strconv.Itoa(remapBase)
	if ids := g.hostIDs("up", "Uid"); !slices.Equal(ids, []string{base, base, base, base}) {
		t.Errorf("the host sees the process as %v", ids)
	}
	if ids := g.hostIDs("up", "Groups"); !slices.Contains(ids, strconv.Itoa(remapBase+7)) {
		t.Errorf("the host sees the groups %v", ids)
	}
	if own := ownNS(t, "user"); in("ls -l /proc/self/ns/user | grep -o 'user:.*'") == own {
		t.Error("the user namespace is the host's")
	}
	same(t, "settings", in("cat /proc/1/oom_score_adj; ulimit -n; ulimit -Hn; df /dev/shm | tail -1 | awk '{print $2}'; cat /proc/sys/net/ipv4/ip_forward; stat -c '%u %g' /t"), "300\n1000\n3000\n1024\n1\n5 0")
	same(t, "devices", in("echo x > /dev/null && head -c 3 /dev/zero | wc -c; (echo x > /dev/full) 2>/dev/null || echo full; (echo x > /dev/other) 2>/dev/null || echo full; head -c 3 /dev/urandom | wc -c"), "3\nfull\nfull\n3")
	same(t, "bound", in("head -1 /etc/hosts; echo 1.2.3.4 there >> /etc/hosts; tail -1 /etc/hosts; stat -c %u:%g /etc/hosts /etc/hostname /etc/resolv.conf | sort -u"), "127.0.0.1\tlocalhost\n1.2.3.4 there\n0:0")
	same(t, "ping", in("cat /proc/sys/net/ipv4/ping_group_range; ping -c 1 127.0.0.1 > /dev/null && echo pong"), "0\t65535\npong")
	same(t, "streams", in("echo 1 > /dev/stdout; echo 2 > /dev/stderr"), "1")
	same(t, "terminal", strings.TrimSpace(g.ok("exec", "-t", "up", "sh", "-c", "tty; stat -c '%U %g %a' $(tty); echo y > /dev/tty")), "/dev/pts/0\r\nroot 5 620\r\ny")
	same(t, "exec -u", g.ok("exec", "-u", "alice", "up", "sh", "-c", "id -u; touch /x 2>/dev/null || echo denied"), "1000\ndenied")
	same(t, "run", g.ok("run", "--rm", "--userns", "remap", "--read-only", "--init", "-u", "12:13", "--cap-drop", "ALL", image, "sh", "-c", "id -u; id -g; touch /x 2>/dev/null || echo denied"), "12\n13\ndenied")
	same(t, "unmasked", g.ok("run", "--rm", "--userns", "remap", "--security-opt", "systempaths=unconfined", image, "sh", "-c", "mount | grep -c ' /proc/'; (echo 9 > /proc/sys/kernel/panic) 2>/dev/null || echo denied"), "0\ndenied")
	if out := in("find /sys/fs/cgroup/ /dev/null -user 0 ! -type l ! -path /sys/fs/cgroup/"); out != "" {
		t.Errorf("of the host's and yet the container's: %s", clip(out))
	}

	var got struct {
		HostConfig struct {
			UsernsMode string
			IDMappings struct{ UidMap []string }
		}
	}
	g.inspect(&got, "up")
	same(t, "inspect", got.HostConfig.UsernsMode+fmt.Sprint(got.HostConfig.IDMappings.UidMap), fmt.Sprintf("remap[0:%d:65536]", remapBase))
	if out, want := g.ok("explain", "up"), fmt.Sprintf("0-65535 are the host's %d-%d", remapBase, remapBase+65535); !strings.Contains(out, want) {
		t.Errorf("explain: want %q in\n%s", want, out)
	}
}

// On disk are the container's ids, so everything that looks there, or shares
// it, needs to know nothing.
func TestCoreUsernsShared(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	const script = "touch /made; mkdir /dir; echo x > /dir/alice; chown 1000:100 /dir/alice; rm /etc/group; echo y >> /etc/passwd; mkfifo /fifo; ln -s made /link; rm -r /home; mkdir /home; sleep 1000"
	g.ok("run", "-d", "--name", "up", "--userns", "remap", image, "sh", "-c", script)
	g.ok("run", "-d", "--name", "plain", image, "sh", "-c", script)
	eventually(t, patience, func() string {
		for _, name := range []string{"up", "plain"} {
			if r := g.do(nil, "exec", name, "ls", "-d", "/home/alice"); r.code == 0 || !strings.Contains(r.stderr, "No such") {
				return name + " is not ready"
			}
		}
		return ""
	})
	upper := func(name string) string {
		return filepath.Join(g.root(), "containers", g.ok("inspect", "-f", "{{.Id}}", name), "upper")
	}
	for file, want := range map[string][2]uint32{"made": {}, "dir": {}, "dir/alice": {1000, 100}, "etc/passwd": {}, "etc/group": {}, "fifo": {}, "link": {}} {
		if got := owner(t, filepath.Join(upper("up"), file)); got != want {
			t.Errorf("%s belongs on disk to %v, want %v", file, got, want)
		}
	}
	if fi, err := os.Stat(filepath.Dir(filepath.Dir(upper("up")))); err != nil || fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("others of the host can look into containers: %v, %v", fi.Mode(), err)
	}
	same(t, "diff", g.ok("diff", "up"), g.ok("diff", "plain"))
	export := func(name string) string { return tarOwners(t, g.do(nil, "export", name)) }
	same(t, "export", export("up"), export("plain"))

	// In and out, while it runs and after.
	file := filepath.Join(g.dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	for _, h := range []*tar.Header{{Name: "put", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000, Gid: 100}, {Name: "sub/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 3, Gid: 4}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	copied := func(when string) {
		t.Helper()
		if r := g.do(bytes.NewReader(in.Bytes()), "cp", "-a", "-", "up:/dir"); r.code != 0 {
			t.Fatal(when, r)
		}
		g.ok("cp", file, "up:/bin/put")
		out := tarOwners(t, g.do(nil, "cp", "-a", "up:/dir", "-"))
		same(t, when, out, "dir/ 0:0\ndir/alice 1000:100\ndir/put 1000:100\ndir/sub/ 3:4")
		same(t, when, fmt.Sprint(owner(t, upper("up")+"/dir/put"), owner(t, upper("up")+"/bin/put")), "[1000 100] [0 0]")
	}
	copied("cp while it runs")
	same(t, "what came", g.ok("exec", "up", "stat", "-c", "%n %u:%g %a", "/dir/put", "/dir/sub", "/bin/put"), "/dir/put 1000:100 4755\n/dir/sub 3:4 700\n/bin/put 0:0 644")
	if r := g.do(bytes.NewReader(oneMember(t, &tar.Header{Name: "far", Typeflag: tar.TypeReg, Uid: 70000})), "cp", "-a", "-", "up:/dir"); r.code != 1 || !strings.Contains(r.stderr, "70000:0 is beyond the IDs") {
		t.Errorf("an owner that is not mapped: %v", r)
	}
	g.ok("commit", "up", "committed:1")
	g.ok("stop", "-t", "0", "up")
	copied("cp when it is stopped")
	g.ok("start", "up")
	const look = "stat -c '%n %u:%g' /made /dir/alice /dir/put /etc/passwd; ls /etc/group /home/alice 2>/dev/null; true"
	for _, flags := range [][]string{nil, args("--userns", "remap"), args("--userns", "auto")} {
		a := append(append(args("run", "--rm"), flags...), "committed:1", "sh", "-c", look)
		same(t, strings.Join(flags, " "), g.ok(a...), "/made 0:0\n/dir/alice 1000:100\n/dir/put 1000:100\n/etc/passwd 0:0")
	}
	if r := g.do(nil, "system", "check"); r.code != 0 {
		t.Errorf("%v", r)
	}
}

func oneMember(t *testing.T, h *tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

// tarOwners lists members and owners of what a command wrote.
func tarOwners(t *testing.T, r result) string {
	t.Helper()
	if r.code != 0 {
		t.Fatal(r)
	}
	var out []string
	for in := tar.NewReader(strings.NewReader(r.stdout)); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %d:%d", h.Name, h.Uid, h.Gid))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// What root of a user namespace tries, with the capabilities for it. Each
// attack is also made without the namespace, where it has to work.
func TestCoreUsernsEscapes(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	major, minor := g.disk()
	disk := filepath.Join(g.dir, "disk")
	if err := unix.Mknod(disk, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat("/proc/modules")
	modules := err == nil
	admin := args("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
	for name, c := range map[string]struct {
		attack string
		with   []string
		safe   bool // it works nowhere
	}{
		"the host's disk":  {"head -c 1 /dev/hd > /dev/null && echo ESCAPED; mkdir /m; mount -r /dev/hd /m && echo ESCAPED", append(args("--device", disk+":/dev/hd"), admin...), !opens(disk)},
		"another node":     {fmt.Sprintf("mknod /hd b %d %d && head -c 1 /hd > /dev/null && echo ESCAPED", major, minor), append(args("--device", disk+":/dev/hd"), admin...), !opens(disk)},
		"sysctls":          {"mount -o remount,rw,bind /proc/sys; mount -o remount,rw /proc/sys; (: >> /proc/sys/kernel/core_pattern) && echo ESCAPED; umount /proc/sys; (: >> /proc/sys/vm/drop_caches) && echo ESCAPED", admin, false},
		"sysfs":            {"mount -o remount,rw,bind /sys; mount -o remount,rw /sys; for f in /sys/kernel/uevent_seqnum /sys/kernel/mm/transparent_hugepage/enabled /sys/power/state /sys/module/*/parameters/*; do test -w $f && (: >> $f) && echo ESCAPED; done", admin, true},
		"a new sysfs":      {"mkdir /s; mount -t sysfs none /s; for f in /s/kernel/mm/transparent_hugepage/enabled /s/module/*/parameters/*; do (: >> $f) && echo ESCAPED; done", admin, true},
		"modules":          {"insmod /etc/passwd 2>&1 | grep -qi format && echo ESCAPED", args("--cap-add", "SYS_MODULE", "--security-opt", "seccomp=unconfined"), !modules},
		"the clock":        {"date -s \"$(date '+%Y-%m-%d %H:%M:%S')\" 2>&1 | grep -q 'set date' || echo ESCAPED", args("--cap-add", "SYS_TIME", "--security-opt", "seccomp=unconfined"), true},
		"the kernel's log": {"dmesg | grep -q . && echo ESCAPED", args("--cap-add", "SYSLOG", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"), false},
		"cgroups":          {"mount -o remount,rw,bind /sys/fs/cgroup; for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,rw,bind $d; test -e $d/cgroup.procs && mkdir $d/x && echo ESCAPED; done; find /sys/fs/cgroup -name release_agent | while read f; do (: >> $f) && echo ESCAPED; done; for f in /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max; do test -e $f && (: >> $f) && echo ESCAPED; done", admin, false},
		"other users":      {"sh -c 'exec 2>&1; setpriv --reuid 70000 true' | grep -q . || echo ESCAPED; chown 70000 /etc/passwd && echo ESCAPED", admin, true},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(more ...string) string {
				t.Helper()
				a := append(append(args("run", "--rm"), c.with...), more...)
				return g.ok(append(a, image, "sh", "-c", "("+c.attack+") 2>/dev/null; echo tried")...)
			}
			same(t, "remap", run("--userns", "remap"), "tried")
			if testing.Short() {
				return
			}
			same(t, "auto", run("--userns", "auto"), "tried")
			if out := run(); !c.safe && !strings.Contains(out, "ESCAPED\n") {
				t.Errorf("where it has to work, it does not: %s", out)
			}
		})
	}
}

// Root of a user namespace and a process of the host's root in one pid
// namespace: it is seen, and can be neither signalled nor looked into.
func TestUsernsSignals(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	for _, c := range []struct {
		flags []string
		want  string
	}{{args("--userns", "remap"), "tried"}, {nil, "ESCAPED\nESCAPED\ntried"}} {
		g.ok(append(append(args("run", "-d", "--name", "inside", "--cap-add", "SYS_PTRACE", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"), c.flags...), image, "sleep", "1000")...)
		g.ok("run", "-d", "--name", "outside", "--pid", "container:inside", image, "sleep", "7391")
		const attack = `p=$(grep -l '^sleep.7391' /proc/[0-9]*/cmdline | cut -d / -f 3); test -n "$p" || echo nobody; (ls /proc/$p/root/ | grep -q .) 2>/dev/null && echo ESCAPED; kill -9 $p 2>/dev/null && echo ESCAPED; echo tried`
		same(t, fmt.Sprint(c.flags), g.ok("exec", "inside", "sh", "-c", attack), c.want)
		g.ok("rm", "-f", "outside", "inside")
	}
}

// A file with the set-user-ID bit makes who runs it root of the container, and
// of nothing else.
func TestUsernsSetuid(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	g.ok("create", "--name", "suid", "--userns", "remap", "-u", "1000", image, "/ping", "127.0.0.1")
	g.ok("cp", "suid:/bin/busybox", filepath.Join(g.dir, "ping"))
	program, err := os.ReadFile(filepath.Join(g.dir, "ping"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "ping", Typeflag: tar.TypeReg, Mode: 0o4755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	w.Write(program)
	w.Close()
	if r := g.do(&b, "cp", "-a", "-", "suid:/"); r.code != 0 {
		t.Fatal(r)
	}
	g.ok("start", "suid")
	eventually(t, patience, func() string {
		if ids := g.hostIDs("suid", "Uid"); fmt.Sprint(ids) != fmt.Sprintf("[%d %d %[2]d %[2]d]", remapBase+1000, remapBase) {
			return fmt.Sprintf("the host sees it as %v", ids)
		}
		return ""
	})
}

// What does not go together is refused in words, before there is a container.
func TestCoreUsernsRefused(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	g.ok("run", "-d", "--name", "up", "--userns", "remap", "--ipc", "shareable", image, "sleep", "1000")
	g.ok("run", "-d", "--name", "plain", image, "sleep", "1000")
	for want, flags := range map[string][]string{
		"privileged mode is incompatible with user namespaces":                                       args("remap", "--privileged"),
		"cannot share the host's network namespace when user namespaces are enabled":                 args("remap", "--network", "host"),
		"cannot share the host PID namespace when user namespaces are enabled":                       args("auto", "--pid", "host"),
		"cannot share the host's cgroup namespace when user namespaces are enabled":                  args("remap", "--cgroupns", "host"),
		"--userns auto: IDs of its own do not go with the namespaces of another":                     args("auto", "--pid", "container:up"),
		"cannot share namespaces of container plain, which has another user namespace":               args("remap", "--ipc", "container:plain"),
		"--runtime runc: --userns remap works with tug's own runtime only":                           args("remap", "--runtime", "runc"),
		"--userns: invalid USER mode":                                                                args("keep-id"),
		"--userns: invalid size 5; a container needs 100 IDs at least":                               args("auto:size=5"),
		"user tester has no subordinate IDs in ":                                                     args("remap:tester"),
		fmt.Sprintf("add the line tester:%d:65536 to %s/subids/subuid", autoBase+200_000, g.dir):     args("remap:tester"),
		fmt.Sprintf("no 200001 IDs in a row are left of those that containers has in %s/sub", g.dir): args("auto:size=200001"),
	} {
		a := append(append(args("run", "--rm", "--userns"), flags...), image, "true")
		g.fails(125, a, want)
	}
	same(t, "containers", g.ok("ps", "-aq", "-f", "status=created"), "")

	same(t, "with the host's", g.ok("run", "--rm", "--userns", "host", "--privileged", image, "cat", "/proc/self/uid_map"), "         0          0 4294967295")
	same(t, "a user by name", strings.Fields(g.ok("run", "--rm", "--userns", "remap:somebody", image, "cat", "/proc/self/uid_map"))[1], "100000")
	shared := "ls -l /proc/self/ns/user /proc/1/ns/user | grep -o 'user:.*' | sort -u | wc -l"
	same(t, "one user namespace", g.ok("run", "--rm", "--userns", "remap", "--pid", "container:up", "--ipc", "container:up", image, "sh", "-c", shared+"; ls -d /dev/shm; kill -0 1 && echo there"), "1\n/dev/shm\nthere")
	same(t, "the host's queues and memory", g.ok("run", "--rm", "--userns", "remap", "--ipc", "host", image, "sh", "-c", "stat -c %u /dev/shm"), "65534")
}

// Each container with auto has ids that no other has, whoever is faster and
// whoever is killed, and gives them back.
func TestUsernsAuto(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			if n%3 == 0 {
				g.crash(n, "create", "--userns", "auto:size=20000", image, "true")
				return
			}
			g.do(nil, "create", "--userns", "auto:size=20000", image, "true")
		})
	}
	wg.Wait()
	all := strings.Fields(g.ok("ps", "-aq"))
	if len(all) < 8 || len(all) > 10 {
		t.Fatalf("%d containers, want 8 to 10", len(all))
	}
	seen := map[string]string{}
	for _, id := range all {
		m := g.ok("inspect", "-f", "{{index .HostConfig.IDMappings.UidMap 0}} {{index .HostConfig.IDMappings.GidMap 0}}", id)
		if seen[m] != "" {
			t.Errorf("%s and %s have the same: %s", seen[m], id, m)
		}
		seen[m] = id
	}
	for len(all) < 10 {
		all = append(all, g.ok("create", "--userns", "auto:size=20000", image, "true"))
	}
	g.fails(1, args("create", "--userns", "auto:size=20000", image, "true"), "no 20000 IDs in a row are left", "10 containers have theirs")
	g.ok("rm", all[4])
	g.ok("run", "--rm", "--userns", "auto:size=20000", image, "true")

	// Ids that are one container's own are not shared later.
	g.fails(1, args("create", "--userns", "remap:containers", image, "true"), "has some of these IDs for itself")
}

// crash runs a command and kills it after some milliseconds.
func (g *tug) crash(ms int, a ...string) {
	cmd := g.command(g.t.Context(), a...)
	if err := cmd.Start(); err != nil {
		g.t.Error(err)
		return
	}
	time.Sleep(time.Duration(ms) * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// A store on a file system without idmapped mounts says so.
func TestUsernsFileSystem(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	if err := os.RemoveAll(g.root()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(g.root(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("ramfs", g.root(), "ramfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(g.root(), unix.MNT_DETACH) })
	g.ok("load", "-q", "-i", coreFile(t, "busybox.tar"))
	g.ok("run", "--rm", image, "true")
	r := g.fails(125, args("run", "--rm", "--userns", "remap", image, "true"), "the file system there (ramfs) or this kernel has no idmapped mounts", "use --userns host")
	if strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("%v", r)
	}
	same(t, "left", g.ok("ps", "-aq"), "")
}

// A volume's files have the container's ids on disk, whoever uses it; what is
// the host's stays the host's, and nobody's in the container.
func TestCoreUsernsMounts(t *testing.T) {
	t.Parallel()
	g := newUserns(t)
	remap := func(flags ...string) []string { return append(args("run", "--rm", "--userns", "remap"), flags...) }
	sh := func(a []string, script string) string {
		t.Helper()
		return g.ok(append(a, image, "sh", "-c", script)...)
	}

	sh(remap("-v", "data:/data"), "echo x > /data/root; echo y > /data/alice; chown 1000:100 /data/alice")
	const look = "stat -c '%n %u:%g' /data/*; cat /data/root"
	want := "/data/alice 1000:100\n/data/root 0:0\nx"
	same(t, "with the same", sh(remap("-v", "data:/data:ro"), look+"; (echo z > /data/root) 2>/dev/null || true"), want)
	same(t, "without", sh(args("run", "--rm", "-v", "data:/data"), look+"; echo b > /data/plain"), want)
	same(t, "with others", sh(args("run", "--rm", "--userns", "auto", "-v", "data:/data"), "cat /data/plain; rm /data/plain; stat -c %u:%g /data /data/alice"), "b\n0:0\n1000:100")
	data := g.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "data")
	same(t, "on disk", fmt.Sprint(owner(t, data+"/root"), owner(t, data+"/alice")), "[0 0] [1000 100]")

	host := filepath.Join(g.dir, "host")
	if err := os.MkdirAll(host, 0o755); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(host, "own")
	for path, id := range map[string]int{filepath.Join(host, "secret"): 0, own: remapBase + 5} {
		if err := os.WriteFile(path, []byte("s\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, id, id); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "a directory of the host", sh(remap("-v", host+":/h"), "stat -c '%n %u:%g' /h/*; cat /h/own; cat /h/secret 2>/dev/null || echo denied; (touch /h/new || chown 0 /h/secret) 2>/dev/null || echo denied"),
		"/h/own 5:5\n/h/secret 65534:65534\ns\ndenied\ndenied")
	same(t, "for its user", sh(remap("--mount", "type=bind,src="+host+",dst=/h,owner=0:0"), "cat /h/secret; touch /h/new; stat -c %u:%g /h/new"), "s\n0:0")
	same(t, "on the host", fmt.Sprint(owner(t, host+"/new")), "[0 0]")
	same(t, "an image", sh(remap("--mount", "type=image,src="+image+",dst=/i"), "stat -c %u:%g /i/bin /i/home/alice; touch /i/x 2>/dev/null || echo denied"), "0:0\n1000:1000\ndenied")
	g.fails(125, append(remap("-v", "data:/data:U"), image, "true"), "owner= and U do not go with --userns for a volume")
}
