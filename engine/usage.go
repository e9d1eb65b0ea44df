package engine

import (
	"context"
	"strconv"

	"tug/container"
	"tug/errs"
	"tug/event"
	"tug/image"
	"tug/spec"
	"tug/volume"
)

// Usage is what the store takes on the disk.
type Usage struct {
	Images     image.Total
	Containers []*container.Summary // with their SizeRw
	Volumes    []VolumeUsage
}

// VolumeUsage is one volume.
type VolumeUsage struct {
	*volume.Volume
	Links int   // containers that use it
	Size  int64 // with its snapshots
	Kept  bool  // nobody uses it, but it has snapshots, so no prune removes it
}

// Usage adds up the sizes of everything in the store. It costs a few reads per
// object; of writable layers those of running containers are walked, and those
// of others if they were not since they ended. Volumes are walked, since anybody
// may write into them.
func (e *Engine) Usage() (*Usage, error) {
	var u Usage
	var err error
	if u.Images, err = e.Images.Total(); err != nil {
		return nil, err
	}
	if u.Containers, err = e.Containers.List(); err != nil {
		return nil, err
	}
	for _, c := range u.Containers {
		if c.SizeRw, err = e.Containers.SizeRw(c); err != nil {
			return nil, err
		}
	}
	u.Volumes, err = e.volumeUsage()
	return &u, err
}

func (e *Engine) volumeUsage() ([]VolumeUsage, error) {
	list, _, err := e.Volumes.List()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	uses, err := e.Containers.VolumeUses()
	if err != nil {
		return nil, err
	}
	all := make([]VolumeUsage, 0, len(list))
	for _, vol := range list {
		data, more, snapshots, err := e.Volumes.Size(vol.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, VolumeUsage{vol, len(uses[vol.Name]), data + more, snapshots > 0})
	}
	return all, nil
}

// PruneContainers removes the containers that do not run and that match (nil:
// all), or only tells which. It returns their IDs and what they had written. One
// that is started meanwhile stays. On error what was removed so far is returned,
// too.
func (e *Engine) PruneContainers(ctx context.Context, match func(*container.Summary) bool, dryRun bool) (ids []string, space int64, err error) {
	list, err := e.Containers.List()
	if err != nil {
		return nil, 0, err
	}
	for _, c := range list {
		switch c.State.Status {
		case spec.StatusCreated, spec.StatusExited, spec.StatusDead:
		default:
			continue
		}
		if match != nil && !match(c) {
			continue
		}
		size, err := e.Containers.SizeRw(c)
		if err == nil && !dryRun {
			err = e.Containers.Remove(ctx, c.ID, false, false)
		}
		if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return ids, space, err
		}
		ids, space = append(ids, c.ID), space+size
	}
	if !dryRun {
		e.Events.Add(event.Event{Type: event.Container, Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatInt(space, 10)}})
	}
	return ids, space, nil
}
