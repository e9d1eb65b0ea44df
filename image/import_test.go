package image

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func pack(t testing.TB, b []byte, tool string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(tool, append([]string{"-c"}, args...)...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("%s: %v", tool, err)
	}
	return out
}

func TestImport(t *testing.T) {
	tarball := fileLayer("hello", "from a tarball")
	for _, tool := range []string{"cat", "gzip", "bzip2", "xz", "zstd"} {
		s := newImages(t, t.TempDir())
		b := tarball
		if tool != "cat" {
			b = pack(t, tarball, tool)
		}
		ref, err := spec.ParseReference("imported")
		must(t, err)
		id, err := s.Import(t.Context(), bytes.NewReader(b), ImportOptions{
			Name: &ref, Source: "-", Changes: []string{"CMD [\"sh\"]", "ENV A=1"}, Platform: &spec.Platform{OS: "linux", Architecture: "arm64"},
		})
		if err != nil {
			t.Errorf("%s: %v", tool, err)
			continue
		}
		img := resolve(t, s, "imported:latest")
		if img.ID != id || img.Config.Architecture != "arm64" || img.Config.Comment != "Imported from -" || len(img.Config.History) != 1 || img.Config.History[0].Comment != "Imported from -" ||
			fmt.Sprint(img.Layers()) != fmt.Sprint([]spec.Digest{spec.DigestOf(tarball)}) || fmt.Sprint(img.Config.Config.Cmd, img.Config.Config.Env) != "[sh] [A=1]" {
			t.Errorf("%s: %+v", tool, img)
		}
		whole(t, s)
		if _, err := s.Import(t.Context(), bytes.NewReader(b[:len(b)*2/3]), ImportOptions{}); err == nil {
			t.Errorf("%s: no error when it is cut short", tool)
		}
		for _, bad := range []string{"", "this is no tar at all", strings.Repeat("x", 2000)} {
			if _, err := s.Import(t.Context(), strings.NewReader(bad), ImportOptions{}); errs.ClassOf(err) == errs.Internal {
				t.Errorf("%.10q: %v", bad, err)
			}
		}
		_, err = s.Remove("imported", false, nil)
		must(t, err)
		_, err = s.Import(t.Context(), bytes.NewReader(b), ImportOptions{Platform: &spec.Platform{OS: "windows", Architecture: "amd64"}})
		wantError(t, "for Windows", err, errs.Unsupported, `operating system "windows" is not supported`)
		empty(t, s)
	}
}

func TestImportURL(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	tarball := fileLayer("hello", "from the web")
	mux := http.NewServeMux()
	mux.HandleFunc("/fs.tar", func(w http.ResponseWriter, r *http.Request) { w.Write(tarball) })
	mux.Handle("/moved", http.RedirectHandler("/fs.tar", http.StatusFound))
	mux.Handle("/round", http.RedirectHandler("/round", http.StatusFound))
	mux.Handle("/away", http.RedirectHandler("ftp://192.0.2.1/fs.tar", http.StatusFound))
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(tarball)))
		w.Write(tarball[:700])
	})
	mux.HandleFunc("/silent", func(w http.ResponseWriter, r *http.Request) {
		w.Write(tarball[:700])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	web := httptest.NewServer(mux)
	defer web.Close()
	get := func(url string) error {
		rc, err := s.Fetch(t.Context(), url)
		if err != nil {
			return err
		}
		defer rc.Close()
		_, err = s.Import(t.Context(), rc, ImportOptions{Source: url})
		return err
	}
	must(t, get(web.URL+"/fs.tar"))
	must(t, get(web.URL+"/moved"))
	for url, words := range map[string]string{
		web.URL + "/none": "404 Not Found", web.URL + "/round": "too many redirects", web.URL + "/away": "not encrypted", web.URL + "/cut": "", web.URL + "/silent": "silent",
		"https://": "invalid URL", "https://a b/": "invalid URL", "http://user:secret@127.0.0.1:1/": "user:xxxxx@",
	} {
		if err := get(url); err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", url, err, words)
		}
	}
	whole(t, s)
}

func TestApplyChanges(t *testing.T) {
	var c spec.RunConfig
	must(t, ApplyChanges(&c, strings.Split(`CMD ["a", "b c"]
entrypoint run it
ENV A=1 B="two words" C=three\ words
ENV D the rest $A
ENV A=${NONE:-other}
ENV E=${A:+set} F='$A' G=\$A
# a comment

EXPOSE 80 8000-8002/udp $PORT"53"
LABEL one=1 "two words"="x y"
LABEL old style value
USER nobody:$A
VOLUME ["/data", "/more"]
VOLUME /third /fourth
WORKDIR /srv
WORKDIR www
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --retries=3 CMD curl localhost
ONBUILD RUN make`, "\n")))
	want := spec.RunConfig{
		Cmd: []string{"a", "b c"}, Entrypoint: []string{"/bin/sh", "-c", "run it"},
		Env:          []string{"A=other", "B=two words", "C=three words", "D=the rest 1", "E=set", "F=$A", "G=$A"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "8000/udp": {}, "8001/udp": {}, "8002/udp": {}, "53/tcp": {}},
		Labels:       map[string]string{"one": "1", "two words": "x y", "old": "style value"},
		User:         "nobody:other", Volumes: map[string]struct{}{"/data": {}, "/more": {}, "/third": {}, "/fourth": {}},
		WorkingDir: "/srv/www", StopSignal: "SIGQUIT", OnBuild: []string{"RUN make"},
		Healthcheck: &spec.Healthcheck{Test: []string{"CMD-SHELL", "curl localhost"}, Interval: 5 * time.Second, Retries: 3},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// Several instructions in one change, and one in several.
	c = spec.RunConfig{}
	must(t, ApplyChanges(&c, []string{"ENV A=1\nCMD a \\\n  # not this\n\n  b", `USER \`, "u", `WORKDIR /x\`}))
	if d := cmp.Diff(spec.RunConfig{Env: []string{"A=1"}, Cmd: []string{"/bin/sh", "-c", "a b"}, User: "u", WorkingDir: "/x"}, c); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for line, words := range map[string]string{
		"RUN make": "run is not a valid change command", "NOPE x": "nope is not a valid change command", "USER": "USER requires an argument", "ENV A": "no NAME=VALUE",
		"": "hold no instruction", " # nothing": "hold no instruction", "STOPSIGNAL SIGNOPE": "invalid signal: SIGNOPE", "STOPSIGNAL 0": "invalid signal", "STOPSIGNAL $NONE": "invalid signal",
		"EXPOSE 80:80": `invalid port "80:80": an image names no address or port of the host`, "EXPOSE 127.0.0.1:80:80/tcp": "port of the host", "EXPOSE 80/tcp:80": "invalid port",
		`ENV A="x`: "matching quote", "ENV A=${B": "missing }", "EXPOSE x": "invalid port", "EXPOSE 70000": "invalid port", "EXPOSE 9-1": "invalid port", "EXPOSE 1/icmp": "invalid port",
		"HEALTHCHECK WAIT": "unknown type", "HEALTHCHECK --interval=1 CMD x": "duration", "HEALTHCHECK --x=1 CMD x": "unknown flag", "ONBUILD ONBUILD RUN x": "chaining ONBUILD",
		"ONBUILD FROM x": "isn't allowed", "ENV =x": "no NAME=VALUE", "LABEL a=1 b": "no NAME=VALUE", "HEALTHCHECK NONE x": "no arguments", "ENV A=${x-y}": "bad variable name",
	} {
		if err := ApplyChanges(&spec.RunConfig{}, []string{line}); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", line, err, words)
		}
	}
}

func TestChangeCommands(t *testing.T) {
	had := func() spec.RunConfig { return spec.RunConfig{Cmd: []string{"old"}, Entrypoint: []string{"before"}} }
	sh := func(s ...string) []string { return append([]string{"/bin/sh", "-c"}, s...) }
	for _, tt := range []struct {
		changes         []string
		cmd, entrypoint []string
	}{
		{nil, []string{"old"}, []string{"before"}},
		{[]string{"", "USER u", ""}, []string{"old"}, []string{"before"}}, // an empty one beside others
		{[]string{"CMD"}, sh(), []string{"before"}},
		{[]string{"CMD []"}, []string{}, []string{"before"}},
		{[]string{"ENTRYPOINT"}, nil, nil},
		{[]string{"ENTRYPOINT run"}, nil, sh("run")},
		{[]string{"CMD new", "ENTRYPOINT run"}, sh("new"), sh("run")},
		{[]string{"ENTRYPOINT run", `CMD ["new"]`}, []string{"new"}, sh("run")},
		{[]string{"CMD", "ENTRYPOINT run"}, nil, sh("run")},
	} {
		c := had()
		must(t, ApplyChanges(&c, tt.changes))
		if d := cmp.Diff([][]string{tt.cmd, tt.entrypoint}, [][]string{c.Cmd, c.Entrypoint}); d != "" {
			t.Errorf("%q (-want +got):\n%s", tt.changes, d)
		}
	}
	c := spec.RunConfig{Shell: []string{"/bin/bash", "-lc"}}
	must(t, ApplyChanges(&c, []string{"CMD a"}))
	if d := cmp.Diff([]string{"/bin/bash", "-lc", "a"}, c.Cmd); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"9", "term", "SIGRTMIN+3", "SIGRTMAX-1"} {
		must(t, ApplyChanges(&c, []string{"STOPSIGNAL " + name}))
		if c.StopSignal != name {
			t.Errorf("%s: %s", name, c.StopSignal)
		}
	}
}

func FuzzApplyChanges(f *testing.F) {
	for _, s := range []string{`ENV A="b c" D=\ e`, "LABEL x ${y:-z}", `CMD ["x"]`, "EXPOSE 1-65535", "HEALTHCHECK --timeout=1s CMD []", "USER $"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := spec.RunConfig{Env: []string{"A=1"}}
		if err := ApplyChanges(&c, []string{s, s}); err != nil && errs.ClassOf(err) != errs.Invalid {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func TestLoadCompressed(t *testing.T) {
	i := twoLayers("a:1")
	plainArchive := fixture.DockerArchive(i).Bytes()
	for _, tool := range []string{"bzip2", "xz"} {
		s := newImages(t, t.TempDir())
		b := pack(t, plainArchive, tool)
		load(t, s, b)
		whole(t, s)
		// And its layers, as some tools put them into archives.
		packed := &fixture.Archive{}
		var names []string
		for n, l := range i.Layers {
			names = append(names, fmt.Sprintf("layer%d", n))
			packed.Add(names[n], pack(t, l, tool))
		}
		config := idOf(i).Hex() + ".json"
		packed.Add(config, i.ConfigJSON())
		packed.Add("manifest.json", toJSON([]any{map[string]any{"Config": config, "RepoTags": []string{"b:1"}, "Layers": names}}))
		to := newImages(t, t.TempDir())
		load(t, to, packed.Bytes())
		whole(t, to)
		info, err := to.layers.Info(spec.Digest(fixture.Digest(i.Layers[0])))
		must(t, err)
		if len(info.Blobs) != 1 || info.Blobs[0].Digest != info.DiffID || info.Blobs[0].MediaType != spec.TypeOCILayer {
			t.Errorf("%s: forms %v", tool, info.Blobs)
		}
		for _, n := range []int{4, len(b) / 2, len(b) - 1} {
			other := newImages(t, t.TempDir())
			_, err := other.Load(t.Context(), bytes.NewReader(b[:n]), nil)
			wantError(t, fmt.Sprint(tool, " cut to ", n), err, errs.Corrupt, "read archive")
			empty(t, other)
		}
	}
}

func TestLoadDir(t *testing.T) {
	dir := t.TempDir()
	i := twoLayers("a:1")
	must(t, fixture.WriteLayout(dir, fixture.Gzip, i))
	s := newImages(t, t.TempDir())
	loaded, err := s.LoadDir(t.Context(), dir, LoadOptions{})
	if err != nil || len(loaded) != 1 || loaded[0] != (Loaded{"a:1", idOf(i)}) {
		t.Fatal(loaded, err)
	}
	whole(t, s)

	// What leads out of it, or blocks, is not there.
	blob := filepath.Join(dir, "blobs/sha256", idOf(i).Hex())
	must(t, os.Rename(blob, blob+"-away"))
	outside := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(outside, i.ConfigJSON(), 0o600))
	other := newImages(t, t.TempDir())
	for what, make := range map[string]func() error{
		"link": func() error { return os.Symlink(outside, blob) },
		"fifo": func() error { return syscall.Mkfifo(blob, 0o600) },
		"dir":  func() error { return os.Mkdir(blob, 0o700) },
	} {
		must(t, make())
		_, err := other.LoadDir(t.Context(), dir, LoadOptions{})
		wantError(t, what, err, errs.Corrupt, "the archive lacks")
		must(t, os.Remove(blob))
	}
	_, err = other.LoadDir(t.Context(), t.TempDir(), LoadOptions{})
	wantError(t, "another directory", err, errs.Invalid, "is no OCI layout")
	empty(t, other)
}

func TestLoadPlatform(t *testing.T) {
	amd, arm := oneLayer("multi:1", "amd"), oneLayer("multi:1", "arm")
	arm.Arch = "arm64"
	from := newImages(t, t.TempDir())
	loadVariants(t, from, "multi:1", amd, arm)
	both := []spec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
	for _, oci := range []bool{false, true} {
		var b bytes.Buffer
		must(t, from.Save(t.Context(), &b, []string{"multi:1"}, SaveOptions{OCI: oci, Platforms: both}))
		for want, platforms := range map[spec.Digest][]spec.Platform{idOf(amd): both[:1], idOf(arm): both[1:]} {
			s := newImages(t, t.TempDir())
			loaded, err := s.LoadWith(t.Context(), bytes.NewReader(b.Bytes()), LoadOptions{Platforms: platforms})
			if err != nil || len(loaded) != 1 || loaded[0].ID != want || loaded[0].Name != "multi:1" {
				t.Errorf("OCI %v, %v: %v, %v", oci, platforms, loaded, err)
			}
			whole(t, s)
		}
		s := newImages(t, t.TempDir())
		_, err := s.LoadWith(t.Context(), bytes.NewReader(b.Bytes()), LoadOptions{Platforms: []spec.Platform{{OS: "linux", Architecture: "s390x"}}})
		wantError(t, "no such", err, errs.NotFound, "no image for linux/s390x")
		empty(t, s)
		loaded, err := s.LoadWith(t.Context(), io.MultiReader(bytes.NewReader(b.Bytes())), LoadOptions{Platforms: both})
		if err != nil || len(loaded) != 2 {
			t.Errorf("both: %v, %v", loaded, err)
		}
	}
}
