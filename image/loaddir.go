package image

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"tug/errs"
)

// readDir takes in what an archive would hold, from a directory: metadata and
// blobs by their names. Nothing outside of it is reached, and only regular files
// are opened.
func (a *archive) readDir(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	names := []string{"oci-layout", "index.json", "manifest.json"}
	if _, err := root.Lstat("oci-layout"); err != nil {
		return errs.New(errs.Invalid, "%s is no OCI layout: it has no file oci-layout", dir).WithHint("load an archive with -i FILE, or a layout as skopeo copy makes it in oci:DIR")
	}
	blobs, err := fs.ReadDir(root.FS(), "blobs/sha256")
	if err != nil {
		return err
	}
	if len(blobs) > maxMembers {
		return errs.New(errs.Invalid, "%s has more than %d blobs", dir, maxMembers)
	}
	for _, b := range blobs {
		names = append(names, "blobs/sha256/"+b.Name())
	}
	for _, name := range names {
		err := a.addFrom(ctx, root, name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (a *archive) addFrom(ctx context.Context, root *os.Root, name string) error {
	// A FIFO would block the open.
	if fi, err := root.Lstat(name); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return err
	}
	return a.addFile(ctx, &archiveReader{ctx: ctx, r: io.LimitReader(f, fi.Size())}, name, fi.Size())
}
