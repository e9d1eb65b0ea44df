package container

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"tug/errs"
	"tug/layer"
	"tug/runtime"
	"tug/spec"
	"tug/state"
)

// Modes of --userns beyond host.
const (
	usernsRemap = "remap" // the ids of a user, the same for all containers that want it
	usernsAuto  = "auto"  // ids of its own for each
	autoSize    = 65536
)

// ParseUserns takes a mode of --userns apart: the user of remap, the size of
// auto.
func ParseUserns(mode string) (kind, owner string, size uint32, err error) {
	kind, arg, has := strings.Cut(mode, ":")
	bad := errs.New(errs.Invalid, "--userns: invalid USER mode").WithHint("there is host, remap, remap:USER, auto and auto:size=N")
	switch kind {
	case "", "host":
		if has {
			return "", "", 0, bad
		}
		return "", "", 0, nil
	case usernsRemap:
		if has && arg == "" || strings.ContainsAny(arg, ": \t\n") {
			return "", "", 0, bad
		}
		return kind, arg, 0, nil
	case usernsAuto:
		if !has {
			return kind, "", autoSize, nil
		}
		n, ok := strings.CutPrefix(arg, "size=")
		v, perr := strconv.ParseUint(n, 10, 31)
		if !ok || perr != nil {
			return "", "", 0, bad
		}
		if v < minIDs {
			return "", "", 0, errs.New(errs.Invalid, "--userns: invalid size %s", n).WithHint("a container needs %d IDs at least", minIDs)
		}
		return kind, "", uint32(v), nil
	}
	return "", "", 0, bad
}

// chooseIDs sets the ids of a container's user namespace. What auto has chosen
// is the container's when its config.json is in its place: nobody else chooses
// before release.
func (c *Containers) chooseIDs(h *spec.HostConfig) (release func(), err error) {
	release = func() {}
	kind, owner, size, err := ParseUserns(h.UsernsMode)
	if err != nil || kind == "" {
		return release, err
	}
	if err := checkUserns(h); err != nil {
		return release, err
	}
	if kind == usernsRemap {
		users := []string{owner}
		if owner == "" {
			users = []string{"tug", "dockremap"}
		}
		ids, err := findSubIDs(users...)
		if err == nil {
			h.IDs, err = ids.whole()
		}
		if err != nil {
			return release, err
		}
	} else if strings.HasPrefix(h.PidMode, spec.JoinPrefix) || strings.HasPrefix(h.IpcMode, spec.JoinPrefix) {
		return release, errs.New(errs.Invalid, "--userns %s: IDs of its own do not go with the namespaces of another container", h.UsernsMode).
			WithHint("use --userns remap for both containers")
	}
	lock, err := state.LockFile(c.st.RunPath("userns.lock"), true)
	if err != nil {
		return release, err
	}
	if kind == usernsAuto {
		err = c.chooseOwn(h, size)
	} else {
		err = c.checkOwn(h.IDs)
	}
	if err == nil {
		err = c.checkJoined(h)
	}
	if err != nil {
		lock.Close()
		return release, err
	}
	return func() { lock.Close() }, nil
}

// checkUserns refuses what a user namespace has no rights over, in Docker's
// words.
func checkUserns(h *spec.HostConfig) error {
	share := func(what string) error {
		return errs.New(errs.Invalid, "cannot share the host's %s namespace when user namespaces are enabled", what).WithHint("use --userns host")
	}
	switch {
	case h.Privileged:
		return errs.New(errs.Invalid, "privileged mode is incompatible with user namespaces").
			WithHint("You must run the container in the host namespace when running privileged mode (--userns host)")
	case h.NetworkMode == "host":
		return share("network")
	case h.PidMode == "host":
		return errs.New(errs.Invalid, "cannot share the host PID namespace when user namespaces are enabled").WithHint("use --userns host")
	case h.CgroupnsMode == "host":
		return share("cgroup")
	}
	return nil
}

// chooseOwn takes ids that no container has.
func (c *Containers) chooseOwn(h *spec.HostConfig, size uint32) error {
	ids, err := findSubIDs("containers", "tug")
	if err != nil {
		return err
	}
	var used []*spec.IDMaps
	err = c.eachIDs(func(_ *spec.Container, m *spec.IDMaps) error {
		used = append(used, m)
		return nil
	})
	if err == nil {
		h.IDs, err = ids.take(size, used)
	}
	return err
}

// checkOwn refuses shared ids of which some are a container's own.
func (c *Containers) checkOwn(ids *spec.IDMaps) error {
	return c.eachIDs(func(ctr *spec.Container, m *spec.IDMaps) error {
		if strings.HasPrefix(ctr.Host.UsernsMode, usernsAuto) && (overlap(ids.UIDs, m.UIDs) || overlap(ids.GIDs, m.GIDs)) {
			return errs.New(errs.Conflict, "--userns remap: container %s has some of these IDs for itself (--userns auto)", ctr.Name).
				WithHint("give the users of subuid(5) and subgid(5) ranges that do not overlap: containers for auto, tug for remap")
		}
		return nil
	})
}

func overlap(a, b []spec.IDMap) bool {
	for _, x := range a {
		for _, y := range b {
			if (spec.IDRange{First: x.Outside, Count: x.Size}).Overlaps(spec.IDRange{First: y.Outside, Count: y.Size}) {
				return true
			}
		}
	}
	return false
}

// eachIDs calls f for each container with ids of its own. One that cannot be
// read may have any.
func (c *Containers) eachIDs(f func(*spec.Container, *spec.IDMaps) error) error {
	ids, err := c.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		ctr, err := c.config(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return errs.New(errs.Corrupt, "container %s: %w", id, err).WithHint("its IDs are unknown, so others cannot be chosen; see: tug system check")
		}
		if ctr.Host.IDs == nil {
			continue
		}
		if err := f(ctr, ctr.Host.IDs); err != nil {
			return err
		}
	}
	return nil
}

// checkJoined refuses to share namespaces of a container that has other ids.
func (c *Containers) checkJoined(h *spec.HostConfig) error {
	first := ""
	for _, mode := range []string{h.PidMode, h.IpcMode} {
		id, ok := strings.CutPrefix(mode, spec.JoinPrefix)
		if !ok {
			continue
		}
		other, err := c.config(id)
		if errors.Is(err, fs.ErrNotExist) {
			return noSuch(id)
		}
		if err != nil {
			return err
		}
		if !h.IDs.Equal(other.Host.IDs) || first != "" && first != id {
			return errs.New(errs.Invalid, "cannot share namespaces of container %s, which has another user namespace", other.Name).
				WithHint("containers that share namespaces share their user namespace: use the same --userns remap for all")
		}
		first = id
	}
	return nil
}

// userNS returns the user namespace for a run of a container: a new one, or
// that of the container whose namespaces it shares; nil is the host's.
func (s *Starter) userNS(ns *runtime.Namespaces, ids *spec.IDMaps) (*os.File, error) {
	switch {
	case ids == nil:
		return nil, nil
	case ns.PID.Pid != 0:
		return runtime.OpenUserNS(ns.PID)
	case ns.IPC.Pid != 0:
		return runtime.OpenUserNS(ns.IPC)
	}
	return s.Runtime.UserNSFor(ids)
}

// mappedFor are the options of an overlay with a container's ids.
func mappedFor(ctr *spec.Container, userns *os.File) (o layer.OverlayOptions) {
	if o.UserNS = userns; userns != nil {
		o.Root[0], o.Root[1] = ctr.Host.IDs.Root()
	}
	return o
}

// mapMount shows the files of a mount with other owners, where that is wanted.
// Volumes have the container's ids on disk, as its root file system has, so that
// containers with other ids, or without, can share them. What is the host's has
// the host's: to a user namespace it is nobody's, as with Docker, but what
// belongs to an id of its own.
func (s *Starter) mapMount(tree *os.File, m *spec.Mount, ctr *spec.Container, rootfs, userns *os.File) error {
	if userns != nil && strings.HasSuffix(m.Propagation, "shared") {
		return errs.New(errs.Invalid, "mount %s: bind-propagation=%s would let a user namespace mount on the host", m.Target, m.Propagation).
			WithHint("use rslave, or --userns host")
	}
	if userns == nil || m.Type != spec.MountVolume {
		if m.Owner == "" {
			return nil
		}
		return s.mapOwner(tree, m, ctr, rootfs, userns)
	}
	if m.Owner != "" {
		return errs.New(errs.Unsupported, "mount %s: owner= and U do not go with --userns for a volume", m.Target).
			WithHint("a volume's files have the container's IDs already")
	}
	return layer.MapTree(tree, "volume "+m.Volume, userns, true)
}
