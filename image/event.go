package image

import (
	"maps"
	"strconv"

	"tug/event"
	"tug/spec"
)

// did records that this command did action to an image, as Docker does: id is
// its ID, or the name that it went over the net with, and name what Docker
// calls it then.
func (s *Images) did(action, id, name string, labels map[string]string) {
	if s.Events == nil {
		return
	}
	attributes := maps.Clone(labels)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["name"] = name
	s.Events.Add(event.Event{Type: event.Image, Action: action, ID: id, Attributes: attributes})
}

// didID is did of what has an ID only.
func (s *Images) didID(action string, id spec.Digest, name string) {
	var labels map[string]string
	if img, err := s.byID(id); err == nil {
		labels = img.Config.Config.Labels
	}
	s.did(action, string(id), name, labels)
}

// untagged and deleted record the parts of a removal.
func (s *Images) untagged(id spec.Digest) { s.did("untag", string(id), string(id), nil) }
func (s *Images) deleted(id spec.Digest)  { s.did("delete", string(id), string(id), nil) }

// pruned records a prune and how many bytes it freed.
func (s *Images) pruned(space int64) {
	s.Events.Add(event.Event{Type: event.Image, Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatInt(space, 10)}})
}
