package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"tug/errs"
	"tug/spec"
)

// What a list of tags may have: large repositories hold some ten thousand.
const (
	maxTags     = 100_000
	maxTagPages = 1_000
	maxTagBytes = 4 << 20 // of one page
)

// Tags lists the tags of ref's repository, sorted, following the pages that the
// registry makes of them.
func (c *Client) Tags(ctx context.Context, ref spec.Reference) ([]string, error) {
	var tags []string
	err := c.pull(ctx, ref, func(s *session) error {
		tags = nil
		next := "tags/list?n=1000"
		seen := map[string]bool{}
		for next != "" {
			if seen[next] || len(seen) == maxTagPages {
				return errs.New(errs.Unavailable, "%s: the list of tags does not end", ref.FamiliarName()).WithHint("pull the tags you want by name")
			}
			seen[next] = true
			page, after, err := s.tagPage(ctx, next)
			if err != nil {
				return err
			}
			if tags = append(tags, page...); len(tags) > maxTags {
				return errs.New(errs.Unavailable, "%s has more than %d tags", ref.FamiliarName(), maxTags).WithHint("pull the tags you want by name")
			}
			next = after
		}
		return nil
	})
	slices.Sort(tags)
	return slices.Compact(tags), err
}

// tagPage fetches one page, at path below the repository, and returns where the
// next one is.
func (s *session) tagPage(ctx context.Context, path string) (tags []string, next string, err error) {
	req, err := s.request(ctx, http.MethodGet, path, maxTagBytes)
	if err != nil {
		return nil, "", err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", readStatus(resp, "tags")
	}
	b, err := io.ReadAll(resp.Body)
	if errors.Is(err, errBomb) {
		return nil, "", errs.New(errs.Unavailable, "%s: a page of tags is larger than %d MiB", s.ref.FamiliarName(), maxTagBytes>>20)
	}
	if err != nil {
		return nil, "", err
	}
	var page struct{ Tags []string }
	if err := json.Unmarshal(b, &page); err != nil {
		return nil, "", errs.New(errs.Unavailable, "%s: the registry answered with something that is no list of tags (%.80q)", s.ref.FamiliarName(), resp.Header.Get("Content-Type"))
	}
	for _, t := range page.Tags {
		if !spec.IsTag(t) {
			return nil, "", errs.New(errs.Corrupt, "%s: the registry lists %.80q, which is no tag", s.ref.FamiliarName(), t)
		}
	}
	next, err = s.nextPage(resp)
	return page.Tags, next, err
}

// nextPage reads where the Link header says that the next page is. It must stay
// with the repository's tags.
func (s *session) nextPage(resp *http.Response) (string, error) {
	target, ok := nextLink(resp.Header)
	if !ok {
		return "", nil
	}
	base, err := url.Parse(s.url + "tags/list")
	if err != nil {
		return "", err
	}
	u, err := base.Parse(target)
	if err != nil || originOf(u) != originOf(base) || u.Path != base.Path || !isQuery(u.RawQuery) {
		return "", errs.New(errs.Denied, "%s: refused to follow the list of tags to %.120q", s.ref.FamiliarName(), target)
	}
	return "tags/list?" + u.RawQuery, nil
}

// isQuery reports whether s goes into a request's first line as it is.
func isQuery(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// nextLink returns the target of the first link to a next page (RFC 8288):
// <URL>; rel="next". A comma may be in the URL, too. Behind what it does not
// understand it goes on at the next one.
func nextLink(h http.Header) (target string, ok bool) {
	for _, s := range h.Values("Link") {
		for more := true; more; _, s, more = strings.Cut(s, ",") {
			var rel string
			target, rel, s = cutLink(strings.TrimLeft(s, " \t"))
			if slices.Contains(strings.Fields(strings.ToLower(rel)), "next") {
				return target, true
			}
		}
	}
	return "", false
}

// cutLink splits s behind the link it begins with. Of several rel, the first
// counts.
func cutLink(s string) (target, rel, rest string) {
	target, rest, _ = strings.Cut(s, ">")
	target, ok := strings.CutPrefix(target, "<")
	if !ok {
		return "", "", s
	}
	for {
		param, more := strings.CutPrefix(strings.TrimLeft(rest, " \t"), ";")
		if !more {
			return target, rel, rest
		}
		name, after := cutToken(strings.TrimLeft(param, " \t"))
		rest = after
		value, ok := strings.CutPrefix(strings.TrimLeft(after, " \t"), "=")
		if !ok {
			continue
		}
		if value, rest, ok = cutValue(strings.TrimLeft(value, " \t")); !ok {
			return target, rel, ""
		}
		if rel == "" && strings.EqualFold(name, "rel") {
			rel = value
		}
	}
}
