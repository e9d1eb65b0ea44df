// Package build makes images from Dockerfiles. So far it knows what belongs to
// a build's context: the rest of `tug build` stands on that.
package build

import (
	"io"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"tug/errs"
)

// Bounds of a .dockerignore file: it may come with a context from elsewhere.
const (
	maxIgnoreFile     = 1 << 20
	maxIgnorePatterns = 10_000
)

// Ignore tells which files of a context do not belong to it. The zero value
// ignores nothing.
type Ignore struct {
	matcher *patternmatcher.PatternMatcher
}

// ReadIgnore reads a .dockerignore file: one pattern a line, as
// path/filepath.Match has them, with ** for any number of directories and ! for
// exceptions; the last pattern that matches wins
// (https://docs.docker.com/build/concepts/context/#dockerignore-files).
// Errors are of class Invalid.
func ReadIgnore(r io.Reader) (*Ignore, error) {
	limited := &io.LimitedReader{R: r, N: maxIgnoreFile + 1}
	patterns, err := ignorefile.ReadAll(limited)
	switch {
	case limited.N <= 0:
		return nil, errs.New(errs.Invalid, ".dockerignore is larger than %d MiB", maxIgnoreFile>>20)
	case err != nil:
		return nil, errs.New(errs.Invalid, "read .dockerignore: %v", err)
	case len(patterns) > maxIgnorePatterns:
		return nil, errs.New(errs.Invalid, ".dockerignore has more than %d patterns", maxIgnorePatterns)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, errs.New(errs.Invalid, ".dockerignore: %v", err)
	}
	return &Ignore{m}, nil
}

// Ignored reports whether the file at path, relative to the context and with
// slashes, is left out. A file in a directory that is left out is, too, unless
// an exception brings it back. Errors are of class Invalid.
func (i *Ignore) Ignored(path string) (bool, error) {
	if i == nil || i.matcher == nil {
		return false, nil
	}
	ignored, err := i.matcher.MatchesOrParentMatches(path)
	if err != nil {
		return false, errs.New(errs.Invalid, ".dockerignore: %v", err)
	}
	return ignored, nil
}
