package container

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// mapOwner shows the files of a tree's owner as somebody else's in the
// container, and the other way round; nobody else's change, so that no file
// gets an owner that the container cannot name. On disk all stay as they are.
func (s *Starter) mapOwner(tree *os.File, m *spec.Mount, ctr *spec.Container, rootfs, userns *os.File) error {
	uid, gid, ok := spec.OwnerIDs(m.Owner)
	if !ok {
		var err error
		if uid, gid, err = userIn(rootfs, ctr.Config.User); err != nil {
			return err
		}
	}
	ownUID, ownGID, err := sys.OwnerOf(tree)
	if err == nil && userns != nil {
		uid, gid, err = toHost(ctr.Host.IDs, uid, gid)
	}
	if err != nil {
		return err
	}
	if uid == ownUID && gid == ownGID {
		return nil
	}
	swap, err := s.Runtime.UserNS(swapped(ownUID, uid), swapped(ownGID, gid))
	if err != nil {
		return err
	}
	defer swap.Close()
	err = sys.MapTree(tree, swap, !m.NonRecursive)
	switch {
	case errors.Is(err, syscall.EINVAL):
		return errs.New(errs.Unsupported, "mount %s: the file system of %s, or one mounted below it, cannot show other owners (idmapped mounts) on this kernel", m.Target, cmp.Or(m.Source, m.Volume)).
			WithHint("leave out owner= and U, or bind-recursive=disabled if it is one below")
	case errors.Is(err, syscall.EPERM):
		return errs.New(errs.Unsupported, "mount %s: %s is on a mount that shows other owners already", m.Target, cmp.Or(m.Source, m.Volume))
	}
	return err
}

// swapped is the map of all ids that exchanges two.
func swapped(a, b uint32) []sys.IDMap {
	const end = 1<<32 - 1 // (uid_t) -1 is none
	if a == b {
		return []sys.IDMap{{Inside: 0, Outside: 0, Size: end}}
	}
	lo, hi := min(a, b), max(a, b)
	all := []sys.IDMap{
		{Inside: 0, Outside: 0, Size: lo},
		{Inside: lo, Outside: hi, Size: 1},
		{Inside: lo + 1, Outside: lo + 1, Size: hi - lo - 1},
		{Inside: hi, Outside: lo, Size: 1},
		{Inside: hi + 1, Outside: hi + 1, Size: end - hi - 1},
	}
	return slices.DeleteFunc(all, func(m sys.IDMap) bool { return m.Size == 0 })
}

// maxUserFile bounds what is read of a container's user files.
const maxUserFile = 16 << 20

// userIn finds the numbers of a container's user in its own files, which may say
// anything; at worst files seem to be somebody else's in this container.
func userIn(rootfs *os.File, user string) (uid, gid uint32, err error) {
	name, group, _ := strings.Cut(user, ":")
	name = cmp.Or(name, "0")
	entry, err := userLine(rootfs, "etc/passwd", name, 4)
	if err != nil {
		return 0, 0, err
	}
	id, numeric := number(name)
	switch {
	case entry != nil:
		uid, _ = number(entry[2])
		gid, _ = number(entry[3])
	case numeric:
		uid = id
	default:
		return 0, 0, errs.New(errs.Invalid, "unable to find user %s: no matching entries in passwd file", name)
	}
	if group == "" {
		return uid, gid, nil
	}
	if entry, err = userLine(rootfs, "etc/group", group, 3); err != nil {
		return 0, 0, err
	}
	id, numeric = number(group)
	switch {
	case entry != nil:
		gid, _ = number(entry[2])
	case numeric:
		gid = id
	default:
		return 0, 0, errs.New(errs.Invalid, "unable to find group %s: no matching entries in group file", group)
	}
	return uid, gid, nil
}

// userLine finds the line of a name or number, with at least that many fields,
// of which the third is the number. A number is never a name.
func userLine(rootfs *os.File, path, want string, fields int) ([]string, error) {
	f, err := sys.OpenIn(rootfs, path, sys.ONonblock|sys.ONoctty, false)
	if sys.IsNoPlace(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, err
	}
	id, numeric := number(want)
	lines := bufio.NewScanner(io.LimitReader(f, maxUserFile))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		part := strings.Split(lines.Text(), ":")
		if len(part) < fields {
			continue
		}
		if n, ok := number(part[2]); ok && (numeric && n == id || !numeric && part[0] == want) {
			return part, nil
		}
	}
	return nil, lines.Err()
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}
