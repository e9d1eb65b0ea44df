package container

import (
	"archive/tar"
	"context"
	"io"
	"os"

	"tug/errs"
	"tug/sys"
)

// PackTree writes all that is in a directory, whose files containers may change
// meanwhile, as a tar, with the directory itself as "./" first.
func PackTree(ctx context.Context, dir string, w io.Writer) error {
	place, err := sys.OpenPath(dir)
	if err != nil {
		return err
	}
	k := &packer{ctx: ctx, w: tar.NewWriter(w), first: map[fileID]string{}, exact: true}
	if err := k.add(place, "."); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return k.w.Close()
}

// UnpackTree unpacks a tar, which may be hostile, into an empty directory, and
// gives that what the tar says of "./". Names and links lead nowhere else: a
// symlink is followed as in a container whose root the directory is.
func UnpackTree(ctx context.Context, dir string, in io.Reader) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{ctx: ctx, root: root, base: ".", owners: true, chown: true, whole: true}
	whole := &untilCut{r: in}
	err = u.all(whole)
	if err == nil && whole.cut {
		err = errs.New(errs.Invalid, "read the tar: it ends early")
	}
	if err == nil && u.top != nil {
		err = u.dress(root, u.top)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// untilCut finds out whether a tar ends without the zeros at its end. One that
// was cut off between two members looks like a shorter one else.
type untilCut struct {
	r     io.Reader
	zeros int  // how many there were last
	cut   bool // it has ended, and not with a block of them
}

func (u *untilCut) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	i := n
	for i > 0 && p[i-1] == 0 {
		i--
	}
	if i > 0 {
		u.zeros = 0
	}
	u.zeros += n - i
	u.cut = u.cut || n == 0 && err == io.EOF && u.zeros < 512
	return n, err
}
