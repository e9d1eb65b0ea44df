package container

import (
	"archive/tar"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/layer"
)

// Attributes that a tar cannot hold must not make an export fail.
func TestExportXattrs(t *testing.T) {
	h := headerOf("f", &layer.File{Mode: 0o100644, GID: 1<<32 - 2, Mtime: time.Unix(1, 5), Xattrs: map[string]string{
		"user.ok": "a\x00b", "user.a=b": "x", "trusted.overlay.opaque": "y", "security.selinux": "s", "security.capability": "c",
		"user.huge": strings.Repeat("x", maxExportAttrs),
	}})
	want := map[string]string{"SCHILY.xattr.security.capability": "c"}
	// What comes after what is too large is left out too.
	if diff := cmp.Diff(want, h.PAXRecords); diff != "" {
		t.Error(diff)
	}
	h = headerOf("f", &layer.File{Mode: 0o106755, Mtime: time.Unix(1, 5), Xattrs: map[string]string{"user.ok": "a\x00b"}})
	var b strings.Builder
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	got, err := tar.NewReader(strings.NewReader(b.String())).Next()
	if err != nil || got.Mode != 0o6755 || got.PAXRecords["SCHILY.xattr.user.ok"] != "a\x00b" || !got.ModTime.Equal(h.ModTime) {
		t.Errorf("%+v %v", got, err)
	}
}
