package boot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLookProgram(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "prog"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want string
		code             int
	}{
		{"prog", "/nowhere:" + dir, dir + "/prog", 0},
		{dir + "/prog", "", dir + "/prog", 0},
		{"text", dir, "", 126},
		{"sub", dir, "", 127}, // a directory of the name is not a program of the name
		{dir + "/sub", "", "", 126},
		{"none", dir, "", 127},
		{dir + "/none", "", "", 127},
		{dir + "/prog/x", "", "", 126},
		{"", dir, "", 127},
	}
	for _, tt := range tests {
		got, err := lookProgram(tt.name, tt.path)
		code := 0
		if f := (*failure)(nil); errors.As(err, &f) {
			code = f.code
		}
		if got != tt.want || code != tt.code {
			t.Errorf("%q in %q: got %q, %v", tt.name, tt.path, got, err)
		}
	}
}

func TestGetenv(t *testing.T) {
	env := []string{"A=1", "AB=2", "A=3", "=x", "C"}
	for key, want := range map[string]string{"A": "3", "AB": "2", "C": "", "D": ""} {
		if got := getenv(env, key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}
