package container

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
)

// subIDDir makes a directory with these files; "" is none.
func subIDDir(t *testing.T, subuid, subgid string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"subuid": subuid, "subgid": subgid} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(SubIDsVar, dir)
	return dir
}

func idMap(inside, outside, size uint32) spec.IDMap {
	return spec.IDMap{Inside: inside, Outside: outside, Size: size}
}

func idRange(first, count uint32) spec.IDRange { return spec.IDRange{First: first, Count: count} }

func TestFindSubIDs(t *testing.T) {
	const tug, docker = "tug:100000:65536\n", "dockremap:300000:70000\ndockremap:400000:100\n"
	for name, c := range map[string]struct {
		uid, gid string
		want     *spec.IDMaps
	}{
		"the first": {docker + tug, tug + docker, &spec.IDMaps{UIDs: []spec.IDMap{idMap(0, 100000, 65536)}, GIDs: []spec.IDMap{idMap(0, 100000, 65536)}}},
		"the second, several ranges": {docker, docker, &spec.IDMaps{
			UIDs: []spec.IDMap{idMap(0, 300000, 70000), idMap(70000, 400000, 100)}, GIDs: []spec.IDMap{idMap(0, 300000, 70000), idMap(70000, 400000, 100)},
		}},
		"other lines": {
			"# tug:1:2\n\ntug\ntug:x:5\ntug:1:-5\ntug:7:0\ntug:1:2:3\ntug:99999999999:5\n" + tug, tug,
			&spec.IDMaps{UIDs: []spec.IDMap{idMap(0, 100000, 65536)}, GIDs: []spec.IDMap{idMap(0, 100000, 65536)}},
		},
		"up to the last": {"tug:4294901759:65536\n", tug, &spec.IDMaps{UIDs: []spec.IDMap{idMap(0, 4294901759, 65536)}, GIDs: []spec.IDMap{idMap(0, 100000, 65536)}}},
	} {
		t.Run(name, func(t *testing.T) {
			subIDDir(t, c.uid, c.gid)
			s, err := findSubIDs("tug", "dockremap")
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.whole()
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestNoSubIDs(t *testing.T) {
	const tug = "tug:100000:65536\n"
	for name, c := range map[string]struct{ uid, gid, msg, hint string }{
		"no files":       {"", "", "user tug has no subordinate IDs in DIR/subuid", "add the line tug:100000:65536 to DIR/subuid and to DIR/subgid"},
		"no group":       {tug, "other:500000:65536\n", "user tug has no subordinate IDs in DIR/subgid", "add the line tug:565536:65536 to DIR/subgid"},
		"nobody's":       {"a:100000:65536\nb:165536:65536\n", "a:1:5\n", "user tug has no subordinate IDs in DIR/subuid", "add the line tug:231072:65536 to DIR/subuid and to DIR/subgid"},
		"a full file":    {"a:100000:4000000000\n", "", "user tug has no subordinate IDs in DIR/subuid", "add the line tug:100000:65536 to DIR/subuid and to DIR/subgid"},
		"root":           {"tug:0:65536\n", tug, "read the subordinate IDs: DIR/subuid: tug has 0:65536", "subordinate IDs must be above 0, which is the host's root, and below 4294967295"},
		"beyond the end": {"tug:4294967000:65536\n", tug, "read the subordinate IDs: DIR/subuid: tug has 4294967000:65536", "subordinate IDs must be above 0, which is the host's root, and below 4294967295"},
		"twice the same": {"tug:100000:65536\ntug:165535:9\n", tug, "read the subordinate IDs: DIR/subuid: the ranges of tug overlap", ""},
		"few":            {"tug:100000:50\n", tug, "DIR/subuid: tug has 50 subordinate IDs, a container needs 100 at least", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := subIDDir(t, c.uid, c.gid)
			s, err := findSubIDs("tug", "dockremap")
			if err == nil {
				_, err = s.whole()
			}
			if err == nil {
				t.Fatal("accepted")
			}
			here := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
			if err.Error() != here(c.msg) || errs.HintOf(err) != here(c.hint) {
				t.Errorf("%v; %s\nwant %s; %s", err, errs.HintOf(err), here(c.msg), here(c.hint))
			}
		})
	}
}

func TestFirstFree(t *testing.T) {
	ranges := []spec.IDRange{idRange(100, 50), idRange(1000, 300)}
	for name, c := range map[string]struct {
		taken []spec.IDRange
		size  uint32
		want  uint32 // 0: none
	}{
		"all free":         {nil, 50, 100},
		"in the second":    {nil, 51, 1000},
		"too many":         {nil, 301, 0},
		"behind":           {[]spec.IDRange{idRange(1000, 100)}, 100, 1100},
		"in a gap":         {[]spec.IDRange{idRange(1000, 100), idRange(1200, 100)}, 100, 1100},
		"no gap":           {[]spec.IDRange{idRange(1000, 100), idRange(1199, 100)}, 100, 0},
		"unordered":        {[]spec.IDRange{idRange(1200, 50), idRange(1000, 100), idRange(1100, 100)}, 50, 100},
		"beyond the range": {[]spec.IDRange{idRange(0, 4294967295)}, 1, 0},
		"overlapping":      {[]spec.IDRange{idRange(90, 1000), idRange(1050, 100)}, 100, 1150},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := firstFree(ranges, c.taken, c.size)
			if got.First != c.want || ok != (c.want != 0) {
				t.Errorf("%v, %v, want %d", got, ok, c.want)
			}
		})
	}
}

func TestParseUserns(t *testing.T) {
	for mode, want := range map[string]string{
		"": " 0", "host": " 0", "remap": "remap 0", "remap:me": "remap me 0", "auto": "auto 65536", "auto:size=1000": "auto 1000",
	} {
		kind, owner, size, err := ParseUserns(mode)
		got := strings.Join(strings.Fields(kind+" "+owner), " ") + " " + strconv.FormatUint(uint64(size), 10)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", mode, got, err, want)
		}
	}
	for _, mode := range []string{"host:", "remap:", "remap:a:b", "remap:a b", "auto:", "auto:size", "auto:size=", "auto:size=-1", "auto:size=99", "auto:size=4294967295", "auto:uidmapping=0", "container:x", "keep-id", "x"} {
		if _, _, _, err := ParseUserns(mode); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", mode, err)
		}
	}
}

// Capabilities of files change with the root that they are for.
func TestFileCapabilities(t *testing.T) {
	ids := &spec.IDMaps{UIDs: []spec.IDMap{idMap(0, 100000, 1000)}}
	body := "\x00\x20" + strings.Repeat("\x00", 14)
	two := "\x01\x00\x00\x02" + body
	three := "\x01\x00\x00\x03" + body + "\xa0\x86\x01\x00"
	other := "\x01\x00\x00\x03" + body + "\xa5\x86\x01\x00"
	inside := "\x01\x00\x00\x03" + body + "\x05\x00\x00\x00"
	for _, c := range []struct{ container, host string }{{two, three}, {inside, other}, {"short", "short"}} {
		if got := capsToHost(ids, c.container); got != c.host {
			t.Errorf("to the host: %q, want %q", got, c.host)
		}
		if got := capsToContainer(ids, c.host); got != c.container {
			t.Errorf("to the container: %q, want %q", got, c.container)
		}
		if got := capsToHost(nil, c.container); got != c.container {
			t.Errorf("without a namespace: %q", got)
		}
	}
}
