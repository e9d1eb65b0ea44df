package layer

import (
	"context"
	"os"
	"path/filepath"

	"tug/sys"
)

// erofsBackend mounts the index; the kernel reads file data out of the tar.
// Without loop it takes both files as they are (Linux 6.12, and a filesystem
// that can do it: not tmpfs, not overlayfs), with loop each gets a loop device.
type erofsBackend struct{ loop bool }

func (b erofsBackend) name() string {
	if b.loop {
		return "erofs-loop"
	}
	return "erofs"
}

func (erofsBackend) file() string { return fileIndex }

func (erofsBackend) prepare(_ context.Context, p *prepared) error {
	f, err := os.OpenFile(filepath.Join(p.dir, fileIndex), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	p.info.IndexSize, err = writeIndex(f, p.tree, p.tar, p.info.Size, indexID(p.info.DiffID))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (b erofsBackend) mount(dir string, info Info) (*os.File, error) {
	index, err := os.Open(filepath.Join(dir, fileIndex))
	if err != nil {
		return nil, err
	}
	defer index.Close()
	st, err := index.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() != info.IndexSize {
		return nil, damaged(info.DiffID, "its "+fileIndex+" has a wrong size")
	}
	tar, err := os.Open(filepath.Join(dir, fileTar))
	if err != nil {
		return nil, err
	}
	defer tar.Close()
	source, device := index, tar
	if b.loop {
		if source, err = sys.LoopDevice(index); err != nil {
			return nil, err
		}
		defer source.Close()
		if device, err = sys.LoopDevice(tar); err != nil {
			return nil, err
		}
		defer device.Close()
	}
	return sys.NewMount("erofs", sys.AttrReadOnly,
		sys.Option{Key: "ro"},
		sys.Option{Key: "source", Value: mountName(source)},
		sys.Option{Key: "device", Value: mountName(device)})
}

// mountName names a file to the kernel: by its path, so that mountinfo tells
// what is mounted, or by its descriptor when an option string cannot hold it.
func mountName(f *os.File) string {
	if len(f.Name()) < 256 {
		return f.Name()
	}
	return sys.FdPath(f)
}
