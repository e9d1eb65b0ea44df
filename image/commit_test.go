package image

import (
	"slices"
	"testing"

	"tug/test/fixture"
)

// An image that comes again is not read again to find out what to mount, also
// when its layers have directories without entries and need nothing made.
func TestComesAgain(t *testing.T) {
	s := newImages(t, t.TempDir())
	layer := fixture.NewLayer().File("a/b/c", 0o644, "in directories without entries").Bytes()
	loadImages(t, s, &fixture.Image{Name: "again:1", Layers: [][]byte{layer}})
	img := resolve(t, s, "again:1")
	in := &incoming{id: img.ID, layers: img.Layers()}
	held := s.holdStack(in)
	if len(held) != 1 || !slices.Equal(in.stack, img.Layers()) {
		t.Errorf("held %v, stack %v", held, in.stack)
	}
	for _, l := range held {
		l.Close()
	}
	if s.holdStack(&incoming{id: img.ID, layers: nil}) != nil {
		t.Error("other layers under the same ID")
	}
}
