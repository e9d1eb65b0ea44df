package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"tug/errs"
	"tug/spec"
)

// Found is one repository that a search found.
type Found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	StarCount   int    `json:"star_count"`
	IsOfficial  bool   `json:"is_official"`
	IsAutomated bool   `json:"is_automated"`
}

// Limits of a search, Docker's.
const (
	defaultFound = 25
	maxFound     = 100
)

// Search looks for term: on Docker Hub, or for HOST/TERM on that host, by the
// one search interface that registries have (/v1/search). limit 0 is 25.
func (c *Client) Search(ctx context.Context, term string, limit int) ([]Found, error) {
	if limit == 0 {
		limit = defaultFound
	}
	if limit < 1 || limit > maxFound {
		return nil, errs.New(errs.Invalid, "limit %d is outside the range of [1, %d]", limit, maxFound)
	}
	if strings.Contains(term, "://") {
		return nil, errs.New(errs.Invalid, "invalid search term %.80q: it must not have a scheme", term)
	}
	host, rest := "docker.io", term
	if first, after, ok := strings.Cut(term, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		host, rest = canonicalHost(first), after
	}
	if !spec.IsDomain(host) || rest == "" {
		return nil, errs.New(errs.Invalid, "invalid search term %.80q", term).WithHint("give a word, or HOST/WORD to search another registry")
	}
	if host == "docker.io" {
		rest = strings.TrimPrefix(rest, "library/")
	}
	found, err := c.search(ctx, host, rest, limit)
	if err != nil {
		return nil, hostFailure(host, "search on", err)
	}
	return found[:min(len(found), limit)], nil
}

func (c *Client) search(ctx context.Context, host, term string, limit int) ([]Found, error) {
	all, err := c.endpoints(host)
	if err != nil {
		return nil, err
	}
	e := all[len(all)-1]
	if host == "docker.io" {
		e = &endpoint{host: "index.docker.io"}
	}
	var cred Credentials
	if !c.options.Anonymous {
		if cred, err = findCredentials(ctx, host, ""); err != nil {
			return nil, err
		}
	}
	// A password is sent when it is asked for: Docker Hub answers everybody.
	a, err := c.pingAt(ctx, e, cred, "/v1/_ping", func(status int) bool { return status != http.StatusUnauthorized && status < 500 })
	if err != nil {
		return nil, err
	}
	a.scopes = []string{"registry:catalog:search"}
	client := &http.Client{Transport: a, CheckRedirect: c.redirectPolicy(e)}
	q := url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}
	var found []Found
	err = c.retry(ctx, func() error {
		req, err := http.NewRequestWithContext(context.WithValue(e.own(ctx), limitKey{}, int64(maxTagBytes)), http.MethodGet, a.origin+"/v1/search?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		found, err = readFound(client, req, host)
		return err
	})
	return found, err
}

func readFound(client *http.Client, req *http.Request, host string) ([]Found, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, errs.New(errs.Unsupported, "%s cannot be searched: it has no /v1/search", host)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, readStatus(resp, "search")
	}
	b, err := io.ReadAll(resp.Body)
	if errors.Is(err, errBomb) {
		return nil, errs.New(errs.Unavailable, "search on %s: the answer is larger than %d MiB", host, maxTagBytes>>20)
	}
	if err != nil {
		return nil, err
	}
	var answer struct{ Results []Found }
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, errs.New(errs.Unavailable, "search on %s: the answer is no list of results (%.80q)", host, resp.Header.Get("Content-Type"))
	}
	return answer.Results, nil
}
