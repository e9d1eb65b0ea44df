package image

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tug/spec"
)

// A mirror that sends other bytes than it is asked for, of any part of an
// image, costs time and not the pull.
func TestPullFromLyingMirror(t *testing.T) {
	for _, what := range []string{"tag", "config", "layer"} {
		h, mirror, i := newHub(t), newHub(t), twoLayers("app:v1")
		m := h.push(i, "v1")
		mirror.push(i, "v1")
		path := map[string]string{"tag": manifestV1(m), "config": blobPath(m.Config.Digest), "layer": layerPath(m)}[what]
		size := map[string]int64{"config": m.Config.Size, "layer": m.Layers[0].Size}[what]
		mirror.spoil(path, func(w http.ResponseWriter, r *http.Request) {
			if what == "tag" {
				w.Header().Set("Content-Type", spec.TypeOCIManifest)
				io.WriteString(w, `{"schemaVersion":2,"layers":"none"}`)
				return
			}
			w.Write(bytes.Repeat([]byte("x"), int(size)))
		})
		file := filepath.Join(t.TempDir(), "registries.toml")
		must(t, os.WriteFile(file, []byte(`registry."`+h.addr+`".mirrors = ["http://`+mirror.addr+`"]`), 0o600))
		t.Setenv("TUG_REGISTRIES", file)
		s := newImages(t, t.TempDir())
		p, _ := pullOK(t, s, h.ref(t, ":v1"))
		if p.Image.ID != idOf(i) || mirror.count(path) == 0 || h.count(path) == 0 {
			t.Errorf("%s: %s; the mirror was asked %d times for it, the registry %d", what, p.Image.ID, mirror.count(path), h.count(path))
		}
		if strings.Contains(files(t, s), "partial") {
			t.Errorf("%s: left %s", what, files(t, s))
		}
	}
}
