package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"tug/image"
	"tug/spec"
)

func testForest() *image.Forest {
	imgs := testImages()
	leaf := func(i int, unique, shared int64, containers int) image.Leaf {
		return image.Leaf{Image: imgs[i], Usage: image.Usage{Unique: unique, Shared: shared, Containers: containers}}
	}
	digest := func(s string) spec.Digest { return spec.Digest("sha256:" + strings.Repeat(s, 16)) }
	imgs[2].Names = nil
	top := &image.Node{Layer: digest("3333"), Size: 5000, CreatedBy: "RUN a\nvery long \x1b[31m instruction that goes on and on, behind the right side of the terminal and further", Images: []image.Leaf{leaf(1, 5000, 1234, 1)}}
	base := &image.Node{Layer: digest("1111"), Size: 1234, CreatedBy: "ADD fs.tar /", Images: []image.Leaf{leaf(0, 0, 1234, 0)}, Below: []*image.Node{top, {Layer: digest("4444"), Images: []image.Leaf{leaf(0, 0, 0, 3)}}}}
	return &image.Forest{Root: &image.Node{Images: []image.Leaf{leaf(2, 0, 0, 0)}, Below: []*image.Node{base, {Layer: digest("5555"), Size: 7}}}, Total: 6241, Sum: 7475}
}

func TestImageTree(t *testing.T) {
	for name, lang := range map[string]string{"imagetree": "en_US.UTF-8", "imagetree-ascii": "C"} {
		t.Setenv("LC_ALL", lang)
		var out bytes.Buffer
		p := &treePainter{lines: newLines(), width: 80}
		p.below(testForest().Root, "")
		for line := range strings.Lines(p.b.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
				t.Errorf("%d columns: %q", n, line)
			}
		}
		a := &app{Stdio: Stdio{Out: &out}}
		if err := a.drawForest(testForest()); err != nil {
			t.Fatal(err)
		}
		golden(t, name, out.String()+"\n"+p.b.String())
	}
	var out bytes.Buffer
	if err := (&app{Stdio: Stdio{Out: &out}}).treeJSON(testForest()); err != nil {
		t.Fatal(err)
	}
	var v struct {
		TotalSize int64
		Layers    []treeNode
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.TotalSize != 6241 || len(v.Layers) != 2 || v.Layers[0].Below[0].Images[0].Containers != 1 {
		t.Errorf("%v: %s", err, &out)
	}
}
