//go:build root

package layer

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// mutationsVar sets how many archives TestMutatedLayers makes.
const mutationsVar = "TUG_TEST_MUTATIONS"

// Archives that the fuzz targets begin with, what fuzzing has found, and a lot
// that were damaged at random: those that are accepted are mounted by the kernel
// and walked, and what is there is the tree that was read.
func TestMutatedLayers(t *testing.T) {
	corpus := append(seedTars(t), corpusTars(t)...)
	eachBackend(t, func(r *room) {
		count := uint64(1500)
		if r.m.Backend() != "erofs" {
			count = 250 // they cost a sync or two loop devices each
		}
		if testing.Short() {
			count /= 20
		}
		gen := rand.New(rand.NewPCG(23, 5))
		mounted := 0
		for n := range len(corpus) + int(fromVar(t, mutationsVar, count)) {
			archive := corpus[n%len(corpus)]
			if n >= len(corpus) && len(archive) >= blockSize {
				archive = mutate(gen, archive)
			}
			was, err := mountOnce(r, archive)
			if was {
				mounted++
			}
			if err != nil {
				path := filepath.Join(os.TempDir(), "tug-mutated.tar")
				os.WriteFile(path, archive, 0o644)
				r.Fatalf("archive %d, kept in %s: %v", n, path, err)
			}
		}
		r.Logf("%d mounted", mounted)
		if mounted < int(count)/10 {
			r.Errorf("only %d archives were good enough to be mounted", mounted)
		}
	})
}

// corpusTars are the inputs that fuzzing has left in testdata.
func corpusTars(t *testing.T) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/fuzz/Fuzz*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var archive []byte
			if _, err := fmt.Sscanf(line, "[]byte(%q)", &archive); err == nil {
				all = append(all, archive)
			}
		}
	}
	return all
}

// mutate damages a copy of an archive in a few places and mends the checksums
// of its headers.
func mutate(r *rand.Rand, archive []byte) []byte {
	b := bytes.Clone(archive)
	blocks := len(b) / blockSize
	for range 1 + r.IntN(4) {
		at := r.IntN(blocks) * blockSize
		h := b[at : at+blockSize]
		switch r.IntN(5) {
		case 0: // one bit of anything
			h[r.IntN(blockSize)] ^= 1 << r.IntN(8)
		case 1: // another type
			h[156] = "01234567xgLKSV\x00"[r.IntN(15)]
		case 2: // a number or part of a name
			h[r.IntN(157)] = "01234567/. \x00\xffab"[r.IntN(15)]
		case 3: // the name of another member
			other := r.IntN(blocks) * blockSize
			copy(h[:100], b[other:other+100])
		case 4: // a block in another's place
			other := r.IntN(blocks) * blockSize
			copy(h, b[other:other+blockSize])
		}
	}
	for at := 0; at+blockSize <= len(b); at += blockSize {
		if h := b[at : at+blockSize]; string(h[257:262]) == "ustar" {
			sealHeader(h)
		}
	}
	return b
}

// mountOnce prepares and mounts an archive, compares and takes all away.
func mountOnce(r *room, archive []byte) (mounted bool, err error) {
	dir, err := os.MkdirTemp(r.st.Tmp(), "mutated-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, fileTar), archive, 0o600); err != nil {
		return false, err
	}
	limits := Limits{Index: 1 << 20, Tar: 1 << 20}.withDefaults()
	t, err := readTree(&fileBlocks{f: bytes.NewReader(archive), size: int64(len(archive))}, &limits)
	if err != nil {
		return false, classed(err)
	}
	if t.content > 1<<30 && r.m.Backend() == "dir" {
		return false, nil
	}
	tar, err := os.Open(filepath.Join(dir, fileTar))
	if err != nil {
		return false, err
	}
	defer tar.Close()
	info := Info{Size: int64(len(archive)), DiffID: spec.DigestOf(archive)}
	if err := r.m.be.prepare(context.Background(), &prepared{dir: dir, tree: t, tar: tar, info: &info}); err != nil {
		return false, classed(err)
	}
	mnt, err := r.m.be.mount(dir, info)
	if err != nil {
		return false, fmt.Errorf("mount: %w", err)
	}
	defer mnt.Close()
	root := sys.FdPath(mnt)
	names := 0
	eachInode(t, func(path string, i *inode) {
		names++
		if err == nil {
			err = compareMounted(root+"/"+path, i, r.m.Backend() != "dir")
		}
	})
	if err != nil {
		return true, err
	}
	if got := len(describe(r, root)); got != names {
		return true, fmt.Errorf("%d names instead of %d", got, names)
	}
	return true, nil
}

func classed(err error) error {
	if errs.ClassOf(err) == errs.Internal {
		return fmt.Errorf("error without a class: %w", err)
	}
	return nil
}

// compareMounted compares one file with its inode; times only where the
// filesystem can hold all that there are.
func compareMounted(path string, i *inode, times bool) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return err
	}
	if st.Mode != uint32(i.mode) || st.Uid != i.uid || st.Gid != i.gid || !i.isDir() && i.kind() != kindChar && st.Nlink != uint64(i.nlink) {
		return fmt.Errorf("%q: %+v, want %+v", path, st, i)
	}
	if times && (st.Mtim.Sec != i.mtime || st.Mtim.Nsec != int64(i.nsec)) {
		return fmt.Errorf("%q: time %v, want %d %d", path, st.Mtim, i.mtime, i.nsec)
	}
	if i.kind() == kindReg && st.Size != i.size {
		return fmt.Errorf("%q: %d bytes, want %d", path, st.Size, i.size)
	}
	if i.kind() == kindSymlink {
		if to, err := os.Readlink(path); err != nil || to != i.target() {
			return fmt.Errorf("%q leads to %q, want %q", path, to, i.target())
		}
	}
	return nil
}
