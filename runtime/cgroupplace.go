package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"tug/errs"
)

// A container with --cgroup-parent has its slot elsewhere than the others:
// PARENT/tug-ID, where tug is the name of tug's own cgroup, in every hierarchy.
// PARENT is absolute, or below tug's own cgroup. It is made where it is missing,
// and then removed with the last slot in it; what was there stays.
//
// Nobody would find such slots again after all of tug was killed, nor know
// which parents tug has made. So there are notes, files in a directory that goes
// with a reboot as cgroups do: slot-ID has the slot's path, made-HASH the
// directory of one parent in one hierarchy.

const (
	noteSlot = "slot-"
	noteMade = "made-"
)

// slotDigits is the length of the random part of a slot's name.
const slotDigits = 16

func isSlotID(s string) bool { return len(s) == slotDigits && isHex(s) }

// CheckCgroupParent refuses what cannot be a parent on this machine.
func CheckCgroupParent(asked string) error {
	if strings.Trim(asked, "/") == "" {
		return nil // nothing, or the root
	}
	bad := func(why string) error {
		return errs.New(errs.Invalid, "invalid --cgroup-parent %q: %s", asked, why)
	}
	if len(asked) > 1024 || strings.ContainsAny(asked, "\x00\n") {
		return bad("it is no path")
	}
	for part := range strings.SplitSeq(strings.Trim(asked, "/"), "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return bad("a part of it is empty or made of dots")
		case len(part) > 200:
			return bad("a part of it is too long")
		case isSlotID(part):
			return bad("a part of it is called as tug calls containers")
		}
	}
	if !isSlice(asked) {
		return nil
	}
	dir, ok := slicePath(asked)
	if !ok {
		return bad("that is no name of a slice")
	}
	c, err := machine()
	if err != nil {
		return err
	}
	for _, root := range append(c.roots(), "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified") {
		if hasFile(root + dir) {
			return nil
		}
	}
	return errs.New(errs.Invalid, "invalid --cgroup-parent %q: there is no such slice on this machine", asked).
		WithHint("start it (systemctl start %s), or give a path that begins with /", asked)
}

// isSlice reports whether a parent is the name of a slice of systemd's.
func isSlice(asked string) bool {
	return strings.HasSuffix(asked, ".slice") && !strings.Contains(asked, "/")
}

// slicePath is where systemd has a slice: a-b.slice is /a.slice/a-b.slice
// (systemd.slice(5)).
func slicePath(name string) (string, bool) {
	base := strings.TrimSuffix(name, ".slice")
	if base == "-" {
		return "/", true
	}
	dir, upTo := "", ""
	for part := range strings.SplitSeq(base, "-") {
		if part == "" {
			return "", false
		}
		upTo += part
		dir += "/" + upTo + ".slice"
		upTo += "-"
	}
	return dir, true
}

// parentDir is where a parent that was asked for is, below each root.
func (c *cgroups) parentDir(asked string) string {
	if isSlice(asked) {
		dir, _ := slicePath(asked)
		return path.Clean(dir)
	}
	if path.IsAbs(asked) {
		return path.Clean(asked)
	}
	return path.Join(c.parent, asked)
}

// prefix begins the names of slots that are not in tug's own cgroup.
func (c *cgroups) prefix() string { return c.parent[1:] + "-" }

// createElsewhere makes a slot in another parent, with the same random part.
func (c *cgroups) createElsewhere(asked, id string, roots []string) (slot string, err error) {
	if err := CheckCgroupParent(asked); err != nil {
		return "", err
	}
	parent := c.parentDir(asked)
	slot = path.Join(parent, c.prefix()+id)
	c.placing.Lock()
	defer c.placing.Unlock()
	if err := c.note(noteSlot+id, slot); err != nil {
		return "", err
	}
	for _, root := range roots {
		err := persist(func() error {
			if err := c.createParent(root); err != nil { // the spawner's thread lives there
				return err
			}
			if err := c.makeParents(root, parent); err != nil {
				return err
			}
			return os.Mkdir(root+slot, 0o755)
		})
		if err != nil {
			return slot, err
		}
	}
	return slot, nil
}

// makeParents makes what is missing of a parent in one hierarchy.
func (c *cgroups) makeParents(root, parent string) error {
	above := root
	for _, part := range strings.FieldsFunc(parent, func(r rune) bool { return r == '/' }) {
		if c.v2 != "" {
			enableControllers(above, v2Wanted())
		}
		above += "/" + part
		err := os.Mkdir(above, 0o755)
		if err == nil {
			err = c.note(madeNote(above), above)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if c.v2 != "" {
		enableControllers(above, v2Wanted())
	}
	return nil
}

func madeNote(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return noteMade + hex.EncodeToString(sum[:8])
}

// note writes a note; without a directory for them there are none.
func (c *cgroups) note(name, text string) error {
	if c.notes == "" {
		return nil
	}
	err := os.WriteFile(filepath.Join(c.notes, name), []byte(text), 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(c.notes, 0o700); err == nil {
			err = os.WriteFile(filepath.Join(c.notes, name), []byte(text), 0o600)
		}
	}
	return err
}

// noted lists the texts of notes.
func (c *cgroups) noted(kind string) (all []string) {
	if c.notes == "" {
		return nil
	}
	entries, _ := os.ReadDir(c.notes)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), kind) {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(c.notes, e.Name())); err == nil {
			all = append(all, string(b))
		}
	}
	return all
}

// own reports whether a slot is in tug's own cgroup.
func (c *cgroups) own(slot string) bool { return path.Dir(slot) == c.parent }

// leaveElsewhere follows the removal of a slot in another parent.
func (c *cgroups) leaveElsewhere(slot string) {
	c.placing.Lock()
	defer c.placing.Unlock()
	if c.notes == "" {
		return
	}
	os.Remove(filepath.Join(c.notes, noteSlot+strings.TrimPrefix(path.Base(slot), c.prefix())))
	c.removeMade()
}

// removeMade removes parents that tug has made and nobody uses, the lower ones
// first.
func (c *cgroups) removeMade() {
	made := c.noted(noteMade)
	slices.SortFunc(made, func(a, b string) int { return len(b) - len(a) })
	for _, dir := range made {
		if err := syscall.Rmdir(dir); err == nil || err == syscall.ENOENT {
			os.Remove(filepath.Join(c.notes, madeNote(dir)))
		}
	}
}
