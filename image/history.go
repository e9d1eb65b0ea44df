package image

import (
	"time"

	"tug/spec"
)

// Step is one row of an image's history.
type Step struct {
	ID        spec.Digest // the image after this step; empty where that is not in the store
	Created   time.Time
	CreatedBy string
	Comment   string
	Layer     spec.Digest // diffID of the layer that it made; empty for none
	Size      int64       // of the files in that layer; -1: not known
	Tags      []string
}

// History returns how img came about, the last step first. Layers that its
// config says nothing about are there as steps without words, so that the
// sizes are those of the image.
func (s *Images) History(img *Image) []Step {
	layers := img.Layers()
	var steps []Step
	made := func(step Step) {
		if len(layers) > 0 {
			step.Layer, layers = layers[0], layers[1:]
			step.Size = -1
			if info, err := s.layers.Info(step.Layer); err == nil {
				step.Size = info.Content
			}
		}
		steps = append([]Step{step}, steps...)
	}
	for _, h := range img.Config.History {
		step := Step{CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			step.Created = *h.Created
		}
		if h.EmptyLayer {
			steps = append([]Step{step}, steps...)
			continue
		}
		made(step)
	}
	for len(layers) > 0 {
		made(Step{})
	}
	if len(steps) > 0 {
		steps[0].ID, steps[0].Tags = img.ID, img.Names
	}
	return steps
}
