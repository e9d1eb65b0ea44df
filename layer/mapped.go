package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tug/errs"
	"tug/sys"
)

// An overlay for a user namespace is made from idmapped copies of the mounts
// of its layers and of its writable directories: on disk every file has the
// container's ids, and in the overlay the host's that they stand for.
//
// overlayfs does some things with the ids of whoever made it, such as its work
// directory and whiteouts. On a mount with mapped ids these must be ids that
// are mapped, so the overlay is made by a thread that makes files as the
// container's root.

// own gives the calling thread, which is to end, the ids that overlayfs is to
// keep.
func (s *stack) own() error {
	if s.o.UserNS == nil {
		return nil
	}
	return sys.MakeFilesAs(s.o.Root[0], s.o.Root[1])
}

// mapped puts idmapped copies of all directories of s in their place. They are
// attached, as overlayfs wants it on some kernels, below a file system of their
// own, so that all go at once with done: overlayfs has copies of its own then.
func (m *Mounter) mapped(s *stack) (done func(), err error) {
	dir, err := os.MkdirTemp(m.dir, "o-")
	if err != nil {
		return nil, err
	}
	done = func() { clearMade(dir) }
	if err := m.mapInto(filepath.Join(dir, "m"), s); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

func (m *Mounter) mapInto(at string, s *stack) error {
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	base, err := sys.NewMount("tmpfs", sys.AttrNoSuid, sys.Option{Key: "size", Value: "64k"}, sys.Option{Key: "mode", Value: "700"})
	if err != nil {
		return err
	}
	defer base.Close()
	if err := sys.AttachMount(base, nil, at); err != nil {
		return err
	}
	for i, lower := range s.lowers {
		if strings.HasPrefix(lower, filepath.Join(m.dir, "empty")+"/") {
			continue // there is nothing in it whose ids could be seen
		}
		to := filepath.Join(at, strconv.Itoa(i))
		if err := mapTree(lower, to, s.o.UserNS); err != nil {
			return err
		}
		s.lowers[i] = to
	}
	if s.upper == "" {
		return nil
	}
	// Both must be of one mount.
	parent := filepath.Dir(s.upper)
	if filepath.Dir(s.work) != parent {
		return errs.New(errs.Internal, "%s and %s are in different directories", s.upper, s.work)
	}
	to := filepath.Join(at, "u")
	if err := mapTree(parent, to, s.o.UserNS); err != nil {
		return err
	}
	s.upper, s.work = filepath.Join(to, filepath.Base(s.upper)), filepath.Join(to, filepath.Base(s.work))
	return nil
}

func mapTree(path, to string, userns *os.File) error {
	tree, err := MappedTree(path, userns)
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	return sys.AttachMount(tree, nil, to)
}

// MappedTree is a detached copy of the mount at path, whose files have the ids
// of a user namespace. Unsupported is that its file system, or the kernel,
// cannot.
func MappedTree(path string, userns *os.File) (*os.File, error) {
	tree, err := sys.CloneTree(nil, path, false)
	if err != nil {
		return nil, err
	}
	if err = sys.MakePrivate(tree); err == nil {
		err = MapTree(tree, path, userns, false)
	}
	if err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// MapTree gives the files of a detached mount, which lies at path, the ids of a
// user namespace; recursive those of mounts below, too.
func MapTree(tree *os.File, path string, userns *os.File, recursive bool) error {
	err := sys.MapTree(tree, userns, recursive)
	if errors.Is(err, sys.ErrInvalid) {
		return errs.New(errs.Unsupported, "map the ids of files in %s: the file system there (%s) or this kernel has no idmapped mounts", path, fsName(tree)).
			WithHint("use --userns host, or a store on ext4, xfs or btrfs")
	}
	return err
}

// fsName is the name of a file system that people may have a store on.
func fsName(f *os.File) string {
	magic, err := sys.FileSystem(f)
	if err != nil {
		return "unknown"
	}
	for name, n := range map[string]int64{
		"tmpfs": sys.MagicTmpfs, "overlay": 0x794c7630, "nfs": 0x6969, "zfs": 0x2fc12fc1, "fuse": 0x65735546, "ramfs": 0x858458f6,
		"9p": 0x01021997, "ext4": 0xef53, "xfs": 0x58465342, "btrfs": 0x9123683e, "erofs": 0xe0f5e1e2, "virtiofs": 0x6a656a63, "f2fs": 0xf2f52010,
	} {
		if n == magic {
			return name
		}
	}
	return fmt.Sprintf("type %#x", magic)
}
