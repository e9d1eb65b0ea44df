package image

import (
	"errors"
	"slices"
	"testing"

	"tug/errs"
)

func TestPullAll(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), newImages(t, t.TempDir())
	h.push(oneLayer("app:v1", "one"), "v1")
	h.push(oneLayer("app:v2", "two"), "v2")
	h.push(oneLayer("app:v2", "two"), "latest")
	h.put("tags/list", "application/json", []byte(`{"name":"app","tags":["v2","v1","latest"]}`))
	ref := h.ref(t, "")
	ref.Tag, ref.Digest = "", ""
	pull := func(want bool) {
		t.Helper()
		var began, ended []string
		newer, err := s.PullAll(t.Context(), ref, PullOptions{}, func(tag string) (Progress, func(*Pulled)) {
			began = append(began, tag)
			return &recorder{}, func(p *Pulled) { ended = append(ended, p.Ref.Tag) }
		})
		all := []string{"latest", "v1", "v2"}
		if err != nil || newer != want || !slices.Equal(began, all) || !slices.Equal(ended, all) {
			t.Errorf("newer %v, %v; began %q, ended %q", newer, err, began, ended)
		}
	}
	pull(true)
	pull(false)
	for _, tag := range []string{"v1", "v2", "latest"} {
		resolve(t, s, h.addr+"/app:"+tag)
	}

	ended := 0
	end := func(string) (Progress, func(*Pulled)) { return &recorder{}, func(*Pulled) { ended++ } }
	at := ref
	at.Tag = "v1"
	_, err := s.PullAll(t.Context(), at, PullOptions{}, end)
	wantError(t, "with a tag", err, errs.Invalid, "tag can't be used with --all-tags/-a")
	h.put("tags/list", "application/json", []byte(`{"name":"app","tags":["gone","v1"]}`))
	_, err = s.PullAll(t.Context(), ref, PullOptions{}, end)
	wantError(t, "a tag is gone", err, errs.NotFound, "app:gone not found")
	if ended != 1 {
		t.Errorf("%d ends, want that of the failed tag", ended)
	}
	h.put("tags/list", "application/json", []byte(`{"name":"app","tags":null}`))
	if _, err = s.PullAll(t.Context(), ref, PullOptions{}, end); !errs.Is(err, errs.NotFound) {
		t.Error(errors.Join(errors.New("no tags"), err))
	}
}
