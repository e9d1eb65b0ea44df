//go:build root

package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tug/test/fixture"
)

// storeFiles lists every file of the store with its size, except locks.
// storeFiles lists the files of the store with their sizes, but for locks and
// events.
func storeFiles(t *testing.T, g *tug) []string {
	return slices.DeleteFunc(storeFilesIn(t, g, ""), func(f string) bool { return strings.HasPrefix(f, "events/") })
}

func storeFilesIn(t *testing.T, g *tug, sub string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(g.root(), sub), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".lock") {
			rel, _ := filepath.Rel(g.root(), path)
			fi, err := d.Info()
			if err != nil {
				return err
			}
			files = append(files, fmt.Sprintf("%s %d", rel, fi.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// small is an image of one small layer with the given entries.
func small(l *fixture.Layer) *fixture.Image {
	return &fixture.Image{Name: "small:test", Layers: [][]byte{l.Bytes()}, Config: map[string]any{"Cmd": []string{"/x"}}}
}

// edit decodes a JSON file of the archive, changes it, and stores it back.
func edit(a *fixture.Archive, name string, change func(v map[string]any)) {
	var v map[string]any
	if err := json.Unmarshal(a.Files[name], &v); err != nil {
		panic(err)
	}
	change(v)
	b, _ := json.Marshal(v)
	a.Add(name, b)
}

// reseal changes the manifest of an OCI archive with one image, and the index
// with it, so that only what change did is wrong.
func reseal(change func(manifest map[string]any)) []byte {
	a := fixture.OCIArchive(fixture.Plain, small(fixture.NewLayer().File("x", 0o755, "content")))
	edit(a, "index.json", func(index map[string]any) {
		d := index["manifests"].([]any)[0].(map[string]any)
		name := "blobs/sha256/" + d["digest"].(string)[7:]
		edit(a, name, change)
		b := a.Files[name]
		d["digest"], d["size"] = fixture.Digest(b), len(b)
		a.Add("blobs/sha256/"+fixture.Digest(b)[7:], b)
	})
	return a.Bytes()
}

// topSize is an OCI archive whose index has another size for the manifest.
func topSize(size int) []byte {
	a := fixture.OCIArchive(fixture.Plain, small(fixture.NewLayer().File("x", 0o755, "content")))
	edit(a, "index.json", func(index map[string]any) {
		index["manifests"].([]any)[0].(map[string]any)["size"] = size
	})
	return a.Bytes()
}

// wrongDiff is an archive whose config has another diffID. keep leaves the
// config under its old name, which is its digest.
func wrongDiff(keep bool) []byte {
	i := small(fixture.NewLayer().File("x", 0o755, "content"))
	a := fixture.DockerArchive(i)
	name := fixture.Digest(i.ConfigJSON())[7:] + ".json"
	edit(a, name, func(c map[string]any) {
		c["rootfs"].(map[string]any)["diff_ids"] = []string{fixture.Digest([]byte("else"))}
	})
	if !keep {
		a.Add("config.json", a.Files[name])
		a.Add("manifest.json", bytes.ReplaceAll(a.Files["manifest.json"], []byte(name), []byte("config.json")))
	}
	return a.Bytes()
}

func badArchives(t *testing.T) map[string][]byte {
	layer := func() *fixture.Layer { return fixture.NewLayer().File("x", 0o755, "content") }
	good := fixture.DockerArchive(small(layer())).Bytes()
	gz, _ := fixture.Compress(fixture.Gzip, good)
	zs, _ := fixture.Compress(fixture.Zstd, good)
	first := func(m map[string]any) map[string]any { return m["layers"].([]any)[0].(map[string]any) }
	bad := map[string][]byte{
		"empty":                 {},
		"text":                  []byte(strings.Repeat("this is no archive\n", 100)),
		"empty tar":             (&fixture.Archive{}).Bytes(),
		"cut in the middle":     good[:len(good)/2],
		"cut in a header":       good[:700],
		"gzip cut":              gz[:len(gz)/2],
		"gzip, bad sum":         append(gz[:len(gz)-8:len(gz)-8], 1, 2, 3, 4, 5, 6, 7, 8),
		"gzip without its sum":  gz[:len(gz)-8],
		"zstd, bad sum":         flip(zs, len(zs)-1),
		"zstd cut":              zs[:len(zs)-1],
		"wrong layer digest":    reseal(func(m map[string]any) { first(m)["digest"] = fixture.Digest([]byte("else")) }),
		"wrong layer size":      reseal(func(m map[string]any) { first(m)["size"] = 7 }),
		"huge layer size":       reseal(func(m map[string]any) { first(m)["size"] = int64(1) << 62 }),
		"negative layer size":   reseal(func(m map[string]any) { first(m)["size"] = -1 }),
		"unknown media type":    reseal(func(m map[string]any) { first(m)["mediaType"] = "application/x-unknown" }),
		"digest no digest":      reseal(func(m map[string]any) { first(m)["digest"] = "../../../etc/passwd" }),
		"digest with dots":      reseal(func(m map[string]any) { first(m)["digest"] = "sha256:../../../../etc/passwd" }),
		"wrong config size":     reseal(func(m map[string]any) { m["config"].(map[string]any)["size"] = 7 }),
		"wrong config digest":   reseal(func(m map[string]any) { m["config"].(map[string]any)["digest"] = fixture.Digest([]byte("else")) }),
		"wrong manifest size":   topSize(7),
		"one layer too many":    reseal(func(m map[string]any) { m["layers"] = append(m["layers"].([]any), first(m)) }),
		"no layers, one diffID": reseal(func(m map[string]any) { m["layers"] = []any{} }),
	}
	bad["wrong diffID"] = wrongDiff(false)
	bad["wrong diffID under the old config's name"] = wrongDiff(true)
	garbled := fixture.DockerArchive(small(layer()))
	garbled.Add("manifest.json", []byte(`[{"Config": 5`))
	bad["garbled manifest.json"] = garbled.Bytes()
	outside := fixture.DockerArchive(small(layer()))
	outside.Add("manifest.json", []byte(`[{"Config":"/etc/passwd","RepoTags":["x:y"],"Layers":["/etc/passwd"]}]`))
	bad["config outside the archive"] = outside.Bytes()

	for name, l := range map[string]*fixture.Layer{
		"name with dots":        layer().File("../escape", 0o644, "x"),
		"name with dots inside": layer().Dir("a", 0o755).File("a/../../escape", 0o644, "x"),
		"hard link out":         layer().Link("y", "../../../../etc/passwd"),
		"hard link to nothing":  layer().Link("y", "no-such-file"),
		"file below a file":     layer().File("x/y", 0o644, "x"),
		"symlinks in a circle":  layer().Symlink("s", "r").Symlink("r", "s").File("s/y", 0o644, "x"),
	} {
		bad["layer: "+name] = fixture.DockerArchive(small(l)).Bytes()
	}
	raw := func(b []byte) []byte {
		return fixture.DockerArchive(&fixture.Image{Name: "raw:test", Layers: [][]byte{b}}).Bytes()
	}
	ok := layer().Bytes()
	bad["layer: bad checksum"] = raw(flip(ok, 512+200))
	bad["layer: cut"] = raw(ok[:1024+256])
	bad["layer: no tar"] = raw([]byte(strings.Repeat("nonsense", 300)))
	bad["layer: size too large"] = raw(lyingSize(t, 1<<40))
	return bad
}

func flip(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 0xff
	return c
}

// lyingSize is a tar whose one file says that it has size bytes.
func lyingSize(t *testing.T, size int64) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: size}); err != nil {
		t.Fatal(err)
	}
	buf.WriteString("only this")
	return append(buf.Bytes(), make([]byte, 1024)...)
}

// What is wrong with an archive is said in one line, and the store is as it
// was.
func TestBadArchives(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	before := storeFiles(t, g)
	file := filepath.Join(g.dir, "bad.tar")
	for name, b := range badArchives(t) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r := g.fails(1, args("load", "-i", file))
		t.Logf("%-26s %s", name+":", strings.TrimSpace(r.stderr))
		if strings.TrimSpace(r.stderr) == "" {
			t.Errorf("%s: no message", name)
		}
		if after := storeFiles(t, g); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: the store changed\nbefore %q\nafter  %q", name, before, after)
			before = after
		}
		if _, err := os.Lstat(filepath.Join(g.dir, "escape")); err == nil {
			t.Fatalf("%s: a file got out of the store", name)
		}
	}
	g.fails(1, args("load", "-i", "/no/such/file"), "/no/such/file")
	g.fails(1, args("load", "-i", "/etc"), "/etc")
	same(t, "the good image still runs", g.ok("run", "--rm", image, "echo", "ok"), "ok")
}

// The limits of a layer are the user's to set.
func TestLayerLimits(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	file := filepath.Join(g.dir, "two.tar")
	l := fixture.NewLayer().File("a", 0o644, "x").File("b", 0o644, "x").Bytes()
	if err := os.WriteFile(file, fixture.DockerArchive(&fixture.Image{Name: "two:test", Layers: [][]byte{l}}).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	env := g.env
	for setting, word := range map[string]string{
		"TUG_MAX_LAYER_ENTRIES=1": "more than 1 entries", "TUG_MAX_LAYER_SIZE=1k": "limit of 1024 bytes",
		"TUG_MAX_LAYER_SIZE=much": "no size", "TUG_MAX_LAYER_ENTRIES=-1": "no number",
	} {
		g.env = append(env[:len(env):len(env)], setting)
		name, _, _ := strings.Cut(setting, "=")
		g.fails(1, args("load", "-i", file), word, name)
	}
	g.env = append(env[:len(env):len(env)], "TUG_MAX_LAYER_ENTRIES=10", "TUG_MAX_LAYER_SIZE=1m")
	g.ok("load", "-i", file)
}

// Odd but good archives are loaded.
func TestOddArchives(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	one := busybox(t)
	two := *one
	two.Name = "second:test"
	two.Config = map[string]any{"Cmd": []string{"echo", "second"}, "Env": []string{"PATH=/bin"}}
	file := filepath.Join(g.dir, "odd.tar")
	load := func(b []byte) string {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return g.ok("load", "-i", file)
	}
	out := load(fixture.DockerArchive(one, &two).Bytes())
	if !strings.Contains(out, "Loaded image: busybox:test") || !strings.Contains(out, "Loaded image: second:test") {
		t.Errorf("two images in one archive: %q", out)
	}
	same(t, "the second", g.ok("run", "--rm", "second:test"), "second")
	for _, compression := range []string{fixture.Gzip, fixture.Zstd} {
		i := *one
		i.Name = "packed:" + compression
		b, _ := fixture.Compress(compression, fixture.OCIArchive(compression, &i).Bytes())
		same(t, compression, load(b), "Loaded image: packed:"+compression)
		same(t, compression, g.ok("run", "--rm", i.Name, "echo", compression), compression)
	}
	padded := append(fixture.DockerArchive(one).Bytes(), make([]byte, 1<<20)...)
	same(t, "zeros behind the end", load(padded), "Loaded image: busybox:test")
	gz, _ := fixture.Compress(fixture.Gzip, padded)
	same(t, "zeros behind the end of gzip data", load(append(gz, make([]byte, 4096)...)), "Loaded image: busybox:test")
}

// Names and links that would lead out of an extraction mean in tug what they
// mean to a process whose root is the layer: they stay inside.
func TestNamesStayInside(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	outside := filepath.Join(g.dir, "outside")
	i := busybox(t)
	i.Name = "inside:test"
	i.Layers = append(i.Layers, fixture.NewLayer().
		File("/absolute-name", 0o644, "1\n").
		File("a/../b/./up-and-down", 0o644, "2\n").
		Symlink("out", g.dir).File("out/outside", 0o644, "3\n").
		Symlink("up", "../../../../../../.."+g.dir).File("up/outside-too", 0o644, "4\n").
		Link("hard", "/absolute-name").
		Link("hard-by-symlink", "out/outside").
		Symlink("to-host", outside).
		Bytes())
	if r := g.do(bytes.NewReader(fixture.DockerArchive(i).Bytes()), "load"); r.code != 0 {
		t.Fatal(r)
	}
	got := g.ok("run", "--rm", "inside:test", "cat", "/absolute-name", "/b/up-and-down",
		"/out/outside", outside, outside+"-too", "/hard", "/hard-by-symlink", "/to-host")
	same(t, "what the container sees", got, "1\n2\n3\n3\n4\n1\n3\n3")
	g.ok("run", "--rm", "inside:test", "sh", "-c", "echo changed > /to-host; echo changed > /hard-by-symlink")
	for _, path := range []string{"/absolute-name", "/b/up-and-down", outside, outside + "-too", filepath.Join(g.root(), "b")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s got out of the container", path)
		}
	}
}

func TestBadPrograms(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	i := busybox(t)
	arm := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	arm[16], arm[18], arm[20] = 2, 183, 1 // an executable for aarch64
	i.Layers = append(i.Layers, fixture.NewLayer().
		File("arm", 0o755, string(arm)).
		File("script", 0o755, "#!/no/interpreter\n").
		File("text", 0o755, "echo no first line\n").
		Bytes())
	r := g.do(bytes.NewReader(fixture.DockerArchive(i).Bytes()), "load")
	if r.code != 0 {
		t.Fatal(r)
	}
	g.fails(255, args("run", "--rm", image, "/arm"), "/arm", "exec format", "aarch64")
	g.fails(255, args("run", "--rm", image, "/script"), "/script", "/no/interpreter")
	g.fails(255, args("run", "--rm", image, "/text"), "/text", "exec format")
	g.fails(125, args("run", "--rm", "-w", "/etc/motd", image, "true"), "/etc/motd")
}
