package layer

import (
	"fmt"
	"io"
	"os"
	"time"

	"tug/spec"
)

// File is one name in a layer: what extracting its tar would make there.
type File struct {
	Path     string // from the layer's root, without a leading slash; "" is the root itself
	Mode     uint32 // as st_mode: kind and permissions
	UID, GID uint32
	Size     int64 // of regular files, holes included
	Mtime    time.Time
	Target   string // of symlinks
	Major    uint32 // of devices
	Minor    uint32
	Links    int               // names of this file within the layer
	Inode    int64             // the same for all names of one file; counts from 1, the root
	Xattrs   map[string]string // without overlayfs's own

	Whiteout bool // hides Path of lower layers; nothing else is set
	Opaque   bool // a directory that hides what lower layers have in it

	ino *inode
}

// IsDir reports whether f is a directory.
func (f *File) IsDir() bool { return f.Mode&kindMask == kindDir }

// IsRegular reports whether f is a regular file.
func (f *File) IsRegular() bool { return f.Mode&kindMask == kindReg }

// Info describes a layer without holding it. Errors as of Get.
func (l *Layers) Info(d spec.Digest) (Info, error) { return l.info(d) }

// Walk calls f for every name in a layer, parents before what is in them,
// siblings in the order of their bytes. It reads the tar's headers, no file's
// data, and needs neither root nor a mount. An error of f ends it. The caller
// holds the layer or a reference to it.
func (l *Layers) Walk(d spec.Digest, f func(*File) error) error {
	t, tar, err := l.readBack(d)
	if err != nil {
		return err
	}
	defer tar.Close()
	last := int64(0)
	return walkFiles("", t.root, &last, f)
}

// readBack reads the tree of a layer in the store; the open tar comes with it.
func (l *Layers) readBack(d spec.Digest) (*tree, *os.File, error) {
	info, err := l.info(d)
	if err != nil {
		return nil, nil, err
	}
	tar, err := l.Tar(d)
	if err != nil {
		return nil, nil, err
	}
	t, err := l.readAgain(info, tar, nil)
	if err != nil {
		tar.Close()
		return nil, nil, damaged(d, fmt.Sprintf("its tar cannot be read: %v", err))
	}
	return t, tar, nil
}

// readAgain reads the tree of a layer that was accepted before, if with other
// limits; lower is what lies below it, where that matters.
func (l *Layers) readAgain(info Info, tar io.ReaderAt, lower *view) (*tree, error) {
	limits := l.Limits.withDefaults()
	if info.Entries > limits.Entries {
		limits = Limits{Entries: info.Entries}.withDefaults()
	}
	return readTreeOver(&fileBlocks{f: tar, size: info.Size}, &limits, lower)
}

// walkFiles numbers inodes in pos, which belongs to the index writer otherwise.
func walkFiles(path string, i *inode, last *int64, f func(*File) error) error {
	if i.pos == 0 {
		*last++
		i.pos = *last
	}
	if err := f(i.file(path)); err != nil || !i.isDir() {
		return err
	}
	if path != "" {
		path += "/"
	}
	for _, c := range i.dir.sorted {
		if err := walkFiles(path+c.name, c.ino, last, f); err != nil {
			return err
		}
	}
	return nil
}

// file describes i as the file called path.
func (i *inode) file(path string) *File {
	if i.kind() == kindChar && i.rdev == 0 {
		return &File{Path: path, Whiteout: true, ino: i}
	}
	f := &File{
		Path: path, Mode: uint32(i.mode), UID: i.uid, GID: i.gid, Size: i.size, Mtime: time.Unix(i.mtime, int64(i.nsec)),
		Target: i.target(), Links: int(i.nlink), Inode: i.pos, ino: i,
	}
	if i.isDir() {
		f.Size, f.Opaque = 0, i.dir.opaque
	}
	if k := i.kind(); k == kindChar || k == kindBlock {
		f.Major, f.Minor = i.rdev>>8&0xfff, i.rdev&0xff|i.rdev>>12&0xfff00
	}
	for _, x := range i.xattrs() {
		if x.name == opaqueXattr || x.name == originXattr {
			continue
		}
		if f.Xattrs == nil {
			f.Xattrs = make(map[string]string)
		}
		f.Xattrs[x.name] = x.value
	}
	return f
}
