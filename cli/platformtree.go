package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	units "github.com/docker/go-units"

	"tug/engine"
	"tug/image"
	"tug/spec"
	"tug/sys"
)

// platformTree lists images with the platforms of their indexes below them:
//
//	IMAGE              ID             DISK USAGE   CONTENT SIZE   IN USE
//	busybox:latest     9ae97d36d263       4.51MB         2.15MB        ✔
//	├─ linux/amd64     65ad0d468eb1       4.51MB         2.15MB        ✔
//	└─ linux/arm64     -                      0B             0B
//
// The platforms that are not in the store are there with --all only. A terminal
// never has to wrap a line.
func (a *app) platformTree(e *engine.Engine, o *imagesOptions, list []*image.Image) error {
	trees, err := e.Images.Platforms(list)
	if err != nil {
		return err
	}
	used, err := e.Images.Usages(list)
	if err != nil {
		return err
	}
	lines := newLines()
	rows := []treeRow{{"IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"}}
	shown := map[string]bool{}
	for _, t := range trees {
		if len(t.Image.Names) == 0 && len(t.Platforms) > 0 && shown[string(t.Target)] {
			continue // it stands below the image of its index that has the name
		}
		shown[string(t.Target)] = true
		rows = append(rows, imageTreeRows(lines, t, used)...)
		rows = append(rows, platformRows(lines, t, used, o.all)...)
	}
	_, err = io.WriteString(a.Out, lines.lay(rows, a.columns()))
	return err
}

// columns is how wide the terminal is that output goes to, or 0.
func (a *app) columns() int {
	if f := file(a.Out); f != nil && isTerminal(a.Out) {
		if _, cols := sys.Winsize(f); cols > 0 {
			return int(cols)
		}
	}
	return 0
}

// treeRow is one line: name, ID, disk usage, content size and whether it is in
// use.
type treeRow [5]string

// treeDropped are the columns that go where it is narrow, in this order, and
// minTreeName is how much is left of names before they do.
var treeDropped = [...]int{4, 1, 3, 2}

const minTreeName = 12

// lay lays rows out as a table in width columns, 0 for no limit. Names too long
// for it are cut; where they do not fit at all, columns make room.
func (t *treeLines) lay(rows []treeRow, width int) string {
	var widths [len(treeRow{})]int
	for _, r := range rows {
		for i, text := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	const gap = 3
	room := func() int {
		n := width
		for _, w := range widths[1:] {
			if w > 0 {
				n -= gap + w
			}
		}
		return n
	}
	if width > 0 {
		for _, i := range treeDropped {
			if room() < min(minTreeName, widths[0]) {
				widths[i] = 0
			}
		}
		widths[0] = max(min(widths[0], room()), 1)
	}
	var b strings.Builder
	for _, r := range rows {
		line := fmt.Sprintf("%-*s", widths[0], t.fit(r[0], widths[0]))
		for i, text := range r[1:] {
			switch w := widths[i+1]; {
			case w > 0 && i == 0:
				line += fmt.Sprintf("%*s%-*s", gap, "", w, text)
			case w > 0:
				line += fmt.Sprintf("%*s%*s", gap, "", w, text)
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// imageTreeRows are an image's names, the last of them with its numbers.
func imageTreeRows(lines *treeLines, t *image.PlatformTree, used map[spec.Digest]image.Usage) []treeRow {
	var rows []treeRow
	for _, n := range t.Image.Names {
		rows = append(rows, treeRow{n})
	}
	if len(rows) == 0 {
		rows = []treeRow{{"<untagged>"}}
	}
	inUse := ""
	var disk, content int64
	for _, p := range t.Platforms {
		disk, content = disk+p.Disk, content+p.Content
		if used[p.Image].Containers > 0 {
			inUse = lines.used
		}
	}
	last := &rows[len(rows)-1]
	*last = treeRow{last[0], t.Target.Short(), sizeOf(disk), sizeOf(content), inUse}
	return rows
}

func sizeOf(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

func platformRows(lines *treeLines, t *image.PlatformTree, used map[spec.Digest]image.Usage, all bool) []treeRow {
	var rows []treeRow
	var show []image.PlatformImage
	for _, p := range t.Platforms {
		if p.Image != "" || all {
			show = append(show, p)
		}
	}
	for i, p := range show {
		branch, id, mark := lines.tee, "-", ""
		if i == len(show)-1 {
			branch = lines.corner
		}
		if p.Image != "" {
			id = p.Image.Short()
		}
		if used[p.Image].Containers > 0 {
			mark = lines.used
		}
		rows = append(rows, treeRow{branch + " " + oneLine(p.Platform.String()), id, sizeOf(p.Disk), sizeOf(p.Content), mark})
	}
	return rows
}

// treeLines is what trees are drawn with.
type treeLines struct{ tee, corner, bar, used, cut string }

// newLines returns lines that the user's terminal can show.
func newLines() *treeLines {
	if isUTF8() {
		return &treeLines{"├─", "└─", "│ ", "✔", "…"}
	}
	return &treeLines{"|-", "`-", "| ", "yes", "~"}
}

// fit cuts s to width columns.
func (t *treeLines) fit(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + t.cut
}

// isUTF8 reports whether the user's locale says so, by POSIX's order of the
// variables. Without any, as in most containers, it is taken to be.
func isUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := fromEnv(name, ""); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}
