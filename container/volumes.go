package container

import (
	"errors"
	"io/fs"

	"tug/errs"
	"tug/spec"
	"tug/state"
	"tug/volume"
)

// VolumeUses tells which containers use which volumes: those that their
// config.json names, whether they run or not. One that cannot be read may use
// any, so it is an error.
func (c *Containers) VolumeUses() (map[string][]volume.Use, error) {
	ids, err := c.ids()
	if err != nil {
		return nil, err
	}
	uses := map[string][]volume.Use{}
	for _, id := range ids {
		var ctr struct {
			Mounts []struct{ Volume string }
		}
		err := state.ReadJSON(c.path(id, fileConfig), &ctr)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errs.New(errs.Corrupt, "container %s may use any volume, since its description cannot be read: %w", short(id), err).
				WithHint("see tug system check")
		}
		for _, m := range ctr.Mounts {
			if m.Volume == "" {
				continue
			}
			st, err := c.state(id)
			running := err != nil || st.Status == spec.StatusRunning // what is not known may be
			if have := uses[m.Volume]; len(have) == 0 || have[len(have)-1].Container != id {
				uses[m.Volume] = append(have, volume.Use{Container: id, Running: running})
			}
		}
	}
	return uses, nil
}
