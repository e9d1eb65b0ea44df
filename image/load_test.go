package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// writeTar makes an archive of members in the order given.
func writeTar(t testing.TB, members ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range members {
		body := h.PAXRecords["TEST.body"]
		h.PAXRecords = nil
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func memberFile(name string, body []byte) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, PAXRecords: map[string]string{"TEST.body": string(body)}}
}

func memberLink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// oldDocker is what docker save wrote before version 25: a directory per layer,
// in which a layer that came before is a symlink to that one.
func oldDocker(t testing.TB, imgs ...*fixture.Image) []byte {
	var members []tar.Header
	seen := map[string]string{}
	var manifest []map[string]any
	for n, i := range imgs {
		var layers []string
		for k, l := range i.Layers {
			dir := fixture.Digest([]byte(fmt.Sprint(n, k)))[7:]
			path := dir + "/layer.tar"
			members = append(members, tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, memberFile(dir+"/VERSION", []byte("1.0")))
			if old := seen[fixture.Digest(l)]; old != "" {
				members = append(members, memberLink(path, "../"+old))
			} else {
				members = append(members, memberFile(path, l))
				seen[fixture.Digest(l)] = path
			}
			layers = append(layers, path)
		}
		config := fixture.Digest(i.ConfigJSON())[7:] + ".json"
		members = append(members, memberFile(config, i.ConfigJSON()))
		manifest = append(manifest, map[string]any{"Config": config, "RepoTags": []string{i.Name}, "Layers": layers})
	}
	members = append(members, memberFile("manifest.json", toJSON(manifest)), memberFile("repositories", []byte("{}")))
	return writeTar(t, members...)
}

// podmanDocker is podman save's: <diffid>.tar beside links for older readers.
func podmanDocker(t testing.TB, i *fixture.Image) []byte {
	var members []tar.Header
	var layers []string
	for n, l := range i.Layers {
		path := fixture.Digest(l)[7:] + ".tar"
		legacy := fixture.Digest([]byte{byte(n)})[7:]
		members = append(members, memberFile(path, l), memberLink(legacy+"/layer.tar", "../"+path))
		layers = append(layers, path)
	}
	config := fixture.Digest(i.ConfigJSON())[7:] + ".json"
	return writeTar(t, append(members, memberFile(config, i.ConfigJSON()),
		memberFile("manifest.json", toJSON([]any{map[string]any{"Config": config, "RepoTags": []string{i.Name}, "Layers": layers}})))...)
}

// bothLayouts is what docker save writes since version 25: an OCI layout that
// has a manifest.json as well. nested puts the manifest below an index.
func bothLayouts(t testing.TB, i *fixture.Image, nested bool, change func(manifest map[string]any)) []byte {
	a := fixture.OCIArchive(fixture.Plain, i)
	var index struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     []map[string]any `json:"manifests"`
	}
	must(t, json.Unmarshal(a.Files["index.json"], &index))
	put := func(d map[string]any, b []byte) {
		d["digest"], d["size"] = fixture.Digest(b), len(b)
		a.Add("blobs/sha256/"+fixture.Digest(b)[7:], b)
	}
	if change != nil {
		var m map[string]any
		must(t, json.Unmarshal(a.Files["blobs/sha256/"+index.Manifests[0]["digest"].(string)[7:]], &m))
		change(m)
		put(index.Manifests[0], toJSON(m))
	}
	if nested {
		missing := map[string]any{"mediaType": spec.TypeOCIManifest, "digest": fixture.Digest([]byte("another platform's")), "size": 5}
		d := map[string]any{"mediaType": spec.TypeOCIIndex}
		put(d, toJSON(map[string]any{"schemaVersion": 2, "manifests": []any{missing, index.Manifests[0]}}))
		index.Manifests[0] = d
	}
	a.Add("index.json", toJSON(index))
	var layers []string
	for _, l := range i.Layers {
		layers = append(layers, "blobs/sha256/"+fixture.Digest(l)[7:])
	}
	a.Add("manifest.json", toJSON([]any{map[string]any{
		"Config": "blobs/sha256/" + idOf(i).Hex(), "RepoTags": []string{i.Name}, "Layers": layers,
	}}))
	return a.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func twoLayers(name string) *fixture.Image {
	return &fixture.Image{
		Name:   name,
		Layers: [][]byte{fileLayer("lower", "shared"), fileLayer("upper", name)},
		Config: map[string]any{"Env": []string{"A=b"}, "Labels": map[string]string{"l": name}},
	}
}

// What other tools write is loaded, and the image is the one they meant.
func TestLoadLayouts(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	_, media := fixture.Compress(fixture.Gzip, nil)
	if media != spec.TypeOCILayerGzip {
		t.Fatal(media)
	}
	for what, b := range map[string][]byte{
		"old docker":                  oldDocker(t, i),
		"docker":                      bothLayouts(t, i, false, nil),
		"docker with containerd":      bothLayouts(t, i, true, nil),
		"podman":                      podmanDocker(t, i),
		"OCI layout":                  fixture.OCIArchive(fixture.Plain, i).Bytes(),
		"OCI layout with gzip layers": fixture.OCIArchive(fixture.Gzip, i).Bytes(),
		"OCI layout with zstd layers": fixture.OCIArchive(fixture.Zstd, i).Bytes(),
	} {
		for _, outside := range []string{fixture.Plain, fixture.Gzip, fixture.Zstd} {
			what := what + ", in " + outside
			s := newImages(t, t.TempDir())
			packed, _ := fixture.Compress(outside, b)
			loaded, err := s.Load(t.Context(), bytes.NewReader(packed), nil)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if len(loaded) != 1 || loaded[0] != (Loaded{"app:v1", idOf(i)}) {
				t.Errorf("%s: %v", what, loaded)
			}
			img := resolve(t, s, "app:v1")
			if img.ID != idOf(i) || len(img.Layers()) != 2 || img.Size != int64(len("shared")+len("app:v1")) || img.Config.Config.Labels["l"] != "app:v1" {
				t.Errorf("%s: %+v", what, img)
			}
			if hasManifest := strings.Contains(what, "OCI") || strings.HasPrefix(what, "docker"); hasManifest != (img.Target != nil) {
				t.Errorf("%s: target %v", what, img.Target)
			}
			whole(t, s)
			// Again, with all layers there.
			if again := load(t, s, packed); !slices.Equal(again, loaded) {
				t.Errorf("%s: again %v", what, again)
			}
			if _, err := s.Remove("app:v1", false, nil); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			empty(t, s)
		}
	}
}

// The stream is read once, in whatever pieces it comes.
func TestLoadFromSlowPipe(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	b, _ := fixture.Compress(fixture.Gzip, fixture.DockerArchive(twoLayers("app:v1")).Bytes())
	if _, err := s.Load(t.Context(), iotest.OneByteReader(bytes.NewReader(b)), nil); err != nil {
		t.Error(err)
	}
	whole(t, s)
}

func TestLoadSeveral(t *testing.T) {
	t.Parallel()
	one, two := twoLayers("one:v1"), twoLayers("registry.example:5000/team/two:v2")
	same := twoLayers("one:v1")
	same.Name = "one:other"
	for what, b := range map[string][]byte{
		"old docker": oldDocker(t, one, two, same),
		"docker":     fixture.DockerArchive(one, two, same).Bytes(),
	} {
		s := newImages(t, t.TempDir())
		got := load(t, s, b)
		want := []Loaded{{one.Name, idOf(one)}, {two.Name, idOf(two)}, {same.Name, idOf(one)}}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
		if imgs, err := s.List(); err != nil || len(imgs) != 2 {
			t.Errorf("%s: %d images, %v", what, len(imgs), err)
		}
		if img := resolve(t, s, "one:v1"); !slices.Equal(img.Names, []string{"one:other", "one:v1"}) {
			t.Errorf("%s: names %q", what, img.Names)
		}
		whole(t, s)
	}
}

// An OCI layout may hold several images, several names of one, several
// platforms, artifacts, and images without a name.
func TestLoadOCIEntries(t *testing.T) {
	t.Parallel()
	amd, arm, bare := twoLayers("multi:v1"), twoLayers("multi:v1"), twoLayers("bare:v1")
	arm.Arch, arm.Layers = "arm64", [][]byte{fileLayer("arm", "arm")}
	if spec.HostPlatform().Architecture == "arm64" {
		amd.Arch, arm.Arch = arm.Arch, "amd64"
	}
	a := fixture.OCIArchive(fixture.Gzip, amd, arm, bare)
	var x spec.Index
	must(t, json.Unmarshal(a.Files["index.json"], &x))
	host, other := spec.HostPlatform(), spec.Platform{OS: "linux", Architecture: arm.Arch}
	x.Manifests[0].Platform, x.Manifests[1].Platform = &host, &other
	x.Manifests[2].Annotations = map[string]string{annotationRefName: "v1"} // a tag alone is no name
	again := x.Manifests[0]
	again.Annotations = map[string]string{annotationRefName: "registry.example/second:name"}
	note := x.Manifests[2]
	note.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	x.Manifests = append(x.Manifests, again, note, spec.Descriptor{MediaType: "application/x-other", Digest: note.Digest, Size: 1})
	a.Add("index.json", toJSON(x))

	s := newImages(t, t.TempDir())
	got := load(t, s, a.Bytes())
	want := []Loaded{{"multi:v1", idOf(amd)}, {"registry.example/second:name", idOf(amd)}, {"", idOf(bare)}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := s.Resolve(string(idOf(arm))); !errs.Is(err, errs.NotFound) {
		t.Errorf("the other platform's image is there: %v", err)
	}
	whole(t, s)
	for _, d := range arm.Layers {
		if l, err := s.layers.Get(spec.DigestOf(d)); err == nil {
			l.Close()
			t.Error("a layer that no image needs has stayed")
		}
	}
}

// A name that pointed elsewhere is moved, and the old image is still there.
func TestLoadMovesName(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	old, now := oneLayer("app:v1", "old"), oneLayer("app:v1", "new")
	loadImages(t, s, old)
	var p recorder
	if _, err := s.Load(t.Context(), bytes.NewReader(fixture.DockerArchive(now).Bytes()), &p); err != nil {
		t.Fatal(err)
	}
	want := "The image app:v1 already exists, renaming the old one with ID " + string(idOf(old)) + " to empty string"
	if !slices.Contains(p.messages, want) {
		t.Errorf("messages %q, want %q", p.messages, want)
	}
	if img := resolve(t, s, "app:v1"); img.ID != idOf(now) {
		t.Errorf("app:v1 is %s", img.ID)
	}
	if img := resolve(t, s, string(idOf(old))); len(img.Names) != 0 {
		t.Errorf("the old image has the names %q", img.Names)
	}
	whole(t, s)
}

// recorder is a Progress that remembers.
type recorder struct {
	messages []string
	statuses map[string][]string // by layer
}

func (r *recorder) Message(line string) { r.messages = append(r.messages, line) }

func (r *recorder) Layer(id, status string, _, _ int64) {
	if r.statuses == nil {
		r.statuses = map[string][]string{}
	}
	if all := r.statuses[id]; len(all) == 0 || all[len(all)-1] != status {
		r.statuses[id] = append(r.statuses[id], status)
	}
}

// A manifest that lies about the image which manifest.json names is no small
// matter: push would hand it on.
func TestLoadBothLayoutsDisagree(t *testing.T) {
	t.Parallel()
	first := func(m map[string]any) map[string]any { return m["layers"].([]any)[0].(map[string]any) }
	for what, change := range map[string]func(m map[string]any){
		"layer size":    func(m map[string]any) { first(m)["size"] = 3 },
		"config size":   func(m map[string]any) { m["config"].(map[string]any)["size"] = 3 },
		"layer missing": func(m map[string]any) { m["layers"] = m["layers"].([]any)[:1] },
		"layer order": func(m map[string]any) {
			l := m["layers"].([]any)
			m["layers"] = []any{l[1], l[0]}
		},
	} {
		for _, nested := range []bool{false, true} {
			s := newImages(t, t.TempDir())
			_, err := s.Load(t.Context(), bytes.NewReader(bothLayouts(t, twoLayers("a:b"), nested, change)), nil)
			wantError(t, what, err, errs.Corrupt, "manifest")
			empty(t, s)
		}
	}
	// One that speaks of layers which are not there is just of no use.
	s := newImages(t, t.TempDir())
	load(t, s, bothLayouts(t, twoLayers("a:b"), false, func(m map[string]any) { first(m)["digest"] = fixture.Digest([]byte("?")) }))
	if img := resolve(t, s, "a:b"); img.Target != nil {
		t.Errorf("target %v", img.Target)
	}
}

// Of several images in an archive all are recorded or none, and layers that
// were there before stay.
func TestLoadAllOrNothing(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	loadImages(t, s, twoLayers("before:v1"))
	before := files(t, s)
	good, bad := oneLayer("good:v1", "good"), oneLayer("bad:v1", "bad")
	a := fixture.DockerArchive(good, bad)
	path := fixture.Digest(bad.Layers[0])[7:] + "/layer.tar"
	a.Add(path, fileLayer("file", "something else"))
	_, err := s.Load(t.Context(), bytes.NewReader(a.Bytes()), nil)
	wantError(t, "second image", err, errs.Corrupt, idOf(bad).Short(), "digest", "the config says")
	if after := files(t, s); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestLoadHostileArchives(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	config := i.ConfigJSON()
	docker := func(manifest string, more ...tar.Header) []byte {
		return writeTar(t, append(more, memberFile("manifest.json", []byte(manifest)))...)
	}
	layers := []tar.Header{memberFile("c.json", config), memberFile("l0", i.Layers[0]), memberFile("l1", i.Layers[1])}
	oci := func(index string) []byte {
		return writeTar(t, memberFile("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), memberFile("index.json", []byte(index)))
	}
	for what, c := range map[string]struct {
		b     []byte
		class errs.Class
		word  string
	}{
		"nothing":             {writeTar(t, memberFile("readme", []byte("x"))), errs.Invalid, "neither manifest.json nor index.json"},
		"before 1.10":         {writeTar(t, memberFile("repositories", []byte("{}"))), errs.Unsupported, "before 1.10"},
		"no image":            {docker(`[]`), errs.Invalid, "no image"},
		"null":                {docker(`null`), errs.Invalid, "no image"},
		"no list":             {docker(`{}`), errs.Corrupt, "manifest.json"},
		"no config":           {docker(`[{}]`), errs.Corrupt, "no config"},
		"config missing":      {docker(`[{"Config":"c.json"}]`), errs.Corrupt, "lacks \"c.json\""},
		"config is a layer":   {docker(`[{"Config":"l0"}]`, layers...), errs.Invalid, "not the JSON"},
		"layer is no tar":     {docker(`[{"Config":"c.json","Layers":["c.json","l1"]}]`, layers...), errs.Unsupported, "no tar"},
		"layers swapped":      {docker(`[{"Config":"c.json","Layers":["l1","l0"]}]`, layers...), errs.Corrupt, "layer 1 (\"l1\") has digest"},
		"layer missing":       {docker(`[{"Config":"c.json","Layers":["l0","l2"]}]`, layers...), errs.Corrupt, "lacks the layer \"l2\""},
		"links in a circle":   {docker(`[{"Config":"a","Layers":[]}]`, memberLink("a", "b"), memberLink("b", "a")), errs.Invalid, "circles"},
		"link out":            {docker(`[{"Config":"a","Layers":[]}]`, memberLink("a", "../../../../etc/passwd")), errs.Corrupt, "lacks"},
		"bad tag":             {docker(`[{"Config":"c.json","RepoTags":["no tag"],"Layers":["l0","l1"]}]`, layers...), errs.Invalid, "reference"},
		"tag without tag":     {docker(`[{"Config":"c.json","RepoTags":["name"],"Layers":["l0","l1"]}]`, layers...), errs.Invalid, "invalid tag"},
		"two manifest.json":   {docker(`[]`, memberFile("manifest.json", []byte(`[{}]`))), errs.Invalid, "twice"},
		"link over a file":    {docker(`[]`, memberFile("m", nil), memberLink("m", "manifest.json")), errs.Invalid, "twice"},
		"two of one layer":    {docker(`[{"Config":"c.json","Layers":["l0"]}]`, append(layers, layers[1])...), errs.Corrupt, "names 2 layers, the archive 1"},
		"too many layers":     {docker(`[{"Config":"c.json","Layers":[` + strings.Repeat(`"l0",`, maxLayers) + `"l0"]}]`), errs.Unsupported, "501 layers"},
		"too many images":     {docker(`[` + strings.Repeat(`{"Config":"c"},`, maxArchived) + `{"Config":"c"}]`), errs.Invalid, "1001 images"},
		"OCI version 2":       {writeTar(t, memberFile("oci-layout", []byte(`{"imageLayoutVersion":"2.0.0"}`)), memberFile("index.json", nil)), errs.Unsupported, "2.0.0"},
		"OCI without version": {writeTar(t, memberFile("index.json", []byte(`{"schemaVersion":2,"manifests":[]}`))), errs.Corrupt, "oci-layout"},
		"OCI empty index":     {oci(`{"schemaVersion":2,"manifests":[]}`), errs.Invalid, "no image"},
		"OCI manifest as top": {oci(`{"schemaVersion":2,"config":{"digest":"` + fixture.Digest(nil) + `"},"layers":[]}`), errs.Corrupt, "is no index"},
		"OCI missing blob":    {oci(`{"schemaVersion":2,"manifests":[{"digest":"` + fixture.Digest(nil) + `","size":0}]}`), errs.Corrupt, "lacks"},
		"bzip2":               {[]byte("BZh91AY&SY and so on"), errs.Corrupt, "cut short"},
		"gzip header only":    {[]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), errs.Corrupt, "cut short"},
		"gzip header cut":     {[]byte("\x1f\x8b\x08\x00"), errs.Corrupt, "cut short"},
		"zstd header only":    {[]byte("\x28\xb5\x2f\xfd"), errs.Corrupt, "cut short"},
	} {
		s := newImages(t, t.TempDir())
		_, err := s.Load(t.Context(), bytes.NewReader(c.b), nil)
		wantError(t, what, err, c.class, c.word)
		empty(t, s)
	}
}

// Members are taken wherever they stand, and nothing but links and files counts.
func TestLoadOddMembers(t *testing.T) {
	t.Parallel()
	i := twoLayers("app:v1")
	s := newImages(t, t.TempDir())
	load(t, s, writeTar(t,
		memberFile("manifest.json", []byte(`[{"Config":"./c.json","RepoTags":["app:v1"],"Layers":["x/../l0","/deep/link"]}]`)),
		tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3},
		memberLink("deep/link", "/hard"),
		tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "./deep/layer"},
		memberFile("deep/layer", i.Layers[1]),
		memberFile("junk", bytes.Repeat([]byte("junk"), 1<<20)),
		memberFile("l0", i.Layers[0]),
		memberFile("unused-layer", fileLayer("unused", "unused")),
		memberFile("c.json", i.ConfigJSON()),
	))
	if img := resolve(t, s, "app:v1"); img.ID != idOf(i) {
		t.Error(img.ID)
	}
	whole(t, s)
	_, err := s.Remove("app:v1", false, nil)
	must(t, err)
	empty(t, s)
}

// Damage to a compressed archive is found also where the tar does not reach.
func TestLoadVerifiesToTheEnd(t *testing.T) {
	t.Parallel()
	plain := fixture.DockerArchive(twoLayers("app:v1")).Bytes()
	for _, compression := range []string{fixture.Gzip, fixture.Zstd} {
		// Behind the end of the tar is more than any buffer holds.
		b, _ := fixture.Compress(compression, append(bytes.Clone(plain), make([]byte, 5<<20)...))
		bad := bytes.Clone(b)
		bad[len(bad)-5] ^= 1
		if compression == fixture.Zstd {
			bad = bytes.Clone(b)
			bad[len(bad)-1] ^= 1
		}
		for what, b := range map[string][]byte{"damaged": bad, "cut": b[:len(b)-1], "half": b[:len(b)/2]} {
			s := newImages(t, t.TempDir())
			_, err := s.Load(t.Context(), bytes.NewReader(b), nil)
			wantError(t, compression+" "+what, err, errs.Corrupt, "read archive")
			empty(t, s)
		}
		s := newImages(t, t.TempDir())
		load(t, s, b)
		load(t, s, append(bytes.Clone(b), b...)) // two members or frames
	}
	gz, _ := fixture.Compress(fixture.Gzip, plain)
	load(t, newImages(t, t.TempDir()), append(gz, make([]byte, 10240)...))
	load(t, newImages(t, t.TempDir()), append(plain, "anything at all"...))
	endless := io.MultiReader(bytes.NewReader(plain), zeros{})
	if _, err := newImages(t, t.TempDir()).Load(t.Context(), endless, nil); err != nil {
		t.Errorf("a device with an archive at its beginning: %v", err)
	}
	bomb, _ := fixture.Compress(fixture.Zstd, append(plain, make([]byte, maxTrailer+1)...))
	_, err := newImages(t, t.TempDir()).Load(t.Context(), bytes.NewReader(bomb), nil)
	wantError(t, "bomb", err, errs.Invalid, "follow the end")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Failures of the reader are told as such, and when the context ends so does
// Load.
func TestLoadReadFails(t *testing.T) {
	t.Parallel()
	b := fixture.DockerArchive(twoLayers("app:v1")).Bytes()
	for _, at := range []int{0, 100, 1000, len(b) / 2, len(b) - 600} {
		s := newImages(t, t.TempDir())
		boom := errors.New("disk on fire")
		_, err := s.Load(t.Context(), io.MultiReader(bytes.NewReader(b[:at]), iotest.ErrReader(boom)), nil)
		wantError(t, fmt.Sprint("at ", at), err, errs.Corrupt, "read archive", "disk on fire")
		empty(t, s)

		ctx, cancel := context.WithCancel(t.Context())
		_, err = s.Load(ctx, io.MultiReader(bytes.NewReader(b[:at]), readFunc(func([]byte) (int, error) {
			cancel()
			return 0, io.EOF
		})), nil)
		if !errors.Is(err, context.Canceled) && at > 0 {
			t.Errorf("cancelled at %d: %v", at, err)
		}
		cancel()
		empty(t, s)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// Sparse members could claim any size.
func TestLoadSparse(t *testing.T) {
	t.Parallel()
	h := tar.Header{PAXRecords: map[string]string{"GNU.sparse.major": "1"}}
	if !isSparse(&h) || !isSparse(&tar.Header{Typeflag: tar.TypeGNUSparse}) || isSparse(&tar.Header{Typeflag: tar.TypeReg}) {
		t.Error("isSparse")
	}
}

// Configs and manifests share a budget of memory.
func TestLoadKeepsLittle(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte(" "), maxSmall)
	var members []tar.Header
	for n := range maxKept/maxSmall + 1 {
		members = append(members, memberFile(fmt.Sprint("junk", n), big))
	}
	b := writeTar(t, append(members, memberFile("manifest.json", []byte(`[]`)))...)
	s := newImages(t, t.TempDir())
	_, err := s.Load(t.Context(), bytes.NewReader(b), nil)
	wantError(t, "after too much junk", err, errs.Invalid, "manifest.json")
	if strings.Contains(err.Error(), "holds no image") {
		t.Errorf("all of %d MiB were kept", maxKept>>20)
	}
}

// Nor can a small archive make much work by naming one large index from many
// entries, each of which is good.
func TestLoadRepeatsLittle(t *testing.T) {
	t.Parallel()
	a := fixture.OCIArchive(fixture.Plain, oneLayer("app:v1", "x"))
	var x spec.Index
	must(t, json.Unmarshal(a.Files["index.json"], &x))
	over := func(d spec.Descriptor, pad int) spec.Descriptor {
		b := append(toJSON(spec.Index{SchemaVersion: 2, Manifests: []spec.Descriptor{d}}), bytes.Repeat([]byte(" "), pad)...)
		a.Add("blobs/sha256/"+fixture.Digest(b)[7:], b)
		return spec.Descriptor{MediaType: spec.TypeOCIIndex, Digest: spec.DigestOf(b), Size: int64(len(b))}
	}
	large := over(x.Manifests[0], maxManifest-1000)
	load := func(entries int) error {
		x.Manifests = nil
		for n := range entries {
			x.Manifests = append(x.Manifests, over(large, n))
		}
		a.Add("index.json", toJSON(x))
		s := newImages(t, t.TempDir())
		_, err := s.Load(t.Context(), bytes.NewReader(a.Bytes()), nil)
		if err != nil {
			empty(t, s)
		}
		return err
	}
	must(t, load(5))
	wantError(t, "many", load(maxParsed/maxManifest+2), errs.Invalid, "again and again")
}

func TestLoadedString(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]Loaded{
		"Loaded image: a:b":                {Name: "a:b", ID: "sha256:c"},
		"Loaded image ID: sha256:c":        {ID: "sha256:c"},
		"Loaded image: host:5000/x/y:v1.0": {Name: "host:5000/x/y:v1.0"},
	} {
		if l.String() != want {
			t.Errorf("%q, want %q", l, want)
		}
	}
}

// When the records cannot be written none of the images shows, and no layer of
// theirs stays.
func TestLoadCannotRecord(t *testing.T) {
	t.Parallel()
	for _, dir := range []func(s *Images) string{
		func(s *Images) string { return s.st.Names() },
		func(s *Images) string { return s.st.Images() },
		func(s *Images) string { return filepath.Dir(s.st.Blob("x")) },
	} {
		s := newImages(t, t.TempDir())
		loadImages(t, s, oneLayer("before:v1", "x"))
		before := files(t, s)
		// A place that does not exist stands for a full disk: it works for root.
		path := dir(s)
		moved := path + ".moved"
		b := fixture.DockerArchive(oneLayer("one:v1", "1"), oneLayer("two:v1", "2")).Bytes()
		last := true
		_, err := s.Load(t.Context(), io.MultiReader(bytes.NewReader(b), readFunc(func([]byte) (int, error) {
			if last {
				last = false
				must(t, os.Rename(path, moved))
			}
			return 0, io.EOF
		})), nil)
		if err == nil {
			t.Errorf("loaded into a store without %s", path)
		}
		must(t, os.Rename(moved, path))
		age(t, s)
		must(t, s.Sweep())
		if after := files(t, s); after != before {
			t.Errorf("without %s: before\n%s\nafter\n%s", path, before, after)
		}
		whole(t, s)
	}
}

// An archive's manifest names uncompressed layers; a pulled one, which names
// what registries have, stays when the image is loaded over it.
func TestLoadKeepsThePulledManifest(t *testing.T) {
	s, h := newImages(t, t.TempDir()), newHub(t)
	i := oneLayer("app:1", "content")
	h.push(i, "1")
	pulled, _ := pullOK(t, s, h.ref(t, ":1"))
	before := pulled.Image.Target
	load(t, s, fixture.OCIArchive(fixture.Plain, i).Bytes())
	if now := resolve(t, s, string(pulled.Image.ID)); before == nil || now.Target == nil || now.Target.Digest != before.Digest || now.Manifest != pulled.Image.Manifest {
		t.Errorf("target was %v, is %v", before, now.Target)
	}
	whole(t, s)
}
