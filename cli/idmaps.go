package cli

import (
	"fmt"
	"strings"

	"tug/spec"
)

// idMapsJSON are the ids of a container's user namespace, each range as
// inside:outside:size.
type idMapsJSON struct {
	UIDMap []string `json:"UidMap"`
	GIDMap []string `json:"GidMap"`
}

func toIDMapsJSON(ids *spec.IDMaps) *idMapsJSON {
	if ids == nil {
		return nil
	}
	list := func(all []spec.IDMap) []string {
		out := []string{}
		for _, m := range all {
			out = append(out, fmt.Sprintf("%d:%d:%d", m.Inside, m.Outside, m.Size))
		}
		return out
	}
	return &idMapsJSON{list(ids.UIDs), list(ids.GIDs)}
}

// idMapsText says the same in words: "0-65535 are the host's 100000-165535".
func idMapsText(ids *spec.IDMaps) string {
	list := func(all []spec.IDMap) string {
		var out []string
		for _, m := range all {
			out = append(out, fmt.Sprintf("%d-%d are the host's %d-%d", m.Inside, m.Inside+m.Size-1, m.Outside, m.Outside+m.Size-1))
		}
		return bounded(out, 3)
	}
	users, groups := list(ids.UIDs), list(ids.GIDs)
	if users == groups {
		return users
	}
	return strings.Join([]string{"users", users + ";", "groups", groups}, " ")
}
