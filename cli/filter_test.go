package cli

import (
	"strings"
	"testing"
	"time"

	"tug/image"
)

// Images made the same from the same source are of the year 1, of 1970 or of no
// time at all.
func TestCreatedFilters(t *testing.T) {
	at := func(s string) *time.Time {
		when, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return &when
	}
	created := map[string]*time.Time{
		"never": nil, "one": at("0001-01-01T00:00:00Z"), "epoch": at("1970-01-01T00:00:00Z"), "old": at("2020-01-01T00:00:00Z"), "new": at("2026-01-01T00:00:00Z"),
	}
	img := func(name string) *image.Image {
		i := &image.Image{}
		i.Config.Created = created[name]
		return i
	}
	for filters, want := range map[string]string{
		"until=2021-01-01": "epoch old one", "until=1h": "epoch new old one", "until=1960-01-01": "one",
		"before=new": "epoch old one", "before=old": "epoch one", "before=one": "", "before=never": "",
		"since=one": "epoch new old", "since=epoch": "new old", "since=new": "", "since=never": "",
		"before=new since=epoch": "old", "before=new before=old": "epoch one", "before=old before=new": "epoch one",
		"since=epoch since=old": "new", "since=old since=epoch": "new", "before=new before=never": "", "": "epoch never new old one",
	} {
		var f filterValue
		for _, s := range strings.Fields(filters) {
			if err := f.Set(s); err != nil {
				t.Fatal(err)
			}
		}
		until, err := untilMatcher(f)
		if err != nil {
			t.Fatal(err)
		}
		between, err := betweenImages(f, func(name string) (*image.Image, error) { return img(name), nil })
		if err != nil {
			t.Fatal(err)
		}
		prune, err := (&pruneOptions{filter: filterValue{"until": f["until"]}}).conditions()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range sortedKeys(created) {
			if until(created[name]) && between(created[name]) {
				got = append(got, name)
			}
			if match := prune.images(); match != nil && match(img(name)) != until(created[name]) {
				t.Errorf("%s, %s: prune and images differ", filters, name)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %q, want %q", filters, s, want)
		}
	}
	for name, want := range map[string]string{"never": "", "one": "", "epoch": "56 years ago"} {
		if s := (&imageRow{img: img(name), now: testNow}).since(); s != want {
			t.Errorf("%s: %q, want %q", name, s, want)
		}
	}
}
