package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHelloFacts(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"proc/self/mountinfo": "1 0 0:1 / / rw,relatime - ext4 /dev/x rw\n" +
			"2 1 0:2 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b:/c,upperdir=/u,workdir=/w\n3 2 0:3 / /proc rw - proc proc rw\n",
		"proc/self/status":         "Name:\thello\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n",
		"proc/1/comm":              "hello",
		"sys/fs/cgroup/memory.max": "67108864\n",
		"sys/fs/cgroup/cpu.max":    "50000 100000\n",
		"sys/fs/cgroup/pids.max":   "max\n",
		"sys/class/net/lo/x":       "",
		"layers/1":                 "the program\n",
		"etc/x":                    "",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if code := Hello(&b, dir); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, want := range []string{
		"layers        3,", "layer 1       the program", "files         2\n", "a writable layer of its own",
		"it sees 1 process\n", "only itself (lo)", "14 of root's 41", "refused by a seccomp filter",
		"memory 64 MiB, cpus 0.5, processes unlimited",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 81 {
			t.Errorf("line is wider than a terminal: %s", line)
		}
	}
}

// TestHelloAnywhere: nothing it needs may be missing without an answer.
func TestHelloAnywhere(t *testing.T) {
	var b strings.Builder
	if code := Hello(&b, t.TempDir()); code != 0 || !strings.Contains(b.String(), "memory unlimited") {
		t.Errorf("exit %d:\n%s", code, b.String())
	}
}
