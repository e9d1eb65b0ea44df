package spec

import (
	"math"
	"slices"
)

// IDMap maps Size ids of a user namespace, from Inside on, to the host's from
// Outside on.
type IDMap struct{ Inside, Outside, Size uint32 }

// IDMaps are the ids of a container in a user namespace of its own.
type IDMaps struct {
	UIDs, GIDs []IDMap
}

// Root returns the host's ids for the container's root.
func (m *IDMaps) Root() (uid, gid uint32) {
	uid, _ = Outside(m.UIDs, 0)
	gid, _ = Outside(m.GIDs, 0)
	return uid, gid
}

// Equal reports whether both are the same; nil is none.
func (m *IDMaps) Equal(o *IDMaps) bool {
	if m == nil || o == nil {
		return m == o
	}
	return slices.Equal(m.UIDs, o.UIDs) && slices.Equal(m.GIDs, o.GIDs)
}

// NoID is what an id is shown as that is not mapped: the kernel's nobody.
const NoID = 65534

// Outside returns the host's number of a container's id; NoID and false when it
// is not mapped.
func Outside(all []IDMap, id uint32) (uint32, bool) {
	for _, m := range all {
		if id >= m.Inside && id-m.Inside < m.Size {
			return m.Outside + (id - m.Inside), true
		}
	}
	return NoID, false
}

// Inside is the other way round.
func Inside(all []IDMap, id uint32) (uint32, bool) {
	for _, m := range all {
		if id >= m.Outside && id-m.Outside < m.Size {
			return m.Inside + (id - m.Outside), true
		}
	}
	return NoID, false
}

// IDRange is Count ids of the host from First on.
type IDRange struct{ First, Count uint32 }

// Overlaps reports whether an id of the host is in both.
func (r IDRange) Overlaps(o IDRange) bool {
	return uint64(r.First) < uint64(o.First)+uint64(o.Count) && uint64(o.First) < uint64(r.First)+uint64(r.Count)
}

// MapRanges maps a container's ids from 0 on to those of ranges, one after the
// other.
func MapRanges(ranges []IDRange) []IDMap {
	var out []IDMap
	at := uint32(0)
	for _, r := range ranges {
		n := min(r.Count, math.MaxUint32-at)
		if n == 0 {
			break
		}
		out = append(out, IDMap{Inside: at, Outside: r.First, Size: n})
		at += n
	}
	return out
}
