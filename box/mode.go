package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tug/sys"
)

// Permissions and owners.

func chmod(c *call) int {
	// A mode such as -x would be taken for flags.
	args := c.args
	mode := ""
	for i, a := range args {
		if len(a) > 1 && a[0] == '-' && strings.ContainsRune("rwxXst", rune(a[1])) {
			mode = a
			c.args = append(append([]string{}, args[:i]...), args[i+1:]...)
			break
		}
	}
	fs := c.flags()
	r, v := flag(fs, "R", "recursive", "change directories with all in them"), flag(fs, "v", "verbose", "say what is done")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	if mode == "" {
		mode, rest = rest[0], rest[1:]
	}
	if len(rest) == 0 {
		return c.misuse(errors.New("too few arguments"))
	}
	if _, err := newMode(0, mode, false, 0); err != nil {
		return c.misuse(err)
	}
	c.tree(rest, *r, func(name string, fi os.FileInfo) error {
		if fi.Mode()&os.ModeSymlink != 0 && *r {
			return nil
		}
		err := changeMode(name, mode, fi.IsDir())
		if err == nil && *v {
			c.printf("%s: %s\n", c.shown(name), mode)
		}
		return err
	})
	return c.code
}

// tree calls f for all names, with recursive for all below them, too; f before
// what is below.
func (c *call) tree(names []string, recursive bool, f func(name string, fi os.FileInfo) error) {
	for _, top := range names {
		_ = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			var fi os.FileInfo
			if err == nil {
				fi, err = os.Lstat(name)
			}
			if err == nil {
				err = f(name, fi)
			}
			if err != nil {
				c.fail(err)
			}
			if !recursive || err != nil && d == nil {
				return filepath.SkipAll
			}
			return nil
		})
	}
}

func changeMode(name, mode string, isDir bool) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	m, err := newMode(unixMode(fi), mode, isDir || fi.IsDir(), umaskNow())
	if err != nil {
		return err
	}
	return os.Chmod(name, goMode(m))
}

// unixMode is the twelve bits of a file's permissions.
func unixMode(fi os.FileInfo) uint32 {
	m := uint32(fi.Mode().Perm())
	for bit, on := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if fi.Mode()&on != 0 {
			m |= bit
		}
	}
	return m
}

func goMode(m uint32) os.FileMode {
	out := os.FileMode(m & 0o777)
	for bit, on := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if m&bit != 0 {
			out |= on
		}
	}
	return out
}

// newMode applies a mode as chmod(1) takes it, octal or symbolic. What is said
// of nobody in particular, as in +w, goes without the bits of mask.
func newMode(old uint32, mode string, isDir bool, mask uint32) (uint32, error) {
	if n, err := strconv.ParseUint(mode, 8, 32); err == nil && n <= 0o7777 {
		return uint32(n), nil
	}
	bad := fmt.Errorf("%q is no mode", mode)
	for clause := range strings.SplitSeq(mode, ",") {
		i := strings.IndexAny(clause, "+-=")
		if i < 0 {
			return 0, bad
		}
		var who uint32
		for _, w := range clause[:i] {
			switch w {
			case 'u':
				who |= 0o4700
			case 'g':
				who |= 0o2070
			case 'o':
				who |= 0o1007
			case 'a':
				who |= 0o7777
			default:
				return 0, bad
			}
		}
		if i == 0 {
			who = 0o7777
		}
		for rest := clause[i:]; rest != ""; {
			op := rest[0]
			end := strings.IndexAny(rest[1:], "+-=")
			if end < 0 {
				end = len(rest) - 1
			}
			bits, err := modeBits(rest[1:1+end], old, isDir)
			if err != nil {
				return 0, bad
			}
			if bits &= who; i == 0 {
				bits &^= mask
			}
			switch op {
			case '+':
				old |= bits
			case '-':
				old &^= bits
			default:
				old = old&^(who&0o777) | bits
			}
			rest = rest[1+end:]
		}
	}
	return old, nil
}

func modeBits(letters string, old uint32, isDir bool) (bits uint32, err error) {
	for _, p := range letters {
		switch p {
		case 'r':
			bits |= 0o444
		case 'w':
			bits |= 0o222
		case 'x':
			bits |= 0o111
		case 'X':
			if isDir || old&0o111 != 0 {
				bits |= 0o111
			}
		case 's':
			bits |= 0o6000
		case 't':
			bits |= 0o1000
		case 'u':
			bits |= old >> 6 & 7 * 0o111
		case 'g':
			bits |= old >> 3 & 7 * 0o111
		case 'o':
			bits |= old & 7 * 0o111
		default:
			return 0, errors.New("no mode")
		}
	}
	return bits, nil
}

func chown(c *call) int {
	fs := c.flags()
	r, h, v := flag(fs, "R", "recursive", "change directories with all in them"), flag(fs, "h", "no-dereference", "change links themselves"), flag(fs, "v", "verbose", "say what is done")
	rest, code, ok := c.parse(fs, 2, -1)
	if !ok {
		return code
	}
	spec := rest[0]
	if c.name == "chgrp" {
		spec = ":" + spec
	}
	uid, gid, err := owner(spec)
	if err != nil {
		c.fail(err)
		return 1
	}
	c.tree(rest[1:], *r, func(name string, fi os.FileInfo) error {
		change := os.Chown
		if *h || *r {
			change = os.Lchown
		}
		err := change(name, uid, gid)
		if err == nil && *v {
			c.printf("%s: %s\n", c.shown(name), spec)
		}
		return err
	})
	return c.code
}

// owner parses USER, USER:GROUP, USER: and :GROUP; -1 stays as it is.
func owner(s string) (uid, gid int, err error) {
	uid, gid = -1, -1
	name, group, both := strings.Cut(s, ":")
	if name != "" {
		if uid, err = strconv.Atoi(name); err != nil {
			u, uerr := user.Lookup(name)
			if uerr != nil {
				return 0, 0, fmt.Errorf("there is no user %s", name)
			}
			uid, _ = strconv.Atoi(u.Uid)
			if both && group == "" {
				group = u.Gid
			}
		}
	}
	if group != "" {
		if gid, err = strconv.Atoi(group); err != nil {
			g, gerr := user.LookupGroup(group)
			if gerr != nil {
				return 0, 0, fmt.Errorf("there is no group %s", group)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}

// names finds the names of users and groups, once each.
type names struct{ users, groups map[uint32]string }

func newNames() *names { return &names{map[uint32]string{}, map[uint32]string{}} }

func (n *names) user(id uint32) string {
	s, ok := n.users[id]
	if !ok {
		s = strconv.FormatUint(uint64(id), 10)
		if u, err := user.LookupId(s); err == nil && u.Username != "" {
			s = printable(u.Username)
		} else if id == 0 {
			s = "root" // in every image, also without a passwd file
		}
		n.users[id] = s
	}
	return s
}

func (n *names) group(id uint32) string {
	s, ok := n.groups[id]
	if !ok {
		s = strconv.FormatUint(uint64(id), 10)
		if g, err := user.LookupGroupId(s); err == nil && g.Name != "" {
			s = printable(g.Name)
		}
		n.groups[id] = s
	}
	return s
}

// modeString is a mode as ls -l shows it.
func modeString(mode uint32) string {
	kinds := map[uint32]byte{
		syscall.S_IFDIR: 'd', syscall.S_IFLNK: 'l', syscall.S_IFCHR: 'c', syscall.S_IFBLK: 'b', syscall.S_IFIFO: 'p', syscall.S_IFSOCK: 's',
	}
	b := []byte("----------")
	if k, ok := kinds[mode&syscall.S_IFMT]; ok {
		b[0] = k
	}
	for i := range 9 {
		if mode&(1<<(8-i)) != 0 {
			b[1+i] = "rwx"[i%3]
		}
	}
	for _, s := range []struct {
		bit  uint32
		at   int
		mark byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if mode&s.bit == 0 {
			continue
		}
		if b[s.at] == '-' {
			s.mark -= 'a' - 'A'
		}
		b[s.at] = s.mark
	}
	return string(b)
}

// makeNode makes a device or a pipe like fi.
func makeNode(to string, fi os.FileInfo, st *syscall.Stat_t) error {
	if fi.Mode()&os.ModeNamedPipe != 0 {
		return syscall.Mkfifo(to, uint32(fi.Mode().Perm()))
	}
	kind := byte('b')
	if fi.Mode()&os.ModeCharDevice != 0 {
		kind = 'c'
	}
	major, minor := sys.SplitDevice(st.Rdev)
	return sys.Mknod(to, kind, major, minor, uint32(fi.Mode().Perm()))
}
