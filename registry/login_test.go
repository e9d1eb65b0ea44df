package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
)

func TestParseServer(t *testing.T) {
	hub := Server{"docker.io", hubKey}
	for in, want := range map[string]Server{
		"": hub, "docker.io": hub, hubKey: hub, "index.docker.io": hub, "registry-1.docker.io": hub,
		"r.example": {"r.example", "r.example"}, "R.example:5000": {"r.example:5000", "r.example:5000"}, "http://r.example/": {"r.example", "r.example"},
		"https://r.example:443/v2/x": {"r.example:443", "r.example:443"}, "r.example/team": {"r.example", "r.example"}, "[::1]:5000": {"[::1]:5000", "[::1]:5000"},
	} {
		if got, err := ParseServer(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"a b", "ftp://x", "-", "r.example:x", "http://"} {
		if got, err := ParseServer(in); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

// gate is a registry that wants user u with a password, by Basic or Bearer.
func gate(t *testing.T, bearer bool, refresh string) (host string) {
	host = serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		ok := user == "u" && pass == "geheim"
		switch {
		case r.URL.Path == "/token" && ok && r.URL.Query().Get("offline_token") == "true":
			fmt.Fprintf(w, `{"token":"tok","refresh_token":%q}`, refresh)
		case r.URL.Path == "/token":
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"details":"incorrect username or password"}`)
		case bearer && r.Header.Get("Authorization") != "Bearer tok":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		case !bearer && !ok:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	return host
}

func TestLogin(t *testing.T) {
	noKeychain(t)
	good := Credentials{Username: "u", Password: "geheim"}
	for _, tc := range []struct {
		bearer  bool
		refresh string
		want    Credentials
		refused string
	}{
		{false, "", good, "unauthorized: 401 Unauthorized"},
		{true, "", good, "unauthorized: incorrect username or password"},
		{true, "id", Credentials{Username: "u", IdentityToken: "id"}, "unauthorized: incorrect username or password"},
	} {
		host := gate(t, tc.bearer, tc.refresh)
		s, err := ParseServer(host)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := testClient(Options{}).Login(t.Context(), s, good); err != nil || got != tc.want {
			t.Errorf("%+v, %v", got, err)
		}
		_, err = testClient(Options{}).Login(t.Context(), s, Credentials{Username: "u", Password: "wrong"})
		wantError(t, err, errs.Denied, "login to "+host+" failed: "+tc.refused)
	}
	none := content(t, answer(404, "", ""))
	if _, err := testClient(Options{}).Login(t.Context(), Server{none, none}, good); err != nil {
		t.Errorf("a registry that asks nobody: %v", err)
	}
	web := serve(t, answer(404, "text/html", "<html>"))
	_, err := testClient(Options{}).Login(t.Context(), Server{web, web}, good)
	wantError(t, err, errs.Unavailable, web+" does not answer as a registry")
	_, err = testClient(Options{}).Login(t.Context(), Server{"127.0.0.1:1", "127.0.0.1:1"}, good)
	wantError(t, err, errs.Unavailable, "127.0.0.1:1: dial tcp 127.0.0.1:1: connection refused")
}

func readJSON(t *testing.T, path string) (v map[string]any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// Store and Erase touch one entry; all else in config.json stays, also what
// nobody here knows, and through a symbolic link.
func TestStoreInFile(t *testing.T) {
	const rest = `"psFormat":"a<b&c","proxies":{"default":{"n":12345678901234567890}},"new":[1, 2]`
	dockerConfig(t, `{`+rest+`,"auths":{"other.example":{"auth":"eDp5","x":1}}}`)
	path, err := ConfigPath()
	if err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(t.TempDir(), "real.json")
	if err := errors.Join(os.Rename(path, real), os.Symlink(real, path), os.Chmod(real, 0o640)); err != nil {
		t.Fatal(err)
	}
	s := Server{"r.example", "r.example"}
	in, err := Store(t.Context(), s, Credentials{Username: "u", Password: "p:q"})
	if err != nil || in != path {
		t.Fatalf("%q, %v", in, err)
	}
	want := func(auths string) {
		t.Helper()
		b, _ := os.ReadFile(real)
		var got, want any
		if err := errors.Join(json.Unmarshal(b, &got), json.Unmarshal([]byte(`{`+rest+`,"auths":`+auths+`}`), &want)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" || !strings.Contains(string(b), "12345678901234567890") || !strings.Contains(string(b), "a<b&c") {
			t.Errorf("%s\n%s", diff, b)
		}
		if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
			t.Error("the link is gone")
		}
	}
	want(`{"other.example":{"auth":"eDp5","x":1},"r.example":{"auth":"dTpwOnE="}}`)
	if fi, err := os.Stat(real); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if got, err := Stored(t.Context(), s); err != nil || got != (Credentials{Username: "u", Password: "p:q"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Store(t.Context(), Server{"docker.io", hubKey}, Credentials{Username: "u", IdentityToken: "id"}); err != nil {
		t.Fatal(err)
	}
	want(`{"other.example":{"auth":"eDp5","x":1},"r.example":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"auth":"dTo=","identitytoken":"id"}}`)
	if got, err := findCredentials(t.Context(), "docker.io", "library/a"); err != nil || got != (Credentials{Username: "u", IdentityToken: "id"}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, s := range []Server{s, {"docker.io", hubKey}} {
		if had, err := Erase(t.Context(), s); err != nil || !had {
			t.Errorf("%v, %v", had, err)
		}
		if had, err := Erase(t.Context(), s); err != nil || had {
			t.Errorf("again: %v, %v", had, err)
		}
	}
	want(`{"other.example":{"auth":"eDp5","x":1}}`)
}

// A broken config.json is told and left alone; an absent one is made.
func TestStoreElsewhere(t *testing.T) {
	s := Server{"r.example", "r.example"}
	for _, text := range []string{"{\n,}", `{"auths":[]}`, `[]`} {
		dockerConfig(t, text)
		path, _ := ConfigPath()
		_, err := Store(t.Context(), s, Credentials{Username: "u", Password: "p"})
		wantError(t, err, errs.Invalid, path)
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("%q became %q", text, b)
		}
	}
	noKeychain(t)
	if _, err := Store(t.Context(), s, Credentials{Username: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	path, _ := ConfigPath()
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", dir.Mode(), err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestStoreWithHelper(t *testing.T) {
	dockerConfig(t, `{"credsStore":"none","credHelpers":{"r.example":"test"}}`)
	path, _ := ConfigPath()
	kept := filepath.Join(t.TempDir(), "kept")
	helper(t, "test", `case $1 in
store) cat > `+kept+`;;
get) if [ -e `+kept+` ]; then cat `+kept+`; else echo "credentials not found in native keychain"; exit 1; fi;;
erase) read s; [ "$s" = r.example ] && rm `+kept+`;;
esac`)
	s := Server{"r.example", "r.example"}
	for _, c := range []Credentials{{Username: "u", Password: "p\"\n"}, {Username: "u", IdentityToken: "id"}} {
		if in, err := Store(t.Context(), s, c); err != nil || in != "" {
			t.Fatalf("%q, %v", in, err)
		}
		got := readJSON(t, kept)
		want := map[string]any{"ServerURL": "r.example", "Username": "u", "Secret": c.Password}
		if c.IdentityToken != "" {
			want["Username"], want["Secret"] = "<token>", "id"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if auths := readJSON(t, path)["auths"]; !cmp.Equal(auths, map[string]any{"r.example": map[string]any{}}) {
			t.Errorf("%v", auths)
		}
		if c.IdentityToken != "" {
			c.Username = ""
		}
		if got, err := Stored(t.Context(), s); err != nil || got != c {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if had, err := Erase(t.Context(), s); err != nil || !had {
		t.Errorf("%v, %v", had, err)
	}
	if got, err := Stored(t.Context(), s); err != nil || got != (Credentials{}) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := Store(t.Context(), Server{"s.example", "s.example"}, Credentials{Username: "u", Password: "p"})
	wantError(t, err, errs.Invalid, "save credentials: credential helper docker-credential-none is not installed")
}

// Logins at the same time lose none.
func TestStoreTogether(t *testing.T) {
	noKeychain(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			h := fmt.Sprintf("r%d.example", i)
			if _, err := Store(t.Context(), Server{h, h}, Credentials{Username: "u", Password: "p"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	path, _ := ConfigPath()
	if auths := readJSON(t, path)["auths"].(map[string]any); len(auths) != 16 {
		t.Errorf("%d entries", len(auths))
	}
}

func TestReadSecret(t *testing.T) {
	for in, want := range map[string]string{"": "", "a\n": "a", "a\r\n": "a", "a\r": "a", "a": "a", " a b \n\n": " a b \n"} {
		if got, err := ReadSecret(strings.NewReader(in)); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	_, err := ReadSecret(strings.NewReader(strings.Repeat("x", maxToken+1)))
	wantError(t, err, errs.Invalid, "larger than 64 KiB")
}
