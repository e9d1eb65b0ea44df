//go:build root

package runtime

import (
	"testing"
)

func TestRunTrue(t *testing.T) {
	f := newFixture(t)
	o := f.run(busybox(t), container("sh", "-c", "id; mount; ls -l /dev /sys/fs/cgroup; cat /proc/self/status /proc/self/cgroup; exit 7"))
	if o.err != nil || o.code != 7 {
		t.Fatalf("code %d, err %v", o.code, o.err)
	}
	t.Log(o.out, o.warnings)
}
