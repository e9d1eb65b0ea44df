package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"tug/image"
	"tug/layer"
)

// browser is what image explore shows on a terminal: the layers to the left, and
// to the right the files that the chosen one changes, those of the whole image,
// or what is wasted.
type browser struct {
	x     *image.Explored
	ascii bool

	layer int  // chosen; len(x.Layers) is the whole image
	right bool // keys go to the right pane
	waste bool // the right pane shows what is wasted
	hide  map[layer.ChangeKind]bool
	find  string
	input bool // keys go to find

	tree   *branch
	closed map[string]bool
	lines  []*branch // of tree, that show
	depth  map[*branch]int
	at     int // line chosen
	top    int // first line shown
	height int // of the panes, as drawn last
}

// branch is a name in the right pane.
type branch struct {
	name, path string
	kind       layer.ChangeKind // 0: it is only on the way to others, or was not changed
	size       int64
	note       string
	dir        bool
	children   []*branch
	byName     map[string]*branch
}

func newBrowser(x *image.Explored, ascii bool) *browser {
	s := &browser{x: x, ascii: ascii, hide: map[layer.ChangeKind]bool{}}
	s.show()
	return s
}

// manyLines is from where on directories are closed at first.
const manyLines = 400

// show makes the right pane of what is chosen.
func (s *browser) show() {
	s.tree, s.closed, s.at, s.top = &branch{dir: true}, map[string]bool{}, 0, 0
	n := 0
	switch {
	case s.waste:
		for _, w := range s.x.Waste() {
			s.tree.children = append(s.tree.children, &branch{name: "/" + w.Path, path: w.Path, size: w.Bytes, note: fmt.Sprintf("  (%dx)", w.Versions)})
		}
	case s.layer < len(s.x.Layers):
		for _, c := range s.x.Layers[s.layer].Changes {
			b := s.tree.make(c.Path)
			b.kind, b.size, b.note, b.dir = c.Kind, c.Size, changeNote(&c), b.dir || c.Mode&0o170000 == 0o040000
			n++
		}
	default:
		image.EachFile(s.x.Tree, func(path string, f *layer.Node) {
			b := s.tree.make(path)
			b.dir, b.size = f.IsDir(), f.Stored()
			n++
		})
	}
	s.tree.sum()
	if n > manyLines {
		s.closeBelow(s.tree, 0)
	}
	s.flatten()
}

// make finds or makes the branch at path.
func (b *branch) make(path string) *branch {
	for name := range strings.SplitSeq(path, "/") {
		next := b.byName[name]
		if next == nil {
			next = &branch{name: name, path: strings.TrimPrefix(b.path+"/"+name, "/")}
			if b.byName == nil {
				b.byName = map[string]*branch{}
			}
			b.byName[name] = next
			b.children = append(b.children, next)
			b.dir = true
		}
		b = next
	}
	return b
}

// sum gives directories the size of what is in them.
func (b *branch) sum() int64 {
	for _, c := range b.children {
		b.size += c.sum()
	}
	return b.size
}

func (s *browser) closeBelow(b *branch, depth int) {
	for _, c := range b.children {
		if len(c.children) > 0 && depth >= 1 {
			s.closed[c.path] = true
		}
		s.closeBelow(c, depth+1)
	}
}

// flatten lists the lines that show: not those in closed directories, and of
// those that are hidden or not looked for only the way to others.
func (s *browser) flatten() {
	s.lines, s.depth = nil, map[*branch]int{}
	var add func(b *branch, depth int) bool
	add = func(b *branch, depth int) bool {
		at := len(s.lines)
		s.lines = append(s.lines, b)
		s.depth[b] = depth
		wanted := !s.hide[b.kind] && (s.find == "" || strings.Contains(strings.ToLower(b.path), strings.ToLower(s.find))) && (b.kind != 0 || len(s.hide) == 0 || s.waste || s.layer == len(s.x.Layers))
		inside := false
		for _, c := range b.children {
			inside = add(c, depth+1) || inside
		}
		if !wanted && !inside {
			s.lines = s.lines[:at]
			return false
		}
		if s.closed[b.path] && s.find == "" {
			s.lines = s.lines[:at+1]
		}
		return true
	}
	for _, c := range s.tree.children {
		add(c, 0)
	}
	s.at = max(0, min(s.at, len(s.lines)-1))
}

// key does what a key means; false is the end.
func (s *browser) key(k string) bool {
	if s.input {
		s.edit(k)
		return true
	}
	switch k {
	case "q", "\x03", "\x04":
		return false
	case "\t":
		s.right = !s.right
	case "/":
		s.input, s.find = true, ""
		s.right = true
	case "\x1b":
		s.find = ""
		s.flatten()
	case "w":
		s.waste = !s.waste
		s.right = s.waste
		s.show()
	case "a", "c", "d":
		kind := layer.ChangeKind(strings.ToUpper(k)[0])
		if s.hide[kind] {
			delete(s.hide, kind)
		} else {
			s.hide[kind] = true
		}
		s.flatten()
	case "e":
		s.closed = map[string]bool{}
		s.flatten()
	case "\r", "\n", " ", "left", "right", "h", "l":
		s.fold(k)
	default:
		s.move(k)
	}
	return true
}

// edit takes a key of what is searched for.
func (s *browser) edit(k string) {
	switch {
	case k == "\r" || k == "\n":
		s.input = false
	case k == "\x1b" || k == "\x03":
		s.input, s.find = false, ""
	case k == "\x7f" || k == "\b":
		if _, n := utf8.DecodeLastRuneInString(s.find); n > 0 {
			s.find = s.find[:len(s.find)-n]
		}
	case utf8.RuneCountInString(k) == 1 && printable(k) == k:
		s.find += k
	}
	s.flatten()
}

func (s *browser) fold(k string) {
	if !s.right {
		s.right = k != "left" && k != "h"
		return
	}
	if len(s.lines) == 0 {
		return
	}
	b := s.lines[s.at]
	closed := s.closed[b.path]
	switch {
	case len(b.children) > 0 && (k == " " || k == "\r" || k == "\n"):
		s.closed[b.path] = !closed
	case len(b.children) > 0 && !closed && (k == "left" || k == "h"):
		s.closed[b.path] = true
	case k == "right" || k == "l":
		delete(s.closed, b.path)
	case k == "left" || k == "h":
		for s.at > 0 && s.depth[s.lines[s.at]] >= s.depth[b] {
			s.at--
		}
	}
	s.flatten()
}

func (s *browser) move(k string) {
	page := max(s.height-1, 1)
	step := map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -page, "pgdn": page, "home": -1 << 30, "g": -1 << 30, "end": 1 << 30, "G": 1 << 30}[k]
	if step == 0 {
		return
	}
	if s.right {
		s.at = max(0, min(s.at+step, len(s.lines)-1))
		return
	}
	if n := max(0, min(s.layer+step, len(s.x.Layers))); n != s.layer {
		s.layer, s.waste = n, false
		s.show()
	}
}

// draw returns the bytes that show the screen.
func (s *browser) draw(rows, cols int) string {
	rows, cols = max(rows, 4), max(cols, 20)
	s.height = rows - 3
	if s.at < s.top {
		s.top = s.at
	}
	s.top = max(s.top, s.at-s.height+1)
	left := min(max(cols*2/5, 30), cols/2)
	bar, line := "│", "─"
	if s.ascii {
		bar, line = "|", "-"
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	put := func(text string, mark bool) {
		text = s.plain(text)
		if mark {
			text = "\x1b[7m" + text + "\x1b[0m"
		}
		b.WriteString(text)
	}
	put(fit(fmt.Sprintf("%s  %s  wasted %s  efficiency %s", printable(imageTitle(s.x.Image)), size3(s.x.Data), size3(s.x.Wasted), percent(s.x.Efficiency())), cols), false)
	b.WriteString("\r\n" + strings.Repeat(line, cols) + "\r\n")
	first := max(0, s.layer-s.height+1)
	for i := range s.height {
		put(fit(s.leftLine(first+i), left-2), first+i == s.layer)
		b.WriteString(" " + bar)
		put(fit(s.rightLine(s.top+i), cols-left), s.right && s.top+i == s.at && len(s.lines) > 0)
		b.WriteString("\x1b[K\r\n")
	}
	put(fit(s.help(), cols), false)
	return b.String() + "\x1b[K\x1b[J"
}

// plain is text for a terminal that may know ASCII only.
func (s *browser) plain(text string) string {
	if !s.ascii {
		return text
	}
	return strings.Map(func(r rune) rune {
		if r == '…' {
			return '.'
		}
		if r >= 0x80 {
			return '?'
		}
		return r
	}, text)
}

func (s *browser) leftLine(i int) string {
	switch {
	case i < len(s.x.Layers):
		l := &s.x.Layers[i]
		return fmt.Sprintf("%3d %8s %s", i+1, size3(l.Data), instruction(l.CreatedBy, 0))
	case i == len(s.x.Layers):
		return fmt.Sprintf("    %8s the image", size3(s.x.Data-s.x.Wasted))
	}
	return ""
}

func (s *browser) rightLine(i int) string {
	if i >= len(s.lines) {
		if i == 0 {
			return " nothing here"
		}
		return ""
	}
	b := s.lines[i]
	mark := " "
	if b.kind != 0 {
		mark = b.kind.String()
	}
	fold := "  "
	switch {
	case len(b.children) > 0 && s.closed[b.path]:
		fold = "+ "
	case len(b.children) > 0:
		fold = "- "
	}
	name := printable(b.name)
	if b.dir {
		name += "/"
	}
	return fmt.Sprintf("%s %8s %s%s%s%s", mark, size3(b.size), strings.Repeat("  ", min(s.depth[b], 20)), fold, name, b.note)
}

// help is the bottom line.
func (s *browser) help() string {
	if s.input {
		return "search: " + s.find + "_   Enter keep  Esc clear"
	}
	state := ""
	for _, k := range []layer.ChangeKind{layer.Added, layer.Changed, layer.Removed} {
		if s.hide[k] {
			state += " -" + k.String()
		}
	}
	if s.find != "" {
		state += " /" + s.find
	}
	return "Tab pane  Enter fold  a/c/d hide" + state + "  / search  w wasted  e expand  q quit"
}
