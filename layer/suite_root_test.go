//go:build root

package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// The conformance suite of backend: what a stack of layers shows is what GNU
// tar extracts, whichever backend shows it. Every test here runs once for each
// backend that this kernel offers.

// room is a store with one backend and a Mounter.
type room struct {
	*testing.T
	st *state.Store
	l  *Layers
	m  *Mounter
}

func newRoom(t *testing.T, backend string) *room {
	t.Helper()
	dir, err := os.MkdirTemp("", "tug-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	st, err := state.Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	r := &room{T: t, st: st, l: Open(st, backend)}
	r.m = r.mounter()
	t.Cleanup(r.close)
	return r
}

func (r *room) mounter() *Mounter {
	r.Helper()
	m, err := r.l.Mounter(r.st.RunPath("layers"))
	if err != nil {
		r.Fatal(err)
	}
	return m
}

func (r *room) close() {
	all, err := r.m.Mounted()
	if err != nil {
		r.Error(err)
	}
	for _, d := range all {
		if err := r.m.Drop(d); err != nil {
			r.Error(err)
		}
	}
	if left := r.mounts(); len(left) > 0 {
		r.Errorf("left mounted: %q", left)
	}
	if left, _ := os.ReadDir(r.st.Tmp()); len(left) > 0 {
		r.Errorf("left in tmp: %v", left)
	}
}

// mounts returns the lines of mountinfo that speak of the store.
func (r *room) mounts() []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+r.st.Run+"/") {
			found = append(found, line)
		}
	}
	return found
}

func (r *room) add(tar []byte) spec.Digest {
	r.Helper()
	return r.addFrom(bytes.NewReader(tar))
}

func (r *room) addFrom(tar io.Reader) spec.Digest {
	r.Helper()
	l, err := r.l.Add(context.Background(), tar, Expect{BlobSize: -1})
	if err != nil {
		r.Fatal(err)
	}
	defer l.Close()
	return l.DiffID
}

// show mounts layers, lowest first, and returns a path to the merged tree.
func (r *room) show(layers ...spec.Digest) string {
	r.Helper()
	stack, made, err := r.l.Stack(r.Context(), layers)
	if err != nil {
		r.Fatal(err)
	}
	defer closeAll(made)
	mnt, err := r.m.Overlay(stack, "", "", OverlayOptions{})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { mnt.Close() })
	return sys.FdPath(mnt)
}

// check compares the layers' merged tree with GNU tar's.
func (r *room) check(tars ...[]byte) {
	r.Helper()
	var layers []spec.Digest
	for _, t := range tars {
		layers = append(layers, r.add(t))
	}
	r.same(r.gnuTree(tars...), describe(r, r.show(layers...)))
}

// gnuTrees keeps the last tree for the next backend: making it takes long.
var gnuTrees struct {
	sum   [32]byte
	lines []string
}

func (r *room) gnuTree(tars ...[]byte) []string {
	r.Helper()
	if sum := sha256.Sum256(bytes.Join(tars, nil)); gnuTrees.lines == nil || gnuTrees.sum != sum {
		gnuTrees.sum, gnuTrees.lines = sum, describe(r, extractGNU(r, tars...))
	}
	return gnuTrees.lines
}

func (r *room) same(want, got []string) {
	r.Helper()
	differ := 0
	report := func(sign string, lines, others []string) {
		for _, l := range lines {
			if _, found := slices.BinarySearch(others, l); !found {
				if differ++; differ <= 10 {
					r.Errorf("%s %.1000s", sign, l)
				}
			}
		}
	}
	report("only in GNU tar's tree:", want, got)
	report("only in the layers:    ", got, want)
	if differ > 10 {
		r.Errorf("and %d more lines", differ-10)
	}
}

// eachBackend runs a test for every backend there is. Those that this kernel
// version is known to have must be among them (some older ones have got more
// from their distributions); the others must say so.
func eachBackend(t *testing.T, test func(r *room)) {
	major, minor := sys.KernelVersion()
	since := map[string]int{"erofs": 612, "erofs-loop": 604, "dir": 0}
	for _, be := range backends() {
		t.Run(be.name(), func(t *testing.T) {
			if major*100+minor >= since[be.name()] || works(t, be) {
				test(newRoom(t, be.name()))
			}
		})
	}
}

// works tells whether a backend does; if not, opening it must say so.
func works(t *testing.T, be backend) bool {
	dir := t.TempDir()
	st, err := state.Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(st, be.name()).Mounter(st.RunPath("layers"))
	if err != nil && !errs.Is(err, errs.Unsupported) {
		t.Errorf("%s: %v", be.name(), err)
	}
	t.Logf("%s: %v", be.name(), err)
	return err == nil
}

// extractGNU applies layers in order with GNU tar; whiteouts before, by name.
func extractGNU(t testing.TB, tars ...[]byte) string {
	t.Helper()
	dir := t.TempDir()
	for _, b := range tars {
		before := dirTimes(t, dir)
		hideGNU(t, dir, b)
		cmd := exec.Command("tar", "--extract", "--directory", dir, "--numeric-owner", "--same-owner", "--preserve-permissions",
			"--xattrs", "--xattrs-include=*", "--exclude=.wh.*", "--delay-directory-restore", "--warning=no-timestamp")
		cmd.Stdin = bytes.NewReader(b)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		resetTimes(t, dir, b, before)
	}
	return dir
}

// dirTimes returns the times of all directories.
func dirTimes(t testing.TB, root string) map[string]time.Time {
	t.Helper()
	times := map[string]time.Time{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			var info fs.FileInfo
			info, err = d.Info()
			times[path] = info.ModTime()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return times
}

// resetTimes gives the directories that a layer has no entry for the times they
// had before, and new ones the time 0: extracting into them changes their times
// to that of the extraction.
func resetTimes(t testing.TB, root string, b []byte, before map[string]time.Time) {
	t.Helper()
	listed := map[string]bool{}
	eachMember(t, b, func(h *tar.Header) { listed[filepath.Join(root, h.Name)] = true })
	for path := range dirTimes(t, root) {
		if was, ok := before[path]; !listed[path] {
			if !ok {
				was = time.Unix(0, 0)
			}
			if err := os.Chtimes(path, was, was); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// hideGNU removes what a layer's .wh. members name, and directories that other
// members replace: GNU tar leaves those that are not empty.
func hideGNU(t testing.TB, dir string, b []byte) {
	t.Helper()
	eachMember(t, b, func(h *tar.Header) {
		path := filepath.Join(dir, h.Name)
		parent, base := filepath.Split(path)
		if info, err := os.Stat(parent); err != nil || !info.IsDir() {
			return
		}
		hidden, ok := strings.CutPrefix(base, ".wh.")
		switch {
		case ok && hidden == ".wh..opq":
			entries, _ := os.ReadDir(parent)
			for _, e := range entries {
				os.RemoveAll(parent + e.Name())
			}
		case ok:
			os.RemoveAll(parent + hidden)
		case h.Typeflag != tar.TypeDir:
			os.RemoveAll(path)
		}
	})
}

// describe lists a tree, a line for each file, sorted: name, type, permissions,
// owner, time, size and content or target or device, attributes, and which
// other names the file has.
func describe(t testing.TB, root string) []string {
	t.Helper()
	names := make(map[[2]uint64][]string)
	lines := make(map[string]string)
	ids := make(map[string][2]uint64)
	err := filepath.WalkDir(root+"/", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if lines[rel], err = describeFile(path, st); err != nil {
			return err
		}
		id := [2]uint64{uint64(st.Dev), st.Ino}
		ids[rel] = id
		if st.Mode&kindMask != kindDir {
			names[id] = append(names[id], rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return withNames(lines, ids, names)
}

// withNames finishes the lines of describe: names are those of each file, and
// ids says which file a path is of.
func withNames[K comparable](lines map[string]string, ids map[string]K, names map[K][]string) []string {
	var out []string
	for rel, line := range lines {
		if n := names[ids[rel]]; len(n) > 1 {
			slices.Sort(n)
			line += fmt.Sprintf(" = %q", n)
		}
		out = append(out, fmt.Sprintf("%q %s", rel, line))
	}
	slices.Sort(out)
	return out
}

func describeFile(path string, st *syscall.Stat_t) (string, error) {
	line := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & kindMask {
	case kindReg:
		sum, err := checksum(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d %s", st.Size, sum)
	case kindSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" -> %q", target)
	case kindChar, kindBlock:
		line += fmt.Sprintf(" dev %#x", st.Rdev)
	}
	attrs, err := sys.Xattrs(path)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		line += fmt.Sprintf(" %s=%x", name, sha256.Sum256([]byte(attrs[name])))
	}
	return line, nil
}

// checksum is over the pieces of a file that are not zero, with their places:
// holes cost their reading only.
func checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return sumPieces(f)
}

func sumPieces(f io.Reader) (string, error) {
	h := sha256.New()
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); ; {
		n, err := io.ReadFull(f, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			fmt.Fprintf(h, "%d %d\n", off, n)
			h.Write(buf[:n])
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Sprintf("%x", h.Sum(nil)[:16]), nil
		}
		if err != nil {
			return "", err
		}
	}
}

func eachMember(t testing.TB, b []byte, f func(h *tar.Header)) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		f(h)
	}
}
