package image

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// grown is an image of three layers, of which the upper ones replace and
// remove what lies below.
func grown(name string, top []byte, config map[string]any) *fixture.Image {
	return &fixture.Image{Name: name, Config: config, Layers: [][]byte{
		fixture.NewLayer().Dir("etc", 0o755).File("etc/conf", 0o644, "old").File("etc/big", 0o644, "0123456789").Bytes(),
		fixture.NewLayer().File("etc/conf", 0o644, "new").File("etc/.wh.big", 0, "").Bytes(),
		top,
	}}
}

func TestExplore(t *testing.T) {
	s := newImages(t, t.TempDir())
	loadImages(t, s, grown("test:a", fileLayer("etc/conf", "newest"), nil))
	x, err := s.Explore(t.Context(), "test:a")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if x.Data != 3+10+3+6 || x.Wasted != 3+10+3 || x.Files != 1 || len(x.Layers) != 3 {
		t.Errorf("data %d wasted %d files %d layers %d", x.Data, x.Wasted, x.Files, len(x.Layers))
	}
	if e := x.Efficiency(); e < 6.0/22-0.001 || e > 6.0/22+0.001 {
		t.Error(e)
	}
	if diff := cmp.Diff([]Waste{{"etc/big", 10, 1}, {"etc/conf", 6, 2}}, x.Waste()); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Explore(t.Context(), "test:nope"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

func TestLayerHistory(t *testing.T) {
	rows := []spec.HistoryRow{{CreatedBy: "ADD"}, {CreatedBy: "CMD", EmptyLayer: true}, {CreatedBy: "COPY"}}
	if got := layerHistory(rows, 2); len(got) != 2 || got[1].CreatedBy != "COPY" {
		t.Error(got)
	}
	if got := layerHistory(rows, 3); got != nil {
		t.Error("instructions were guessed: ", got)
	}
}

func TestCompare(t *testing.T) {
	s := newImages(t, t.TempDir())
	loadImages(t, s,
		grown("test:a", fileLayer("etc/conf", "newest"), map[string]any{"Env": []string{"A=1", "B=2"}, "Cmd": []string{"x"}, "User": "me"}),
		grown("test:b", fileLayer("bin", ""), map[string]any{"Env": []string{"A=2", "C="}, "Labels": map[string]string{"l": "v"}, "Cmd": []string{"x", "<y>"}}))
	c, err := s.Compare(t.Context(), "test:a", "test:b", false)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, d := range c.Files {
		files = append(files, fmt.Sprint(d.Kind, " ", d.Path, " ", d.Detail.Words()))
	}
	if diff := cmp.Diff([]string{"A bin []", "C etc/conf [content]"}, files); diff != "" || c.Common != 2 {
		t.Error(c.Common, diff)
	}
	want := []ConfigChange{
		{'D', "User", "", "me", ""},
		{'C', "Env", "A", "1", "2"},
		{'D', "Env", "B", "2", ""},
		{'A', "Env", "C", "", ""},
		{'C', "Cmd", "", `["x"]`, `["x","<y>"]`},
		{'A', "Labels", "l", "", "v"},
	}
	if diff := cmp.Diff(want, c.Config); diff != "" {
		t.Error(diff)
	}
	same, err := s.Compare(t.Context(), "test:a", "test:a", true)
	if err != nil || len(same.Files)+len(same.Config) != 0 || same.Common != 3 {
		t.Error(same, err)
	}
	if _, err := s.Compare(t.Context(), "test:a", "test:nope", true); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}
