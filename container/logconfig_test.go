package container

import (
	"strings"
	"testing"

	"tug/spec"
	"tug/supervisor"
)

func logged(driver string, opts ...string) *spec.Container {
	ctr := &spec.Container{ID: strings.Repeat("ab", 32), Name: "web", Image: "app:1", ImageID: spec.Digest("sha256:" + strings.Repeat("cd", 32)), Path: "sh", Args: []string{"-c", "x"}}
	ctr.Config.Env = []string{"A=1", "B_X=two words", "C"}
	ctr.Config.Labels = map[string]string{"com.example.role": "db&cache", "other": "no"}
	ctr.Host.Log = spec.LogConfig{Driver: driver, Options: map[string]string{}}
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		ctr.Host.Log.Options[k] = v
	}
	return ctr
}

func TestCheckLog(t *testing.T) {
	for _, tt := range []struct {
		driver, opts, want string // want is part of the error; empty is none
	}{
		{"", "", ""},
		{"json-file", "max-size=10m max-file=3 labels=a env=B labels-regex=^x env-regex=y tag={{.Name}}/{{.ID}} mode=blocking compress=false", ""},
		{"local", "max-size=-1", ""},
		{"none", "", ""},
		{"syslog", "", "log driver syslog is not there"},
		{"splunk", "", "log driver splunk is not there"},
		{"nope", "", "no log driver named 'nope' is registered"},
		{"json-file", "nope=1", "unknown log opt 'nope' for json-file log driver"},
		{"local", "cache-disabled=true", "unknown log opt 'cache-disabled' for local log driver"},
		{"json-file", "max-size=0", "max-size"},
		{"json-file", "max-size=x", "max-size"},
		{"json-file", "max-size=-7", "max-size"},
		{"json-file", "max-file=0", "max-file"},
		{"json-file", "max-file=-3", "max-file"},
		{"json-file", "max-file=1000000000", "max-file"},
		{"json-file", "max-file=x", "max-file"},
		{"json-file", "mode=non-blocking", "mode=non-blocking is not there"},
		{"json-file", "mode=other", "unknown mode"},
		{"json-file", "max-buffer-size=4m", "max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"json-file", "compress=true", "compress=true is not there"},
		{"json-file", "compress=maybe", "want true or false"},
		{"json-file", "labels-regex=(", "labels-regex"},
		{"json-file", "env-regex=(", "env-regex"},
		{"json-file", "tag={{.Nope}}", "tag"},
		{"json-file", "tag={{", "tag"},
		{"json-file", "tag=" + strings.Repeat("{{.FullID}}", 70), "longer than"},
	} {
		err := checkLog(logged(tt.driver, strings.Fields(tt.opts)...))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s %s: %v, want %q", tt.driver, tt.opts, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s: more than a line: %q", tt.driver, tt.opts, err)
		}
	}
}

func TestLogLimits(t *testing.T) {
	for _, tt := range []struct {
		driver, opts string
		want         supervisor.LogLimits
	}{
		{"", "", supervisor.LogLimits{}},
		{"json-file", "max-size=10m", supervisor.LogLimits{Size: 10_000_000, Files: 1}},
		{"json-file", "max-size=10k max-file=4", supervisor.LogLimits{Size: 10_000, Files: 4}},
		{"json-file", "max-file=4", supervisor.LogLimits{Files: 4}},
		{"json-file", "max-size=-1", supervisor.LogLimits{Size: -1, Files: 1}},
		{"local", "", supervisor.LogLimits{Size: 20_000_000, Files: 5}},
		{"local", "max-size=1m", supervisor.LogLimits{Size: 1_000_000, Files: 5}},
		{"journald", "", supervisor.LogLimits{Size: 20_000_000, Files: 5}},
		{"journald", "cache-max-size=1m cache-max-file=2", supervisor.LogLimits{Size: 1_000_000, Files: 2}},
	} {
		got, err := logLimits(&logged(tt.driver, strings.Fields(tt.opts)...).Host.Log)
		if err != nil || got != tt.want {
			t.Errorf("%s %s: %+v, %v; want %+v", tt.driver, tt.opts, got, err, tt.want)
		}
	}
}

func TestLogDetails(t *testing.T) {
	for opts, want := range map[string]string{
		"":                               "",
		"labels=com.example.role,absent": "com.example.role=db%26cache",
		"env=A,B_X,C":                    "A=1,B_X=two+words",
		"env-regex=^B labels-regex=^o":   "B_X=two+words,other=no",
		"tag={{.Name}}-{{.ImageName}}":   "tag=web-app%3A1",
		"tag=plain":                      "tag=plain",
		"tag={{.ID}} env=A":              "A=1,tag=abababababab",
	} {
		got, err := LogDetails(logged("", strings.Fields(opts)...))
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", opts, got, err, want)
		}
	}
}

func TestJournalFields(t *testing.T) {
	j, err := journalOf(logged("journald", "labels=com.example.role", "env=A"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"CONTAINER_ID": "abababababab", "CONTAINER_ID_FULL": strings.Repeat("ab", 32), "CONTAINER_NAME": "web", "CONTAINER_TAG": "abababababab",
		"SYSLOG_IDENTIFIER": "abababababab", "IMAGE_NAME": "app:1", "COM_EXAMPLE_ROLE": "db&cache", "A": "1",
	} {
		if j.Fields[name] != want {
			t.Errorf("%s is %q, want %q", name, j.Fields[name], want)
		}
	}
}

func TestLayerSize(t *testing.T) {
	for _, tt := range []struct {
		opts map[string]string
		want uint64
		bad  bool
	}{
		{nil, 0, false},
		{map[string]string{"size": "20m"}, 20 << 20, false},
		{map[string]string{"size": "10G"}, 10 << 30, false},
		{map[string]string{"size": "1k"}, 0, true},
		{map[string]string{"size": "-1"}, 0, true},
		{map[string]string{"size": "x"}, 0, true},
		{map[string]string{"other": "1"}, 0, true},
	} {
		got, err := layerSize(&spec.HostConfig{StorageOpt: tt.opts})
		if got != tt.want && !tt.bad || (err != nil) != tt.bad {
			t.Errorf("%v: %d, %v", tt.opts, got, err)
		}
	}
}
