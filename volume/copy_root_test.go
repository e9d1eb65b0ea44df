//go:build root

package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/state"
	"tug/sys"
)

// tree makes one of everything in dir.
func tree(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "sub", "deep"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "plain"), []byte("text"), 0o640))
	must(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o444))
	must(os.WriteFile(filepath.Join(dir, "sub", "setuid"), []byte("#!"), 0o755))
	must(os.Chown(filepath.Join(dir, "sub", "setuid"), 1234, 5678))
	must(syscall.Chmod(filepath.Join(dir, "sub", "setuid"), 0o6755))
	must(os.Link(filepath.Join(dir, "plain"), filepath.Join(dir, "sub", "deep", "other-name")))
	must(os.Symlink("/etc/passwd", filepath.Join(dir, "link-out")))
	must(os.Symlink("../..", filepath.Join(dir, "sub", "link-up")))
	must(os.Link(filepath.Join(dir, "link-out"), filepath.Join(dir, "link-again")))
	must(os.Lchown(filepath.Join(dir, "link-out"), 3, 4))
	must(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o622))
	must(syscall.Mknod(filepath.Join(dir, "null"), syscall.S_IFCHR|0o666, 1<<8|3))
	must(syscall.Mknod(filepath.Join(dir, "whiteout"), syscall.S_IFCHR, 0))
	must(syscall.Mknod(filepath.Join(dir, "block"), syscall.S_IFBLK|0o660, 259<<8|700&0xff|(700&^0xff)<<12))
	must(syscall.Mknod(filepath.Join(dir, "socket"), syscall.S_IFSOCK|0o777, 0))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	_, err = f.WriteAt([]byte("middle"), 8<<20)
	must(err)
	_, err = f.WriteAt([]byte("start"), 0)
	must(err)
	must(f.Truncate(32 << 20))
	d, err := os.Open(filepath.Join(dir, "sub"))
	must(err)
	must(sys.SetXattr(f, "user.key", []byte("value\x00with nul")))
	must(sys.SetXattr(f, "trusted.secret", []byte("s")))
	must(sys.SetXattr(d, "trusted.of-dir", []byte("d")))
	must(sys.SetXattr(f, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")))
	must(f.Close())
	must(d.Close())
	must(syscall.Chmod(filepath.Join(dir, "sub", "deep"), 0o1500))
	past := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	must(os.Chtimes(filepath.Join(dir, "plain"), past, past))
	must(os.Chtimes(filepath.Join(dir, "sub", "deep"), past, past))
	must(os.Chown(dir, 70, 71))
	must(syscall.Chmod(dir, 0o2700))
	must(os.Chtimes(dir, past, past))
}

// describe is a line for each file: all that a copy has to keep.
func describe(t *testing.T, dir string) (lines []string) {
	t.Helper()
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			return err
		}
		attrs, err := sys.Xattrs(p)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %o %d:%d rdev %d mtime %d.%d %q", rel, st.Mode, st.Uid, st.Gid, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec, attrs)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x sparse %v", sha256.Sum256(b), st.Size > 1<<20 && st.Blocks*512 < st.Size/4)
		case syscall.S_IFLNK:
			to, _ := os.Readlink(p)
			line += " -> " + to
		}
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR && st.Nlink > 1 {
			if f, ok := first[st.Ino]; ok {
				line += " same as " + f
			} else {
				first[st.Ino] = rel
			}
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func openAt(t *testing.T, dir string) *Volumes {
	t.Helper()
	st, err := state.Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	return Open(st)
}

// copies is the test of all copies on one file system.
func copies(t *testing.T, v *Volumes) {
	t.Helper()
	ctx := context.Background()
	if _, _, err := v.Ensure("data", Options{Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	tree(t, v.Data("data"))
	want := describe(t, v.Data("data"))
	if len(want) < 16 || !strings.Contains(strings.Join(want, "\n"), "same as") {
		t.Fatalf("%q", want)
	}
	vol, err := v.Clone(ctx, "data", "copy")
	if err != nil {
		t.Fatal(err)
	}
	if vol.Labels["a"] != "b" {
		t.Errorf("%+v", vol)
	}
	if d := cmp.Diff(want, describe(t, v.Data("copy"))); d != "" {
		t.Errorf("clone (-want +got):\n%s", d)
	}
	if _, err := v.TakeSnapshot(ctx, "data", "before"); err != nil {
		t.Fatal(err)
	}
	// Neither shares anything that shows with the original.
	if err := os.WriteFile(filepath.Join(v.Data("data"), "plain"), []byte("changed"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(v.Data("data"), "sub")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, describe(t, v.Data("copy"))); d != "" {
		t.Errorf("the clone changes with the original (-want +got):\n%s", d)
	}
	if _, err := v.Clone(ctx, "data@before", "third"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, describe(t, v.Data("third"))); d != "" {
		t.Errorf("clone of a snapshot (-want +got):\n%s", d)
	}
	if err := v.Restore(ctx, "data", "before"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, describe(t, v.Data("data"))); d != "" {
		t.Errorf("restored (-want +got):\n%s", d)
	}
	v.clean(t)
}

func TestCopies(t *testing.T) { copies(t, open(t)) }

// TestReflinks: on file systems that can, a clone of big data takes no space.
func TestReflinks(t *testing.T) {
	for _, kind := range []string{"btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			mkfs, err := exec.LookPath("mkfs." + kind)
			if err != nil {
				t.Skipf("no mkfs.%s here", kind)
			}
			dir := t.TempDir()
			img, mnt := filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
			if err := os.WriteFile(img, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Truncate(img, 512<<20), os.Mkdir(mnt, 0o700)); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{mkfs, "-q", img}, {"mount", "-o", "loop", img, mnt}} {
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
					t.Skipf("%v: %v: %s", args, err, out)
				}
			}
			t.Cleanup(func() {
				if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
					t.Errorf("umount: %v: %s", err, out)
				}
			})
			v := openAt(t, mnt)
			copies(t, v)
			if err := os.WriteFile(filepath.Join(v.Data("data"), "big"), bytes.Repeat([]byte("0123456789abcdef"), 96<<16), 0o600); err != nil {
				t.Fatal(err)
			}
			exec.Command("sync", "-f", mnt).Run()
			before, err := sys.FreeSpace(mnt)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 5 { // 480 MiB of 512, besides 96
				if _, err := v.Clone(context.Background(), "data", fmt.Sprint("big", n)); err != nil {
					t.Fatal(err)
				}
			}
			after, err := sys.FreeSpace(mnt)
			if err != nil || before-after > 24<<20 {
				t.Errorf("5 clones of 96 MiB took %d MiB, %v", (before-after)>>20, err)
			}
		})
	}
}

// TestCopyOfChanging copies while somebody exchanges files and links: nothing
// from outside of the volume comes in.
func TestCopyOfChanging(t *testing.T) {
	v := open(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	v.make(t, "data", "x")
	data := v.Data("data")
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		name, away := filepath.Join(data, "name"), filepath.Join(data, "away")
		for {
			select {
			case <-stop:
				return
			default:
			}
			os.WriteFile(name, []byte("mine"), 0o600)
			os.Remove(name)
			os.Symlink(secret, name)
			os.Rename(name, away)
			os.Mkdir(name, 0o700)
			os.Remove(name)
			os.Symlink(filepath.Dir(secret), name)
			os.Remove(name)
		}
	}()
	for n := range 60 {
		_, err := v.Clone(context.Background(), "data", fmt.Sprint("copy", n))
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
	err := filepath.WalkDir(v.st.Volumes(), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, _ := os.ReadFile(p); bytes.Contains(b, []byte("secret")) {
				t.Errorf("%s has what is outside", p)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	v.clean(t)
}

// TestGivenUp: nothing is left of what was cancelled or found no space.
func TestGivenUp(t *testing.T) {
	mnt := t.TempDir()
	m, err := sys.NewMount("tmpfs", 0, sys.Option{Key: "size", Value: "8m"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := sys.AttachMount(m, nil, mnt); err != nil {
		t.Fatal(err)
	}
	defer sys.UnmountNow(mnt, true)
	v := openAt(t, mnt)
	v.make(t, "data", strings.Repeat("x", 3<<20))
	if _, err := v.TakeSnapshot(context.Background(), "data", "one"); err != nil {
		t.Fatal(err)
	}
	_, err = v.TakeSnapshot(context.Background(), "data", "two")
	if !errs.Is(err, errs.NoSpace) {
		t.Errorf("snapshot: %v", err)
	}
	if _, err := v.Clone(context.Background(), "data", "copy"); !errs.Is(err, errs.NoSpace) {
		t.Errorf("clone: %v", err)
	}
	if err := v.Restore(context.Background(), "data", "one"); !errs.Is(err, errs.NoSpace) {
		t.Errorf("restore: %v", err)
	}
	v.holds(t, "data", strings.Repeat("x", 3<<20))
	v.clean(t)

	gone, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	if _, err := v.Clone(gone, "data", "copy"); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
	if list, _, _ := v.List(); len(list) != 1 {
		t.Errorf("%v", list)
	}
	v.clean(t)
}

// A tree that is too deep, as a container can make one, is refused, and nothing
// is left of the attempt.
func TestTooDeep(t *testing.T) {
	v := open(t)
	v.make(t, "data", "text")
	dir, err := os.Open(v.Data("data"))
	if err != nil {
		t.Fatal(err)
	}
	for range maxDepth + 10 {
		next, err := sys.MkdirAt(dir, "d")
		if err != nil {
			t.Fatal(err)
		}
		dir.Close()
		dir = next
	}
	dir.Close()
	if size, _, _, err := v.Size("data"); size != 4 || err != nil {
		t.Error(size, err)
	}
	if _, err := v.Clone(context.Background(), "data", "copy"); !errs.Is(err, errs.Unsupported) || len(err.Error()) > 300 {
		t.Errorf("%.300v", err)
	}
	v.clean(t)

	// With fewer open files than the tree is deep.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 1500
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	if _, err := v.Clone(context.Background(), "data", "copy"); !errs.Is(err, errs.Unsupported) || len(err.Error()) > 300 {
		t.Errorf("%.300v", err)
	}
	if _, err := v.Get("copy"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if size, _, _, err := v.Size("data"); size != 4 || err != nil {
		t.Error(size, err)
	}
	v.clean(t)
	if err := v.Remove("data", false); err != nil {
		t.Error(err)
	}
	v.clean(t)
}
