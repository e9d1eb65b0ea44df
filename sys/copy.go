package sys

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Reflink makes the empty file dst share all data of src (FICLONE), and reports
// whether the file system can do that with these two.
func Reflink(dst, src *os.File) (bool, error) {
	err := retry(func() error { return unix.IoctlFileClone(Fd(dst), Fd(src)) })
	for _, no := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, no) {
			return false, nil
		}
	}
	return err == nil, wrap("ficlone", dst.Name(), err)
}

// NextData returns where the next data of f at or behind off begins and ends;
// io.EOF when there is none. Where a file system does not know its holes, all is
// data.
func NextData(f *os.File, off int64) (start, end int64, err error) {
	start, err = f.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = f.Seek(start, unix.SEEK_HOLE)
	}
	return start, end, err
}

// Exchange swaps what two paths name, at once (renameat2(2)).
func Exchange(a, b string) error {
	return wrap("exchange "+a, b, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
}

// HasReflinks reports whether f is on a file system of a kind that shares data
// between files.
func HasReflinks(f *os.File) bool {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(Fd(f), &st) })
	return err == nil && (st.Type == unix.BTRFS_SUPER_MAGIC || st.Type == unix.XFS_SUPER_MAGIC || st.Type == bcachefsMagic)
}

const bcachefsMagic = 0xca451a4e
