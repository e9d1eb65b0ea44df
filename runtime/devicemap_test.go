package runtime

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
)

func TestDeviceRules(t *testing.T) {
	for text, want := range map[string]string{
		"c 1:3 r": "c 1:3 r", "b *:5 rwm": "b *:5 rwm", "a 7:* m": "c 7:* m b 7:* m",
		"": "", "c 1 r": "", "x 1:3 r": "", "c 1:3 x": "", "c 1:3 ": "", "c +1:3 r": "", "c -1:3 r": "", "c 1:99999999999 r": "",
		"c 1:3 rrrr": "", "c  1:3 r": "", "c 1:3 r\n": "", "c :3 r": "",
	} {
		rules, ok := parseDeviceRule(text)
		var got []string
		for _, r := range rules {
			got = append(got, r.String())
		}
		if ok != (want != "") || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v, want %q", text, got, ok, want)
		}
	}
}

// What two rules allow together is allowed by the version 2 program, too.
func TestMergedRules(t *testing.T) {
	rules := append(defaultDeviceRules(), deviceRule{'b', 8, 1, "r"}, deviceRule{'b', 8, 1, "w"})
	if runDevice(t, deviceProgram(rules), 'b', 8, 1, devRead|devWri) {
		t.Fatal("merging is not needed")
	}
	prog := deviceProgram(mergeRules(rules))
	if !runDevice(t, prog, 'b', 8, 1, devRead|devWri) || runDevice(t, prog, 'b', 8, 1, devRead|devMknod) || runDevice(t, prog, 'b', 8, 2, devRead) {
		t.Error("want 8:1 to be read and written, and nothing more")
	}
}

func TestAddDevices(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	add := func(privileged bool, m ...spec.DeviceMapping) (*Plan, error) {
		p := new(Plan)
		return p, p.addDevices(&spec.HostConfig{Devices: m, Privileged: privileged})
	}
	p, err := add(false, spec.DeviceMapping{PathOnHost: dir + "/link", PathInContainer: "/dev/x/../y", CgroupPermissions: "r"})
	if err != nil || len(p.Devices) != 1 || p.Devices[0].Path != "/dev/y" || p.Devices[0].Minor != 3 {
		t.Fatalf("%+v, %v", p.Devices, err)
	}
	if diff := cmp.Diff("c 1:3 r", p.rules[0].String()); diff != "" {
		t.Error(diff)
	}
	p, err = add(true, spec.DeviceMapping{PathOnHost: "/dev/null", PathInContainer: "/dev/null", CgroupPermissions: "r"})
	if err != nil || len(p.Devices) > 0 {
		t.Errorf("privileged: %+v, %v", p.Devices, err)
	}
	for _, bad := range [][3]string{
		{"/nowhere", "/dev/x", "r"},
		{dir, "/dev/x", "r"},
		{"/etc/passwd", "/dev/x", "r"},
		{"/dev/null", "/proc/x", "r"},
		{"/dev/null", "/dev/../sys", "r"},
		{"/dev/null", "x", "r"},
		{"/dev/null", "/dev/", "r"},
		{"/dev/null", "/dev/x", "q"},
	} {
		if _, err := add(false, spec.DeviceMapping{PathOnHost: bad[0], PathInContainer: bad[1], CgroupPermissions: bad[2]}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
