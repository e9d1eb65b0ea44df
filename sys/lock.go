package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Lock takes flock(2) on f, shared or exclusive, and waits for it. The lock
// goes when the last copy of the descriptor is closed, so also at kill -9.
func Lock(f *os.File, exclusive bool) error {
	return wrap("flock", f.Name(), retry(func() error { return unix.Flock(Fd(f), lockHow(exclusive)) }))
}

// TryLock is Lock without waiting; it reports whether the lock was had.
func TryLock(f *os.File, exclusive bool) (bool, error) {
	err := retry(func() error { return unix.Flock(Fd(f), lockHow(exclusive)|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, wrap("flock", f.Name(), err)
}

func lockHow(exclusive bool) int {
	if exclusive {
		return unix.LOCK_EX
	}
	return unix.LOCK_SH
}
