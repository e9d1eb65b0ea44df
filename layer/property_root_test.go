//go:build root

package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
)

// stacksVar sets how many stacks TestStackProperty makes, and stackSeedVar with
// which seed it begins.
const (
	stacksVar    = "TUG_TEST_STACKS"
	stackSeedVar = "TUG_TEST_STACK_SEED"
)

func fromVar(t *testing.T, name string, value uint64) uint64 {
	t.Helper()
	if s := os.Getenv(name); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	return value
}

// Whatever layers say and however they are stacked: all backends show the tree
// that extracting them in order gives, and what cannot be extracted is refused.
// Merge and Tree, which mount nothing, give the same.
func TestStackProperty(t *testing.T) {
	count := uint64(40)
	if testing.Short() {
		count = 25
	}
	count = fromVar(t, stacksVar, count)
	first := fromVar(t, stackSeedVar, 1)
	rooms := map[string]*propertyRoom{}
	eachBackend(t, func(r *room) {
		for seed := first; seed < first+count; seed++ {
			p := rooms[fmt.Sprint(seed)]
			if p == nil {
				p = newProperty(t, generate(rand.New(rand.NewPCG(seed, 17))))
				rooms[fmt.Sprint(seed)] = p
			}
			if why := p.differs(r); why != "" {
				small, why := shrink(r, p.layers, why)
				r.Fatalf("seed %d (%s=%d %s=1):\n%s\n%s", seed, stackSeedVar, seed, stacksVar, show(small), why)
			}
		}
	})
}

// propertyRoom is a stack, and what it should give.
type propertyRoom struct {
	layers [][]member // all of which can be applied
	bad    [][]member // the same up to a member that cannot; nil: there was none
	want   []string
}

func newProperty(t testing.TB, layers [][]member) *propertyRoom {
	t.Helper()
	for bad := [][]member(nil); ; {
		p := &propertyRoom{}
		o := newOracle(t)
		allClean := true
		for _, members := range layers {
			good, refused, clean := o.layer(members)
			if refused != nil && bad == nil {
				bad = append(slices.Clone(p.layers), refused)
			}
			p.layers = append(p.layers, good)
			allClean = allClean && clean
		}
		if allClean {
			p.want, p.bad = withoutRoot(describe(t, o.root)), bad
			o.close()
			return p
		}
		o.close()
		layers = p.layers // once more, without what left traces
	}
}

// withoutRoot leaves the root directory out, which is the upper directory's in
// a container (DressRoot).
func withoutRoot(lines []string) []string {
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, `"" `) })
}

// differs says how a backend's view of the stack differs; "" when it does not.
func (p *propertyRoom) differs(r *room) string {
	got, err := p.mounted(r, p.layers)
	if err != nil {
		return fmt.Sprintf("refused: %v", err)
	}
	var out []string
	for _, l := range p.want {
		if !slices.Contains(got, l) {
			out = append(out, "want "+l)
		}
	}
	for _, l := range got {
		if !slices.Contains(p.want, l) {
			out = append(out, "got  "+l)
		}
	}
	if len(out) == 0 && p.bad != nil {
		if _, err := p.mounted(r, p.bad); !errs.Is(err, errs.Invalid) {
			return fmt.Sprintf("%s\nshould be refused as invalid, got %v", show(p.bad), err)
		}
	}
	return strings.Join(out, "\n")
}

// mounted stores, stacks and mounts layers, lists the tree and lets go of it.
func (p *propertyRoom) mounted(r *room, layers [][]member) ([]string, error) {
	var held []*Layer
	var ids []spec.Digest
	defer func() { closeAll(held) }()
	for _, members := range layers {
		l, err := r.l.Add(r.Context(), bytes.NewReader(makeTar(r, members...)), Expect{BlobSize: -1})
		if err != nil {
			return nil, err
		}
		held, ids = append(held, l), append(ids, l.DiffID)
	}
	stack, made, err := r.l.Stack(r.Context(), ids)
	held = append(held, made...)
	if err != nil {
		return nil, err
	}
	mnt, err := r.m.Overlay(stack, "", "", OverlayOptions{})
	if err != nil {
		return nil, err
	}
	defer mnt.Close()
	got := withoutRoot(describe(r, "/proc/self/fd/"+fmt.Sprint(mnt.Fd())))
	for _, d := range stack {
		if err := r.m.Drop(d); err != nil {
			return nil, err
		}
	}
	return got, sameMerged(r, got, ids, stack)
}

// sameMerged says how the trees of Merge and Tree differ from the one mounted.
func sameMerged(r *room, mounted []string, layers, stack []spec.Digest) error {
	merged, err := r.l.Merge(r.Context(), layers, stack)
	if err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	defer merged.Close()
	tree, err := r.l.Tree(r.Context(), stack)
	if err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	defer tree.Close()
	for name, m := range map[string]*Merged{"Merge": merged, "Tree": tree} {
		if diff := cmp.Diff(mounted, withoutRoot(describeMerged(r, m))); diff != "" {
			return fmt.Errorf("mounted (-) and of %s (+) differ:\n%s", name, diff)
		}
	}
	return nil
}

// describeMerged is describe for a tree that is not mounted.
func describeMerged(t testing.TB, m *Merged) []string {
	t.Helper()
	lines, ids, names := map[string]string{}, map[string]any{}, map[any][]string{}
	var walk func(path string, n *Node)
	walk = func(path string, n *Node) {
		f := n.File(path)
		line := fmt.Sprintf("%o %d:%d %d.%09d", f.Mode, f.UID, f.GID, f.Mtime.Unix(), f.Mtime.Nanosecond())
		switch {
		case f.IsRegular():
			sum, err := sumPieces(m.Open(n))
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" %d %s", f.Size, sum)
		case f.Mode&kindMask == kindSymlink:
			line += fmt.Sprintf(" -> %q", f.Target)
		case f.Mode&kindMask == kindChar || f.Mode&kindMask == kindBlock:
			line += fmt.Sprintf(" dev %#x", f.Minor&0xff|f.Major<<8|f.Minor>>8<<20)
		}
		for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
			line += fmt.Sprintf(" %s=%x", name, sha256.Sum256([]byte(f.Xattrs[name])))
		}
		lines[path], ids[path] = line, n.Same()
		if !n.IsDir() {
			names[n.Same()] = append(names[n.Same()], path)
		}
		for _, c := range n.Children {
			walk(strings.TrimPrefix(path+"/"+c.Name, "/"), c)
		}
	}
	walk("", m.Root)
	return withNames(lines, ids, names)
}

// shrink leaves out layers and members as long as something still differs.
func shrink(r *room, layers [][]member, why string) ([][]member, string) {
	try := func(smaller [][]member) bool {
		p := newProperty(r, smaller)
		w := p.differs(r)
		if w != "" {
			layers, why = p.layers, w
		}
		return w != ""
	}
	for again := true; again; {
		again = false
		for n := len(layers) - 1; n >= 0; n-- {
			if n < len(layers) && len(layers) > 1 && try(slices.Delete(slices.Clone(layers), n, n+1)) {
				again = true
			}
		}
		for n := len(layers) - 1; n >= 0; n-- {
			for k := len(layers[n]) - 1; k >= 0; k-- {
				if k >= len(layers[n]) {
					continue
				}
				smaller := slices.Clone(layers)
				smaller[n] = slices.Delete(slices.Clone(layers[n]), k, k+1)
				if try(smaller) {
					again = true
				}
			}
		}
	}
	return layers, why
}

func show(layers [][]member) string {
	var b strings.Builder
	for n, members := range layers {
		fmt.Fprintf(&b, "layer %d:\n", n)
		for _, m := range members {
			fmt.Fprintf(&b, "\t%c %q", m.Typeflag, m.Name)
			if m.Linkname != "" {
				fmt.Fprintf(&b, " -> %q", m.Linkname)
			}
			fmt.Fprintf(&b, " %o %d:%d %v\n", m.Mode, m.Uid, m.Gid, m.PAXRecords)
		}
	}
	return b.String()
}

// generate makes 1 to 6 layers out of few names, so that they meet.
func generate(r *rand.Rand) [][]member {
	g := &generator{Rand: r}
	var layers [][]member
	for range 1 + r.IntN(6) {
		var members []member
		for range r.IntN(14) {
			members = append(members, g.member())
		}
		layers = append(layers, members)
	}
	return layers
}

type generator struct {
	*rand.Rand
	used []string
}

func (g *generator) name() string {
	if len(g.used) > 0 && g.IntN(3) == 0 {
		name := g.used[g.IntN(len(g.used))]
		if g.IntN(3) == 0 && len(name) < 600 {
			name += "/" + g.part()
		}
		return name
	}
	name := g.part()
	for range g.IntN(3) {
		name += "/" + g.part()
	}
	g.used = append(g.used, name)
	return name
}

func (g *generator) part() string {
	odd := []string{"\xff\xfe", "new\nline", " ", "-x", "...", ".a", "\\", `"`, strings.Repeat("n", 255), "é", "\x01", ":", ","}
	if g.IntN(10) == 0 {
		return odd[g.IntN(len(odd))]
	}
	return string(rune('a' + g.IntN(6)))
}

func (g *generator) member() member {
	name := g.name()
	m := member{Header: tar.Header{Name: name, Mode: 0o644}}
	switch k := g.IntN(20); {
	case k < 6:
		m.Typeflag, m.body = tar.TypeReg, strings.Repeat(string(rune('a'+g.IntN(26))), g.IntN(3)*g.IntN(900))
	case k < 10:
		m.Typeflag, m.Name, m.Mode = tar.TypeDir, name+"/", 0o755
		if strings.HasSuffix(name, "b") { // always the same, see noDirXattrs
			m.PAXRecords = map[string]string{xattrKey + "user.d": "v"}
		}
	case k < 12:
		m.Typeflag, m.Mode = tar.TypeSymlink, []int64{0o777, 0o644}[g.IntN(2)]
		m.Linkname = []string{g.name(), "/" + g.name(), "../" + g.part(), g.part(), g.part() + "/" + g.part(), "."}[g.IntN(6)]
	case k < 15:
		m.Typeflag, m.Linkname = tar.TypeLink, g.name()
		return m
	case k < 16:
		m.Typeflag = []byte{tar.TypeFifo, tar.TypeChar, tar.TypeBlock}[g.IntN(3)]
		if m.Typeflag != tar.TypeFifo {
			m.Devmajor, m.Devminor = 1+g.Int64N(300), g.Int64N(1<<18)
		}
	case k < 18:
		dir, base := splitOracle(name)
		return file(strings.TrimPrefix(dir+"/.wh."+base[:min(len(base), 250)], "/"), "")
	default:
		return file(name+"/.wh..wh..opq", "")
	}
	g.attributes(&m)
	return m
}

func (g *generator) attributes(m *member) {
	m.Uid, m.Gid = g.IntN(3)*1000, []int{0, 70000, 1<<32 - 2}[g.IntN(3)]
	m.Format, m.ModTime = tar.FormatPAX, time.Unix(g.Int64N(1<<31)-1<<30, g.Int64N(1e9))
	if m.Typeflag == tar.TypeSymlink {
		return
	}
	m.Mode = []int64{m.Mode, 0o4755, 0o2750, 0o1777, 0, 0o600}[g.IntN(6)]
	if m.Typeflag == tar.TypeReg && g.IntN(5) == 0 {
		m.PAXRecords = map[string]string{xattrKey + "user.x": fmt.Sprint(g.IntN(9)), xattrKey + "security.capability": capability}
	}
}
