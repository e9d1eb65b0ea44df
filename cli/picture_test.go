package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tug/container"
	"tug/image"
	"tug/layer"
	"tug/spec"
)

func testSheets() []image.Sheet {
	imgs := testImages()
	imgs[1].Names = nil
	digest := func(s string) spec.Digest { return spec.Digest("sha256:" + strings.Repeat(s, 16)) }
	many := []image.Holder{}
	for range 13 {
		many = append(many, image.Holder{ID: strings.Repeat("ab", 32), Name: "peer_" + string(rune('a'+len(many)))})
	}
	return []image.Sheet{
		{Layer: digest("1111"), Size: 4_260_000, CreatedBy: "/bin/sh -c #(nop) ADD file:x in / \x1b[31m", Images: imgs[:2], Containers: many},
		{Layer: digest("2222"), Size: 0, Made: true, Containers: many[:1]},
		{Layer: digest("3333"), Size: -1, CreatedBy: "/bin/sh -c apt-get install   -y " + strings.Repeat("a-package ", 12)},
	}
}

func testExplained() *container.Explained {
	c := &container.Summary{State: spec.State{Status: spec.StatusRunning, Pid: 4711, StartedAt: testNow.Add(-2 * time.Minute)}}
	c.ID, c.Name, c.Image, c.ImageID = strings.Repeat("abcd", 16), "web", "registry.example.com/team/app:v1", testImages()[0].ID
	c.Path, c.Args, c.Hostname = "/bin/serve", []string{"-f", "two words", ""}, "web-host"
	c.Config.User = "www-data"
	limit := int64(100)
	c.Host = spec.HostConfig{NetworkMode: "none", Memory: 64 << 20, NanoCPUs: 1.5e9, PidsLimit: &limit, CPUShares: 512, Init: true}
	file := func(kind layer.ChangeKind, path string, size int64, mode uint32) container.Change {
		return container.Change{Kind: kind, Path: path, Size: size, Mode: mode}
	}
	return &container.Explained{
		Summary: c,
		Written: container.Written{
			Size: 3_410_000,
			Added: container.Tally{Files: 12, Dirs: 1, Bytes: 3_400_000, Listed: 12, Largest: []container.Change{
				file('A', "/var/log/"+strings.Repeat("long-", 20)+"name.log", 3_200_000, 0o100644), file('A', "/tmp/\x1b[2Jevil\n", 200_000, 0o100600),
			}},
			Changed: container.Tally{Files: 1, Bytes: 1100, Was: 900, Listed: 1, Largest: []container.Change{file('C', "/etc/passwd", 1100, 0o100644)}},
			Removed: container.Tally{Files: 3, Dirs: 2, Bytes: 12_000, More: true, Listed: 1, Largest: []container.Change{file('D', "/usr/share/doc", 12_000, 0o40755)}},
		},
		Places: []container.Place{
			{Target: "/", Type: "overlay"},
			{Target: "/proc", Type: "proc"},
			{Target: "/proc/sys", Type: "proc", ReadOnly: true},
			{Target: "/etc/hosts", Type: "ext4", Source: "/store/hosts"},
			{Target: "/tmp", Type: "tmpfs", Options: "size=64k", ReadOnly: true},
		},
		Namespaces: []container.Namespace{
			{Kind: "mnt", ID: "4026532201"},
			{Kind: "pid", ID: "1", Host: true},
			{Kind: "net", ID: "2"},
			{Kind: "ipc", ID: "3", Shared: []container.Peer{{ID: "x", Name: "db"}}},
			{Kind: "uts", ID: "4"},
			{Kind: "cgroup", ID: "5"},
			{Kind: "user", ID: "6", Host: true},
		},
		Processes: []container.Task{{Pid: 4711, Inside: 1, Command: "/bin/serve"}, {Pid: 4712, Inside: 7, Command: "worker"}},
		Count:     8, Caps: 0xa80425fb, Filtered: true,
	}
}

// The pictures, on terminals of several widths and off them: nothing is left
// out, no line is longer than the terminal, and no escape sequence gets through.
func TestPicture(t *testing.T) {
	words := func(s string) string {
		for _, frame := range []string{"┌─", "╞═", "├─", "└─", "│"} {
			s = strings.ReplaceAll(s, frame, "")
		}
		return strings.Join(strings.Fields(s), "")
	}
	for name, lang := range map[string]string{"picture": "C.UTF-8", "picture-ascii": "C"} {
		t.Setenv("LC_ALL", lang)
		a := &app{}
		draw := func(width int) (c, i string) {
			p := newPicture(a)
			p.width = width
			p.container(testExplained(), testImages()[0], testSheets(), testNow)
			q := newPicture(a)
			q.width = width
			img := testImages()[0]
			q.image(img, testSheets(), testSheets()[0].Containers[:2], image.Usage{Shared: 5, Unique: 6})
			return p.b.String(), q.b.String()
		}
		wideC, wideI := draw(0)
		golden(t, name, wideC+"\n"+wideI)
		if strings.ContainsAny(wideC+wideI, "\x1b\r") {
			t.Error("a control character got through")
		}
		for _, width := range []int{200, 80, 60, 40, 24} {
			c, i := draw(width)
			if width == 80 && lang != "C" {
				golden(t, name+"-80", c+"\n"+i)
			}
			for line := range strings.Lines(c + i) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("%d columns: %d in %q", width, n, line)
				}
			}
			if lang != "C" && (words(c) != words(wideC) || words(i) != words(wideI)) {
				t.Errorf("%d columns leave something out:\n%s", width, c)
			}
		}
	}
}

func TestPictureOfStopped(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	x := testExplained()
	x.State = spec.State{Status: spec.StatusCreated}
	x.Host.ReadonlyRootfs, x.Written, x.Host.Privileged, x.Count, x.Processes = true, container.Written{}, true, 0, nil
	p := newPicture(&app{})
	p.container(x, nil, nil, testNow)
	for _, want := range []string{"not to be written to", "nothing added, changed or deleted", "has been removed", "no layers", "not running", "privileged: "} {
		if !strings.Contains(p.b.String(), want) {
			t.Errorf("%q is not in\n%s", want, p.b.String())
		}
	}
	if strings.Contains(p.b.String(), ", now ") {
		t.Errorf("a stopped container uses something:\n%s", p.b.String())
	}
}

func TestPictureJSON(t *testing.T) {
	var out bytes.Buffer
	if err := printOne(&out, "json", toContainerPicture(testExplained(), testImages()[0], testSheets())); err != nil {
		t.Fatal(err)
	}
	var v containerPicture
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Type != "container" || len(v.Layers) != 3 || v.Writable.Removed.Largest[0].Type != "directory" ||
		v.Namespaces[3].SharedWith[0].Name != "db" || v.Limits.PidsLimit != 100 || len(v.Privileges.Capabilities) != 14 {
		t.Errorf("%v: %s", err, &out)
	}
	out.Reset()
	if err := printOne(&out, "{{.Type}} {{len .Layers}} {{(index .Layers 0).CreatedBy}}", toImagePicture(testImages()[0], testSheets()[1:], nil, image.Usage{})); err != nil || out.String() != "image 2 \n" {
		t.Errorf("%v: %q", err, out.String())
	}
}
