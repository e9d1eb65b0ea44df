package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
)

func TestParseChallenges(t *testing.T) {
	for in, want := range map[string][]challenge{
		``:                                nil,
		`Basic`:                           {{"basic", map[string]string{}}},
		`Basic realm="x"`:                 {{"basic", map[string]string{"realm": "x"}}},
		`Bearer realm="a b",service=s`:    {{"bearer", map[string]string{"realm": "a b", "service": "s"}}},
		`BEARER Realm = "a\"b\\" , x="" `: {{"bearer", map[string]string{"realm": `a"b\`, "x": ""}}},
		`Bearer realm="a,b=c", Basic realm="d"`: {
			{"bearer", map[string]string{"realm": "a,b=c"}}, {"basic", map[string]string{"realm": "d"}},
		},
		`Negotiate, Basic realm="d"`:     {{"negotiate", map[string]string{}}, {"basic", map[string]string{"realm": "d"}}},
		`Bearer realm="one",realm="two"`: {{"bearer", map[string]string{"realm": "one"}}},
		`Bearer realm="never ends`:       {{"bearer", map[string]string{}}},
		`Bearer realm="ends in \`:        {{"bearer", map[string]string{}}},
		`realm="x"`:                      nil,
		`"`:                              nil,
		`Bearer ,,,; x`:                  {{"bearer", map[string]string{}}},
		strings.Repeat("Basic,", 1<<16):  nil,
	} {
		if diff := cmp.Diff(want, parseChallenges(in), cmp.AllowUnexported(challenge{})); diff != "" {
			t.Errorf("%.60s: %s", in, diff)
		}
	}
}

// login makes the user's config.json hold these credentials for hosts.
func withCredentials(t *testing.T, hosts ...string) {
	t.Helper()
	auths := map[string]any{}
	for _, h := range hosts {
		auths[h] = map[string]string{"username": "u", "password": "geheim"}
	}
	b, _ := json.Marshal(map[string]any{"auths": auths})
	dockerConfig(t, string(b))
}

// spy notes whatever secret a server is shown.
type spy struct {
	mu     sync.Mutex
	leaked []string
	hits   int
}

func (s *spy) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits++
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	for k, v := range r.Header {
		if k == "Authorization" || k == "Cookie" || k == "Referer" || strings.Contains(strings.Join(v, " "), "geheim") {
			s.leaked = append(s.leaked, fmt.Sprintf("%s%s: %s %s", r.Host, r.URL.Path, k, v))
		}
	}
	if strings.Contains(r.URL.String()+string(body), "geheim") {
		s.leaked = append(s.leaked, r.Host+r.URL.String()+" "+string(body))
	}
}

func (s *spy) check(t *testing.T, reached bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leaked) > 0 {
		t.Errorf("leaked: %q", s.leaked)
	}
	if (s.hits > 0) != reached {
		t.Errorf("%d requests came, want some: %v", s.hits, reached)
	}
}

// Wherever a registry sends a blob's request, also to another port or a
// subdomain of its own, Authorization, cookies and addresses stay behind.
func TestRedirectsCarryNoSecrets(t *testing.T) {
	data := []byte("bytes of a layer")
	for _, scheme := range []string{"Basic", "Bearer"} {
		for _, to := range []string{
			"https://r.example:8443/data", "https://cdn.r.example/data", "https://other.example/data?sig=1",
			"https://x:y@other.example/data", "//other.example/data", "https://R.EXAMPLE.other.example/data",
		} {
			t.Run(scheme+" "+to, func(t *testing.T) {
				n, other := newNet(t), &spy{}
				for _, h := range []string{"r.example:8443", "cdn.r.example:443", "other.example:443", "R.EXAMPLE.other.example:443", "r.example.other.example:443"} {
					n.tls(h, func(w http.ResponseWriter, r *http.Request) {
						other.note(r)
						w.Write(data)
					})
				}
				n.tls("r.example:443", func(w http.ResponseWriter, r *http.Request) {
					user, pass, _ := r.BasicAuth()
					switch ok := user == "u" && pass == "geheim" && (scheme == "Basic" || r.URL.Path == "/token"); {
					case r.URL.Path == "/token" && ok:
						io.WriteString(w, `{"token":"geheim-token"}`)
					case ok || r.Header.Get("Authorization") == "Bearer geheim-token":
						http.SetCookie(w, &http.Cookie{Name: "c", Value: "geheim"})
						http.Redirect(w, r, to, http.StatusTemporaryRedirect)
					default:
						w.Header().Set("WWW-Authenticate", scheme+` realm="https://r.example/token",service="s"`)
						w.WriteHeader(http.StatusUnauthorized)
					}
				})
				withCredentials(t, "r.example")
				rc, err := n.client(Options{RootCAs: n.pool()}).Blob(t.Context(), reference(t, "r.example/a"),
					spec.Descriptor{Digest: spec.DigestOf(data), Size: int64(len(data))})
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(rc)
				rc.Close()
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%q, %v", got, err)
				}
				other.check(t, true)
			})
		}
	}
}

// challenger answers everything but the token's path with a Bearer challenge
// for realm until it is shown token.
func challenger(realm, token string, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		serve(w, r)
	}
}

func serveManifest(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", spec.TypeOCIManifest)
	io.WriteString(w, testManifest)
}

// A realm on another host gets the credentials, as with Docker; one that is
// not encrypted or that is this machine gets nothing, not even a visit.
func TestRealmElsewhere(t *testing.T) {
	for _, tc := range []struct {
		realm string
		ok    bool
		words string
	}{
		{"https://auth.example/token", true, ""},
		{"https://auth.example/token?x=y", true, ""},
		{"http://auth.example/token", false, "not encrypted"},
		{"http://r.example/token", false, "not encrypted"},
		{"http://127.0.0.1:1/token", false, "not encrypted"},
		{"https://127.0.0.1:1/token", false, "an address of this machine"},
		{"https://localhost/token", false, "an address of this machine"},
		{"https://0.0.0.0/token", false, "an address of this machine"},
		{"https://[::ffff:127.0.0.1]/token", false, "an address of this machine"},
		{"https://169.254.169.254/latest", false, "an address of this machine"},
		{"file:///etc/passwd", false, "no URL"},
		{"gopher://x/", false, "refused"},
		{"token", false, "no URL"},
		{"https:auth.example", false, "no URL"},
	} {
		t.Run(tc.realm, func(t *testing.T) {
			n := newNet(t)
			var got atomic.Int32
			token := func(w http.ResponseWriter, r *http.Request) {
				user, pass, _ := r.BasicAuth()
				q := r.URL.Query()
				if user == "u" && pass == "geheim" && q.Get("service") == "s" && q.Get("scope") == "repository:a:pull" && q.Get("account") == "u" {
					got.Add(1)
					io.WriteString(w, `{"access_token":"tok","expires_in":300}`)
				}
			}
			n.tls("auth.example:443", token)
			n.plain("auth.example:80", token)
			n.plain("r.example:80", token)
			n.tls("r.example:443", challenger(tc.realm, "tok", serveManifest))
			withCredentials(t, "r.example")
			_, _, err := n.client(Options{RootCAs: n.pool()}).Manifest(t.Context(), reference(t, "r.example/a"))
			if tc.ok {
				if err != nil || got.Load() != 1 {
					t.Errorf("%d tokens, %v", got.Load(), err)
				}
				return
			}
			wantError(t, err, errs.ClassOf(err), tc.words)
			if c := errs.ClassOf(err); c != errs.Denied && c != errs.Unavailable {
				t.Errorf("class %d: %v", c, err)
			}
			if got.Load() != 0 {
				t.Error("the realm got the credentials")
			}
		})
	}
}

// A token server that sends on to another host takes no secret there: neither
// a password nor, by 307 and 308, the body with a refresh token.
func TestTokenRedirect(t *testing.T) {
	for _, identity := range []bool{false, true} {
		for _, status := range []int{302, 303, 307, 308} {
			t.Run(fmt.Sprint(identity, status), func(t *testing.T) {
				n, evil := newNet(t), &spy{}
				for _, h := range []string{"evil.example:443", "sub.auth.example:443", "auth.example:8443"} {
					n.tls(h, func(w http.ResponseWriter, r *http.Request) {
						evil.note(r)
						io.WriteString(w, `{"token":"tok"}`)
					})
				}
				targets := []string{"https://evil.example/t", "https://sub.auth.example/t", "https://auth.example:8443/t"}
				n.tls("auth.example:443", func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, targets[0], status)
				})
				n.tls("r.example:443", challenger("https://auth.example/token", "tok", serveManifest))
				if identity {
					dockerConfig(t, `{"auths":{"r.example":{"identitytoken":"geheim"}}}`)
				} else {
					withCredentials(t, "r.example")
				}
				for ; len(targets) > 0; targets = targets[1:] {
					_, _, err := n.client(Options{RootCAs: n.pool()}).Manifest(t.Context(), reference(t, "r.example/a"))
					wantError(t, err, errs.Denied, "does not get your credentials")
					if len(targets) == 1 {
						break
					}
				}
				evil.check(t, false)
			})
		}
	}
}

// Whoever answers the ping from elsewhere does not say where credentials go.
func TestPingRedirect(t *testing.T) {
	n, evil := newNet(t), &spy{}
	n.tls("evil.example:443", func(w http.ResponseWriter, r *http.Request) {
		evil.note(r)
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	n.tls("r.example:443", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			http.Redirect(w, r, "https://evil.example/v2/", http.StatusFound)
			return
		}
		serveManifest(w, r)
	})
	withCredentials(t, "r.example")
	if _, _, err := n.client(Options{RootCAs: n.pool()}).Manifest(t.Context(), reference(t, "r.example/a")); err != nil {
		t.Error(err)
	}
	evil.check(t, false)
}

func TestTokenGarbage(t *testing.T) {
	noKeychain(t)
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		class errs.Class
		words string
	}{
		"html":      {answer(200, "text/html", "<html>log in</html>"), errs.Unavailable, "no token (\"text/html\")"},
		"empty":     {answer(200, "", ""), errs.Unavailable, "no token"},
		"no token":  {answer(200, "application/json", `{"expires_in":5}`), errs.Unavailable, "no token"},
		"a list":    {answer(200, "application/json", `[]`), errs.Unavailable, "no token"},
		"number":    {answer(200, "application/json", `{"token":5}`), errs.Unavailable, "no token"},
		"injection": {answer(200, "application/json", `{"token":"a\r\nX-Evil: 1"}`), errs.Unavailable, "no token"},
		"spaces":    {answer(200, "application/json", `{"token":"a b"}`), errs.Unavailable, "no token"},
		"long":      {answer(200, "application/json", `{"token":"`+strings.Repeat("a", maxToken+1)+`"}`), errs.Unavailable, "no token"},
		"huge":      {answer(200, "application/json", `{"token":"`+strings.Repeat("a", 2<<20)+`"}`), errs.Unavailable, "more than 1024 KiB"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
					return
				}
			}
		}, errs.Unavailable, "more than 1024 KiB"},
		"silent": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"tok`)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, errs.Unavailable, "does not answer"},
		"a byte now and then": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}, errs.Unavailable, "takes too long"},
		"denied":    {answer(401, "application/json", `{"details":"incorrect username or password"}`), errs.Denied, "incorrect username or password"},
		"oauth":     {answer(400, "application/json", `{"error":"invalid_grant","error_description":"gone\u001b[2J"}`), errs.Denied, "gone"},
		"forbidden": {answer(403, "text/plain", "no"), errs.Denied, "denied"},
		"absent":    {answer(404, "text/html", "no"), errs.Unavailable, "404"},
		"broken":    {answer(500, "text/html", "no"), errs.Unavailable, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			auth := serve(t, tc.serve)
			host := serve(t, challenger("http://"+auth+"/token", "x", serveManifest))
			_, _, err := testClient(Options{Silence: 200 * time.Millisecond}).Manifest(t.Context(), reference(t, host+"/a"))
			wantError(t, err, tc.class, tc.words)
		})
	}
}

func answer(status int, ctype, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ctype)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// An expired token is renewed on the way, once for all who wait for it, and an
// identity token is exchanged by POST.
func TestTokenIsRenewed(t *testing.T) {
	var n atomic.Int32
	var posted atomic.Int32
	auth := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == "id-geheim" &&
			r.FormValue("scope") == "repository:a:pull" && r.FormValue("service") == "s" && r.Header.Get("Authorization") == "" {
			posted.Add(1)
		}
		fmt.Fprintf(w, `{"token":"tok%d"}`, n.Load())
	})
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		challenger("http://"+auth+"/token", fmt.Sprintf("tok%d", n.Load()), serveManifest)(w, r)
	})
	dockerConfig(t, `{"auths":{"`+host+`":{"auth":"dTpvbGQ=","identitytoken":"id-geheim"}}}`)
	c := testClient(Options{})
	for range 3 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, _, err := c.Manifest(t.Context(), reference(t, host+"/a")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n.Add(1)
	}
	if posted.Load() != 3 {
		t.Errorf("%d exchanges, want 3", posted.Load())
	}
}

func TestRetryAfter(t *testing.T) {
	date := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"": 0, "0": 0, "3": 3 * time.Second, "-5": 0, "99999999": time.Hour, "99999999999999999999": 0, "soon": 0, "1.5": 0,
		date.Add(7 * time.Second).Format(http.TimeFormat):  7 * time.Second,
		date.Add(-time.Hour).Format(http.TimeFormat):       0,
		date.Add(1000 * time.Hour).Format(http.TimeFormat): time.Hour,
	} {
		resp := &http.Response{Header: http.Header{"Retry-After": {h}, "Date": {date.Format(http.TimeFormat)}}}
		if got := retryAfter(resp); got != want {
			t.Errorf("%q: %v, want %v", h, got, want)
		}
	}
	noKeychain(t)
	var hits atomic.Int32
	for after, tries := range map[string]int32{"1": 2, "3600": 1} {
		hits.Store(0)
		host := content(t, func(w http.ResponseWriter, r *http.Request) {
			if hits.Add(1) == 1 {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			serveManifest(w, r)
		})
		start := time.Now()
		_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, host+"/a"))
		took := time.Since(start)
		switch {
		case hits.Load() != tries:
			t.Errorf("Retry-After %s: %d requests, want %d", after, hits.Load(), tries)
		case tries == 2 && (err != nil || took < time.Second):
			t.Errorf("Retry-After %s: after %v: %v", after, took, err)
		case tries == 1:
			wantError(t, err, errs.Unavailable, "429")
			if !strings.Contains(errs.HintOf(err), "1h") {
				t.Errorf("hint %q", errs.HintOf(err))
			}
		}
	}
}

// helper puts docker-credential-NAME on the PATH.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestFindCredentials(t *testing.T) {
	for name, tc := range map[string]struct {
		config, host, path string
		want               Credentials
	}{
		"none":              {``, "r.example", "a", Credentials{}},
		"plain":             {`{"auths":{"r.example":{"username":"u","password":"p"}}}`, "r.example", "a", Credentials{Username: "u", Password: "p"}},
		"base64":            {`{"auths":{"r.example":{"auth":"dTpwOnE="}}}`, "r.example", "a", Credentials{Username: "u", Password: "p:q"}},
		"url":               {`{"auths":{"https://r.example/v1/":{"auth":"dTpw"}}}`, "r.example", "a", Credentials{Username: "u", Password: "p"}},
		"hub":               {`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`, "docker.io", "library/a", Credentials{Username: "u", Password: "p"}},
		"hub, podman's":     {`{"auths":{"docker.io":{"auth":"dTpw"}}}`, "docker.io", "library/a", Credentials{Username: "u", Password: "p"}},
		"another port":      {`{"auths":{"r.example:5000":{"auth":"dTpw"}}}`, "r.example", "a", Credentials{}},
		"another host":      {`{"auths":{"example":{"auth":"dTpw"},"xr.example":{"auth":"dTpw"},"r.example.evil":{"auth":"dTpw"}}}`, "r.example", "a", Credentials{}},
		"namespace":         {`{"auths":{"r.example/team":{"auth":"dTpw"},"r.example":{"auth":"eDp5"}}}`, "r.example", "team/a", Credentials{Username: "u", Password: "p"}},
		"another namespace": {`{"auths":{"r.example/team":{"auth":"dTpw"}}}`, "r.example", "teams/a", Credentials{}},
		"identity":          {`{"auths":{"r.example":{"auth":"dTpw","identitytoken":"i"}}}`, "r.example", "a", Credentials{Username: "u", IdentityToken: "i"}},
		"helper":            {`{"credHelpers":{"r.example":"test"},"auths":{"r.example":{}}}`, "r.example", "a", Credentials{Username: "hu", Password: "r.example"}},
		"store":             {`{"credsStore":"test"}`, "docker.io", "a", Credentials{Username: "hu", Password: "https://index.docker.io/v1/"}},
		"store has none":    {`{"credsStore":"test","auths":{"none.example":{"auth":"dTpw"}}}`, "none.example", "a", Credentials{Username: "u", Password: "p"}},
		"token from helper": {`{"credsStore":"test"}`, "token.example", "a", Credentials{IdentityToken: "t"}},
	} {
		t.Run(name, func(t *testing.T) {
			dockerConfig(t, tc.config)
			helper(t, "test", `[ "$1" = get ] || exit 1
read server
case $server in
none.example) echo "credentials not found in native keychain"; exit 1;;
token.example) echo '{"Username":"<token>","Secret":"t"}';;
*) echo "{\"ServerURL\":\"$server\",\"Username\":\"hu\",\"Secret\":\"$server\"}";;
esac`)
			got, err := findCredentials(t.Context(), tc.host, tc.path)
			if err != nil || got != tc.want {
				t.Errorf("%+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestCredentialErrors(t *testing.T) {
	for name, tc := range map[string]struct{ config, script, words string }{
		"no JSON":          {"{\n\"auths\": {\n!}}", "", "config.json:3: invalid character"},
		"another type":     {"{\"auths\": []}", "", "config.json:1: "},
		"no base64":        {`{"auths":{"127.0.0.1:1":{"auth":"!"}}}`, "", "not base64 of user:password"},
		"no colon":         {`{"auths":{"127.0.0.1:1":{"auth":"dQ=="}}}`, "", "not base64 of user:password"},
		"helper is absent": {`{"credsStore":"absent"}`, "", "docker-credential-absent is not installed"},
		"helper's path":    {`{"credsStore":"../../tmp/x"}`, "", "no name of a helper"},
		"helper fails":     {`{"credsStore":"test"}`, "echo locked >&2; exit 3", "docker-credential-test get: locked"},
		"helper's garbage": {`{"credsStore":"test"}`, "echo hello", "its answer is not JSON"},
		"helper's flood":   {`{"credsStore":"test"}`, "head -c 3000000 /dev/zero", "its answer is not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			dockerConfig(t, tc.config)
			helper(t, "test", tc.script)
			_, _, err := testClient(Options{}).Manifest(t.Context(), reference(t, "127.0.0.1:1/x"))
			wantError(t, err, errs.Denied, "credentials for 127.0.0.1:1", tc.words)
		})
	}
}
