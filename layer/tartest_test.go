package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// member is one entry of an archive made by a test.
type member struct {
	tar.Header
	body string
}

func file(name, body string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body}
}

func dir(name string) member {
	return member{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func symlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hardlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

// with returns m with attributes in its header changed.
func (m member) with(change func(*tar.Header)) member {
	change(&m.Header)
	return m
}

func xattrsOf(pairs ...string) func(*tar.Header) {
	return func(h *tar.Header) {
		h.PAXRecords = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			h.PAXRecords[xattrKey+pairs[i]] = pairs[i+1]
		}
	}
}

func at(t time.Time) func(*tar.Header) { return func(h *tar.Header) { h.ModTime = t } }

func mode(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }

func special(name string, typ byte, major, minor int64) member {
	return member{tar.Header{Typeflag: typ, Name: name, Mode: 0o620, Devmajor: major, Devminor: minor}, ""}
}

// capability is cap_net_raw=ep as the kernel keeps it.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func makeTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.Header
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(m.body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(m.body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rawHeader makes a ustar header that archive/tar would refuse to write.
func rawHeader(name string, typ byte, size int64, edit func([]byte)) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00", size))
	copy(b[136:], "00000000000\x00")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	if edit != nil {
		edit(b)
	}
	return sealHeader(b)
}

func sealHeader(b []byte) []byte {
	sum := 8 * int(' ')
	for i, c := range b[:512] {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func paxHeader(records ...string) []byte {
	var body string
	for _, r := range records {
		n := len(r) + 3
		for len(fmt.Sprint(n))+len(r)+2 != n {
			n++
		}
		body += fmt.Sprintf("%d %s\n", n, r)
	}
	return append(rawHeader("pax", 'x', int64(len(body)), nil), pad(body)...)
}

func pad(s string) []byte {
	return append([]byte(s), make([]byte, (512-len(s)%512)%512)...)
}

var endMarker = make([]byte, 1024)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// model is what a layer must look like, kept in the simplest way: a map.
type model map[string]*modelFile

type modelFile struct {
	typ    byte
	mode   uint16
	body   string // or target
	xattrs map[string]string
	opaque bool
	hides  bool // holds a whiteout
	white  map[string]bool
	group  int // files with the same number are one inode
}

// random makes an archive of all kinds of members in any order, names it used
// before again, and the model of it.
func random(t testing.TB, r *rand.Rand) ([]byte, model) {
	m := model{"": {typ: '5', mode: 0o755}}
	var members []member
	for n := range r.IntN(60) {
		name := randomName(r)
		var e member
		f := &modelFile{mode: 0o644, group: n + 1}
		switch k := r.IntN(12); {
		case k < 5:
			f.typ, f.body = '0', strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(1500))
			e = file(name, f.body)
		case k < 7:
			f.typ, f.mode, f.group = '5', 0o755, 0
			e = dir(name + "/")
		case k < 8:
			// Nothing lies below it: names that go through links have tests of their own.
			name += "-link"
			f.typ, f.mode, f.body = '2', 0o777, strings.Repeat("x/", 1+r.IntN(400))
			e = symlink(name, f.body)
		case k < 9:
			f.typ = '6'
			e = member{tar.Header{Typeflag: tar.TypeFifo, Name: name, Mode: 0o644}, ""}
		case k < 10:
			f = m.anyFile(r)
			if f == nil {
				continue
			}
			e = hardlink(name, m.nameOf(f))
		case k < 11:
			parent, base := splitLast(name)
			if !m.mkdirs(parent) {
				continue
			}
			members = append(members, file(strings.TrimPrefix(parent+"/.wh."+base, "/"), ""))
			if m[parent].white == nil {
				m[parent].white = map[string]bool{}
			}
			m[parent].white[base] = true
			continue
		default:
			if m[name] == nil || m[name].typ != '5' {
				continue
			}
			m[name].opaque = true
			members = append(members, file(name+"/.wh..wh..opq", ""))
			continue
		}
		parent, _ := splitLast(name)
		if m[name] == f || !m.mkdirs(parent) {
			continue
		}
		if k := r.IntN(6); k == 0 && e.Typeflag != tar.TypeLink && f.typ != '2' && f.typ != '6' {
			f.xattrs = map[string]string{"user.x": strings.Repeat("v", r.IntN(700)), "trusted.y": "1"}
			e.PAXRecords = map[string]string{"SCHILY.xattr.user.x": f.xattrs["user.x"], "SCHILY.xattr.trusted.y": "1", "SCHILY.xattr.com.apple.z": "no"}
			if f.xattrs["user.x"] == "" {
				delete(f.xattrs, "user.x")
				delete(e.PAXRecords, "SCHILY.xattr.user.x")
			}
		}
		m.replace(name, f)
		members = append(members, e)
	}
	m.finish()
	return makeTar(t, members...), m
}

func (m model) finish() {
	for dir, d := range maps.Clone(m) {
		for base := range d.white {
			name := strings.TrimPrefix(dir+"/"+base, "/")
			if f := m[name]; f == nil {
				m[name] = &modelFile{typ: '3', group: -1}
				d.hides = true
			} else if f.typ == '5' {
				f.opaque = true
			}
		}
	}
}

func randomName(r *rand.Rand) string {
	parts := []string{"a", "b", "-", ".x", "\xff\xfe", "..."}
	if r.IntN(8) == 0 {
		parts = append(parts, strings.Repeat("n", 245))
	}
	var name []string
	for range 1 + r.IntN(4) {
		name = append(name, parts[r.IntN(len(parts))]+string(rune('0'+r.IntN(4))))
	}
	return strings.Join(name, "/")
}

// mkdirs makes missing parents; false when one is no directory.
func (m model) mkdirs(name string) bool {
	if f := m[name]; f != nil {
		return f.typ == '5'
	}
	parent, _ := splitLast(name)
	if !m.mkdirs(parent) {
		return false
	}
	m[name] = &modelFile{typ: '5', mode: 0o755}
	return true
}

func (m model) replace(name string, f *modelFile) {
	if old := m[name]; old != nil && old.typ == '5' && f.typ == '5' {
		old.mode, old.xattrs = f.mode, f.xattrs
		return
	} else if old != nil && f.typ == '5' {
		f.opaque = true
	}
	for n := range m {
		if strings.HasPrefix(n, name+"/") {
			delete(m, n)
		}
	}
	m[name] = f
}

func (m model) names() []string { return slices.Sorted(maps.Keys(m)) }

func (m model) anyFile(r *rand.Rand) *modelFile {
	names := m.names()
	f := m[names[r.IntN(len(names))]]
	if f.typ == '5' {
		return nil
	}
	return f
}

func (m model) nameOf(f *modelFile) string {
	for _, n := range m.names() {
		if m[n] == f {
			return n
		}
	}
	return ""
}

// compare checks an image against the model.
func (m model) compare(t testing.TB, got map[string]*erofsFile) {
	t.Helper()
	kinds := map[byte]uint16{'0': kindReg, '2': kindSymlink, '3': kindChar, '5': kindDir, '6': kindFifo}
	groups := map[int]uint64{}
	for _, name := range m.names() {
		want, g := m[name], got[name]
		if g == nil {
			t.Errorf("%q is missing", name)
			continue
		}
		if g.mode != kinds[want.typ]|want.mode {
			t.Errorf("%q: mode %o, want %o", name, g.mode, kinds[want.typ]|want.mode)
		}
		if want.typ != '5' && g.content != want.body {
			t.Errorf("%q: %d bytes of contents differ from %d", name, len(g.content), len(want.body))
		}
		x := maps.Clone(want.xattrs)
		if want.opaque {
			if x == nil {
				x = map[string]string{}
			}
			x["trusted.overlay.opaque"] = "y"
		}
		if want.hides {
			if x == nil {
				x = map[string]string{}
			}
			x["trusted.overlay.origin"] = ""
		}
		if d := cmp.Diff(x, g.xattrs, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%q: attributes (-want +got):\n%s", name, d)
		}
		if want.group != 0 {
			if id, ok := groups[want.group]; ok && id != g.nid {
				t.Errorf("%q is not a hard link", name)
			}
			groups[want.group] = g.nid
		}
	}
	for name := range got {
		if m[name] == nil {
			t.Errorf("%q should not be there", name)
		}
	}
}
