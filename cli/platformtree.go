package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	units "github.com/docker/go-units"

	"tug/engine"
	"tug/image"
	"tug/spec"
)

// platformTree lists images with the platforms of their indexes below them:
//
//	IMAGE              ID             DISK USAGE   CONTENT SIZE   IN USE
//	busybox:latest     9ae97d36d263       4.51MB         2.15MB        ✔
//	├─ linux/amd64     65ad0d468eb1       4.51MB         2.15MB        ✔
//	└─ linux/arm64     -                      0B             0B
//
// The platforms that are not in the store are there with --all only.
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
	w := tabwriter.NewWriter(a.Out, 0, 1, 3, ' ', 0)
	io.WriteString(w, "IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tIN USE\n")
	shown := map[string]bool{}
	for _, t := range trees {
		inUse := ""
		for _, p := range t.Platforms {
			if used[p.Image].Containers > 0 {
				inUse = lines.used
			}
		}
		title := strings.Join(t.Image.Names, "\t\t\t\t\n")
		if title == "" {
			title = "<untagged>"
		}
		if title == "<untagged>" && len(t.Platforms) > 0 && shown[string(t.Target)] {
			continue // it stands below the image of its index that has the name
		}
		shown[string(t.Target)] = true
		var disk, content int64
		for _, p := range t.Platforms {
			disk, content = disk+p.Disk, content+p.Content
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", title, t.Target.Short(), sizeOf(disk), sizeOf(content), inUse)
		writePlatforms(w, lines, t, used, o.all)
	}
	return w.Flush()
}

func sizeOf(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

func writePlatforms(w io.Writer, lines *treeLines, t *image.PlatformTree, used map[spec.Digest]image.Usage, all bool) {
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
		fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\t%s\n", branch, oneLine(p.Platform.String()), id, sizeOf(p.Disk), sizeOf(p.Content), mark)
	}
}

// treeLines is what trees are drawn with.
type treeLines struct{ tee, corner, bar, used string }

// newLines returns lines that the user's terminal can show.
func newLines() *treeLines {
	if isUTF8() {
		return &treeLines{"├─", "└─", "│ ", "✔"}
	}
	return &treeLines{"|-", "`-", "| ", "yes"}
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
