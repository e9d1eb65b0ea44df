//go:build root

package seccomp

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"tug/sys"
)

// TestKernel loads Docker's profile into the kernel, in a process of its own,
// and makes calls. Without no_new_privs that takes CAP_SYS_ADMIN.
func TestKernel(t *testing.T) {
	if os.Getenv("TUG_SECCOMP_CHILD") != "" {
		underFilter(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKernel$", "-test.v")
	cmd.Env = append(os.Environ(), "TUG_SECCOMP_CHILD=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func underFilter(t *testing.T) {
	p, err := Default(runtime.GOARCH, dockerCaps, [2]int{6, 1})
	if err != nil {
		t.Fatal(err)
	}
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The filter belongs to this thread, which is never given back.
	runtime.LockOSThread()
	if err := sys.SetSeccomp(Bytes(prog), p.Flags); err != nil {
		t.Fatal(err)
	}
	socket := func(family int) error {
		fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
		if err == nil {
			syscall.Close(fd)
		}
		return err
	}
	number := func(nr uintptr) error {
		if _, _, errno := syscall.RawSyscall6(nr, 0, 0, 0, 0, 0, 0); errno != 0 {
			return errno
		}
		return nil
	}
	for what, tt := range map[string]struct{ got, want error }{
		"getcwd":             {func() error { _, err := syscall.Getwd(); return err }(), nil},
		"mkdir":              {os.Mkdir(dir+"/d", 0o755), nil},
		"socket AF_UNIX":     {socket(syscall.AF_UNIX), nil},
		"socket AF_ALG":      {socket(38), syscall.EPERM},
		"socket AF_VSOCK":    {socket(40), syscall.EPERM},
		"mount":              {syscall.Mount("none", dir, "tmpfs", 0, ""), syscall.EPERM},
		"unshare":            {syscall.Unshare(syscall.CLONE_NEWUTS), syscall.EPERM},
		"sethostname":        {syscall.Sethostname([]byte("never")), syscall.EPERM},
		"reboot":             {syscall.Reboot(0), syscall.EPERM},
		"clone3":             {number(435), syscall.ENOSYS},
		"a call of tomorrow": {number(900), syscall.ENOSYS},
		"fork and execve":    {exec.Command("/bin/true").Run(), nil},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: %v, want %v", what, tt.got, tt.want)
		}
	}
}
