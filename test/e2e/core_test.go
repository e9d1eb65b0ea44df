//go:build root

package e2e

import (
	"os"
	"strings"
	"testing"
)

func TestCoreCgroups(t *testing.T) {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	t.Log("controllers: ", strings.TrimSpace(string(b)))
	b, err = os.ReadFile("/proc/filesystems")
	t.Log(string(b), err)
}
