package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime/plan"
	"tug/sys"
)

// mountOptions are the options of one mount, sorted by what they are about.
type mountOptions struct {
	set, clear   uint64 // attributes of the mount
	rset, rclear uint64 // and of those below it
	propagation  []uint64
	deep         []uint64 // with those below
	data         []plan.Option

	bind, recursive bool
	remount         bool
	idmap, ridmap   bool
	copyUp          bool
}

// mountAttr is an option about an attribute: those to set, those to clear.
type mountAttr struct {
	name       string
	set, clear uint64
}

func mountAttrs() []mountAttr {
	const atime = sys.AttrAtimeSetting
	return []mountAttr{
		{"ro", sys.AttrReadOnly, 0},
		{"rw", 0, sys.AttrReadOnly},
		{"nosuid", sys.AttrNoSuid, 0},
		{"suid", 0, sys.AttrNoSuid},
		{"nodev", sys.AttrNoDev, 0},
		{"dev", 0, sys.AttrNoDev},
		{"noexec", sys.AttrNoExec, 0},
		{"exec", 0, sys.AttrNoExec},
		{"nodiratime", sys.AttrNoDirAtime, 0},
		{"diratime", 0, sys.AttrNoDirAtime},
		{"noatime", sys.AttrNoAtime, atime},
		{"atime", 0, atime},
		{"relatime", sys.AttrRelatime, atime},
		{"norelatime", 0, atime},
		{"strictatime", sys.AttrStrictAtime, atime},
		{"nostrictatime", 0, atime},
		{"nosymfollow", sys.AttrNoSymfollow, 0},
		{"symfollow", 0, sys.AttrNoSymfollow},
	}
}

// plainOptions are those that ask for nothing, or for the usual.
func plainOptions() []string {
	return []string{"defaults", "async", "nomand", "silent", "loud", "noiversion", "acl", "nolazytime"}
}

// fsFlags are those of the file system and not of the mount.
func fsFlags() []string { return []string{"sync", "dirsync", "mand", "lazytime"} }

func propagationNames() []string {
	return []string{"private", "slave", "shared", "unbindable"}
}

func propagation(name string) (kind uint64, err error) {
	kinds := []uint64{sys.PropagationPrivate, sys.PropagationSlave, sys.PropagationShared, sys.PropagationUnbindable}
	if i := slices.Index(propagationNames(), strings.TrimPrefix(name, "r")); i >= 0 {
		return kinds[i], nil
	}
	if name != "" {
		err = invalid("unknown propagation %q", name)
	}
	return 0, err
}

// parseOptions sorts the options of a mount. What it does not know is the file
// system's.
func parseOptions(m *specs.Mount) (mountOptions, error) {
	var o mountOptions
	for _, opt := range m.Options {
		if o.parseAttr(opt) {
			continue
		}
		kind, err := propagation(opt)
		switch {
		case err == nil && kind != 0 && strings.HasPrefix(opt, "r"):
			o.deep = append(o.deep, kind)
		case err == nil && kind != 0:
			o.propagation = append(o.propagation, kind)
		case opt == "bind":
			o.bind = true
		case opt == "rbind":
			o.bind, o.recursive = true, true
		case opt == "remount":
			o.remount = true
		case opt == "idmap":
			o.idmap = true
		case opt == "ridmap":
			o.ridmap = true
		case opt == "tmpcopyup":
			o.copyUp = true
		case opt == "" || slices.Contains(plainOptions(), opt):
		case slices.Contains(fsFlags(), opt):
			o.data = append(o.data, plan.Option{Key: opt})
		default:
			for part := range strings.SplitSeq(opt, ",") {
				key, value, _ := strings.Cut(part, "=")
				o.data = append(o.data, plan.Option{Key: key, Value: value})
			}
		}
	}
	if m.Type == "bind" {
		o.bind = true
	}
	switch {
	case o.remount:
		return o, errs.New(errs.Unsupported, "config.json: mount %s: remount is not supported", m.Destination)
	case o.copyUp && m.Type != "tmpfs":
		return o, invalid("mount %s: tmpcopyup is for a tmpfs", m.Destination)
	case (o.idmap || o.ridmap || len(m.UIDMappings) > 0) && !o.bind:
		return o, invalid("mount %s: ids are mapped of bind mounts only", m.Destination)
	}
	return o, nil
}

// parseAttr takes an attribute, which with an r before it is for all mounts
// below, too.
func (o *mountOptions) parseAttr(opt string) bool {
	for _, a := range mountAttrs() {
		switch opt {
		case a.name:
			o.set, o.clear = o.set&^a.clear|a.set, o.clear&^a.set|a.clear
			return true
		case "r" + a.name:
			o.rset, o.rclear = o.rset&^a.clear|a.set, o.rclear&^a.set|a.clear
			return true
		}
	}
	return false
}

// planMount turns one mount into the plan's. Of a bind mount it returns the
// tree: opened here, where every source can be reached and every attribute set,
// which the root of a user namespace perhaps cannot.
func (b *builder) planMount(m *specs.Mount) error {
	o, err := parseOptions(m)
	if err != nil {
		return err
	}
	out := plan.FSMount{Target: filepath.Clean("/" + m.Destination), Type: m.Type, Source: m.Source}
	if !o.bind {
		out.Attr, out.Options, out.Propagation, out.Deep, out.CopyUp = o.set|o.rset, o.data, o.propagation, o.deep, o.copyUp
		switch m.Type {
		case "":
			return invalid("mount %s: neither type nor bind", m.Destination)
		case "cgroup", "cgroup2":
			out.Type, out.Options = "cgroup", nil
			if err := b.openCgroups(&out); err != nil {
				return err
			}
		}
		b.plan.OCI.Mounts = append(b.plan.OCI.Mounts, out)
		return nil
	}
	tree, isDir, err := b.openTree(m, o)
	if err != nil {
		return errs.New(errs.Invalid, "mount %s: %w", m.Destination, err)
	}
	b.trees = append(b.trees, tree)
	out.Tree, out.IsFile, out.Type = len(b.trees), !isDir, ""
	if out.Target == "/dev" {
		b.plan.OCI.HostDev = true
	}
	b.plan.OCI.Mounts = append(b.plan.OCI.Mounts, out)
	return nil
}

// openTree makes the detached mount of a bind mount.
func (b *builder) openTree(m *specs.Mount, o mountOptions) (tree *os.File, isDir bool, err error) {
	source := m.Source
	if source == "" {
		return nil, false, errors.New("no source")
	}
	if !filepath.IsAbs(source) {
		source = filepath.Join(b.bundle, source)
	}
	if source, err = filepath.EvalSymlinks(source); err != nil {
		return nil, false, err
	}
	if tree, err = sys.CloneTree(nil, source, o.recursive); err != nil {
		return nil, false, err
	}
	fi, err := tree.Stat()
	if err == nil {
		err = b.dressTree(tree, m, o)
	}
	if err != nil {
		tree.Close()
		return nil, false, err
	}
	return tree, fi.IsDir(), nil
}

// dressTree sets what the options say. What is mounted in the container reaches
// the host only if both the mount and the container's root are shared.
func (b *builder) dressTree(tree *os.File, m *specs.Mount, o mountOptions) error {
	if kind, _ := propagation(b.spec.Linux.RootfsPropagation); kind != sys.PropagationShared {
		if err := sys.SetTreePropagation(tree, sys.PropagationSlave, true); err != nil {
			return err
		}
	}
	for _, kind := range o.propagation {
		if err := sys.SetTreePropagation(tree, kind, false); err != nil {
			return err
		}
	}
	for _, kind := range o.deep {
		if err := sys.SetTreePropagation(tree, kind, true); err != nil {
			return err
		}
	}
	if o.set|o.clear != 0 {
		if err := sys.SetMountAttr(tree, "", o.set, o.clear, false); err != nil {
			return err
		}
	}
	if o.rset|o.rclear != 0 {
		if err := sys.SetMountAttr(tree, "", o.rset, o.rclear, true); err != nil {
			return err
		}
	}
	if !o.idmap && !o.ridmap && len(m.UIDMappings) == 0 {
		return nil
	}
	userns, err := b.mountUserNS(m)
	if err != nil {
		return err
	}
	defer userns.Close()
	return sys.MapTree(tree, userns, o.ridmap)
}

// mountUserNS returns a user namespace with the mount's mappings or, without
// any, the container's.
func (b *builder) mountUserNS(m *specs.Mount) (*os.File, error) {
	uids, gids := m.UIDMappings, m.GIDMappings
	if len(uids) == 0 {
		uids, gids = b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings
	}
	if len(uids) == 0 {
		return nil, errors.New("its ids are to be mapped as the container's, which has no user namespace")
	}
	return b.userNS(uids, gids)
}

// openCgroups takes the container's part of each hierarchy, where it has no
// namespace that would show no more than that.
func (b *builder) openCgroups(m *plan.FSMount) error {
	if b.plan.OCI.NewCgroupNS {
		return nil
	}
	for _, dir := range b.group.Dirs() {
		tree, err := sys.CloneTree(nil, dir, false)
		if err != nil {
			return err
		}
		b.trees = append(b.trees, tree)
		m.Cgroups = append(m.Cgroups, len(b.trees))
		if err := sys.MakePrivate(tree); err != nil {
			return err
		}
		if err := sys.SetMountAttr(tree, "", m.Attr, 0, false); err != nil {
			return err
		}
	}
	return nil
}
