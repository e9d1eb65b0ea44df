package registry

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
)

func TestTags(t *testing.T) {
	noKeychain(t)
	all := []string{"a", "b", "c", "d", "e"}
	for _, form := range []string{`</v2/x/y/tags/list?n=2&last=%s>; rel="next"`, `<?last=%s>;rel=next`, `<list?last=%s>; title="x"; rel="next", </v2/>; rel="prev"`} {
		host := content(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/x/y/tags/list" {
				http.NotFound(w, r)
				return
			}
			i := slices.Index(all, r.URL.Query().Get("last")) + 1
			end := min(i+2, len(all))
			if end < len(all) {
				w.Header().Set("Link", fmt.Sprintf(form, all[end-1]))
			}
			fmt.Fprintf(w, `{"name":"x/y","tags":["%s"]}`, strings.Join(all[i:end], `","`))
		})
		got, err := testClient(Options{}).Tags(t.Context(), reference(t, host+"/x/y"))
		if diff := cmp.Diff(all, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", form, err, diff)
		}
	}
}

func TestHostileTags(t *testing.T) {
	noKeychain(t)
	elsewhere := &spy{}
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { elsewhere.note(r) })
	link := func(l string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+l+">; rel=\"next\"")
			io.WriteString(w, `{"tags":["a"]}`)
		}
	}
	var n atomic.Int32
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		class errs.Class
		words string
	}{
		"to another host":  {link("http://" + other + "/v2/a/tags/list"), errs.Denied, "refused to follow the list of tags"},
		"to another repo":  {link("/v2/b/tags/list"), errs.Denied, "refused to follow the list of tags"},
		"with credentials": {link("http://u:p@" + other), errs.Denied, "refused to follow the list of tags"},
		"no URL":           {link("http://%zz"), errs.Denied, "refused to follow the list of tags"},
		"in a circle":      {link("list?n=1000"), errs.Unavailable, "does not end"},
		"for ever": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", fmt.Sprintf("<list?last=%d>; rel=\"next\"", n.Add(1)))
			io.WriteString(w, `{"tags":[]}`)
		}, errs.Unavailable, "does not end"},
		"too many": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", fmt.Sprintf("<list?last=%d>; rel=\"next\"", n.Add(1)))
			io.WriteString(w, `{"tags":["a"`+strings.Repeat(`,"b"`, 30_000)+`]}`)
		}, errs.Unavailable, "more than 100000 tags"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
					return
				}
			}
		}, errs.Unavailable, "larger than 4 MiB"},
		"html":    {answer(200, "text/html", "<html>"), errs.Unavailable, "no list of tags (\"text/html\")"},
		"no tag":  {answer(200, "application/json", `{"tags":["../../etc"]}`), errs.Corrupt, "which is no tag"},
		"escape":  {answer(200, "application/json", `{"tags":["a\u001b[2J"]}`), errs.Corrupt, "which is no tag"},
		"unknown": {answer(404, "application/json", `{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}`), errs.NotFound, "repository"},
	} {
		t.Run(name, func(t *testing.T) {
			host := content(t, tc.serve)
			_, err := testClient(Options{}).Tags(t.Context(), reference(t, host+"/a"))
			wantError(t, err, tc.class, tc.words)
		})
	}
	elsewhere.check(t, false)
}

func TestSearch(t *testing.T) {
	noKeychain(t)
	n := newNet(t)
	var asked url.Values
	hub := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/search" {
			asked = r.URL.Query()
			io.WriteString(w, `{"num_results":2,"results":[{"name":"busybox","description":"small","star_count":7,"is_official":true},{"name":"x/y"}]}`)
		}
	}
	n.tls("index.docker.io:443", hub)
	n.plain("127.0.0.1:5000", hub)
	c := n.client(Options{RootCAs: n.pool()})
	want := []Found{{Name: "busybox", Description: "small", StarCount: 7, IsOfficial: true}, {Name: "x/y"}}
	for term, q := range map[string]string{"busybox": "busybox", "library/busybox": "busybox", "team/x": "team/x", "docker.io/x": "x", "127.0.0.1:5000/a b": "a b"} {
		got, err := c.Search(t.Context(), term, 0)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", term, err, diff)
		}
		if asked.Get("q") != q || asked.Get("n") != "25" {
			t.Errorf("%s asked for %v", term, asked)
		}
	}
	if got, err := c.Search(t.Context(), "x", 1); err != nil || len(got) != 1 || asked.Get("n") != "1" {
		t.Errorf("%v, %v, asked %v", got, err, asked)
	}
	for term, limit := range map[string]int{"x": 101, "y": -1, "http://x": 1, "": 1, "a.b/": 1, "a_.b/x": 1} {
		_, err := c.Search(t.Context(), term, limit)
		wantError(t, err, errs.Invalid)
	}
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		class errs.Class
		words string
	}{
		"cannot": {answer(404, "", ""), errs.Unsupported, "cannot be searched"},
		"html":   {answer(200, "text/html", "<html>"), errs.Unavailable, "no list of results"},
		"huge":   {answer(200, "", `{"results":[`+strings.Repeat(`{},`, 2<<20)), errs.Unavailable, "larger than 4 MiB"},
		"broken": {answer(500, "", ""), errs.Unavailable, "500"},
		"denied": {answer(401, "", ""), errs.Denied, "search on"},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, tc.serve)
			_, err := testClient(Options{}).Search(t.Context(), host+"/x", 0)
			wantError(t, err, tc.class, tc.words)
		})
	}
}
