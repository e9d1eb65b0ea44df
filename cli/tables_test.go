package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/container"
	"tug/image"
	"tug/spec"
	"tug/volume"
)

// update writes the golden files anew: go test ./cli -update.
var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	p := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(p, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", p, d)
	}
}

var testNow = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// testRows are containers in all states, newest first.
func testRows(noTrunc bool) []*psRow {
	row := func(id, name, ref string, age time.Duration, st spec.State, command ...string) *psRow {
		c := &container.Summary{State: st}
		c.ID, c.Name, c.Image, c.Created = strings.Repeat(id, 16), name, ref, testNow.Add(-age)
		c.Path, c.Args, c.Platform = command[0], command[1:], spec.Platform{OS: "linux", Architecture: "amd64"}
		c.ImageID = spec.Digest("sha256:" + strings.Repeat("0123", 16))
		c.Config.Labels = map[string]string{"com.example.the-role": name, "a": "1"}
		c.Host.NetworkMode = "none"
		return &psRow{Summary: c, now: testNow, noTrunc: noTrunc, image: ref, size: sizeText(1234567, 81234567)}
	}
	rows := []*psRow{
		row("abcd", "fresh", "busybox", 0, spec.State{Status: spec.StatusCreated}, "sh"),
		row("1bcd", "a_long_name_of_a_container", "localhost:5000/team/app:v1.2.3", 3*time.Minute,
			spec.State{Status: spec.StatusRunning, Pid: 7, StartedAt: testNow.Add(-2 * time.Minute)}, "sh", "-c", "while :; do sleep 1; done"),
		row("2bcd", "gone", "busybox", 50*time.Hour,
			spec.State{Status: spec.StatusExited, ExitCode: 137, FinishedAt: testNow.Add(-time.Hour)}, "/bin/echo", `"quoted"`, "tab\there"),
		row("3bcd", "lost", "busybox", 400*24*time.Hour, spec.State{Status: spec.StatusExited, ExitCode: 255}, "sleep", "1"),
		row("4bcd", "dead", "", 40*24*time.Hour, spec.State{Status: spec.StatusDead}, "a-program-with-a-very-long-name"),
	}
	rows[4].image = rows[4].ImageID.String() // its name was given to another image
	return rows
}

// inUTC makes UTC the local time zone.
func inUTC(t *testing.T) {
	local := time.Local
	t.Cleanup(func() { time.Local = local })
	time.Local = time.UTC
}

func TestPsOutput(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    psOptions
	}{
		{"ps", psOptions{}},
		{"ps-size", psOptions{size: true}},
		{"ps-no-trunc", psOptions{noTrunc: true}},
		{"ps-quiet", psOptions{quiet: true}},
		{"ps-quiet-no-trunc", psOptions{quiet: true, noTrunc: true}},
		{"ps-json", psOptions{format: "json"}},
		{"ps-quiet-format", psOptions{quiet: true, format: "{{.Names}}"}},
		{"ps-raw", psOptions{format: "raw"}},
		{"ps-raw-size", psOptions{format: "raw", size: true, noTrunc: true}},
		{"ps-raw-quiet", psOptions{format: "raw", quiet: true}},
		{"ps-table-no-blank", psOptions{format: `table{{.Names}}\t{{join (split .Image "/") "+"}}`}},
		{"ps-table", psOptions{format: `table {{.Names}}\t{{.State}}\t{{.Status}}\t{{.Label "com.example.the-role"}}\t{{.Labels}}`}},
		{"ps-table-functions", psOptions{format: `table {{upper .Names}}\t{{json .Image}}\t{{truncate .ID 4}}\t{{.Command | lower | title}}`}},
		{"ps-table-all", psOptions{format: `table {{.CreatedAt}}\t{{.RunningFor}}\t{{.Ports}}\t{{.Size}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Networks}}\t{{.Platform}}`}},
		{"ps-template", psOptions{format: `{{pad .Names 1 2}}|{{join (split .Image "/") "+"}}|{{println .State}}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inUTC(t)
			var out bytes.Buffer
			var warning strings.Builder
			if err := tt.o.write(&app{Stdio: Stdio{Out: &out, Err: &warning}}, testRows(tt.o.noTrunc)); err != nil {
				t.Fatal(err)
			}
			if (tt.o.quiet && tt.o.format != "") != strings.HasPrefix(warning.String(), "WARNING: Ignoring custom format") {
				t.Errorf("%q", warning.String())
			}
			golden(t, tt.name, out.String())
		})
	}
}

func testImages() []*image.Image {
	created := func(age time.Duration) *time.Time { at := testNow.Add(-age); return &at }
	img := func(id string, size int64, names, digests []string) *image.Image {
		i := &image.Image{ID: spec.Digest("sha256:" + strings.Repeat(id, 16)), Names: names, Digests: digests, Size: size}
		i.Config.Created = created(3 * time.Hour)
		return i
	}
	digest := "@sha256:" + strings.Repeat("d", 64)
	all := []*image.Image{
		img("abcd", 1982481, []string{"busybox:1", "busybox:latest", "localhost:5000/team/app:v1"}, []string{"busybox" + digest}),
		img("1bcd", 123456789012, nil, []string{"localhost:5000/only/digest" + digest}),
		img("2bcd", 0, nil, nil),
	}
	all[2].Config.Created = nil
	return all
}

func TestImagesOutput(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    imagesOptions
	}{
		{"images", imagesOptions{}},
		{"images-digests", imagesOptions{digests: true}},
		{"images-no-trunc", imagesOptions{noTrunc: true}},
		{"images-quiet", imagesOptions{quiet: true}},
		{"images-json", imagesOptions{format: "json"}},
		{"images-raw", imagesOptions{format: "raw"}},
		{"images-raw-digests", imagesOptions{format: "raw", digests: true}},
		{"images-raw-quiet", imagesOptions{format: "raw", quiet: true}},
		{"images-table-digests", imagesOptions{format: `table {{.ID}}`, digests: true}},
		{"images-table", imagesOptions{format: `table {{.Repository}}\t{{.Tag}}\t{{.CreatedAt}}\t{{.Size}}`}},
		{"images-template", imagesOptions{format: `{{.Repository}}:{{.Tag}} {{.ID}} {{.CreatedSince}} {{.Containers}}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inUTC(t)
			var out bytes.Buffer
			if err := tt.o.write(&app{Stdio: Stdio{Out: &out}}, testImages(), testNow); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name, out.String())
		})
	}
}

func testVolumes() []*volumeRow {
	return []*volumeRow{
		{&volume.Volume{Name: "data", Driver: "local", Labels: map[string]string{"a": "1", "com.example.the-role": "db"}}, "/var/lib/tug/volumes/data/_data", "2", "1.5MB"},
		{&volume.Volume{Name: strings.Repeat("0a", 32), Driver: "local"}, "/var/lib/tug/volumes/x/_data", "0", "0B"},
	}
}

func TestVolumesOutput(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    volumeLsOptions
	}{
		{"volumes", volumeLsOptions{}},
		{"volumes-quiet", volumeLsOptions{quiet: true}},
		{"volumes-json", volumeLsOptions{format: "json"}},
		{"volumes-raw", volumeLsOptions{format: "raw"}},
		{"volumes-raw-quiet", volumeLsOptions{format: "raw", quiet: true}},
		{"volumes-table", volumeLsOptions{format: `table {{.Name}}\t{{.Mountpoint}}\t{{.Label "com.example.the-role"}}\t{{.Links}}\t{{.Size}}\t{{.Scope}}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := tt.o.write(&app{Stdio: Stdio{Out: &out}}, testVolumes()); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name, out.String())
		})
	}
}

func TestDfTemplates(t *testing.T) {
	inUTC(t)
	o := &imagesOptions{usage: map[spec.Digest]image.Usage{}}
	var rows []*imageRow
	for n, img := range testImages() {
		o.usage[img.ID] = image.Usage{Shared: int64(n) * 1000, Unique: 500, Containers: n}
		rows = append(rows, o.rows(img, testNow)[0])
	}
	for name, format := range map[string]string{
		"df-json": "json", "df-raw": "raw",
		"df-template": `{{range .Images}}{{.Repository}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}\n{{end}}{{range .Containers}}{{.Label "com.example.the-role"}} {{.Size}}\n{{end}}{{len .Volumes}} {{len .BuildCache}}`,
	} {
		var out bytes.Buffer
		if err := (&app{Stdio: Stdio{Out: &out}}).templateDf(format, rows, testRows(true)[:2], testVolumes()); err != nil {
			t.Fatal(err)
		}
		golden(t, name, out.String())
	}
	var whole map[string][]map[string]string
	var out bytes.Buffer
	if err := (&app{Stdio: Stdio{Out: &out}}).templateDf("{{json .}}", rows, testRows(true), testVolumes()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &whole); err != nil {
		t.Fatal(err)
	}
	// The fields that Docker's CLI has, all of them strings.
	for list, want := range map[string]string{
		"Images":     "Containers CreatedAt CreatedSince Digest ID Repository SharedSize Size Tag UniqueSize VirtualSize",
		"Containers": "Command CreatedAt ID Image Labels LocalVolumes Mounts Names Networks Platform Ports RunningFor Size State Status",
		"Volumes":    "Availability Driver Group Labels Links Mountpoint Name Scope Size Status",
	} {
		if got := strings.Join(sortedKeys(whole[list][0]), " "); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
	if len(whole) != 4 || whole["Volumes"] == nil || whole["BuildCache"] == nil {
		t.Errorf("%v", whole)
	}
}

func TestTemplateErrors(t *testing.T) {
	for format, want := range map[string]string{
		"{{":                 "template parsing error: template: :1: unclosed action",
		"{{.Nope}}":          `map has no entry for key "Nope"`,
		"table {{.Nope}}":    `map has no entry for key "Nope"`,
		"{{nope .ID}}":       `function "nope" not defined`,
		"{{pad .ID 1 -1}}":   "too many blanks",
		"{{index .ID 1000}}": "index out of range",
	} {
		o := psOptions{format: format}
		err := o.write(&app{Stdio: Stdio{Out: &bytes.Buffer{}}}, testRows(false))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", format, err, want)
		}
	}
}
