package registry

import (
	"bytes"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2/unstable"

	"tug/errs"
	"tug/spec"
)

// quoted is s as a quoted string of a header.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// What is understood of any header says the same when it is written out and
// read again, and a challenge is read as it is written whatever its values are.
func FuzzChallenge(f *testing.F) {
	for _, s := range []string{
		``, `Basic`, `Bearer realm="a b",service=s`, `BEARER Realm = "a\"b\\" , x=""`, `Negotiate abc==, Basic realm="d"`,
		`Bearer realm="a,b=c", Basic realm="d"`, `Bearer realm="one",realm="two"`, `Bearer realm="never ends`, `Bearer realm="ends in \`, `realm="x"`,
	} {
		f.Add(s, "https://a.example/token?x=\"y\"", `s\`)
	}
	f.Fuzz(func(t *testing.T, header, realm, service string) {
		all := parseChallenges(header)
		var again []string
		for _, ch := range all {
			if token, rest := cutToken(ch.scheme); token == "" || rest != "" || strings.ToLower(token) != token {
				t.Fatalf("scheme %q", ch.scheme)
			}
			var params []string
			for _, name := range slices.Sorted(maps.Keys(ch.params)) {
				if token, rest := cutToken(name); token == "" || rest != "" || strings.ToLower(token) != token {
					t.Fatalf("parameter %q", name)
				}
				params = append(params, name+"="+quoted(ch.params[name]))
			}
			again = append(again, ch.scheme+" "+strings.Join(params, ", "))
		}
		if text := strings.Join(again, ", "); len(text) <= maxChallenge {
			if diff := cmp.Diff(all, parseChallenges(text), cmp.AllowUnexported(challenge{})); diff != "" {
				t.Fatalf("%q, again as %q: %s", header, text, diff)
			}
		}
		text := "Basic realm=x, Bearer service=" + quoted(service) + " , realm=" + quoted(realm)
		if realm == "" || len(text) > maxChallenge {
			return
		}
		ch := pickChallenge(http.Header{"Www-Authenticate": {text}})
		if ch == nil || ch.scheme != "bearer" || ch.params["realm"] != realm || ch.params["service"] != service {
			t.Fatalf("%q was read as %v", text, ch)
		}
	})
}

// Whatever a Link header says, the next page is one of the same repository; and
// a link that is written by the rules is found.
func FuzzNextPage(f *testing.F) {
	for _, s := range []string{
		``, `</v2/x/y/tags/list?n=2&last=b>; rel="next"`, `<?last=b>;rel=next`, `<list?last=b>; title="x"; rel="next", </v2/>; rel="prev"`,
		`<http://r.example/v2/x/y/tags/list>; rel=next`, `<//other.example/v2/x/y/tags/list>; rel=next`, `<https://u:p@r.example/v2/x/y/tags/list?a>; rel=next`,
		`<../../z/tags/list?a b>; rel="next"`, `<%2e%2e/list>; rel="last NEXT"`, `<x>; a*=UTF-8''x; rel="up" "next", <?x,y>; rel=next`, `<`, `<>;;;=;rel="next`,
	} {
		f.Add(s, "n=1&last=a,b;c", `a "title", <x>; rel="next"`)
	}
	ref, err := spec.ParseReference("r.example/x/y")
	if err != nil {
		f.Fatal(err)
	}
	s := &session{ref: ref, url: "https://r.example/v2/x/y/"}
	f.Fuzz(func(t *testing.T, link, query, title string) {
		next, err := s.nextPage(&http.Response{Header: http.Header{"Link": {link}}})
		switch {
		case err != nil:
			checkLine(t, err, errs.Denied)
		case next != "":
			u, err := url.Parse(s.url + next)
			if err != nil || u.Scheme != "https" || u.Host != "r.example" || u.User != nil || u.Path != "/v2/x/y/tags/list" || u.Fragment != "" {
				t.Fatalf("%q leads to %q, %v", link, next, err)
			}
			if strings.ContainsFunc(u.RequestURI(), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				t.Fatalf("%q makes the request %q", link, u.RequestURI())
			}
		}
		if !isQuery(query) || strings.ContainsAny(query, ">#") {
			return
		}
		link = "</v2/>; rel=prev, <list?" + query + ">; title=" + quoted(title) + `; rel="last next"; rel=up`
		if next, err := s.nextPage(&http.Response{Header: http.Header{"Link": {link}}}); err != nil || next != "tags/list?"+query {
			t.Fatalf("%q leads to %q, %v", link, next, err)
		}
	})
}

// checkLine fails for an error that is not of one of these classes, or is not
// one line that a terminal shows as it is.
func checkLine(t *testing.T, err error, classes ...errs.Class) {
	t.Helper()
	text := err.Error() + errs.HintOf(err)
	if !slices.Contains(classes, errs.ClassOf(err)) || err.Error() == "" || oneLine(text) != text && len(text) < 300 || strings.ContainsAny(text, "\n\r\x1b") {
		t.Fatalf("%v: %q", errs.ClassOf(err), text)
	}
}

// A registries file is read or refused in one line. Adding a mirror only adds,
// removing it again leaves what was there: all keys, and all comments.
func FuzzRegistries(f *testing.F) {
	for _, s := range []string{
		"", "# c", "certs = \"/x\" # Docker's\n\n", "[registry.\"r.x\"] # it\n", "[registry.\"r.x\"] # it\ninsecure = true\n", "[registry.\"r.x\"]",
		"[registry.\"r.x\"]\nmirrors = ['https://a.x'] # mine\nca = '/x'\n", "[registry.\"r.x\"]\nmirrors = [] # none\n", "[registry.\"r.x\"]\nmirrors = [\n # none\n]\n",
		"[registry.\"r.x\"]\nmirrors = [\n  \"https://a.x\", # near ] \"far\n  \"https://b.x\" # far\n]\n", "registry.\"r.x\".mirrors = [ \"https://a.x\" ]\n",
		"registry = {\"r.x\" = {mirrors = [\"https://a.x\"]}}\n", "[registry]\nr.x.insecure=true\n", "[registry.\"r.x\"]\nmirrors = [\"\"\"https://a.x\"\"\"]", "[", "[registry.\"a\\u001bb\"]",
		"[registry.\"R.x\"]\r\nmirrors = [\r\n\"https://a.x\"\r\n, # c\r\n]\r\n[registry.\"s.x\"]\r\ncert = '/c'\r\nkey = '/k'\r\n", "registry.localhost.mirrors = [[[\"https://a.x\"]]]",
		"[registry.\"10.0.0.0/8\"] # lab\ninsecure = true\n[registry.\"fd00::/8\"]\ninsecure = false\n",
	} {
		f.Add([]byte(s), "r.x", "https://m.x/p")
		f.Add([]byte(s), "index.docker.io", "http://a.x")
	}
	f.Fuzz(func(t *testing.T, text []byte, registry, mirror string) {
		c, err := parseConfig("f", text)
		if err != nil {
			checkLine(t, err, errs.Invalid)
			return
		}
		host, err := registryHost(registry)
		if err != nil {
			checkLine(t, err, errs.Invalid)
			return
		}
		if _, err := parseMirror(mirror); err != nil {
			checkLine(t, err, errs.Invalid)
			return
		}
		if slices.Contains(c.Registry[host].Mirrors, mirror) {
			return
		}
		added, err := edited("f", text, host, adding(mirror))
		if err != nil {
			checkLine(t, err, errs.Unsupported, errs.Invalid)
			return
		}
		if !isWithin(text, added) {
			t.Fatalf("%q became %q", text, added)
		}
		if diff := cmp.Diff(comments(text), comments(added)); diff != "" {
			t.Fatalf("%q: comments of %q: %s", text, added, diff)
		}
		n, err := parseConfig("f", added)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, added, err)
		}
		want := keysOf(c)
		k := want.Registry[host]
		k.Mirrors = append(slices.Clone(k.Mirrors), mirror)
		want.Registry[host] = k
		if diff := cmp.Diff(want, keysOf(n)); diff != "" || !slices.Equal(c.networks, n.networks) {
			t.Fatalf("%q became %q: %s", text, added, diff)
		}
		removed, err := edited("f", added, host, removing(host, mirror))
		if err != nil {
			t.Fatalf("%q became %q: %v", text, added, err)
		}
		if n, err = parseConfig("f", removed); err != nil {
			t.Fatalf("%q became %q and %q: %v", text, added, removed, err)
		}
		if diff := cmp.Diff(keysOf(c), keysOf(n)); diff != "" || !slices.Equal(c.networks, n.networks) {
			t.Fatalf("%q became %q and %q: %s", text, added, removed, diff)
		}
		if diff := cmp.Diff(comments(text), comments(removed)); diff != "" {
			t.Fatalf("%q became %q and %q: comments: %s", text, added, removed, diff)
		}
	})
}

// keysOf is what c says; a list or a table that has nothing says nothing.
func keysOf(c *config) fileKeys {
	k := fileKeys{Certs: c.Certs, Registry: map[string]registryKeys{}}
	for host, r := range c.Registry {
		if len(r.Mirrors) == 0 {
			r.Mirrors = nil
		}
		if !cmp.Equal(r, registryKeys{}) {
			k.Registry[host] = r
		}
	}
	return k
}

// isWithin reports whether all of a is in b, in its order.
func isWithin(a, b []byte) bool {
	for _, c := range a {
		i := bytes.IndexByte(b, c)
		if i < 0 {
			return false
		}
		b = b[i+1:]
	}
	return true
}

// comments lists a TOML text's comments.
func comments(text []byte) (all []string) {
	p := unstable.Parser{KeepComments: true}
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		all = append(all, commentsIn(e)...)
	}
	return all
}

func commentsIn(n *unstable.Node) (all []string) {
	for ; n != nil && n.Valid(); n = n.Next() {
		if n.Kind == unstable.Comment {
			all = append(all, string(n.Data))
		}
		all = append(all, commentsIn(n.Child())...)
	}
	return all
}
