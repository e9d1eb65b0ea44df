package container

import (
	"encoding/binary"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// A running container with a user namespace is looked into from outside of it,
// where its files have the host's ids; a tar has the container's. One that does
// not run is mounted without the ids being mapped.

// ids are those to translate, or nil.
func (r *Root) ids() *spec.IDMaps {
	if !r.running {
		return nil
	}
	return r.s.Host.IDs
}

// asRoot runs f so that what it makes in the container is its root's. Nobody
// else's there is that the file system could keep.
func (r *Root) asRoot(f func() error) error {
	ids := r.ids()
	if ids == nil {
		return f()
	}
	return sys.OnThread(func() error {
		if err := sys.MakeFilesAs(ids.Root()); err != nil {
			return err
		}
		return f()
	})
}

// toHost returns the host's ids of the container's.
func toHost(ids *spec.IDMaps, uid, gid uint32) (u, g uint32, err error) {
	if ids == nil {
		return uid, gid, nil
	}
	u, ok := spec.Outside(ids.UIDs, uid)
	g, also := spec.Outside(ids.GIDs, gid)
	if !ok || !also {
		return 0, 0, errs.New(errs.Invalid, "the owner %d:%d is beyond the IDs of the container's user namespace", uid, gid)
	}
	return u, g, nil
}

// Capabilities of files, as in linux/capability.h: revision 3 is 2 and the id of
// the root that they are for, revision 2 is for the host's.
const (
	fileCaps      = "security.capability"
	capsRevision2 = 0x02000000
	capsRevision3 = 0x03000000
	capsRevisions = 0xff000000
	capsSize2     = 20
	capsSize3     = 24
)

// capsToHost makes an attribute of the container's one of the host's.
func capsToHost(ids *spec.IDMaps, value string) string {
	root := uint32(0)
	switch {
	case ids == nil:
		return value
	case len(value) == capsSize3:
		root = binary.LittleEndian.Uint32([]byte(value[capsSize2:]))
	case len(value) != capsSize2:
		return value
	}
	uid, _ := spec.Outside(ids.UIDs, root)
	return withRevision(binary.LittleEndian.AppendUint32([]byte(value[:capsSize2]), uid), capsRevision3)
}

// capsToContainer is the other way round.
func capsToContainer(ids *spec.IDMaps, value string) string {
	if ids == nil || len(value) != capsSize3 {
		return value
	}
	root, ok := spec.Inside(ids.UIDs, binary.LittleEndian.Uint32([]byte(value[capsSize2:])))
	if ok && root == 0 {
		return withRevision([]byte(value[:capsSize2]), capsRevision2)
	}
	return withRevision(binary.LittleEndian.AppendUint32([]byte(value[:capsSize2]), root), capsRevision3)
}

func withRevision(value []byte, revision uint32) string {
	magic := binary.LittleEndian.Uint32(value)
	binary.LittleEndian.PutUint32(value, magic&^uint32(capsRevisions)|revision)
	return string(value)
}
