package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// `logs clear` is a command only where a name follows: else a container is
// called so.
func TestLogsClearOrContainer(t *testing.T) {
	for line, want := range map[string]string{
		"logs clear":                "logs|clear",
		"logs clear web":            "logs clear|web",
		"logs clear clear":          "logs clear|clear",
		"logs clear web db":         "logs clear|web db",
		"logs clear -f":             "logs|clear -f",
		"logs clear --tail 5":       "logs|clear --tail 5",
		"logs -f clear":             "logs|-f clear",
		"logs --tail 5 clear":       "logs|--tail 5 clear",
		"logs clear --help":         "logs clear|--help",
		"logs web clear":            "logs|web clear",
		"container logs clear":      "container logs|clear",
		"container logs clear web":  "container logs clear|web",
		"container logs clear -n 1": "container logs|clear -n 1",
		"rm clear web":              "rm|clear web",
		"logs":                      "logs|",
	} {
		c, name, rest := find(commands(), strings.Fields(line))
		if c == nil {
			t.Errorf("%s: no command", line)
			continue
		}
		if got := name + "|" + strings.Join(rest, " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestUmaskValue(t *testing.T) {
	for in, want := range map[string]string{"022": "0022", "0": "0000", "777": "0777", "0o22": "", "1000": "", "8": "", "": "", "-1": ""} {
		var v umaskValue
		err := v.Set(in)
		if want == "" && err == nil || want != "" && (err != nil || v.String() != want) {
			t.Errorf("%q: %s, %v; want %q", in, v.String(), err, want)
		}
	}
}

func TestUserConfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	var errs bytes.Buffer
	a := &app{Stdio: Stdio{Err: &errs}}
	if c := a.userConfig(); c != (userConfig{}) || errs.Len() > 0 {
		t.Errorf("without a file: %+v, %s", c, &errs)
	}
	for text, want := range map[string]userConfig{
		`{"psFormat":"p","imagesFormat":"i","statsFormat":"s","volumesFormat":"v","detachKeys":"ctrl-a","auths":{"x":{}}}`: {
			PsFormat: "p", ImagesFormat: "i", StatsFormat: "s", VolumesFormat: "v", DetachKeys: "ctrl-a",
		},
		`{"auths":{}}`: {}, "": {},
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c := a.userConfig(); c != want || errs.Len() > 0 {
			t.Errorf("%s: %+v, %s", text, c, &errs)
		}
	}
	for _, text := range []string{"{", `{"psFormat":5}`, "\x00"} {
		errs.Reset()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c := a.userConfig(); c != (userConfig{}) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: %+v, %s", text, c, &errs)
		}
	}
}
