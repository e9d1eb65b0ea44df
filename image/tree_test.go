package image

import (
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func TestForest(t *testing.T) {
	s := newImages(t, t.TempDir())
	a, b := twoLayers("a:1"), twoLayers("b:1")
	b.Layers[1] = fileLayer("only", "here")
	top := twoLayers("top:1")
	top.Layers = append(append([][]byte{}, a.Layers...), fileLayer("third", "layer"))
	loadImages(t, s, a, b, top, &fixture.Image{Name: "none:1"})
	useImage(t, s, "c", top)
	f, err := s.Forest(nil)
	must(t, err)
	if len(f.Root.Images) != 1 || f.Root.Images[0].Image.Names[0] != "none:1" || len(f.Root.Below) != 1 {
		t.Fatalf("root: %+v", f.Root)
	}
	base := f.Root.Below[0]
	if base.Layer != spec.Digest(fixture.Digest(a.Layers[0])) || base.CreatedBy != "layer 0" || len(base.Images) != 0 || len(base.Below) != 2 {
		t.Fatalf("base: %+v", base)
	}
	second := base.Below[0]
	if len(second.Images) != 1 || second.Images[0].Image.Names[0] != "a:1" || second.Images[0].Unique != 0 || len(second.Below) != 1 || second.Below[0].Images[0].Containers != 1 {
		t.Errorf("second: %+v", second)
	}
	if got := base.Below[1].Images[0]; got.Image.Names[0] != "b:1" || got.Unique != 4 || got.Shared+got.Unique != got.Image.Size {
		t.Errorf("b: %+v", got)
	}
	var sum int64
	infos, err := s.layers.List()
	must(t, err)
	for _, i := range infos {
		sum += i.Content
	}
	if f.Total != sum || f.Sum <= f.Total {
		t.Errorf("total %d, sum %d; the layers have %d", f.Total, f.Sum, sum)
	}
	one, err := s.Forest([]*Image{resolve(t, s, "b:1")})
	must(t, err)
	if len(one.Root.Below) != 1 || len(one.Root.Images) != 0 || one.Root.Below[0].Below[0].Images[0].Unique != 4 {
		t.Errorf("of one image: %+v", one.Root)
	}
}

func TestResolveFor(t *testing.T) {
	s := newImages(t, t.TempDir())
	amd, arm := oneLayer("multi:1", "amd"), oneLayer("multi:1", "arm")
	arm.Arch = "arm64"
	loadVariants(t, s, "multi:1", amd, arm)
	for arch, want := range map[string]spec.Digest{"amd64": idOf(amd), "arm64": idOf(arm)} {
		img, err := s.ResolveFor("multi:1", &spec.Platform{OS: "linux", Architecture: arch})
		must(t, err)
		if img.ID != want {
			t.Errorf("%s: %s", arch, img.ID)
		}
	}
	_, err := s.ResolveFor("multi:1", &spec.Platform{OS: "linux", Architecture: "s390x"})
	wantError(t, "s390x", err, errs.NotFound, "does not match the specified platform (linux/s390x)")
	_, err = s.ResolveFor("none:1", &spec.Platform{OS: "linux", Architecture: "amd64"})
	wantError(t, "none", err, errs.NotFound, "No such image: none:1")
	list, err := s.List()
	must(t, err)
	trees, err := s.Platforms(list)
	must(t, err)
	for _, tr := range trees {
		if len(tr.Platforms) != 2 || tr.Platforms[0].Image != idOf(amd) || tr.Platforms[1].Image != idOf(arm) || tr.Platforms[1].Disk == 0 || tr.Platforms[1].Content == 0 {
			t.Errorf("%+v", tr)
		}
	}
}
