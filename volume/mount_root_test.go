//go:build root

package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tug/errs"
	"tug/sys"
)

func (v *Volumes) mounted(t *testing.T, options ...string) (string, error) {
	t.Helper()
	o := map[string]string{}
	for _, w := range options {
		key, value, _ := strings.Cut(w, "=")
		o[key] = value
	}
	vol, _, err := v.Ensure("", Options{Options: o, Fleeting: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := v.Mount(vol)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { m.Close() })
	return sys.FdPath(m), nil
}

func TestMount(t *testing.T) {
	v := open(t)
	plain := v.make(t, "plain", "x")
	if m, err := v.Mount(plain); m != nil || err != nil {
		t.Errorf("a plain directory: %v, %v", m, err)
	}

	mem, err := v.mounted(t, "type=tmpfs", "device=tmpfs", "o=size=64k,mode=1770,uid=7,noexec")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mem+"/big", make([]byte, 128<<10), 0o600); !sys.IsNoSpace(err) {
		t.Errorf("128 KiB in 64: %v", err)
	}
	if fi, err := os.Stat(mem + "/."); err != nil || fi.Mode()&os.ModeSticky == 0 || fi.Mode().Perm() != 0o770 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	ro, err := v.mounted(t, "type=tmpfs", "device=tmpfs", "o=ro")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ro+"/x", nil, 0o600); err == nil {
		t.Error("wrote to one that is ro")
	}

	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	bound, err := v.mounted(t, "type=none", "device="+link, "o=bind")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bound+"/from-inside", []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "from-inside")); err != nil {
		t.Error(err)
	}
	bound, err = v.mounted(t, "type=none", "device="+dir, "o=bind,ro")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bound+"/y", nil, 0o600); err == nil {
		t.Error("wrote to a bind mount that is ro")
	}

	for want, o := range map[string][]string{
		"no such file or directory":     {"type=none", "device=" + dir + "/none", "o=bind"},
		`no file system "nosuchfs"`:     {"type=nosuchfs", "device=x"},
		"tmpfs: Unknown parameter 'huh": {"type=tmpfs", "device=tmpfs", "o=huh=1"},
	} {
		_, err := v.mounted(t, o...)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", o, err)
		}
	}
	if _, err := v.mounted(t, "type=nosuchfs", "device=x"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("%v", err)
	}
}
