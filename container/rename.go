package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"tug/errs"
	"tug/event"
	"tug/sys"
)

// Rename gives a container another name, running or not. A name counts only
// while the container says that it has it, so the new description takes effect
// for both names at once: a crash before it leaves the old name, one after it
// the new one, and of the other nothing but a file that the next use takes over.
func (c *Containers) Rename(name, to string) error {
	s, err := c.Find(name)
	if err != nil {
		return err
	}
	to = strings.TrimPrefix(to, "/")
	lock, err := c.lock(s.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuch(name)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	// It may have been renamed while this waited.
	ctr, err := c.config(s.ID)
	if err != nil {
		return err
	}
	if ctr.Name == to {
		return errs.New(errs.Invalid, "Renaming a container with the same name as its current name")
	}
	if !validName(to) {
		return fmt.Errorf("Error when allocating new name: %w", errBadName(to))
	}
	release, err := c.reserve(to, s.ID)
	if err != nil {
		return fmt.Errorf("Error when allocating new name: %w", err)
	}
	defer release()
	old := ctr.Name
	ctr.Name = to
	if err := c.st.WriteJSON(c.path(s.ID, fileConfig), ctr, !ctr.Host.AutoRemove); err != nil {
		os.Remove(c.st.ContainerName(to)) // this holds its lock
		return fmt.Errorf("rename container %s: %w", old, noSpace(err))
	}
	c.dropName(old, s.ID)
	c.tell(ctr, event.Event{Action: "rename", Attributes: map[string]string{"oldName": "/" + old}})
	return nil
}

// dropName removes a name's file if it still is of container id, which does
// not have the name any more. Somebody may be taking the name over right now:
// then the file is theirs.
func (c *Containers) dropName(name, id string) {
	p := c.st.ContainerName(name)
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if had, err := sys.TryLock(f, true); err != nil || !had || !isAt(f, p) {
		return
	}
	if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == id {
		os.Remove(p)
	}
}

// isAt reports whether the open file f is what path names.
func isAt(f *os.File, path string) bool {
	there, err1 := os.Lstat(path)
	own, err2 := f.Stat()
	return err1 == nil && err2 == nil && os.SameFile(there, own)
}

func errBadName(name string) error {
	return errs.New(errs.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
}
