// Package user finds out who a program runs as, by the user files of the
// container that it runs in. These are hostile: they are resolved inside the
// container's root, read bounded, and only when regular.
package user

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"tug/sys"
)

// User is who a program runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, with GID
	Home     string
}

// Bounds on what is read from a container's user files.
const (
	maxUserFile = 16 << 20
	maxUserLine = 1 << 20 // one line of /etc/group may list many members
	maxID       = 1<<31 - 1
	maxGroups   = 65536 // NGROUPS_MAX
)

type passwdEntry struct {
	name     string
	uid, gid uint32
	home     string
}

type groupEntry struct {
	name    string
	gid     uint32
	members string // comma separated
}

// Lookup resolves "", "NAME", "UID" or either with ":GROUP" or ":GID" by
// the container's own files, as Docker does: a number is an ID and never a
// name, or an image could give user 1000 the rights of root (CVE-2016-3697);
// one that the files do not have is taken as it is; supplementary groups come
// from /etc/group unless a group is given. root is the container's root
// directory.
func Lookup(root *os.File, want string) (User, error) {
	name, group, withGroup := strings.Cut(want, ":")
	if name == "" {
		name = "0"
	}
	u := User{Home: "/"}
	entry, err := findPasswd(root, name)
	if err != nil {
		return u, err
	}
	switch id, numeric := parseID(name); {
	case entry != nil:
		u.UID, u.GID = entry.uid, entry.gid
		if entry.home != "" {
			u.Home = entry.home
		}
	case numeric && id <= maxID:
		u.UID = uint32(id)
	case numeric:
		return u, fmt.Errorf("uids and gids must be in range 0-%d", maxID)
	default:
		return u, fmt.Errorf("unable to find user %s: no matching entries in passwd file", name)
	}
	extra, err := findGroups(root, &u, entry, group, withGroup && group != "")
	if err != nil {
		return u, err
	}
	u.Groups = append([]uint32{u.GID}, extra...)
	return u, nil
}

// means reports whether an entry of that name and ID is what want stands for.
func means(want, name string, id uint32) bool {
	if n, numeric := parseID(want); numeric {
		return n == uint64(id)
	}
	return want == name
}

func findPasswd(root *os.File, name string) (*passwdEntry, error) {
	var found *passwdEntry
	err := readUserFile(root, "etc/passwd", func(line string) bool {
		if e, ok := parsePasswd(line); ok && means(name, e.name, e.uid) {
			found = &e
		}
		return found == nil
	})
	return found, err
}

// findGroups sets u.GID when a group is asked for; else it returns the groups
// that list the user as a member.
func findGroups(root *os.File, u *User, entry *passwdEntry, group string, asked bool) ([]uint32, error) {
	if !asked && entry == nil {
		return nil, nil
	}
	var extra []uint32
	found := false
	err := readUserFile(root, "etc/group", func(line string) bool {
		g, ok := parseGroup(line)
		switch {
		case !ok:
		case asked && means(group, g.name, g.gid):
			u.GID, found = g.gid, true
		case !asked && g.gid != u.GID && !slices.Contains(extra, g.gid) && isMember(g.members, entry.name):
			extra = append(extra, g.gid)
		}
		return !found && len(extra) < maxGroups-1
	})
	if err != nil || !asked || found {
		return extra, err
	}
	id, numeric := parseID(group)
	switch {
	case !numeric:
		return nil, fmt.Errorf("unable to find group %s: no matching entries in group file", group)
	case id > maxID:
		return nil, fmt.Errorf("uids and gids must be in range 0-%d", maxID)
	}
	u.GID = uint32(id)
	return nil, nil
}

// AddGroups adds further groups, each a name of /etc/group or a number.
func AddGroups(root *os.File, u *User, more []string) error {
	if len(more) == 0 {
		return nil
	}
	ids := make([]uint64, len(more))
	for i, want := range more {
		id, numeric := parseID(want)
		if !numeric {
			id = maxID + 1 // until found
		}
		ids[i] = id
	}
	err := readUserFile(root, "etc/group", func(line string) bool {
		g, ok := parseGroup(line)
		for i, want := range more {
			if ok && ids[i] > maxID && means(want, g.name, g.gid) {
				ids[i] = uint64(g.gid)
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	for i, id := range ids {
		switch _, numeric := parseID(more[i]); {
		case id <= maxID:
			if !slices.Contains(u.Groups, uint32(id)) {
				u.Groups = append(u.Groups, uint32(id))
			}
		case numeric:
			return fmt.Errorf("uids and gids must be in range 0-%d", maxID)
		default:
			return fmt.Errorf("unable to find group %s: no matching entries in group file", more[i])
		}
	}
	if len(u.Groups) > maxGroups {
		return fmt.Errorf("more than %d groups", maxGroups)
	}
	return nil
}

// Home is the home directory of a user by number, "/" when nobody knows: that
// is no reason not to start a program.
func Home(root *os.File, uid uint32) string {
	e, err := findPasswd(root, strconv.FormatUint(uint64(uid), 10))
	if err == nil && e != nil && e.uid == uid && e.home != "" {
		return e.home
	}
	return "/"
}

func isMember(members, name string) bool {
	for m := range strings.SplitSeq(members, ",") {
		if m == name {
			return true
		}
	}
	return false
}

// parsePasswd parses name:password:uid:gid:gecos:home:shell. Lines with no
// proper number are no entries; taking them as 0, as some do, would make root.
func parsePasswd(line string) (passwdEntry, bool) {
	f := strings.Split(line, ":")
	if len(f) < 4 || f[0] == "" {
		return passwdEntry{}, false
	}
	uid, ok1 := parseID(f[2])
	gid, ok2 := parseID(f[3])
	if !ok1 || !ok2 || uid > maxID || gid > maxID {
		return passwdEntry{}, false
	}
	e := passwdEntry{name: f[0], uid: uint32(uid), gid: uint32(gid)}
	if len(f) > 5 {
		e.home = f[5]
	}
	return e, true
}

// parseGroup parses name:password:gid:members.
func parseGroup(line string) (groupEntry, bool) {
	f := strings.Split(line, ":")
	if len(f) < 3 || f[0] == "" {
		return groupEntry{}, false
	}
	gid, ok := parseID(f[2])
	if !ok || gid > maxID {
		return groupEntry{}, false
	}
	e := groupEntry{name: f[0], gid: uint32(gid)}
	if len(f) > 3 {
		e.members = strings.TrimSpace(f[3])
	}
	return e, true
}

// parseID parses a decimal number without sign; ones beyond 64 bits are
// numbers all the same, too large ones.
func parseID(s string) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		n = 1 << 63
	}
	return n, true
}

// readUserFile calls each with every line of a file that a container owns,
// until each returns false. That the file is missing is the same as empty. It
// is never waited for (fifo), never read without end (device, huge file), and
// symlinks do not leave root.
func readUserFile(root *os.File, path string, each func(line string) bool) error {
	f, err := sys.OpenIn(root, path, os.O_RDONLY|sys.ONonblock|sys.ONoctty, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read /%s of the container: %v", path, errors.Unwrap(err))
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("read /%s of the container: not a regular file", path)
	}
	if fi.Size() > maxUserFile {
		return fmt.Errorf("read /%s of the container: larger than %d MiB", path, maxUserFile>>20)
	}
	s := bufio.NewScanner(io.LimitReader(f, maxUserFile))
	s.Buffer(make([]byte, 0, 4096), maxUserLine)
	for s.Scan() {
		if !each(strings.TrimSpace(s.Text())) {
			return nil
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read /%s of the container: %v", path, err)
	}
	return nil
}
