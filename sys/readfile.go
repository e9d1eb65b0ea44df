package sys

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// ReadFile is os.ReadFile for small files: it asks the kernel four times for
// one, os.ReadFile ten times, half of them to find out whether it could be
// waited for. Whoever reads thousands to make one list notices.
func ReadFile(path string) ([]byte, error) {
	var fd, n int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 2048)
	for {
		err := retry(func() (err error) {
			n, err = unix.Read(fd, b[len(b):cap(b)])
			return err
		})
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		b = b[:len(b)+n]
		switch {
		case n == 0:
			return b, nil
		case len(b) == cap(b):
			b = append(b, make([]byte, len(b))...)[:len(b)]
		}
	}
}
