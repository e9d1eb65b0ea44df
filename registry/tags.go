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

// nextPage reads the Link header (RFC 8288): <URL>; rel="next". It must stay
// with the repository's tags.
func (s *session) nextPage(resp *http.Response) (string, error) {
	for link := range strings.SplitSeq(strings.Join(resp.Header.Values("Link"), ","), ",") {
		target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
		if rel := strings.ToLower(strings.ReplaceAll(params, " ", "")); !ok || !strings.HasPrefix(target, "<") ||
			!strings.Contains(rel, `;rel="next"`) && !strings.HasSuffix(rel, ";rel=next") {
			continue
		}
		base, err := url.Parse(s.url + "tags/list")
		if err != nil {
			return "", err
		}
		u, err := base.Parse(target[1:])
		if err != nil || originOf(u) != originOf(base) || u.Path != base.Path {
			return "", errs.New(errs.Denied, "%s: refused to follow the list of tags to %.120q", s.ref.FamiliarName(), target[1:])
		}
		return "tags/list?" + u.RawQuery, nil
	}
	return "", nil
}
