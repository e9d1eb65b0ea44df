//go:build vm

package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/test/fixture"
)

// Each machine has one processor, so the two of them run side by side. A second
// one would not only be slower: when a kernel changes its own code at run time
// (static keys), QEMU 7.2 may let the other processor see the breakpoint that
// guards the change, and the kernel panics ("Oops: int3").
func TestLinux612(t *testing.T) { t.Parallel(); boot(t, "6.12") }
func TestLinux61(t *testing.T)  { t.Parallel(); boot(t, "6.1") }

// A guest answers in seconds; its suites take minutes in software, the more
// the less of the machine is free. The limit is for guests that hang.
const timeout = 1500 * time.Second

// suites run in the guest, one after the other, in their short form: what the
// kernel decides, and not what takes long.
var suites = []struct{ pkg, run string }{
	{"runtime", "."},
	{"layer", "Test(Kinds|Whiteouts|EmptyLayers|StoredForAnotherBackend|DressRoot)$"},
	{"test/e2e", "TestCore(Binds|BindsOfMounts|BindOwner|VolumeOfTmpfs|MountImage|Load|Tree|Config|Exec|ExecConfined|ExitCodes|Hello|Init|Killed|Lifecycle|Limits|LimitKept|StorageLimitXFS|StorageLimitExt4|CgroupParent|Privileged|HostileCgroup|Stdio|Signals|Storage|Terminal|OCI|Runtime|Userns|UsernsShared|UsernsEscapes|NothingLeft)$"},
}

func boot(t *testing.T, series string) {
	kernel, err := fixture.FetchKernel(series)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, kernel); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := writeDisk(dir, disk); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	start := time.Now()
	r := &result{t: t, log: new(bytes.Buffer), exit: map[string]string{}}
	err = qemu(ctx, r, kernel.Image, initrd, disk)
	t.Logf("Linux %s: %d tests passed in %.0f s", kernel.Release, len(r.passed), time.Since(start).Seconds())
	switch {
	case ctx.Err() != nil:
		t.Errorf("no result within %v", timeout)
	case err != nil:
		t.Errorf("qemu: %v", err)
	}
	for _, s := range suites {
		if r.exit[s.pkg] != "0" {
			t.Errorf("suite %s ended in the guest with %q, want 0", s.pkg, r.exit[s.pkg])
		}
	}
	if r.release != kernel.Release {
		t.Errorf("the guest ran Linux %q, want %q", r.release, kernel.Release)
	}
	if len(r.passed) == 0 {
		t.Error("no test ran in the guest")
	}
	for _, name := range r.failed {
		t.Errorf("failed in the guest: %s", name)
	}
	if t.Failed() {
		t.Logf("console:\n%s", r.log)
	}
}

// init is the first program of the guest: it loads what the disk needs and
// hands over to the disk. (pivot_root(2) does not work on the initramfs, so
// containers need a real root filesystem.)
const initScript = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for m in /modules/*; do /bin/busybox insmod $m || echo "TUG-VM insmod $m failed"; done
/bin/busybox mount -t ext4 /dev/vda /root || echo "TUG-VM no disk"
exec /bin/busybox switch_root /root /init
`

// guestScript is process 1 after that. Its lines that begin with TUG-VM are
// for the harness.
const guestScript = `#!/bin/sh
export PATH=/usr/local/bin:/bin:/sbin HOME=/root TMPDIR=/tmp TERM=linux TUG_TEST_INIT=/usr/local/bin/tug-init
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
hostname guest
echo "TUG-VM release $(uname -r)"
cd /test
while read -r suite run; do
	./$(basename "$suite").test -test.v -test.short -test.run "$run" -test.timeout 900s </dev/null
	echo "TUG-VM exit $suite $?"
done <suites
sync
reboot -f
`

func writeInitrd(path string, kernel *fixture.Kernel) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	c := fixture.NewCpio(w)
	for _, dir := range []string{"bin", "dev", "modules", "proc", "root", "sys"} {
		c.Dir(dir)
	}
	c.Char("dev/console", 5, 1)
	c.Copy("bin/busybox", "/bin/busybox")
	c.File("init", []byte(initScript))
	for i, ko := range kernel.Modules {
		c.Copy(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(ko)), ko)
	}
	if err := c.Close(); err != nil {
		return err
	}
	return w.Flush()
}

// writeDisk makes the guest's root filesystem: busybox, tug, GNU tar, the suites
// as static test binaries, and the images that the end-to-end suite's core uses.
func writeDisk(dir, disk string) error {
	repo, err := fixture.Repo()
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	for _, sub := range []string{"bin", "sbin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "test/images", "usr/local/bin", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			return err
		}
	}
	images, err := fixture.CoreImages()
	if err != nil {
		return err
	}
	bin := filepath.Join(repo, "bin")
	if program := os.Getenv("TUG_BIN"); program != "" {
		bin = filepath.Dir(program)
	}
	copies := map[string]string{
		"/bin/busybox":                 "bin/busybox",
		filepath.Join(bin, "tug"):      "usr/local/bin/tug",
		filepath.Join(bin, "tug-init"): "usr/local/bin/tug-init",
	}
	// GNU tar, the judge of package layer's suite, with its libraries.
	libraries, err := fixture.Run(dir, "ldd", "/bin/tar")
	if err != nil {
		return err
	}
	copies["/bin/tar"] = "usr/local/bin/tar"
	for _, m := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(libraries, -1) {
		copies[m[1]] = m[1]
	}
	for _, image := range images {
		copies[image] = "test/images/" + filepath.Base(image)
	}
	for from, to := range copies {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, to)), 0o755); err != nil {
			return err
		}
		if _, err := fixture.Run(dir, "cp", "--dereference", "--sparse=always", from, filepath.Join(root, to)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(root, "test/quota"), 0o755); err != nil {
		return err
	}
	for _, kind := range []string{"xfs", "ext4"} {
		if err := fixture.QuotaDisk(kind, filepath.Join(root, "test/quota", kind)); err != nil {
			return err
		}
	}
	applets, err := fixture.Run(dir, "/bin/busybox", "--list")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(applets) {
		_ = os.Symlink("busybox", filepath.Join(root, "bin", name)) // "busybox" itself is there
	}
	// The suites talk to the tug-init that the guest gets, which has to be of
	// their version.
	version, err := fixture.Run(dir, filepath.Join(bin, "tug-init"), "--version")
	if err != nil {
		return err
	}
	version = strings.TrimPrefix(strings.TrimSpace(version), "tug-init version ")
	list := ""
	for _, suite := range suites {
		list += suite.pkg + " " + suite.run + "\n"
		build := exec.Command("go", "test", "-c", "-tags", "root", "-trimpath", "-ldflags=-s -w -X tug/spec.Version="+version, "-o", filepath.Join(root, "test", filepath.Base(suite.pkg)+".test"), "./"+suite.pkg)
		build.Dir = repo
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build suite %s: %w\n%s", suite.pkg, err, out)
		}
	}
	files := map[string]string{
		"init":        guestScript,
		"test/suites": list,
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\n",
		"etc/group":   "root:x:0:\ntty:x:5:\n",
		"etc/hosts":   "127.0.0.1 localhost\n::1 localhost\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	_, err = fixture.Run(dir, "mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1", "-d", root, disk, "3G")
	return err
}

// qemu runs the machine until it reboots. It dies with this process.
func qemu(ctx context.Context, r *result, kernel, initrd, disk string) error {
	runtime.LockOSThread() // Pdeathsig is the thread's, not the process's
	defer runtime.UnlockOSThread()
	accel := os.Getenv("TUG_TEST_ACCEL")
	if accel == "" {
		accel = "tcg"
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", accel, "-cpu", "max,la57=off", "-smp", "1", "-m", "2G",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-device", "virtio-rng-pci",
		"-drive", "file="+disk+",format=raw,if=virtio,cache=unsafe",
		"-kernel", kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on nokaslr",
	)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(out)
	return errors.Join(cmd.Wait(), readErr)
}

// result is what the guest said on its console.
type result struct {
	t              *testing.T
	log            *bytes.Buffer
	release        string
	exit           map[string]string // of each suite
	passed, failed []string
}

var verdict = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+)`)

func (r *result) read(console io.Reader) error {
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if os.Getenv("TUG_TEST_CONSOLE") != "" {
			fmt.Println(line)
		}
		fmt.Fprintln(r.log, line)
		if m := verdict.FindStringSubmatch(line); m != nil {
			if m[1] == "PASS" {
				r.passed = append(r.passed, m[2])
			} else {
				r.failed = append(r.failed, m[2])
			}
		}
		word, rest, _ := strings.Cut(strings.TrimPrefix(line, "TUG-VM "), " ")
		switch {
		case !strings.HasPrefix(line, "TUG-VM "):
		case word == "release":
			r.release = rest
		case word == "exit":
			suite, code, _ := strings.Cut(rest, " ")
			r.exit[suite] = code
		default:
			r.t.Error("guest: ", word, " ", rest)
		}
	}
	return lines.Err()
}
