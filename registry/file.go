package registry

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tug/state"
	"tug/sys"
)

// editFile replaces the file at path by what edit makes of its bytes, nil when
// there is none: under a lock on its directory, so that of two edits neither is
// lost, and by rename, so that a reader sees the old file or the new one. A
// symbolic link is followed. The file keeps its owner; its mode is what it was
// less what perm does not allow, and perm for a new one. An edit that returns
// the same bytes writes nothing. Missing directories are made with dirPerm.
func editFile(path string, perm, dirPerm fs.FileMode, edit func(old []byte) ([]byte, error)) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := sys.Lock(lock, true); err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := err != nil
	text, err := edit(old)
	if err != nil || !fresh && string(text) == string(old) {
		return err
	}
	return replaceFile(path, text, perm)
}

// replaceFile is editFile's last step, under its lock.
func replaceFile(path string, text []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // renamed: nothing is there any more
	defer f.Close()
	if fi, err := os.Stat(path); err == nil {
		perm &= fi.Mode().Perm()
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
			// sudo must not take a user's file away from him.
			if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return state.SyncDir(dir)
}
