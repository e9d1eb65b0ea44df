package image

import (
	"context"

	"tug/errs"
	"tug/spec"
)

// PullAll pulls every tag of ref's repository, one after the other. The first
// failure ends it; what was pulled stays. begin is called before each tag for
// what its progress is told to, and gives what is called after it, with nil
// when it failed. newer tells whether any name is new or points at another
// image now.
func (s *Images) PullAll(ctx context.Context, ref spec.Reference, o PullOptions, begin func(tag string) (Progress, func(*Pulled))) (newer bool, err error) {
	if ref.Tag != "" || ref.Digest != "" {
		return false, errs.New(errs.Invalid, "tag can't be used with --all-tags/-a")
	}
	tags, err := s.reg.Tags(ctx, ref)
	if err != nil {
		return false, err
	}
	if len(tags) == 0 {
		return false, errs.New(errs.NotFound, "%s has no tags", ref.FamiliarName())
	}
	for _, t := range tags {
		at := ref
		at.Tag = t
		progress, end := begin(t)
		o.Progress = progress
		p, err := s.Pull(ctx, at, o)
		end(p)
		if err != nil {
			return newer, err
		}
		newer = newer || p.Newer
	}
	return newer, nil
}
