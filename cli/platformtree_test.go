package cli

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPlatformTreeFits(t *testing.T) {
	lines := &treeLines{"├─", "└─", "│ ", "✔", "…"}
	rows := []treeRow{
		{"IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"},
		{"registry.example.com/a/very/long/repository/name:1.2.3-rc4"},
		{"short:1", "0123456789ab", "4.51MB", "2.15MB", "✔"},
		{"├─ linux/amd64", "0123456789ab", "4.51MB", "2.15MB", "✔"},
		{"└─ linux/arm64/v8", "-", "0B", "0B", ""},
	}
	for _, tt := range []struct {
		width int
		head  string // the columns that are left
	}{
		{0, "IMAGE ID DISK USAGE CONTENT SIZE IN USE"},
		{200, "IMAGE ID DISK USAGE CONTENT SIZE IN USE"},
		{100, "IMAGE ID DISK USAGE CONTENT SIZE IN USE"},
		{80, "IMAGE ID DISK USAGE CONTENT SIZE IN USE"},
		{64, "IMAGE ID DISK USAGE CONTENT SIZE IN USE"},
		{63, "IMAGE ID DISK USAGE CONTENT SIZE"},
		{60, "IMAGE ID DISK USAGE CONTENT SIZE"},
		{50, "IMAGE DISK USAGE CONTENT SIZE"},
		{30, "IMAGE DISK USAGE"},
		{20, "IMAGE"},
		{1, "…"},
	} {
		out := lines.lay(rows, tt.width)
		all := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if got := strings.Join(strings.Fields(all[0]), " "); got != tt.head {
			t.Errorf("%d columns: %q, want %q", tt.width, got, tt.head)
		}
		for _, l := range all {
			if n := utf8.RuneCountInString(l); tt.width > 0 && n > tt.width {
				t.Errorf("%d columns: %d in %q", tt.width, n, l)
			}
		}
		whole := strings.Contains(out, rows[1][0]+"\n")
		if cut := strings.HasSuffix(all[1], "…"); len(all) != len(rows) || whole == cut || whole != (tt.width == 0 || tt.width >= 200) {
			t.Errorf("%d columns:\n%s", tt.width, out)
		}
		if sizes := strings.Contains(all[2], "4.51MB"); sizes != (tt.width == 0 || tt.width >= 30) {
			t.Errorf("%d columns:\n%s", tt.width, out)
		}
	}
}
