package cli

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	units "github.com/docker/go-units"

	"tug/container"
	"tug/image"
	"tug/runtime"
	"tug/spec"
)

// picture draws what explain shows:
//
//	web (3f2a1b4c5d6e): Up 5 minutes, made from nginx:1.27 (9ae97d36d263)
//
//	┌─ writable layer: 3.41MB, of this container alone
//	│    added: 12 files, 3.40MB
//	│       3.2MB  /var/log/big.log
//	╞═ read-only from here down: image nginx:1.27, 2 layers, 23.5MB
//	├─ layer 2: 4fc242d58285, 4.26MB
//	│    RUN apt-get install nginx
//	│    only this image has it
//	└─ layer 1: ...
//
// On a terminal lines are broken where it ends, and nothing is left out.
type picture struct {
	b     strings.Builder
	width int // 0: as wide as needed
	frame pictureFrame
}

// pictureFrame is what the picture is drawn with; all are two columns wide.
type pictureFrame struct{ top, border, tee, corner, bar string }

func newPicture(a *app) *picture {
	p := &picture{width: a.columns(), frame: pictureFrame{".-", "|=", "|-", "`-", "| "}}
	if isUTF8() {
		p.frame = pictureFrame{"┌─", "╞═", "├─", "└─", "│ "}
	}
	return p
}

func (p *picture) container(x *container.Explained, img *image.Image, sheets []image.Sheet, now time.Time) {
	from := printable(x.Image) + " (" + x.ImageID.Short() + ")"
	p.wrap("", "  ", fmt.Sprintf("%s (%s): %s, made from %s", x.Name, x.ID[:12], statusText(&x.State, now), from))
	p.b.WriteByte('\n')
	p.writable(x)
	about := "image " + from
	if img == nil {
		about += ", which has been removed; its layers stay for this container"
	}
	p.wrap(p.frame.border+" ", p.frame.bar+"  ", fmt.Sprintf("read-only from here down: %s, %s, %s", about, counted(len(sheets), "layer"), sizeOf(sumOf(sheets))))
	p.layers(sheets, "this container")
	p.b.WriteByte('\n')
	p.process(x)
	p.mounts(x)
	p.limits(x)
	p.namespaces(x)
	p.privileges(x)
}

func (p *picture) image(img *image.Image, sheets []image.Sheet, holders []image.Holder, u image.Usage) {
	p.wrap("", "  ", fmt.Sprintf("image %s: %s, %s, %s", oneLine(imageTitle(img)), img.Config.Platform, counted(len(sheets), "layer"), sizeOf(img.Size)))
	if u.Shared > 0 {
		p.wrap("", "  ", fmt.Sprintf("%s of it in layers that other images have as well, %s in its own", sizeOf(u.Shared), sizeOf(u.Unique)))
	}
	p.b.WriteByte('\n')
	p.wrap(p.frame.top+" ", p.frame.bar+"  ", "a container adds its writable layer here; nothing below ever changes")
	p.layers(sheets, "this image")
	p.b.WriteByte('\n')
	names := []string{}
	for _, h := range toPeers(holders) {
		names = append(names, h.Name)
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	p.fact("Containers", bounded(names, 20))
	c := &img.Config.Config
	p.fact("Runs", commandLine(append(append([]string{}, c.Entrypoint...), c.Cmd...)))
	p.fact("", fmt.Sprintf("as %s in %s", orElse(printable(c.User), "root"), orElse(printable(c.WorkingDir), "/")))
	if len(c.ExposedPorts) > 0 {
		p.fact("Ports", bounded(keysOf(c.ExposedPorts), 20))
	}
	if len(c.Volumes) > 0 {
		p.fact("Volumes", bounded(keysOf(c.Volumes), 20))
	}
}

func sumOf(sheets []image.Sheet) (n int64) {
	for _, s := range sheets {
		n += max(s.Size, 0)
	}
	return n
}

func keysOf(m map[string]struct{}) []string {
	var out []string
	for k := range m {
		out = append(out, printable(k))
	}
	sort.Strings(out)
	return out
}

// commandLine is a program with its arguments, quoted where that is needed.
func commandLine(words []string) string {
	var out []string
	for _, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\$&|;<>()*?`") || printable(w) != w {
			w = strconv.Quote(w)
		}
		out = append(out, w)
	}
	if len(out) == 0 {
		return "nothing by itself"
	}
	return strings.Join(out, " ")
}

// bounded joins the first n, and says how many more there are.
func bounded(list []string, n int) string {
	if len(list) > n {
		list = append(list[:n:n], fmt.Sprintf("and %d more", len(list)-n))
	}
	return strings.Join(list, ", ")
}

// writable draws the container's own layer.
func (p *picture) writable(x *container.Explained) {
	w := &x.Written
	title := "writable layer: " + sizeOf(w.Size) + ", of this container alone, goes with it"
	if x.Host.ReadonlyRootfs {
		title = "writable layer: " + sizeOf(w.Size) + ", not to be written to (--read-only)"
	}
	p.wrap(p.frame.top+" ", p.frame.bar+"  ", title)
	if w.Added.None() && w.Changed.None() && w.Removed.None() {
		p.inside("nothing added, changed or deleted")
		return
	}
	p.tally("added", &tallyText{Tally: &w.Added, note: ""})
	p.tally("changed", &tallyText{Tally: &w.Changed, note: fmt.Sprintf("copied up from the layers below, where they have %s", sizeOf(w.Changed.Was))})
	p.tally("deleted", &tallyText{Tally: &w.Removed, note: "hidden here, still in the layers below"})
}

// tallyText is a tally and what is to be said of it.
type tallyText struct {
	*container.Tally
	note string
}

func (p *picture) tally(word string, t *tallyText) {
	if t.None() {
		return
	}
	var what []string
	if t.Files > 0 {
		what = append(what, counted(t.Files, "file"))
	}
	if t.Dirs > 0 {
		dirs := "1 directory"
		if t.Dirs > 1 {
			dirs = itoa(t.Dirs) + " directories"
		}
		what = append(what, dirs)
	}
	text := word + ": "
	if t.More {
		text += "more than "
	}
	text += strings.Join(what, " and ")
	if t.Files > 0 {
		text += ", " + sizeOf(t.Bytes)
		if t.note != "" {
			text += " (" + t.note + ")"
		}
	}
	p.inside(text)
	for _, c := range t.Largest {
		name := printable(c.Path)
		if c.IsDir() {
			name += "/"
		}
		p.wrap(p.frame.bar+fmt.Sprintf("   %8s  ", sizeOf(c.Size)), p.frame.bar+strings.Repeat(" ", 15), name)
	}
	if more := t.Listed - len(t.Largest); more > 0 && len(t.Largest) > 0 {
		p.wrap(p.frame.bar+strings.Repeat(" ", 13), p.frame.bar+strings.Repeat(" ", 15), fmt.Sprintf("%s and %d more: tug diff", p.dots(), more))
	}
}

func (p *picture) dots() string {
	if p.frame.tee == "|-" {
		return "..."
	}
	return "…"
}

// inside is a line within the frame.
func (p *picture) inside(text string) { p.wrap(p.frame.bar+"   ", p.frame.bar+"     ", text) }

// layers draws the read-only ones, highest first.
func (p *picture) layers(sheets []image.Sheet, who string) {
	for i := len(sheets) - 1; i >= 0; i-- {
		s := &sheets[i]
		lead, bar := p.frame.tee, p.frame.bar
		if i == 0 {
			lead, bar = p.frame.corner, "  "
		}
		size := "of unknown size"
		if s.Size >= 0 {
			size = sizeOf(s.Size)
		}
		text := fmt.Sprintf("layer %d: %s, %s", i+1, s.Layer.Short(), size)
		p.wrap(lead+" ", bar+"  ", text)
		inside := func(text string) { p.wrap(bar+"   ", bar+"     ", text) }
		switch by := instruction(s.CreatedBy, 0); {
		case s.Made:
			inside("made by tug, for hard links and directories of the layer below it")
		case by != "":
			inside(by)
		case s.Comment != "":
			inside(printable(s.Comment))
		}
		inside(sharedBy(s, who))
	}
	if len(sheets) == 0 {
		p.wrap(p.frame.corner+" ", "   ", "no layers: the image is empty")
	}
}

// sharedBy says who else has a layer.
func sharedBy(s *image.Sheet, who string) string {
	var names, containers []string
	for _, img := range s.Images {
		names = append(names, oneLine(imageName(img)))
	}
	for _, h := range toPeers(s.Containers) {
		containers = append(containers, h.Name)
	}
	var parts []string
	if len(names) > 0 {
		parts = append(parts, countWord(len(names), "image")+" "+bounded(names, 10))
	}
	if len(containers) > 0 {
		parts = append(parts, countWord(len(containers), "container")+" "+bounded(containers, 10))
	}
	if len(parts) == 0 {
		return "used by " + who + " alone"
	}
	return "shared with " + strings.Join(parts, "; ")
}

func countWord(n int, word string) string {
	if n == 1 {
		return word
	}
	return counted(n, word)
}

// fact is one line below the picture.
func (p *picture) fact(label, text string) {
	p.wrap(fmt.Sprintf("%-12s", label), strings.Repeat(" ", 14), text)
}

func (p *picture) process(x *container.Explained) {
	p.fact("Process", commandLine(append([]string{x.Path}, x.Args...)))
	user := "as " + orElse(printable(x.Config.User), "root")
	if x.Host.Init {
		user += ", below an init that reaps and forwards signals"
	}
	if x.State.Pid == 0 {
		p.fact("", "not running; "+user)
		return
	}
	text := fmt.Sprintf("pid %d on the host", x.State.Pid)
	for _, t := range x.Processes {
		if t.Pid == x.State.Pid && t.Inside > 0 {
			text += fmt.Sprintf(", %d in its pid namespace", t.Inside)
		}
	}
	p.fact("", text+", "+user)
	if x.Count > 1 {
		p.fact("", fmt.Sprintf("%d processes in all; besides it:", x.Count))
	}
	shown := 0
	for _, t := range x.Processes {
		if t.Pid == x.State.Pid || shown == 5 {
			continue
		}
		shown++
		p.wrap(fmt.Sprintf("%14s%d  ", "", t.Pid), strings.Repeat(" ", 18), printable(t.Command))
	}
	if more := x.Count - 1 - shown; more > 0 && shown > 0 {
		p.wrap(strings.Repeat(" ", 14), strings.Repeat(" ", 16), fmt.Sprintf("%s and %d more: tug top %s", p.dots(), more, x.Name))
	}
}

// mounts lists the mounts; those that hide or protect parts of the kernel's
// files are counted.
func (p *picture) mounts(x *container.Explained) {
	label, hidden, shown := "Mounts", 0, 0
	for _, m := range x.Places {
		if strings.HasPrefix(m.Target, "/proc/") || strings.HasPrefix(m.Target, "/sys/") {
			hidden++
			continue
		}
		if shown++; shown > 30 {
			continue
		}
		how := "read-write"
		if m.ReadOnly {
			how = "read-only"
		}
		text := fmt.Sprintf("%s  %s, %s", printable(m.Target), printable(m.Type), how)
		if m.Target == "/" {
			text = fmt.Sprintf("/  the layers above as one tree (%s), %s", printable(m.Type), how)
		}
		if m.Options != "" {
			text += ", " + printable(m.Options)
		}
		if m.Source != "" {
			text += ", from " + printable(m.Source)
		}
		p.fact(label, text)
		label = ""
	}
	if shown > 30 {
		p.fact("", fmt.Sprintf("%s and %d more", p.dots(), shown-30))
	}
	if hidden > 0 {
		p.fact("", fmt.Sprintf("below /proc and /sys: %s, the kernel's files or what hides them", counted(hidden, "mount")))
	}
}

// limits lists what the container may use, and uses.
func (p *picture) limits(x *container.Explained) {
	running := isRunning(x.Summary)
	l := &x.Host
	now := func(text string) string {
		if running {
			return ", now " + text
		}
		return ""
	}
	p.fact("Limits", "memory "+memoryLimit(l)+now(units.BytesSize(float64(x.Usage.Memory))))
	p.fact("", "cpu "+cpuLimit(l))
	pids := "unlimited"
	if l.PidsLimit != nil && *l.PidsLimit > 0 {
		pids = strconv.FormatInt(*l.PidsLimit, 10)
	}
	p.fact("", "processes and threads "+pids+now(strconv.FormatUint(x.Usage.Pids, 10)))
	for _, u := range x.Host.Ulimits {
		p.fact("", fmt.Sprintf("ulimit %s %d:%d", u.Name, u.Soft, u.Hard))
	}
	block := len(x.Host.BlkioWeightDevice) + len(x.Host.BlkioDeviceReadBps) + len(x.Host.BlkioDeviceWriteBps) + len(x.Host.BlkioDeviceReadIOps) + len(x.Host.BlkioDeviceWriteIOps)
	if x.Host.BlkioWeight > 0 || block > 0 {
		p.fact("", fmt.Sprintf("block devices: weight %d, %s", x.Host.BlkioWeight, counted(block, "rule")))
	}
}

func memoryLimit(l *spec.HostConfig) string {
	if l.Memory <= 0 {
		return "unlimited"
	}
	text := units.BytesSize(float64(l.Memory))
	switch {
	case l.MemorySwap < 0:
		text += ", swap unlimited"
	case l.MemorySwap == 0:
		text += ", " + units.BytesSize(float64(2*l.Memory)) + " with swap"
	default:
		text += ", " + units.BytesSize(float64(l.MemorySwap)) + " with swap"
	}
	if l.MemoryReservation > 0 {
		text += ", " + units.BytesSize(float64(l.MemoryReservation)) + " reserved"
	}
	return text
}

func cpuLimit(l *spec.HostConfig) string {
	text := "unlimited"
	switch {
	case l.NanoCPUs > 0:
		text = strconv.FormatFloat(float64(l.NanoCPUs)/1e9, 'g', -1, 64) + " processors"
	case l.CPUQuota > 0:
		period := l.CPUPeriod
		if period == 0 {
			period = 100000
		}
		text = strconv.FormatFloat(float64(l.CPUQuota)/float64(period), 'g', 4, 64) + " processors"
	}
	if l.CPUShares > 0 {
		text += fmt.Sprintf(", %d shares", l.CPUShares)
	}
	if l.CpusetCpus != "" {
		text += ", only on " + printable(l.CpusetCpus)
	}
	return text
}

func (p *picture) namespaces(x *container.Explained) {
	words := map[string]string{"mnt": "mounts", "pid": "processes", "net": "network", "ipc": "ipc", "uts": "host name", "cgroup": "cgroups", "user": "users"}
	label := "Namespaces"
	for _, n := range x.Namespaces {
		text := "its own"
		var names []string
		for _, s := range n.Shared {
			names = append(names, s.Name)
		}
		switch {
		case n.Host:
			text = "the host's"
		case len(names) > 0:
			text = "shared with " + countWord(len(names), "container") + " " + bounded(names, 10)
		case n.Kind == "net" && x.Host.NetworkMode == "none":
			text += ", with nothing but lo"
		case n.Kind == "uts" && x.Hostname != "":
			text += ", " + printable(x.Hostname)
		}
		if n.ID != "" {
			text += " (" + n.ID + ")"
		}
		if n.Kind == "user" && x.Host.IDs != nil {
			text += ": " + idMapsText(x.Host.IDs)
		}
		p.fact(label, fmt.Sprintf("%-10s %s", words[n.Kind], text))
		label = ""
	}
}

func (p *picture) privileges(x *container.Explained) {
	text := fmt.Sprintf("%d of root's %d capabilities", len(runtime.CapNames(x.Caps)), len(runtime.Capabilities()))
	if x.Host.Privileged {
		text = "privileged: " + text
	}
	p.fact("Privileges", text)
	filter := "all system calls allowed"
	if x.Filtered {
		filter = "system calls pass a seccomp filter"
	}
	if x.NoNewPrivs {
		filter += ", no new privileges"
	}
	p.fact("", filter)
}

// wrap writes text behind first, and goes on behind next where the line would
// get longer than the picture is wide. A word that does not fit is broken.
func (p *picture) wrap(first, next, text string) {
	line, empty := first, true
	room := func() int { return p.width - utf8.RuneCountInString(line) }
	flush := func() {
		p.b.WriteString(strings.TrimRight(line, " ") + "\n")
		line, empty = next, true
	}
	for i, word := range strings.Split(text, " ") {
		if p.width == 0 {
			if i > 0 {
				line += " "
			}
			line += word
			continue
		}
		if i > 0 && !empty {
			if room() > utf8.RuneCountInString(word) {
				line += " "
			} else {
				flush()
			}
		} else if i > 0 && word == "" {
			continue
		}
		for r := []rune(word); len(r) > 0; {
			n := min(len(r), max(room(), 1))
			line, empty, r = line+string(r[:n]), false, r[n:]
			if len(r) > 0 {
				flush()
			}
		}
	}
	flush()
}
