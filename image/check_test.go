package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// ward is a store with one image that was pulled and whose files a test harms.
type ward struct {
	*testing.T
	s    *Images
	h    *hub
	img  *Image
	m    *spec.Manifest
	tagF string // the name files
	digF string
}

func newWard(t *testing.T) *ward {
	h, s := newHub(t), newImages(t, t.TempDir())
	w := &ward{T: t, s: s, h: h}
	w.m = h.push(twoLayers("app:v1"), "v1")
	p, _ := pullOK(t, s, h.ref(t, ":v1"))
	w.img = p.Image
	w.tagF = nameFile(h.ref(t, ":v1").String())
	w.digF = nameFile(h.ref(t, "@"+string(p.Digest)).String())
	return w
}

func (w *ward) layer(i int, file string) string {
	return filepath.Join(w.s.st.Layer(w.img.Layers()[i].Hex()), file)
}

func (w *ward) record() string { return w.s.st.Image(w.img.ID.Hex()) }

// flip changes one bit in the middle of a file.
func flip(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 4
	must(t, os.WriteFile(path, b, 0o600))
}

func cut(t testing.TB, path string) {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, fi.Size()/2))
}

func edit(t testing.TB, path string, change func(m map[string]any)) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	m := map[string]any{}
	must(t, json.Unmarshal(b, &m))
	change(m)
	must(t, os.WriteFile(path, toJSON(m), 0o600))
}

func swap(t testing.TB, a, b string) {
	t.Helper()
	must(t, os.Rename(a, a+"x"))
	must(t, os.Rename(b, a))
	must(t, os.Rename(a+"x", b))
}

// check runs Check and returns its faults, a line each.
func (w *ward) check(o CheckOptions) (lines string, left bool) {
	w.Helper()
	faults, err := w.s.Check(w.Context(), o)
	must(w, err)
	for _, f := range faults {
		lines += f.Text() + "\n"
	}
	return lines, IsLeft(faults)
}

func TestCheckAndRepair(t *testing.T) {
	t.Parallel()
	config := func(w *ward) string { return w.s.st.Blob(w.img.ID.Hex()) }
	manifest := func(w *ward) string { return w.s.st.Blob(w.img.Manifest.Hex()) }
	type harm struct {
		name   string
		do     func(w *ward)
		words  string // in a line of check; several lines are separated by |
		mended string
		quick  bool // seen without reading contents
		loses  bool // the tag is gone afterwards
		mild   bool // a leftover
	}
	t0, w, spent := t, newWard(t), false
	write := func(path string, text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }
	for _, h := range []harm{
		{"tar flipped", func(w *ward) { flip(w, w.layer(0, "tar")) }, "tar has digest sha256:", "fetched it again", false, false, false},
		{"tar cut", func(w *ward) { cut(w, w.layer(1, "tar")) }, "tar has ", "fetched it again", true, false, false},
		{"tar missing", func(w *ward) { must(w, os.Remove(w.layer(0, "tar"))) }, "tar is missing", "fetched it again", true, false, false},
		{"tar grown", func(w *ward) {
			f, err := os.OpenFile(w.layer(0, "tar"), os.O_APPEND|os.O_WRONLY, 0)
			must(w, err)
			_, err = f.WriteString("more")
			must(w, err)
			f.Close()
		}, "tar has ", "fetched it again", true, false, false},
		{"tar a directory", func(w *ward) { must(w, os.Remove(w.layer(0, "tar"))); must(w, os.Mkdir(w.layer(0, "tar"), 0o700)) }, "tar is not a file", "fetched it again", true, false, false},
		{"layer missing", func(w *ward) { must(w, os.RemoveAll(w.layer(1, ""))) }, "is missing; containers", "fetched it again", true, false, false},
		{"layers swapped", func(w *ward) { swap(w, w.layer(0, "."), w.layer(1, ".")) }, "tar has digest|meta.json is of layer", "fetched it again", true, false, false},
		{"tars swapped", func(w *ward) { swap(w, w.layer(0, "tar"), w.layer(1, "tar")) }, "tar has digest", "fetched it again", false, false, false},
		{"index flipped", func(w *ward) { flip(w, w.layer(0, "index.erofs")) }, "index.erofs differs from what the tar says, from byte", "made it again", false, false, false},
		{"index cut", func(w *ward) { cut(w, w.layer(0, "index.erofs")) }, "index.erofs ", "made it again", true, false, false},
		{"index missing", func(w *ward) { must(w, os.Remove(w.layer(0, "index.erofs"))) }, "index.erofs is missing", "made it again", true, false, false},
		{"indexes swapped", func(w *ward) { swap(w, w.layer(0, "index.erofs"), w.layer(1, "index.erofs")) }, "index.erofs differs", "made it again", false, false, false},
		{"meta no JSON", func(w *ward) { cut(w, w.layer(0, "meta.json")) }, "meta.json is not the JSON", "made it again", true, false, false},
		{"meta missing", func(w *ward) { must(w, os.Remove(w.layer(0, "meta.json"))) }, "meta.json is missing", "made it again", true, false, false},
		{"meta lies on content", func(w *ward) {
			edit(w, w.layer(0, "meta.json"), func(m map[string]any) { m["Content"] = 1 << 40 })
		}, "meta.json says Content 1099511627776", "made it again", false, false, false},
		{"meta lies on root", func(w *ward) {
			edit(w, w.layer(0, "meta.json"), func(m map[string]any) { m["Root"] = map[string]any{"Mode": 0o777} })
		}, "another root directory", "made it again", false, false, false},
		{"meta lies on opaque", func(w *ward) {
			edit(w, w.layer(0, "meta.json"), func(m map[string]any) { m["Opaque"] = true })
		}, "says Opaque true", "made it again", false, false, false},
		{"left file", func(w *ward) {
			write(w.layer(0, ".new-1"), "x")
			must(w, os.Chtimes(w.layer(0, ".new-1"), time.Time{}, time.Now().Add(-time.Hour)))
		}, ".new-1 was left by a command", "made it again", true, false, true},
		{"foreign file", func(w *ward) { write(w.layer(0, "x"), "x") }, "x does not belong here", "made it again", true, false, false},
		{"open to all", func(w *ward) { must(w, os.Chmod(w.layer(0, "tar"), 0o644)) }, "tar has mode 0644 instead of 0600", "made it again", true, false, false},
		{"directory open to all", func(w *ward) { must(w, os.Chmod(w.layer(0, ""), 0o755)) }, "has mode 0755 instead of 0700", "made it again", true, false, false},
		{"config flipped", func(w *ward) { flip(w, config(w)) }, "other bytes than its digest", "fetched it again", true, false, false},
		{"config missing", func(w *ward) { must(w, os.Remove(config(w))) }, "is missing", "fetched it again", true, false, false},
		{"manifest cut", func(w *ward) { cut(w, manifest(w)) }, "other bytes than its digest", "fetched it again", true, false, false},
		{"config and manifest missing", func(w *ward) { must(w, os.Remove(config(w))); must(w, os.Remove(manifest(w))) }, "is missing", "fetched it again", true, false, false},
		{"all missing", func(w *ward) {
			must(w, os.Remove(config(w)))
			must(w, os.Remove(manifest(w)))
			must(w, os.RemoveAll(w.layer(0, "")))
			must(w, os.RemoveAll(w.layer(1, "")))
		}, "blob|layer", "fetched it again", true, false, false},
		{"record no JSON", func(w *ward) { cut(w, w.record()) }, "is not the record", "made the record anew", true, false, false},
		{"record of another", func(w *ward) {
			edit(w, w.record(), func(m map[string]any) { m["id"] = "sha256:" + strings.Repeat("0", 64) })
		}, "is not the record", "made the record anew", true, false, false},
		{"record lies on layers", func(w *ward) {
			edit(w, w.record(), func(m map[string]any) { m["layers"] = m["layers"].([]any)[:1] })
		}, "names other layers", "made the record anew", true, false, false},
		{"record lies on size", func(w *ward) {
			edit(w, w.record(), func(m map[string]any) { m["size"] = 7 })
		}, "says size 7", "made the record anew", false, false, false},
		{"record forgets blobs", func(w *ward) {
			edit(w, w.record(), func(m map[string]any) { m["blobs"] = []any{} })
		}, "does not name the image's config|does not name manifest", "made the record anew", true, false, false},
		{"name to nothing", func(w *ward) {
			edit(w, w.s.st.Names()+"/"+w.tagF, func(m map[string]any) { m["image"] = "sha256:" + strings.Repeat("0", 64) })
		}, "points at image 000000000000, which is not there", "removed the name", true, true, false},
		{"name no JSON", func(w *ward) { cut(w, w.s.st.Names()+"/"+w.tagF) }, "does not hold the name", "tag it again", true, true, false},
		{"digest no JSON", func(w *ward) { cut(w, w.s.st.Names()+"/"+w.digF) }, "does not hold the name", "gave it to image", true, false, false},
		{"names swapped", func(w *ward) { swap(w, w.s.st.Names()+"/"+w.tagF, w.s.st.Names()+"/"+w.digF) }, "does not hold the name", "gave it to image", true, true, false},
		{"directory missing", func(w *ward) { must(w, os.RemoveAll(w.s.st.Tmp())) }, "tmp is missing", "made it", true, false, false},
		{"store open to all", func(w *ward) { must(w, os.Chmod(w.s.st.Root, 0o755)) }, "has mode 0755", "set its mode", true, false, false},
		{"record open to all", func(w *ward) { must(w, os.Chmod(w.record(), 0o640)) }, "has mode 0640", "set its mode", true, false, false},
		{"storage.json", func(w *ward) { write(w.s.st.RunPath("storage.json"), `{"Works":["magic"]}`) }, "storage.json does not hold", "removed it", true, false, false},
		{"blob of nobody", func(w *ward) { write(w.s.st.Blob(strings.Repeat("a", 64)), "x") }, "belongs to no image", "removed it", true, false, true},
		{"half a blob", func(w *ward) { write(filepath.Dir(config(w))+"/.new-1", "x") }, "command that was killed", "removed it", true, false, true},
		{"half a layer", func(w *ward) { must(w, os.MkdirAll(w.s.st.Tmp()+"/layer-1/fs", 0o700)) }, "command that was killed", "removed it", true, false, true},
		{"old layer of nobody", func(w *ward) {
			l := addLayer(w, w.s, fileLayer("x", "x"))
			l.Close()
			at := time.Now().Add(-2 * keepUnused)
			must(w, os.Chtimes(w.s.st.Layer(l.DiffID.Hex()), at, at))
		}, "belongs to no image or container", "removed it", true, false, true},
		{"damaged layer of nobody", func(w *ward) {
			l := addLayer(w, w.s, fileLayer("x", "x"))
			l.Close()
			flip(w, w.s.st.Layer(l.DiffID.Hex())+"/tar")
		}, "and is damaged", "removed it", false, false, true},
		{"turn of nobody", func(w *ward) {
			must(w, os.MkdirAll(w.s.st.RunPath("fetch"), 0o700))
			write(w.s.st.RunPath("fetch", "x"), "")
		}, "pull that was killed", "removed it", true, false, true},
	} {
		t.Run(h.name, func(t *testing.T) {
			if spent {
				w = newWard(t0)
			}
			// Each case starts from what the one before has mended.
			spent = true
			w.T = t
			if got, left := w.check(CheckOptions{}); got != "" || left {
				t.Fatalf("a good store: %s", got)
			}
			h.do(w)
			got, left := w.check(CheckOptions{})
			for _, words := range strings.Split(h.words, "|") {
				if !strings.Contains(got, words) {
					t.Errorf("check says %q, want %q", got, words)
				}
			}
			if left == h.mild {
				t.Errorf("left is %v: %s", left, got)
			}
			if quick, _ := w.check(CheckOptions{Quick: true}); h.quick != (quick != "") {
				t.Errorf("quick check says %q", quick)
			}
			got, left = w.check(CheckOptions{Repair: true})
			if !strings.Contains(got, h.mended) || left {
				t.Errorf("repair says %q, want %q", got, h.mended)
			}
			if got, left := w.check(CheckOptions{}); got != "" || left {
				t.Errorf("after repair: %s", got)
			}
			whole(t, w.s)
			v, err := w.s.Verify(t.Context(), string(w.img.ID))
			if err != nil || len(v.Faults) > 0 {
				t.Errorf("verify after repair: %v %v", v, err)
			}
			img := resolve(t, w.s, string(w.img.ID))
			if (len(img.Names) == 0) != h.loses || len(img.Digests) != 1 || img.Manifest != w.img.Manifest || img.Size != w.img.Size || img.Target == nil || img.Target.Digest != w.img.Target.Digest || img.Target.MediaType != w.img.Target.MediaType {
				t.Errorf("after repair %+v, before %+v", img, w.img)
			}
			must(t, w.s.Tag(string(w.img.ID), w.h.ref(t, ":v1").String()))
			spent = t.Failed()
		})
	}
}

// Without the registry repair says why, changes nothing else, and what can be
// done without it is done.
func TestRepairWithoutRegistry(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.h.spoil(blobPath(w.m.Layers[0].Digest), http.NotFound)
	flip(w, w.layer(0, "tar"))
	flip(w, w.layer(1, "index.erofs"))
	before, err := os.ReadFile(w.layer(0, "tar"))
	must(t, err)
	got, left := w.check(CheckOptions{Repair: true})
	if !left || !strings.Contains(got, "[not mended: ") || !strings.Contains(got, "index.erofs differs") || strings.Count(got, "[mended") != 1 {
		t.Error(got)
	}
	if after, err := os.ReadFile(w.layer(0, "tar")); err != nil || !bytes.Equal(before, after) {
		t.Error("the damaged layer is gone though nothing replaced it")
	}

	s := newImages(t, t.TempDir())
	loadImages(t, s, twoLayers("app:v1"))
	l := &ward{T: t, s: s, img: resolve(t, s, "app:v1")}
	cut(t, l.layer(0, "tar"))
	got, left = l.check(CheckOptions{Repair: true})
	if !left || !strings.Contains(got, "no registry is known that has it") {
		t.Error(got)
	}
	v, err := s.Verify(t.Context(), "app:v1")
	if err != nil || len(v.Faults) == 0 {
		t.Error("verify found nothing", err)
	}
	// What check names, load mends.
	loadImages(t, s, twoLayers("app:v1"))
	if got, left := l.check(CheckOptions{}); left {
		t.Error(got)
	}
}

// A registry that sends other bytes mends nothing.
func TestRepairFromLiar(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	other, _ := fixture.Compress(fixture.Gzip, fileLayer("evil", "evil"))
	w.h.put(blobPath(w.m.Layers[0].Digest), "application/octet-stream", other)
	w.h.put(blobPath(w.m.Config.Digest), "application/octet-stream", bytes.Repeat([]byte{'x'}, int(w.m.Config.Size)))
	flip(w, w.layer(0, "tar"))
	must(t, os.Remove(w.s.st.Blob(w.img.ID.Hex())))
	got, left := w.check(CheckOptions{Repair: true})
	if !left || strings.Contains(got, "[mended") {
		t.Error(got)
	}
}

// What others use is left alone.
func TestRepairInUse(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	flip(w, w.layer(0, "tar"))
	got, left := w.check(CheckOptions{Repair: true, Busy: func(spec.Digest) bool { return true }})
	if !left || !strings.Contains(got, "a running container uses it") {
		t.Error(got)
	}
	held, err := w.s.layers.Get(w.img.Layers()[0])
	must(t, err)
	defer held.Close()
	got, left = w.check(CheckOptions{Repair: true})
	if !left || !strings.Contains(got, "in use by another command") {
		t.Error(got)
	}
	dir, lock, err := w.s.st.TempDir("layer-*")
	must(t, err)
	defer lock.Close()
	if got, _ := w.check(CheckOptions{Repair: true}); strings.Contains(got, filepath.Base(dir)) {
		t.Error("what a command is making is taken for a leftover:", got)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	v, err := w.s.Verify(t.Context(), string(w.img.ID))
	must(t, err)
	if v.Layers != 2 || v.Blobs != 2 || len(v.Faults) != 0 || v.Bytes == 0 {
		t.Errorf("%+v", v)
	}
	flip(w, w.layer(0, "tar"))
	flip(w, w.s.st.Blob(w.img.Manifest.Hex()))
	if v, err = w.s.Verify(t.Context(), string(w.img.ID)); err != nil || len(v.Faults) != 2 {
		t.Errorf("%+v %v", v, err)
	}
	cut(w, w.record())
	if v, err = w.s.Verify(t.Context(), string(w.img.ID)); err != nil || len(v.Faults) != 1 {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := w.s.Verify(t.Context(), "nope"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

// Of several repairs at once one mends, the others wait and find nothing left.
func TestRepairTogether(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for round := range 3 {
		for i := range w.img.Layers() {
			flip(t, w.layer(i, "tar"))
		}
		before := w.h.count(layerPath(w.m))
		var mended atomic.Int32
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				// As another process has it.
				s := Open(w.s.st, w.s.layers, w.s.reg)
				faults, err := s.Check(t.Context(), CheckOptions{Repair: true})
				if err != nil || IsLeft(faults) {
					t.Errorf("%v, %v", faults, err)
				}
				for _, f := range faults {
					if strings.Contains(f.Text(), "fetched it again") {
						mended.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := mended.Load(); int(n) != len(w.img.Layers()) || w.h.count(layerPath(w.m)) != before+1 {
			t.Errorf("round %d: %d layers were mended, layer 0 was fetched %d times", round, n, w.h.count(layerPath(w.m))-before)
		}
		if got, left := w.check(CheckOptions{}); got != "" || left {
			t.Errorf("round %d: %s", round, got)
		}
	}
	// Who gives up waiting has done nothing.
	turn, err := w.s.repairTurn(t.Context(), nil)
	must(t, err)
	defer turn.end()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := w.s.Check(ctx, CheckOptions{Repair: true, Wait: cancel}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Layers that were made for an image are made again from those below.
func TestRepairMade(t *testing.T) {
	t.Parallel()
	s := newImages(t, t.TempDir())
	loadImages(t, s, &fixture.Image{Name: "test:linked", Layers: [][]byte{
		fixture.NewLayer().File("a", 0o600, "content").Bytes(),
		fixture.NewLayer().Link("b", "a").Bytes(),
	}})
	w := &ward{T: t, s: s, img: resolve(t, s, "test:linked")}
	if len(w.img.Stack) != 3 {
		t.Fatal("nothing was made: ", w.img.Stack)
	}
	made := s.st.Layer(w.img.Stack[2].Hex())
	for name, harm := range map[string]func(){
		"flipped": func() { flip(t, made+"/tar") },
		"missing": func() { must(t, os.RemoveAll(made)) },
		"not mounted": func() {
			edit(t, w.record(), func(m map[string]any) { delete(m, "stack") })
		},
		"another order": func() {
			edit(t, w.record(), func(m map[string]any) { x := m["stack"].([]any); x[0], x[1] = x[1], x[0] })
		},
		"record": func() { cut(t, w.record()) },
	} {
		if got, left := w.check(CheckOptions{}); got != "" || left {
			t.Fatalf("before %s: %s", name, got)
		}
		harm()
		if name != "record" {
			if v, err := s.Verify(t.Context(), string(w.img.ID)); err != nil || len(v.Faults) == 0 {
				t.Errorf("%s: verify found nothing (%v)", name, err)
			}
		}
		if got, left := w.check(CheckOptions{Repair: true}); left || !strings.Contains(got, "[mended") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got, left := w.check(CheckOptions{}); got != "" || left {
		t.Error(got)
	}
	if img := resolve(t, s, "test:linked"); len(img.Stack) != 3 {
		t.Error(img.Stack)
	}
}
