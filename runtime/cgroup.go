package runtime

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tug/errs"
	"tug/sys"
)

// cgroups is the machine's cgroup layout and tug's place in it: one directory
// of tug's own at the top of each hierarchy, and a slot below for each
// container. Files are written directly; what tug needs of cgroups is a few
// files, and the start path has no time for more.
//
// Three layouts: version 2 (v2 set), version 1, and hybrid, which is version 1
// plus a v2 mount that carries no controller we want, and is left alone.
type cgroups struct {
	v2     string // mount point of the v2 hierarchy, or ""
	v1     []hierarchy
	spare  []hierarchy // of v1 too, but with slots only for containers that ask
	parent string      // "/tug"
	layout string      // for tug-init, see boot.mountCgroups
	notes  string      // directory of notes on what is elsewhere, see cgroupplace.go

	placing sync.Mutex // parents elsewhere are being made or removed

	filterOnce sync.Once // v2: the device filter of unprivileged containers
	filter     *os.File
	filterErr  error

	removing sync.WaitGroup // removals in the background
}

// hierarchy is one v1 hierarchy.
type hierarchy struct {
	mount       string
	controllers []string // or one "name=..."
}

// v1Wanted are the v1 controllers a container gets a cgroup for.
func v1Wanted() []string { return []string{"cpu", "cpuacct", "memory", "pids", "devices", "freezer"} }

// v1Spare are the v1 controllers a container gets a cgroup for when it has
// limits there.
func v1Spare() []string { return []string{"cpuset", "blkio"} }

// v2Wanted are the v2 controllers tug hands down to its containers.
func v2Wanted() []string { return []string{"cpu", "cpuset", "io", "memory", "pids"} }

func findCgroups(name string) (*cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := parseLayout(bufio.NewScanner(f), hasFile("/run/systemd/system"))
	if err != nil {
		return nil, err
	}
	c.parent = "/" + name
	if c.v2 != "" && len(c.v1) == 0 {
		have, err := os.ReadFile(filepath.Join(c.v2, "cgroup.controllers"))
		if err != nil || !anyOf(strings.Fields(string(have)), "cpu", "memory", "pids") {
			c.v2 = ""
		}
	}
	if len(c.v1) > 0 {
		c.v2 = ""
	}
	if c.v2 != "" {
		c.spare = nil
	}
	c.layout = c.makeLayout(nil)
	return c, nil
}

// parseLayout finds the hierarchies in the lines of a mountinfo.
func parseLayout(lines *bufio.Scanner, systemd bool) (*cgroups, error) {
	return parseHierarchies(lines, func(opt string) bool {
		return slices.Contains(v1Wanted(), opt) || slices.Contains(v1Spare(), opt) || systemd && opt == "name=systemd"
	})
}

// parseHierarchies finds those of version 1 that have a wanted controller.
func parseHierarchies(lines *bufio.Scanner, wanted func(controller string) bool) (*cgroups, error) {
	c := new(cgroups)
	seen := map[string]bool{}
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		mount := sys.UnescapeMount(left[4])
		switch right[0] {
		case "cgroup2":
			if c.v2 == "" {
				c.v2 = mount
			}
		case "cgroup":
			h := hierarchy{mount: mount}
			for opt := range strings.SplitSeq(right[2], ",") {
				if wanted(opt) {
					h.controllers = append(h.controllers, opt)
				}
			}
			key := strings.Join(h.controllers, ",")
			switch {
			case key == "" || seen[key]:
			case anyOf(v1Spare(), h.controllers...) && !anyOf(v1Wanted(), h.controllers...):
				c.spare = append(c.spare, h)
			default:
				c.v1 = append(c.v1, h)
			}
			seen[key] = true
		}
	}
	return c, lines.Err()
}

// makeLayout names the hierarchies of a container that has slots in more, too.
func (c *cgroups) makeLayout(more []hierarchy) string {
	if c.v2 != "" {
		return "v2"
	}
	var names []string
	for _, h := range slices.Concat(c.v1, more) {
		names = append(names, strings.Join(h.controllers, ","))
	}
	return strings.Join(names, ";")
}

// roots are the directories in which tug has its own, or may have.
func (c *cgroups) roots() []string {
	if c.v2 != "" {
		return []string{c.v2}
	}
	return append(mounts(c.v1), mounts(c.spare)...)
}

func mounts(of []hierarchy) []string {
	all := make([]string, 0, len(of)+len(v1Spare()))
	for _, h := range of {
		all = append(all, h.mount)
	}
	return all
}

// asked returns the spare hierarchies of the named controllers. Those that
// this machine lacks are warned about when the limits are set.
func (c *cgroups) asked(controllers string) []hierarchy {
	var all []hierarchy
	for _, h := range c.spare {
		if controllers != "" && anyOf(strings.Split(controllers, ","), h.controllers...) {
			all = append(all, h)
		}
	}
	return all
}

// create makes a fresh slot in every hierarchy, and in more, and returns its
// path below each. elsewhere is the parent that was asked for, if any.
func (c *cgroups) create(elsewhere string, more []hierarchy) (slot string, err error) {
	roots := []string{c.v2}
	if c.v2 == "" {
		roots = append(mounts(c.v1), mounts(more)...)
	}
	slot, err = c.createNamed(newSlotID(), elsewhere, roots, more)
	if err != nil {
		return "", err
	}
	return slot, c.confineDevicesV1(slot)
}

// newSlotID makes the random part of a slot's name.
func newSlotID() string {
	var b [slotDigits / 2]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// createNamed makes a slot with that random part. Nothing is left of one that
// failed.
func (c *cgroups) createNamed(id, elsewhere string, roots []string, more []hierarchy) (slot string, err error) {
	if elsewhere == "" || c.parentDir(elsewhere) == c.parent {
		slot = c.parent + "/" + id
		err = c.createOwn(slot, roots)
	} else {
		slot, err = c.createElsewhere(elsewhere, id, roots)
	}
	if err != nil {
		if slot != "" {
			c.removeLater(slot)
		}
		if errs.ClassOf(err) != errs.Internal {
			return "", err
		}
		return "", errs.New(errs.Denied, "make cgroup: %w", err).WithHint("the cgroup file systems have to be writable for tug")
	}
	for _, h := range slices.Concat(c.v1, more) {
		if !slices.Contains(h.controllers, "cpuset") {
			continue
		}
		if err := inheritCpuset(h.mount, slot); err != nil {
			c.removeLater(slot)
			return "", fmt.Errorf("make cgroup: %w", err)
		}
	}
	return slot, nil
}

// createOwn makes a slot in tug's own cgroup.
func (c *cgroups) createOwn(slot string, roots []string) error {
	for _, root := range roots {
		err := os.Mkdir(root+slot, 0o755)
		if errors.Is(err, fs.ErrNotExist) { // the first use, or the parent was just removed
			err = persist(func() error {
				if err := c.createParent(root); err != nil {
					return err
				}
				return os.Mkdir(root+slot, 0o755)
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// persist makes a cgroup with those above it, again when another tug removed
// one of them, still empty, in between. A hierarchy that is not there fails
// each time, so the number of attempts has a bound.
func persist(mkdirs func() error) (err error) {
	for range 100 {
		if err = mkdirs(); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// inheritCpuset gives a cgroup what the one above it has, from root down. A
// new one has neither processors nor memory on version 1, and takes no process.
func inheritCpuset(root, slot string) error {
	if dir := path.Dir(slot); dir != "/" {
		if err := inheritCpuset(root, dir); err != nil {
			return err
		}
	}
	for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		have, err := os.ReadFile(root + slot + name)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(have)) != "" {
			continue
		}
		above, err := os.ReadFile(root + path.Dir(slot) + name)
		if err == nil {
			err = writeFile(root+slot+name, strings.TrimSpace(string(above)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// createParent makes tug's own directory. On v2 it hands the controllers down
// to it, and from it to the slots; those that cannot be had, as below a cgroup
// with processes of its own, are missing later and warned about then.
func (c *cgroups) createParent(root string) error {
	if c.v2 != "" {
		enableControllers(root, v2Wanted())
	}
	err := os.Mkdir(root+c.parent, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if c.v2 != "" {
		enableControllers(root+c.parent, v2Wanted())
	}
	return nil
}

// enableControllers hands the wanted controllers that dir has, with nil all, to
// its children, writing nothing when they have them already.
func enableControllers(dir string, wanted []string) {
	have, err1 := os.ReadFile(dir + "/cgroup.controllers")
	on, err2 := os.ReadFile(dir + "/cgroup.subtree_control")
	if err1 != nil || err2 != nil {
		return
	}
	enabled := strings.Fields(string(on))
	for _, ctl := range strings.Fields(string(have)) {
		if !slices.Contains(enabled, ctl) && (wanted == nil || slices.Contains(wanted, ctl)) {
			_ = writeFile(dir+"/cgroup.subtree_control", "+"+ctl)
		}
	}
}

// enter moves the calling thread into a slot of the v1 hierarchies. It tells
// which of the spare ones the slot is in, for leave.
func (c *cgroups) enter(slot string) (more []hierarchy, err error) {
	if err := enterAll(c.v1, slot); err != nil {
		return nil, err
	}
	for _, h := range c.spare {
		err := writeFile(h.mount+slot+"/tasks", "0")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return more, err
		}
		more = append(more, h)
	}
	return more, nil
}

// leave moves the calling thread into tug's parent cgroup.
func (c *cgroups) leave(more []hierarchy) error {
	if err := enterAll(c.v1, c.parent); err != nil {
		return err
	}
	return enterAll(more, c.parent)
}

func enterAll(in []hierarchy, slot string) error {
	for _, h := range in {
		if err := writeFile(h.mount+slot+"/tasks", "0"); err != nil {
			return err
		}
	}
	return nil
}

// cgroupOf returns the v2 cgroup of a process.
func cgroupOf(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path.Clean(p), nil
		}
	}
	return "", fs.ErrNotExist
}

// check makes sure that slot is a cgroup of tug's own: what it names is removed.
func (c *cgroups) check(slot string) error {
	name, ok := path.Base(slot), true
	if !c.own(slot) {
		name, ok = strings.CutPrefix(name, c.prefix())
	}
	if !ok || !isSlotID(name) || !path.IsAbs(slot) || path.Clean(slot) != slot {
		return errs.New(errs.Invalid, "%q is no cgroup of tug", slot)
	}
	return nil
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}

// removeLater removes a slot everywhere, at once if possible, else in the
// background for some seconds: the last process leaves its cgroup a moment
// after its end is known.
func (c *cgroups) removeLater(slot string) {
	if c.tryRemove(slot) {
		return
	}
	c.removing.Go(func() {
		for wait := time.Millisecond; wait < 8*time.Second; wait *= 2 {
			time.Sleep(wait)
			if c.tryRemove(slot) {
				return
			}
		}
	})
}

func (c *cgroups) tryRemove(slot string) bool {
	done := true
	for _, root := range c.roots() {
		done = removeTree(root+slot) && done
	}
	if done && !c.own(slot) {
		c.leaveElsewhere(slot)
	}
	return done
}

// removeTree removes a cgroup and, when it is not empty, those below it first.
func removeTree(dir string) bool {
	err := syscall.Rmdir(dir)
	if err == nil || err == syscall.ENOENT {
		return true
	}
	// EBUSY is said both for processes and for children.
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return errors.Is(rerr, fs.ErrNotExist)
	}
	found := false
	for _, e := range entries {
		if e.IsDir() {
			found = removeTree(dir+"/"+e.Name()) || found
		}
	}
	return found && syscall.Rmdir(dir) == nil
}

// removeParent removes tug's own directories when they are empty.
func (c *cgroups) removeParent() {
	for _, root := range c.roots() {
		// The spawner's thread has ended; it leaves its cgroup a moment later.
		for wait := time.Millisecond; wait < time.Second; wait *= 2 {
			if err := syscall.Rmdir(root + c.parent); err != syscall.EBUSY {
				break
			}
			time.Sleep(wait)
		}
	}
}

// file returns the path of a controller's file in a slot, or "" when the
// controller is not there.
func (c *cgroups) file(slot, controller, name string) string {
	dir := ""
	if c.v2 != "" {
		dir = c.v2 + slot
	}
	for _, h := range slices.Concat(c.v1, c.spare) {
		if slices.Contains(h.controllers, controller) {
			dir = h.mount + slot
		}
	}
	if dir == "" {
		return ""
	}
	return dir + "/" + name
}

func (c *cgroups) memoryEvents(slot string) string {
	name := "memory.oom_control"
	if c.v2 != "" {
		name = "memory.events"
	}
	return c.file(slot, "memory", name)
}

func (c *cgroups) oomKilled(slot string) bool {
	b, err := os.ReadFile(c.memoryEvents(slot))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// crowded reports whether the slot has nearly as many threads as it may have;
// tug-init needs half a dozen until it is replaced by the program.
func (c *cgroups) crowded(slot string) bool {
	limit, err1 := os.ReadFile(c.file(slot, "pids", "pids.max"))
	now, err2 := os.ReadFile(c.file(slot, "pids", "pids.current"))
	if err1 != nil || err2 != nil {
		return false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	used, _ := strconv.Atoi(strings.TrimSpace(string(now)))
	return err == nil && used+8 > n
}

// writeFile writes a value to an existing cgroup file in one write.
func writeFile(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	f.Close()
	return err
}

func hasFile(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func anyOf(list []string, wanted ...string) bool {
	for _, w := range wanted {
		if slices.Contains(list, w) {
			return true
		}
	}
	return false
}
