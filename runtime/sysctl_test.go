package runtime

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/runtime/plan"
	"tug/spec"
)

func TestNamespacedSysctl(t *testing.T) {
	for name, want := range map[string]bool{
		"net.core.somaxconn": true, "net.ipv4.conf.eth0/1.rp_filter": true, "kernel.shmmax": true, "fs.mqueue.msg_max": true,
		"kernel.panic": false, "fs.file-max": false, "vm.overcommit_memory": false, "net": false, "net.": false, "": false,
		"net/../kernel.panic": false, "net.//.kernel.panic": false, "net./.x": false, "net..x": false, "net.x.": false,
		"net.\x00": false, "kernel.shmmaxx": false, "fs.mqueue.": false,
	} {
		if NamespacedSysctl(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestSysctls(t *testing.T) {
	h := &spec.HostConfig{Sysctls: map[string]string{"net.b": "2", "kernel.sem": "1"}}
	got, err := sysctls(h)
	if diff := cmp.Diff([]plan.Option{{Key: "kernel.sem", Value: "1"}, {Key: "net.b", Value: "2"}}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	h.IpcMode = "host"
	if _, err := sysctls(h); !errs.Is(err, errs.Invalid) {
		t.Errorf("kernel.sem in the host's IPC namespace: %v", err)
	}
	h.IpcMode, h.NetworkMode = "", "host"
	if _, err := sysctls(h); !errs.Is(err, errs.Invalid) {
		t.Errorf("net.b on the host's network: %v", err)
	}
}
