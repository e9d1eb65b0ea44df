package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
)

func TestConfigErrors(t *testing.T) {
	noKeychain(t)
	for text, words := range map[string]string{
		"[registry.\"a.b\"]\n\nmirror = []\n":                                 ":3: unknown key \"registry.a.b.mirror\"",
		"mirrors = []\n":                                                      ":1: unknown key \"mirrors\"",
		"\n[registry.\"a.b\"\n":                                               ":2: ",
		"[registry.\"a.b\"]\ninsecure = \"yes\"\n":                            ":2: ",
		"[registry.\"a.b\"]\ninsecure = true\ninsecure = true\n":              ":3: ",
		"[registry.\"a_b\"]\n":                                                ":1: registry.a_b: \"a_b\" is no registry's host name",
		"[registry.\"a.b/c\"]\n":                                              ":1: ",
		"[registry.\"a.b\"]\n[registry.\"A.B\"]\n":                            "is there twice",
		"[registry.\"a.b\"]\nmirrors = [\"ftp://x\"]\n":                       ":2: registry.a.b.mirrors: mirror \"ftp://x\" is not https://HOST",
		"[registry.\"a.b\"]\nmirrors = [\"https://u:p@x.y\"]\n":               "must not hold credentials",
		"[registry.\"a.b\"]\nmirrors = [\"https://x.y/?q\"]\n":                "is not https://HOST",
		"[registry.\"a.b\"]\nmirrors = [\"https://x.y/a/../b\"]\n":            "is not https://HOST",
		"[registry.\"a.b\"]\nmirrors = [\"x.y\"]\n":                           "is not https://HOST",
		"[registry.\"a.b\"]\n\n\nca = \"rel.pem\"\n":                          ":4: registry.a.b.ca: \"rel.pem\" is no absolute path",
		"[registry.\"a.b\"]\ncert = \"/x\"\n":                                 ":1: registry.a.b: cert and key belong together",
		"certs = \"here\"\n":                                                  ":1: certs: ",
		"[registry.\"127.0.0.1:1\"]\n\nca = \"/nowhere/ca.pem\"\n":            ":3: registry.127.0.0.1:1.ca: stat /nowhere/ca.pem: no such file",
		"x = \"\x1b[31m\"":                                                    ":1: ",
		"[registry.\"a.b\"]\nmirrors = [\"https://x.y/\x07\"]\n":              ":2: ",
		"[registry]\n\"a.b\" = 5\n":                                           ":2: ",
		"[[registry]]\n":                                                      ": ",
		"\n[registry.\"10.0.0.0/33\"]\ninsecure = true\n":                     ":2: registry.10.0.0.0/33: \"10.0.0.0/33\" is neither a registry's host name nor a network as 10.0.0.0/8 is",
		"registry.\"10.0.0/8\".insecure = true\n":                             "nor a network",
		"registry.\"/\".insecure = true\n":                                    "nor a network",
		"registry.\"fe80::%eth0/64\".insecure = true\n":                       "nor a network",
		"registry.\"::ffff:10.0.0.0/104\".insecure = true\n":                  "nor a network",
		"registry.\"10.0.0.0/8\\n\\u001b[2J\".insecure = true\n":              "nor a network",
		"registry.\"10.1.2.3/8\".insecure = true\n":                           "registry.10.1.2.3/8: 10.1.2.3/8 is no network, but an address in 10.0.0.0/8",
		"registry.\"10.0.0.0/8\".ca = '/x'\n":                                 "for a network there is only the key insecure",
		"registry.\"10.0.0.0/8\".mirrors = []\n":                              "for a network there is only the key insecure",
		"registry.\"::/8\".insecure=true\nregistry.\"0::/8\".insecure=true\n": "::/8 is there twice",
	} {
		p := registries(t, text)
		_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, "127.0.0.1:1/a"))
		wantError(t, err, errs.Invalid, p+":", words)
	}
	registries(t, strings.Repeat("#", maxConfig+1))
	_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, "127.0.0.1:1/a"))
	wantError(t, err, errs.Invalid, "is larger than")
	t.Setenv("TUG_REGISTRIES", "/nowhere/r.toml")
	_, _, err = testClient(Options{}).Manifest(t.Context(), reference(t, "127.0.0.1:1/a"))
	wantError(t, err, errs.Invalid, "registries file /nowhere/r.toml does not exist")
}

// New reads nothing; the file is read once, when a registry is asked.
func TestConfigIsReadLate(t *testing.T) {
	noKeychain(t)
	p := registries(t, "[")
	c := testClient(Options{})
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.config(); err != nil {
		t.Error(err)
	}
}

// An authority and a client certificate, by the registries file and by Docker's
// directory; the certificate is shown to the registry and not to a host that
// it redirects to.
func TestCertificates(t *testing.T) {
	for _, how := range []string{"none", "file", "directory"} {
		t.Run(how, func(t *testing.T) {
			noKeychain(t)
			n := newNet(t)
			certs := filepath.Join(t.TempDir(), "certs.d")
			if err := os.MkdirAll(filepath.Join(certs, "r.example:5000"), 0o700); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			text := "certs = \"" + certs + "\"\n"
			if how == "directory" {
				dir = filepath.Join(certs, "r.example:5000")
			}
			ca, cert, key := n.files(dir)
			if how == "file" {
				text += fmt.Sprintf("[registry.\"r.example:5000\"]\nca = %q\ncert = %q\nkey = %q\n", ca, cert, key)
			}
			text += fmt.Sprintf("[registry.\"store.example\"]\nca = %q\ncert = %q\nkey = %q\n", ca, cert, key)
			registries(t, text)
			n.tlsWith("r.example:5000", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: n.pool()}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" {
					http.Redirect(w, r, "https://store.example/m", http.StatusFound)
				}
			})
			var shown atomic.Int32
			n.tlsWith("store.example:443", &tls.Config{ClientAuth: tls.RequestClientCert}, func(w http.ResponseWriter, r *http.Request) {
				shown.Add(int32(len(r.TLS.PeerCertificates)))
				serveManifest(w, r)
			})
			_, _, err := n.client(Options{}).Manifest(t.Context(), reference(t, "r.example:5000/a"))
			if how == "none" {
				wantError(t, err, errs.Denied, "certificate signed by unknown authority")
				return
			}
			if err != nil || shown.Load() != 0 {
				t.Errorf("%v; %d certificates were shown to a stranger", err, shown.Load())
			}
		})
	}
}

func TestCertsDirErrors(t *testing.T) {
	noKeychain(t)
	for file, words := range map[string]string{
		"a.cert": "missing key a.key for client certificate", "a.key": "missing client certificate a.cert for key", "a.crt": "no certificate in PEM form",
	} {
		dir := filepath.Join(t.TempDir(), "127.0.0.1:1")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		registries(t, "certs = \""+filepath.Dir(dir)+"\"\n")
		_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, "127.0.0.1:1/a"))
		wantError(t, err, errs.Invalid, words)
	}
}

// insecure: TLS that nobody vouches for, then plain HTTP; for this host and
// port, and for no other.
func TestInsecure(t *testing.T) {
	noKeychain(t)
	n := newNet(t)
	n.tls("tls.example:443", serveManifest)
	n.plain("plain.example:80", serveManifest)
	n.plain("plain.example:8080", serveManifest)
	other := &spy{}
	n.plain("listed.example:80", func(w http.ResponseWriter, r *http.Request) { other.note(r); serveManifest(w, r) })
	n.plain("unlisted.example:80", serveManifest)
	n.plain("to.example:80", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			http.Redirect(w, r, "http://"+strings.Split(r.URL.Path, "/")[2]+".example/m", http.StatusFound)
		}
	})
	registries(t, `
registry."TLS.example".insecure = true
registry."plain.example".insecure = true
registry."to.example" = { insecure = true }
[registry."listed.example"]
insecure = true
[registry."127.0.0.1:1"]
insecure = false
`)
	for ref, words := range map[string]string{
		"tls.example/a": "", "plain.example/a": "", "to.example/listed": "",
		"plain.example:8080/a": "plain.example:8080/a", "to.example/unlisted": "not encrypted", "unlisted.example/a": "unlisted.example/a",
	} {
		_, _, err := n.client(Options{}).Manifest(t.Context(), reference(t, ref))
		if words == "" && err != nil {
			t.Errorf("%s: %v", ref, err)
		} else if words != "" {
			wantError(t, err, errs.ClassOf(err), words)
		}
	}
	other.check(t, true)
	c := n.client(Options{})
	if c.plainHost("127.0.0.1:1") || !c.plainHost("127.0.0.1:2") {
		t.Error("insecure = false does not count for loopback")
	}
}

// A network's table counts for the addresses in it, the smallest network's
// first, and less than what is said of a host alone.
func TestInsecureNetworks(t *testing.T) {
	noKeychain(t)
	registries(t, `
registry."10.0.0.0/8".insecure = true
registry."10.1.0.0/16".insecure = false
registry."10.1.2.3/32".insecure = true
registry."fd00::/8".insecure = true
registry."127.0.0.0/8".insecure = false
registry."10.9.9.9:5000".insecure = false
registry."10.1.1.1".insecure = true
registry."r.example".mirrors = ["http://10.1.9.9"]
registry."192.168.0.0/16" = {}
`)
	c := testClient(Options{})
	for host, want := range map[string]bool{
		"10.0.0.1": true, "10.255.0.1:5000": true, "10.1.0.1": false, "10.1.2.3:80": true, "11.0.0.1": false, "[fd12::1]:5000": true, "[fe80::1]": false,
		"127.0.0.1:5000": false, "localhost:5000": true, "[::1]:5000": true, "[::ffff:10.0.0.1]:80": true, "10.9.9.9:5000": false, "10.9.9.9": true,
		"10.1.1.1": true, "10.1.1.1:5000": false, "10.1.9.9": true, "10.0.0.1.example": false, "10.example": false, "0xa.0.0.1": false, "192.168.0.1": false,
	} {
		if c.plainHost(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
	n := newNet(t)
	n.plain("10.2.3.4:5000", serveManifest)
	n.plain("10.1.3.4:5000", serveManifest)
	if _, _, err := n.client(Options{}).Manifest(t.Context(), reference(t, "10.2.3.4:5000/a")); err != nil {
		t.Error(err)
	}
	if _, _, err := n.client(Options{}).Manifest(t.Context(), reference(t, "10.1.3.4:5000/a")); err == nil {
		t.Error("no TLS was needed")
	}
}

// A mirror is asked first; whatever it does wrong, the next one and then the
// registry give the image. None gets the credentials of another.
func TestMirrors(t *testing.T) {
	for name, bad := range map[string]http.HandlerFunc{
		"not found": answer(404, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`),
		"denied":    answer(403, "", ""),
		"wants a login": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
		},
		"broken":        answer(500, "", ""),
		"a web page":    answer(200, "text/html", "<html>"),
		"another image": answer(200, spec.TypeOCIManifest, `{}`),
		"huge":          answer(200, spec.TypeOCIManifest, strings.Repeat(" ", MaxManifest+1)),
		"cut":           func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, seen := newNet(t), &spy{}
			n.tls("bad.example:443", func(w http.ResponseWriter, r *http.Request) {
				seen.note(r)
				if r.URL.Path != "/v2/" || name == "wants a login" || name == "cut" {
					bad(w, r)
				}
			})
			data := []byte("layer")
			n.tls("r.example:443", func(w http.ResponseWriter, r *http.Request) {
				if user, pass, _ := r.BasicAuth(); user != "u" || pass != "geheim" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
				} else if strings.Contains(r.URL.Path, "/blobs/") {
					w.Write(data)
				} else {
					serveManifest(w, r)
				}
			})
			withCredentials(t, "r.example")
			registries(t, `registry."r.example".mirrors = ["https://gone.example", "https://bad.example"]`)
			c := n.client(Options{RootCAs: n.pool()})
			digest := "@" + string(spec.DigestOf([]byte(testManifest)))
			if _, b, err := c.Manifest(t.Context(), reference(t, "r.example/a"+digest)); err != nil || string(b) != testManifest {
				t.Errorf("%s, %v", b, err)
			}
			read := func() ([]byte, error) {
				rc, err := c.Blob(t.Context(), reference(t, "r.example/a"), spec.Descriptor{Digest: spec.DigestOf(data), Size: int64(len(data))})
				if err != nil {
					return nil, err
				}
				defer rc.Close()
				return io.ReadAll(rc)
			}
			got, err := read()
			if name == "huge" {
				// Found out only when bytes were handed out: the reader's turn.
				wantError(t, err, errs.Corrupt, "more than the 5 bytes")
				if !c.AvoidMirrors(reference(t, "r.example/a")) || c.AvoidMirrors(reference(t, "other.example/a")) {
					t.Error("mirrors that are there are not avoided, or others are")
				}
				got, err = read()
			}
			if err != nil || string(got) != string(data) {
				t.Errorf("%q, %v", got, err)
			}
			seen.check(t, true)
		})
	}
}

// A mirror below a path, by plain HTTP because its URL says so, with
// credentials of its own; the registry is not asked at all.
func TestMirrorServes(t *testing.T) {
	n := newNet(t)
	home := &spy{}
	n.tls("registry-1.docker.io:443", func(w http.ResponseWriter, r *http.Request) { home.note(r) })
	n.plain("mirror.example:8080", func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		switch {
		case user != "u" || pass != "geheim":
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/v2/proxy/hub/library/a/manifests/latest":
			serveManifest(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	withCredentials(t, "mirror.example:8080")
	registries(t, `registry."docker.io".mirrors = ["http://mirror.example:8080/proxy/hub/"]`)
	c := n.client(Options{})
	if _, _, err := c.Manifest(t.Context(), reference(t, "a")); err != nil {
		t.Error(err)
	}
	home.check(t, false)
	if e, err := c.home(reference(t, "a")); err != nil || e.mirror || e.host != "docker.io" {
		t.Errorf("a push would go to %+v, %v", e, err)
	}
}

// When nobody has the image, the registry's own error is told.
func TestMirrorsAndRegistryFail(t *testing.T) {
	noKeychain(t)
	host := content(t, answer(404, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
	mirror := content(t, answer(500, "", ""))
	registries(t, `registry."`+host+`".mirrors = ["http://`+mirror+`"]`)
	_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, host+"/a"))
	wantError(t, err, errs.NotFound, "manifest for "+host+"/a:latest not found: manifest unknown")
}

// An unreachable mirror costs one attempt, not one per request.
func TestMirrorRests(t *testing.T) {
	noKeychain(t)
	var dials atomic.Int32
	n := newNet(t)
	n.tls("r.example:443", serveManifest)
	registries(t, `registry."r.example".mirrors = ["https://gone.example"]`)
	c := testClient(Options{RootCAs: n.pool(), dial: nil})
	c.options.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "gone.example:443" {
			dials.Add(1)
		}
		return n.dial(ctx, network, addr)
	}
	for range 5 {
		if _, _, err := c.Manifest(t.Context(), reference(t, "r.example/a")); err != nil {
			t.Fatal(err)
		}
	}
	if dials.Load() != 1 {
		t.Errorf("%d attempts", dials.Load())
	}
}

func TestEditMirrors(t *testing.T) {
	const head = "# our registries\ncerts = \"/etc/docker/certs.d\" # Docker's\n\n"
	for name, tc := range map[string]struct {
		old, host, add, rm, want, words string
	}{
		"first":             {old: "", host: "docker.io", add: "https://m.x", want: "[registry.\"docker.io\"]\nmirrors = [\"https://m.x\"]\n"},
		"new table":         {old: head, host: "R.x:5000", add: "https://m.x/p", want: head + "\n[registry.\"r.x:5000\"]\nmirrors = [\"https://m.x/p\"]\n"},
		"no newline":        {old: "# c", host: "index.docker.io", add: "https://m.x", want: "# c\n\n[registry.\"docker.io\"]\nmirrors = [\"https://m.x\"]\n"},
		"table without":     {old: "[registry.\"r.x\"] # it\ninsecure = true\n", host: "r.x", add: "http://m.x", want: "[registry.\"r.x\"] # it\nmirrors = [\"http://m.x\"]\ninsecure = true\n"},
		"header at the end": {old: "[registry.\"r.x\"]", host: "r.x", add: "http://m.x", want: "[registry.\"r.x\"]\nmirrors = [\"http://m.x\"]\n"},
		"append":            {old: "[registry.\"r.x\"]\nmirrors = ['https://a.x'] # mine\nca = '/x'\n", host: "r.x", add: "https://b.x", want: "[registry.\"r.x\"]\nmirrors = ['https://a.x', \"https://b.x\"] # mine\nca = '/x'\n"},
		"to empty":          {old: "[registry.\"r.x\"]\nmirrors = []\n", host: "r.x", add: "https://b.x", want: "[registry.\"r.x\"]\nmirrors = [\"https://b.x\"]\n"},
		"a line each": {
			old: "[registry.\"r.x\"]\nmirrors = [\n  \"https://a.x\", # near ] \"far\n  \"https://b.x\" # far\n]\n", host: "r.x", add: "https://c.x",
			want: "[registry.\"r.x\"]\nmirrors = [\n  \"https://a.x\", # near ] \"far\n  \"https://b.x\", # far\n  \"https://c.x\",\n]\n",
		},
		"dotted":    {old: "registry.\"r.x\".mirrors = [ \"https://a.x\" ]\n", host: "r.x", add: "https://b.x", want: "registry.\"r.x\".mirrors = [ \"https://a.x\", \"https://b.x\" ]\n"},
		"there":     {old: head + "registry.\"r.x\".mirrors = [\"https://a.x\"]", host: "r.x", add: "https://a.x", want: head + "registry.\"r.x\".mirrors = [\"https://a.x\"]"},
		"inline":    {old: "registry = {\"r.x\" = {mirrors = [\"https://a.x\"]}}\n", host: "r.x", add: "https://b.x", words: "edit the file yourself"},
		"itself":    {host: "r.x", add: "https://r.x/", words: "cannot be its own mirror"},
		"bad URL":   {host: "r.x", add: "m.x", words: "is not https://HOST"},
		"bad host":  {host: "r_x/y", add: "https://m.x", words: "is no registry's host name"},
		"broken":    {old: "[", host: "r.x", add: "https://m.x", words: ":1: "},
		"injection": {host: "r.x", add: "https://m.x/\"]\ninsecure=true\n#", words: "no URL"},
		"rm first":  {old: "registry.\"r.x\".mirrors = [\"https://a.x\", \"https://b.x\"]\n", host: "r.x", rm: "https://a.x", want: "registry.\"r.x\".mirrors = [\"https://b.x\"]\n"},
		"rm last":   {old: "registry.\"r.x\".mirrors = [\"https://a.x\", \"https://b.x\"]\n", host: "r.x", rm: "https://b.x", want: "registry.\"r.x\".mirrors = [\"https://a.x\"]\n"},
		"rm a line": {
			old: "[registry.\"r.x\"]\nmirrors = [\n  \"https://a.x\", # near\n  \"https://b.x\", # far\n]\n", host: "r.x", rm: "https://a.x",
			want: "[registry.\"r.x\"]\nmirrors = [\n  \"https://b.x\", # far\n]\n",
		},
		"rm the only one": {old: head + "[registry.\"r.x\"]\nmirrors = [\"https://a.x\"]\n\n[registry.\"s.x\"]\ninsecure = true\n", host: "r.x", rm: "https://a.x", want: "# our registries\ncerts = \"/etc/docker/certs.d\" # Docker's\n\n[registry.\"s.x\"]\ninsecure = true\n"},
		"rm all":          {old: "[registry.\"r.x\"]\n# trusted\nmirrors = [\n\"https://a.x\",\n\"https://b.x\"]\ninsecure = true\n", host: "r.x", rm: "*", want: "[registry.\"r.x\"]\n# trusted\ninsecure = true\n"},
		"rm none":         {old: "[registry.\"r.x\"]\n", host: "r.x", rm: "*", words: "r.x has no mirrors"},
		"rm unknown":      {old: "registry.\"r.x\".mirrors = [\"https://a.x\"]\n", host: "r.x", rm: "https://b.x", words: "has no mirror https://b.x"},
	} {
		t.Run(name, func(t *testing.T) {
			p := registries(t, tc.old)
			var err error
			if tc.add != "" {
				err = AddMirror(tc.host, tc.add)
			} else {
				err = RemoveMirror(tc.host, strings.TrimSuffix(tc.rm, "*"))
			}
			got, rerr := os.ReadFile(p)
			if rerr != nil {
				t.Fatal(rerr)
			}
			if tc.words != "" {
				if err == nil || !strings.Contains(err.Error()+errs.HintOf(err), tc.words) {
					t.Errorf("%v lacks %q", err, tc.words)
				}
				tc.want = tc.old
			} else if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Many at once lose nothing, and the file's mode stays.
func TestEditMirrorsTogether(t *testing.T) {
	p := filepath.Join(t.TempDir(), "new", "registries.toml")
	t.Setenv("TUG_REGISTRIES", p)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := AddMirror("docker.io", fmt.Sprintf("https://m%d.x", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := Mirrors()
	if err != nil || len(all) != 20 {
		t.Errorf("%d mirrors, %v", len(all), err)
	}
	fi, err := os.Stat(p)
	if err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	left, _ := fs.Glob(os.DirFS(filepath.Dir(p)), ".new-*")
	if len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// The proxy's environment is read once a process, so the client runs in one of
// its own: this test, called again.
func TestProxy(t *testing.T) {
	if os.Getenv("TUG_TEST_PROXIED") != "" {
		_, b, err := New(Options{}).Manifest(t.Context(), reference(t, os.Getenv("TUG_TEST_PROXIED")))
		if err != nil || string(b) != testManifest {
			t.Fatalf("%s, %v", b, err)
		}
		return
	}
	noKeychain(t)
	n := newNet(t)
	ca, _, _ := n.files(t.TempDir())
	n.tls("r.example:443", serveManifest)
	n.plain("p.example:80", serveManifest)
	var connects, gets atomic.Int32
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); user != "pu" || pass != "pp" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			gets.Add(1)
			serveManifest(w, r)
			return
		}
		connects.Add(1)
		to, err := n.dial(r.Context(), "tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, rest, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(to, rest)
		io.Copy(from, to)
	})
	direct := serve(t, serveManifest)
	registries(t, fmt.Sprintf("registry.\"r.example\".ca = %q\nregistry.\"p.example\".insecure = true\n", ca))
	for _, tc := range []struct {
		ref, noProxy   string
		ok             bool
		connects, gets int32
	}{
		{"r.example/a", "", true, 1, 0},
		{"p.example/a", "", true, 1, 2}, // https is tried first
		{direct + "/a", "", true, 0, 0},
		{"r.example/a", "other,.example", false, 0, 0},
	} {
		connects.Store(0)
		gets.Store(0)
		cmd := exec.Command(os.Args[0], "-test.run=^TestProxy$")
		cmd.Env = append(os.Environ(), "TUG_TEST_PROXIED="+tc.ref, "HTTPS_PROXY=http://pu:pp@"+proxy, "HTTP_PROXY=http://pu:pp@"+proxy, "NO_PROXY="+tc.noProxy)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if tc.ok && err != nil || !tc.ok && !errors.As(err, &exit) {
			t.Errorf("%s: %v\n%s", tc.ref, err, out)
		}
		if connects.Load() != tc.connects || gets.Load() != tc.gets {
			t.Errorf("%s: %d CONNECT and %d other requests to the proxy, want %d and %d", tc.ref, connects.Load(), gets.Load(), tc.connects, tc.gets)
		}
	}
}
