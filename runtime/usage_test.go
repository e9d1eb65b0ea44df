package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The counters of both cgroup versions, as kernels write them.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	put := func(files map[string]string) {
		for name, text := range files {
			p := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(map[string]string{
		"v2/s/cpu.stat":       "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
		"v2/s/memory.current": "1000000\n", "v2/s/memory.stat": "anon 1\ninactive_file 400000\nactive_file 7\n", "v2/s/memory.max": "max\n",
		"v2/s/io.stat":                                    "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1\n7:0 \n",
		"v2/s/pids.current":                               "5\n",
		"cpu/s/cpuacct.usage":                             "1500000\n",
		"mem/s/memory.usage_in_bytes":                     "1000000\n",
		"mem/s/memory.stat":                               "inactive_file 1\ntotal_inactive_file 400000\n",
		"mem/s/memory.limit_in_bytes":                     "9223372036854771712\n",
		"pids/s/pids.current":                             "5\n",
		"blk/s/blkio.throttle.io_service_bytes_recursive": "8:0 Read 100\n8:0 Write 20\n8:0 Sync 7\n8:0 Total 120\n8:16 Read 1\n8:16 Write 2\nTotal 123\n",
	})
	want := Usage{CPU: 1500000, Memory: 600000, Read: 101, Written: 22, Pids: 5}
	v2 := &cgroups{v2: filepath.Join(dir, "v2")}
	if d := cmp.Diff(want, v2.usage("/s")); d != "" {
		t.Errorf("version 2: %s", d)
	}
	mount := func(name string, controllers ...string) hierarchy {
		return hierarchy{mount: filepath.Join(dir, name), controllers: controllers}
	}
	v1 := &cgroups{v1: []hierarchy{mount("cpu", "cpu", "cpuacct"), mount("mem", "memory"), mount("pids", "pids")}, spare: []hierarchy{mount("blk", "blkio")}}
	want.MemoryLimit = 9223372036854771712
	if d := cmp.Diff(want, v1.usage("/s")); d != "" {
		t.Errorf("version 1: %s", d)
	}
	if got := v2.usage("/gone"); got != (Usage{}) {
		t.Errorf("of a cgroup that is gone: %+v", got)
	}
	put(map[string]string{"v2/s/memory.stat": "inactive_file 2000000\n"})
	if got := v2.usage("/s").Memory; got != 1000000 {
		t.Errorf("more cache than memory: %d", got)
	}
	put(map[string]string{"v2/s/cgroup.procs": "12\n3\n", "v2/s/a/cgroup.procs": "7\n0\n", "v2/s/a/b/cgroup.procs": ""})
	if pids, err := pidsBelow(filepath.Join(dir, "v2/s")); err != nil || len(pids) != 3 {
		t.Errorf("%v %v", pids, err)
	}
}

func TestMachine(t *testing.T) {
	a, n := MachineCPU()
	if b, _ := MachineCPU(); n < 1 || a == 0 || b < a {
		t.Errorf("%d processors, %d ns and then %d", n, a, b)
	}
	if machineMemory() < 64<<20 {
		t.Errorf("%d bytes of memory", machineMemory())
	}
}
