package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"tug/image"
	"tug/spec"
)

// What Docker's tables and templates make of instructions of several lines, and
// of images without a date.
func TestHistoryRows(t *testing.T) {
	step := image.Step{CreatedBy: "RUN <<EOF\n\tmake\x1b[2J\nEOF", Size: 5}
	for _, tt := range []struct {
		o    historyOptions
		want string
	}{
		{historyOptions{human: true}, "IMAGE       CREATED   CREATED BY                SIZE      COMMENT\n<missing>   N/A       RUN <<EOF  make?[2J EOF   5B        \n"},
		{historyOptions{human: true, format: "table {{.CreatedBy}}"}, "CREATED BY\nRUN <<EOF  make?[2J EOF\n"},
		{historyOptions{format: "{{.CreatedBy}}|{{.CreatedSince}}|{{.Size}}"}, "RUN <<EOF\n make?[2J\nEOF|0001-01-01T00:00:00Z|5\n"},
		{
			historyOptions{human: true, format: "json"},
			`{"Comment":"","CreatedAt":"0001-01-01T00:00:00Z","CreatedBy":"RUN \u003c\u003cEOF\n make?[2J\nEOF","CreatedSince":"N/A","ID":"\u003cmissing\u003e","Size":"5B"}` + "\n",
		},
	} {
		var out bytes.Buffer
		if err := tt.o.write(&app{Stdio: Stdio{Out: &out}}, []image.Step{step}, time.Now()); err != nil || out.String() != tt.want {
			t.Errorf("%+v: %v\n got %q\nwant %q", tt.o, err, out.String(), tt.want)
		}
	}
}

func TestInspectFormats(t *testing.T) {
	for format, want := range map[string]string{
		"json":        `[{"A":"<"},{"A":"b"}]` + "\n",
		"":            "[\n    {\n        \"A\": \"<\"\n    },\n    {\n        \"A\": \"b\"\n    }\n]\n",
		"{{json .A}}": "\"<\"\n\"b\"\n",
	} {
		var out bytes.Buffer
		o := inspectOptions{format: format}
		if err := o.print(&out, []any{map[string]string{"A": "<"}, map[string]string{"A": "b"}}); err != nil || out.String() != want {
			t.Errorf("%q: %v\n got %q\nwant %q", format, err, out.String(), want)
		}
	}
}

// join works on digests, and on what only the JSON has.
func TestInspectJoin(t *testing.T) {
	img := &image.Image{}
	img.Config.RootFS.DiffIDs = []spec.Digest{"sha256:a", "sha256:b"}
	img.Config.Config.Cmd = []string{"echo", "hi"}
	for format, want := range map[string]string{
		`{{join .RootFS.Layers " "}}`: "sha256:a sha256:b\n", `{{join .Config.Cmd ","}}`: "echo,hi\n", `{{.Id}}{{join .RootFS.Layers "-"}}`: "sha256:a-sha256:b\n",
		`{{join .Id " "}}`: "is no list of strings",
	} {
		var out bytes.Buffer
		o := inspectOptions{format: format}
		err := o.print(&out, []any{image.Inspect(img)})
		if good := strings.HasSuffix(want, "\n"); good && (err != nil || out.String() != want) || !good && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, %q, want %q", format, err, out.String(), want)
		}
	}
}

func TestMatchReference(t *testing.T) {
	for pattern, want := range map[string]bool{
		"app": true, "a*": true, "app:1": true, "ap?:*": true, "library/app": true, "docker.io/library/app:1": true,
		"*/*": false, "*/*/*": false, "*/*/*:*": false, "docker.io/*": false, "app:2": false, "ap": false, "[": false, "APP": false,
	} {
		if got := matchReference(pattern, "app:1"); got != want {
			t.Errorf("%q: %t", pattern, got)
		}
	}
}
