//go:build root

package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tug/errs"
	"tug/spec"
)

// Archives that try to write or to read outside of the layer, through links
// that they bring along. Whether they are refused or taken as chroot(2) would:
// what lies outside stays as it is and does not get in.
func TestHostileLayers(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := describe(t, outside)
	up := strings.Repeat("../", 30)
	rel := strings.TrimPrefix(outside, "/")
	chmod := func(h *tar.Header) { h.Mode, h.Uid = 0o6777, 12345 }
	cases := map[string][]member{
		"file through an absolute link":   {symlink("l", outside), file("l/new", "x"), file("l/secret", "x")},
		"file through a climbing link":    {symlink("l", up+rel), file("l/new", "x"), file("l/secret", "x")},
		"file through links of links":     {symlink("a", "b"), symlink("b", outside), symlink("c", "a/."), file("c/secret", "x")},
		"file over a link":                {symlink("l", secret), file("l", "x").with(chmod)},
		"directory over a link":           {symlink("l", outside), dir("l/").with(chmod), file("l/secret", "x")},
		"directory becomes a link":        {dir("d/"), file("d/a", "x"), symlink("d", outside), file("d/secret", "x"), dir("d/sub/")},
		"parent becomes a link":           {dir("d/"), dir("d/e/"), symlink("d", outside), file("d/e/f", "x"), file("d/secret", "x")},
		"hard link through a link":        {symlink("l", outside), hardlink("h", "l/secret")},
		"hard link to a link, then file":  {symlink("l", secret), hardlink("h", "l"), file("h", "x").with(chmod)},
		"hard link to an absolute name":   {hardlink("h", secret)},
		"hard link that climbs":           {hardlink("h", up+rel+"/secret")},
		"hard link over its own target":   {symlink("l", secret), hardlink("l", "l"), file("l", "x")},
		"attributes of a link":            {symlink("l", secret).with(chmod).with(xattrsOf("user.a", "b", "trusted.x", "y"))},
		"fifo over a link":                {symlink("l", secret), special("l", tar.TypeFifo, 0, 0).with(chmod)},
		"device over a link":              {symlink("l", secret), special("l", tar.TypeBlock, 8, 0).with(chmod)},
		"link over the root":              {symlink("./", outside), file("secret", "x")},
		"climbing name":                   {file(up+rel+"/new", "x")},
		"climbing in the middle":          {dir("d/"), file("d/"+up+rel+"/new", "x")},
		"absolute name":                   {file(outside+"/new", "x")},
		"whiteout through a link":         {symlink("l", outside), file("l/.wh.secret", "")},
		"opaque through a link":           {symlink("l", outside), file("l/.wh..wh..opq", "")},
		"whiteout of a dot":               {file("d/.wh..", "")},
		"whiteout of two dots":            {file("d/.wh...", "")},
		"whiteout with a slash":           {file("d/.wh./x", "")},
		"aufs's hard links":               {file(".wh..wh.plnk/1", "x"), symlink(".wh..wh.plnk", outside), hardlink("h", ".wh..wh.plnk/secret")},
		"proc of whoever reads":           {symlink("l", "/proc/self/root"+outside), file("l/new", "x"), symlink("m", "/proc/self/cwd"), file("m/new", "x")},
		"a name as the store's own files": {file("../tar", "x"), file("../../meta.json", "x")},
		"a link as the store's own files": {symlink("index.erofs", "../meta.json"), file("index.erofs", "x"), file("tar", "x"), file("fs", "x")},
	}
	eachBackend(t, func(r *room) {
		for name, members := range cases {
			archive := makeTar(t, members...)
			l, err := r.l.Add(context.Background(), bytes.NewReader(archive), Expect{BlobSize: -1})
			if err == nil { // a hard link to what is not there is refused only here
				var made []*Layer
				_, made, err = r.l.Stack(r.Context(), []spec.Digest{l.DiffID})
				closeAll(made)
				l.Close()
			}
			if err != nil {
				if c := errs.ClassOf(err); c != errs.Invalid && c != errs.Unsupported {
					t.Errorf("%s: %v", name, err)
				}
			} else {
				for _, line := range describe(t, r.show(l.DiffID)) {
					if strings.Contains(line, before[1][strings.LastIndex(before[1], " "):]) {
						t.Errorf("%s: the secret is in the layer: %s", name, line)
					}
				}
			}
			if now := describe(t, outside); !slices.Equal(now, before) {
				t.Fatalf("%s: outside was\n%q\nand is\n%q", name, before, now)
			}
		}
		for _, info := range must(r.l.List()) {
			entries, err := os.ReadDir(r.l.path(info.DiffID))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if !slices.Contains([]string{fileTar, fileIndex, fileMeta, dirFS}, e.Name()) {
					t.Errorf("a layer's directory holds %s", e.Name())
				}
			}
			if _, err := r.l.Get(info.DiffID); err != nil {
				t.Error(err)
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
