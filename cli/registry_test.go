package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/spec"
	"tug/sys"
)

// asUser gives tug a home of its own, and a registries file.
func asUser(t *testing.T, registries string) (home string) {
	t.Helper()
	home = t.TempDir()
	for _, v := range []string{"DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"} {
		t.Setenv(v, "")
	}
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, "docker"))
	p := filepath.Join(home, "registries.toml")
	if err := os.WriteFile(p, []byte(registries), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TUG_REGISTRIES", p)
	return home
}

// tug runs a command line that needs no store.
func tugRun(in io.Reader, args ...string) (out, errOut string, code int) {
	var o, e bytes.Buffer
	code = Main(append([]string{"--root", "/nonexistent/root", "--run-root", "/nonexistent/run"}, args...), Stdio{In: in, Out: &o, Err: &e})
	return o.String(), e.String(), code
}

func fakeRegistry(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// private wants user u with password p.
func private(w http.ResponseWriter, r *http.Request) {
	if user, pass, _ := r.BasicAuth(); user != "u" || pass != "p w" {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func storedAuths(t *testing.T, home string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(home, "docker", "config.json"))
	if os.IsNotExist(err) {
		return nil
	}
	var v map[string]map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v["auths"]
}

func TestLoginCommand(t *testing.T) {
	home := asUser(t, "")
	host := fakeRegistry(t, private)
	warning := "\nWARNING! Your credentials are stored unencrypted in '" + filepath.Join(home, "docker", "config.json") +
		"'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n"
	const insecure = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
	for _, tc := range []struct {
		name, in, out, errOut string
		args                  []string
		code                  int
	}{
		{"stdin", "p w\n", "Login Succeeded\n", warning, []string{"-u", "u", "--password-stdin", host}, 0},
		{"again", "", "Login Succeeded\n", "Authenticating with existing credentials... [Username: u]\n\n Info -> To login with a different account, run 'tug logout' followed by 'tug login'\n\n\n", []string{host}, 0},
		{"dash", "p w", "Login Succeeded\n", warning, []string{"-u", "u", "-p", "-", "http://" + host + "/v1/"}, 0},
		{"flag", "", "Login Succeeded\n", insecure + warning, []string{"-u", "u", "-p", "p w", host}, 0},
		{"wrong", "", "", insecure + "tug: login to " + host + " failed: unauthorized: 401 Unauthorized; check user name and password\n", []string{"-u", "u", "-p", "x", host}, 1},
		{"no user", "p", "", "tug: the --password-stdin option requires --username to be set\n", []string{"--password-stdin", host}, 1},
		{"both", "p", "", "tug: conflicting options: cannot specify both --password and --password-stdin\n", []string{"-u", "u", "-p", "x", "--password-stdin", host}, 1},
		{"empty user", "p", "", "tug: username is empty\n", []string{"-u", "", "--password-stdin", host}, 1},
		{"empty password", "\n", "", "tug: password is empty\n", []string{"-u", "u", "--password-stdin", host}, 1},
		{"empty password flag", "", "", "tug: password is empty\n", []string{"-u", "u", "-p", "", host}, 1},
		{"nobody to ask", "u\np w\n", "", "tug: cannot perform an interactive login from a non-TTY device; give --username and --password-stdin\n", []string{"-u", "u", host}, 1},
		{"no server", "", "", "tug: \"a b\" is no registry's host name; give HOST or HOST:PORT, for example docker.io\n", []string{"a b"}, 1},
		{"two servers", "", "", "tug: 'tug login' requires at most 1 argument; see 'tug login --help'\n", []string{"a", "b"}, 1},
	} {
		before := storedAuths(t, home)
		out, errOut, code := tugRun(strings.NewReader(tc.in), append([]string{"login"}, tc.args...)...)
		if out != tc.out || errOut != tc.errOut || code != tc.code {
			t.Errorf("%s: %q, %d\n%s", tc.name, out, code, cmp.Diff(tc.errOut, errOut))
		}
		if after := storedAuths(t, home); tc.code != 0 && !cmp.Equal(before, after) {
			t.Errorf("%s: a failed login changed %v to %v", tc.name, before, after)
		}
	}
	want := map[string]any{host: map[string]any{"auth": "dTpwIHc="}}
	if got := storedAuths(t, home); !cmp.Equal(got, want) {
		t.Errorf("stored %v", got)
	}
	for range 2 {
		out, errOut, code := tugRun(nil, "logout", host)
		if out != "Removing login credentials for "+host+"\n" || errOut != "" || code != 0 {
			t.Errorf("logout: %q %q %d", out, errOut, code)
		}
	}
	if got := storedAuths(t, home); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	if out, _, _ := tugRun(nil, "logout"); out != "Removing login credentials for https://index.docker.io/v1/\n" {
		t.Errorf("%q", out)
	}
}

// At a terminal the name is asked for, and the password without showing it.
func TestLoginAtTerminal(t *testing.T) {
	home := asUser(t, "")
	host := fakeRegistry(t, private)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	defer master.Close()
	tty, err := sys.OpenPty(master)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	seen := make(chan string)
	go func() {
		// Each question is answered when it is asked.
		r, all := bufio.NewReader(master), ""
		for {
			b, err := r.ReadByte()
			if err != nil {
				return
			}
			switch all += string(b); {
			case strings.HasSuffix(all, "Username: "):
				fmt.Fprint(master, "u\n")
			case strings.HasSuffix(all, "Password: "):
				fmt.Fprint(master, "p w\n")
			case strings.HasSuffix(all, "Succeeded\r\n"):
				seen <- all
				return
			}
		}
	}()
	var errOut bytes.Buffer
	code := Main([]string{"login", host}, Stdio{In: tty, Out: tty, Err: &errOut})
	var all string
	select {
	case all = <-seen:
	case <-time.After(10 * time.Second):
		t.Fatalf("exit code %d, %s", code, &errOut)
	}
	if code != 0 || all != "Username: u\r\nPassword: \r\nLogin Succeeded\r\n" {
		t.Errorf("%d %q %s", code, all, &errOut)
	}
	if got := storedAuths(t, home); len(got) != 1 {
		t.Errorf("stored %v", got)
	}
	// The terminal shows again what is typed.
	old, err := sys.MakeSilent(tty)
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.RestoreTerminal(tty, old); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(master, "visible\n")
	b := make([]byte, 100)
	if n, err := master.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "visible") {
		t.Errorf("%q, %v", b[:n], err)
	}
}

func TestMirrorCommands(t *testing.T) {
	home := asUser(t, "# mine\n")
	for _, step := range []struct{ args, out, errOut string }{
		{"mirror ls", "REGISTRY   URL\n", ""},
		{"mirror add docker.io https://m.example", "", ""},
		{"mirror add r.example:5000 http://n.example/p", "", ""},
		{"mirror add docker.io https://o.example", "", ""},
		{"mirror ls", "REGISTRY         URL\ndocker.io        https://m.example\ndocker.io        https://o.example\nr.example:5000   http://n.example/p\n", ""},
		{"mirror ls --format {{.Registry}}={{.URL}}", "docker.io=https://m.example\ndocker.io=https://o.example\nr.example:5000=http://n.example/p\n", ""},
		{"mirror rm docker.io https://m.example", "", ""},
		{"mirror rm r.example:5000", "", ""},
		{"mirror ls --format json", `{"Registry":"docker.io","URL":"https://o.example"}` + "\n", ""},
		{"mirror rm docker.io https://m.example", "", "tug: docker.io has no mirror https://m.example; see 'tug mirror ls'\n"},
		{"mirror add docker.io m.example", "", "tug: mirror \"m.example\" is not https://HOST[:PORT][/PATH]\n"},
	} {
		out, errOut, code := tugRun(nil, strings.Fields(step.args)...)
		if out != step.out || errOut != step.errOut || (code != 0) != (step.errOut != "") {
			t.Errorf("%s: %q %q %d", step.args, out, errOut, code)
		}
	}
	b, err := os.ReadFile(filepath.Join(home, "registries.toml"))
	if want := "# mine\n\n[registry.\"docker.io\"]\nmirrors = [\"https://o.example\"]\n"; err != nil || string(b) != want {
		t.Errorf("%s", cmp.Diff(want, string(b)))
	}
}

func TestSearchCommand(t *testing.T) {
	asUser(t, "")
	host := fakeRegistry(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/search" {
			io.WriteString(w, `{"results":[
				{"name":"busybox","description":"a\nvery long description of some program \u001b[31m that goes on","star_count":700,"is_official":true},
				{"name":"team/busybox","description":"","star_count":3},{"name":"x","star_count":0,"is_automated":true}]}`)
		}
	})
	const head = "NAME           DESCRIPTION                                     STARS     OFFICIAL\n"
	const first = "busybox        a very long description of some program ?[31…   700       [OK]\n"
	const second = "team/busybox                                                   3         \n"
	for args, want := range map[string]string{
		"":           head + first + second + "x                                                              0         \n",
		"-f stars=3": head + first + second,
		"-f stars=3 -f is-official=false --format {{.Name}}":                    "team/busybox\n",
		"-f is-official=true --format {{.Name}}:{{.IsOfficial}}:{{.StarCount}}": "busybox:[OK]:700\n",
		"--limit 1 --no-trunc --format {{.Description}}":                        "a very long description of some program ?[31m that goes on\n",
		"--limit 1 --format json":                                               `{"Description":"a very long description of some program ?[31…","IsOfficial":"true","Name":"busybox","StarCount":"700"}` + "\n",
	} {
		out, errOut, code := tugRun(nil, append([]string{"search", host + "/x"}, strings.Fields(args)...)...)
		if out != want || errOut != "" || code != 0 {
			t.Errorf("%s: %d %q\n%s", args, code, errOut, cmp.Diff(want, out))
		}
	}
	for args, words := range map[string]string{
		"-f stars=many": "want a number", "-f is-official=perhaps": "want true or false", "-f size=1": "invalid filter 'size'",
		"--limit 101": "limit 101 is outside the range of [1, 100]", "--format {{.Stars}}": "template parsing error",
	} {
		if _, errOut, code := tugRun(nil, append([]string{"search", host + "/x"}, strings.Fields(args)...)...); code != 1 || !strings.Contains(errOut, words) {
			t.Errorf("%s: %d %q", args, code, errOut)
		}
	}
	out, errOut, code := tugRun(nil, "search", "-f", "is-automated=true", "--format", "{{.Name}}", host+"/x")
	if out != "x\n" || !strings.HasPrefix(errOut, "WARNING: ") || code != 0 {
		t.Errorf("%q %q %d", out, errOut, code)
	}
}

func TestManifestInspect(t *testing.T) {
	asUser(t, "")
	config := []byte(`{"architecture":"arm64","os":"linux","config":{},"rootfs":{}}`)
	docker := []byte(fmt.Sprintf(`{"schemaVersion": 2,
 "mediaType":%q,"config":{"mediaType":"c","size":%d,"digest":%q},"layers":[]}`, spec.TypeDockerManifest, len(config), spec.DigestOf(config)))
	oci := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"size":%d,"digest":%q},"layers":[]}`, spec.TypeOCIManifest, len(config), spec.DigestOf(config)))
	index := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"a":"b"},"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]}`,
		spec.TypeOCIIndex, spec.TypeOCIManifest, spec.DigestOf(oci), len(oci)))
	lie := []byte(fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":%q,"size":1}]}`, spec.DigestOf(docker)))
	files := map[string]struct {
		ctype string
		body  []byte
	}{
		"lie": {spec.TypeOCIIndex, lie}, string(spec.DigestOf(docker)): {spec.TypeDockerManifest, docker},
		"docker": {spec.TypeDockerManifest, docker}, "oci": {spec.TypeOCIManifest, oci}, "index": {spec.TypeOCIIndex, index},
		string(spec.DigestOf(oci)): {spec.TypeOCIManifest, oci}, "text": {"text/plain", oci},
	}
	host := fakeRegistry(t, func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if f, ok := files[name]; ok {
			w.Header().Set("Content-Type", f.ctype)
			w.Write(f.body)
		} else if name == string(spec.DigestOf(config)) {
			w.Write(config)
		} else if name != "" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	for _, args := range []string{"docker", "oci", "index", "docker -v", "oci -v", "index -v"} {
		f := strings.Fields(args)
		out, errOut, code := tugRun(nil, append([]string{"manifest", "inspect", host + "/a:" + f[0]}, f[1:]...)...)
		if errOut != "" || code != 0 {
			t.Errorf("%s: %d %q", args, code, errOut)
		}
		golden(t, "manifest-"+strings.ReplaceAll(args, " ", ""), strings.ReplaceAll(out, host, "HOST"))
	}
	// Of a list, by tag and by digest, also another repository's.
	for _, of := range []string{"/a:oci", "/b@" + string(spec.DigestOf(oci))} {
		for _, flags := range []string{"", "-v"} {
			args := append([]string{"manifest", "inspect", host + "/a:index", host + of}, strings.Fields(flags)...)
			out, errOut, code := tugRun(nil, args...)
			if errOut != "" || code != 0 {
				t.Errorf("%s: %d %q", args, code, errOut)
			}
			name := "manifest-oci"
			if flags != "" {
				name = "manifest-of-index-v"
				out = strings.ReplaceAll(out, host+of, "NAME")
			}
			golden(t, name, out)
		}
	}
	for _, tc := range [][]string{
		{"no such manifest: " + host + "/a:none", host + "/a:none"},
		{"No such manifest: " + host + "/a:docker; it is not in " + host + "/a:index", host + "/a:index", host + "/a:docker"},
		{"No such manifest: " + host + "/a:index", host + "/a:index", host + "/a:index"},
		{"no such manifest: " + host + "/a:none", host + "/a:index", host + "/a:none"},
		{"no such manifest: " + host + "/a:none", host + "/a:none", host + "/a:oci"},
		{host + "/a:oci is no manifest list", host + "/a:oci", host + "/a:oci"},
		{"manifest " + spec.DigestOf(docker).Short() + " has", host + "/a:lie", host + "/a:docker"},
		{"invalid reference format", "A"},
		{"invalid reference format", host + "/a:index", "A"},
	} {
		_, errOut, code := tugRun(nil, append([]string{"manifest", "inspect"}, tc[1:]...)...)
		if code != 1 || !strings.Contains(errOut, tc[0]) {
			t.Errorf("%q: %d %q", tc[1:], code, errOut)
		}
	}
}
