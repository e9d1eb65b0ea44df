package spec

import (
	"strings"

	"tug/errs"
)

// Reference names an image: a repository, and in it a tag, a digest, both or
// neither. The rules, and the short "familiar" spelling, are exactly those of
// github.com/distribution/reference (grammar there in reference.go), which
// every Docker user's fingers know; that package is the oracle in the tests.
// It is not linked because it compiles 0.6 ms worth of regular expressions at
// every process start.
//
// Surprising: the first part of a name is a registry's domain only when it has
// a dot, a colon or an upper-case letter, or is "localhost"; and a first part
// that looks like a domain by those signs but is none, such as "a_b.c", is then
// part of the path and Domain is empty. No registry can be asked for that.
type Reference struct {
	Domain string // docker.io when none was written
	Path   string // on docker.io with library/ when it was a single word
	Tag    string
	Digest Digest
}

const (
	defaultDomain = "docker.io"
	legacyDomain  = "index.docker.io"
	officialRepo  = "library/"
	defaultTag    = "latest"
	maxNameLength = 255
	maxTagLength  = 128
)

// ParseReference parses what a user writes for an image, or the full form. It
// adds no tag; see WithDefaultTag.
func ParseReference(s string) (Reference, error) {
	if IsHex64(s) {
		return Reference{}, errs.New(errs.Invalid, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	domain, rest := splitDomain(s)
	repo, _, _ := strings.Cut(rest, ":")
	if strings.ToLower(repo) != repo {
		repo, _, _ = strings.Cut(repo, "@")
		return Reference{}, errs.New(errs.Invalid, "invalid reference format: repository name (%s) must be lowercase", repo)
	}
	var r Reference
	if isDomain(domain) {
		r.Domain = domain
	} else {
		rest = domain + "/" + rest
	}
	name := rest
	if i := strings.IndexAny(rest, ":@"); i >= 0 {
		name, rest = rest[:i], rest[i:]
	} else {
		rest = ""
	}
	if !isPath(name) {
		return Reference{}, badReference(s)
	}
	r.Path = name
	return r, r.parseSuffix(s, rest)
}

// parseSuffix parses rest, "[:tag][@digest]", of s into r.
func (r *Reference) parseSuffix(s, rest string) error {
	rest, digest, hasDigest := strings.Cut(rest, "@")
	if rest != "" {
		r.Tag = rest[1:]
		if rest[0] != ':' || !IsTag(r.Tag) {
			return badReference(s)
		}
	}
	if len(r.Path) > maxNameLength {
		return errs.New(errs.Invalid, "invalid reference format: repository name must not be more than %d characters", maxNameLength)
	}
	if !hasDigest {
		return nil
	}
	d, err := ParseDigest(digest)
	if err != nil {
		return errs.New(errs.ClassOf(err), "invalid reference format: %w", err)
	}
	r.Digest = d
	return nil
}

func badReference(s string) error {
	return errs.New(errs.Invalid, "invalid reference format: %q", s).
		WithHint("write [REGISTRY/]NAME[:TAG|@DIGEST], for example busybox:1.36 or localhost:5000/team/app")
}

// ParseDockerReference is ParseReference for those who need exactly one of tag
// and digest: the tag latest is added to a bare name, and dropped where there
// is a digest.
func ParseDockerReference(s string) (Reference, error) {
	r, err := ParseReference(s)
	if r.Digest != "" {
		r.Tag = ""
	}
	return r.WithDefaultTag(), err
}

// WithDefaultTag returns r with the tag latest if it has neither tag nor digest.
func (r Reference) WithDefaultTag() Reference {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = defaultTag
	}
	return r
}

// Name returns the full name of the repository.
func (r Reference) Name() string {
	if r.Domain == "" {
		return r.Path
	}
	return r.Domain + "/" + r.Path
}

// FamiliarName returns the short name of the repository, as Docker shows it.
func (r Reference) FamiliarName() string {
	if r.Domain != defaultDomain {
		return r.Name()
	}
	if rest, ok := strings.CutPrefix(r.Path, officialRepo); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.Path
}

// String returns the full form, Familiar the short one. Both parse to r again.
func (r Reference) String() string   { return r.Name() + r.suffix() }
func (r Reference) Familiar() string { return r.FamiliarName() + r.suffix() }

func (r Reference) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// splitDomain splits s at its first slash if what is before looks like a
// domain, and puts Docker Hub's in otherwise.
func splitDomain(s string) (domain, rest string) {
	first, rest, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return defaultDomain, officialRepo + s
	case first == legacyDomain:
		domain = defaultDomain
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		domain = first
	default:
		domain, rest = defaultDomain, s
	}
	if domain == defaultDomain && !strings.Contains(rest, "/") {
		rest = officialRepo + rest
	}
	return domain, rest
}

func isDomain(s string) bool {
	var host, port string
	var hasPort bool
	if strings.HasPrefix(s, "[") {
		addr, after, ok := strings.Cut(s[1:], "]")
		if !ok || addr == "" || !all(addr, func(c byte) bool { return isHexDigit(c) || c == ':' }) {
			return false
		}
		if host, port, hasPort = strings.Cut(after, ":"); host != "" {
			return false
		}
	} else {
		host, port, hasPort = strings.Cut(s, ":")
		for label := range strings.SplitSeq(host, ".") {
			if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
				!all(label, func(c byte) bool { return isAlnum(c) || c == '-' }) {
				return false
			}
		}
	}
	return !hasPort || port != "" && all(port, isDigit)
}

// isPath reports whether s is one or more components separated by slashes.
func isPath(s string) bool {
	for c := range strings.SplitSeq(s, "/") {
		if !isPathComponent(c) {
			return false
		}
	}
	return true
}

// isPathComponent reports whether s is runs of lower-case letters and digits
// with one of ".", "_", "__" or any number of "-" between two of them.
func isPathComponent(s string) bool {
	for {
		n := span(s, isLowerAlnum)
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		switch {
		case s[0] == '-':
			n = span(s, func(c byte) bool { return c == '-' })
		case strings.HasPrefix(s, "__"):
			n = 2
		case s[0] == '_' || s[0] == '.':
			n = 1
		default:
			return false
		}
		s = s[n:]
	}
}

// IsTag reports whether s can be a tag.
func IsTag(s string) bool {
	return s != "" && len(s) <= maxTagLength && (isAlnum(s[0]) || s[0] == '_') &&
		all(s, func(c byte) bool { return isAlnum(c) || c == '_' || c == '.' || c == '-' })
}

// IsDomain reports whether s can be a registry's HOST[:PORT], and IsPath
// whether it can be a repository's path on one.
func IsDomain(s string) bool { return isDomain(s) }
func IsPath(s string) bool   { return isPath(s) }

func span(s string, f func(byte) bool) int {
	for i := 0; i < len(s); i++ {
		if !f(s[i]) {
			return i
		}
	}
	return len(s)
}

func all(s string, f func(byte) bool) bool { return span(s, f) == len(s) }

func isDigit(c byte) bool      { return c >= '0' && c <= '9' }
func isLowerAlnum(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'z' }
func isAlnum(c byte) bool      { return isLowerAlnum(c) || c >= 'A' && c <= 'Z' }
func isHexDigit(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
