//go:build root

package e2e

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// TestMain looks, around the whole suite, for what tug may have left on the
// machine: mounts, processes. Each test looks after its own store, and its
// cgroups.
func TestMain(m *testing.M) {
	before := leftovers()
	code := m.Run()
	var left []string
	for range 50 {
		left = nil
		for _, l := range leftovers() {
			if !slices.Contains(before, l) {
				left = append(left, l)
			}
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if len(left) > 0 {
		fmt.Println("FAIL: the suite left behind:")
		for _, l := range left {
			fmt.Println("   ", l)
		}
		code = 1
	}
	os.Exit(code)
}

func leftovers() []string {
	var all []string
	for _, pid := range processesWith("tug-test-") {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		all = append(all, fmt.Sprintf("process %d %q", pid, b))
	}
	for _, m := range mountsWith("tug-test-") {
		all = append(all, "mount "+m)
	}
	return all
}
