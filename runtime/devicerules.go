package runtime

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/sys"
)

// deviceList is what the rules of an OCI configuration, which are obeyed in
// their order, come to: an answer for all devices, and exceptions. It is the
// list that version 1 of cgroups keeps in the kernel.
type deviceList struct {
	allow      bool // what the exceptions do not name
	exceptions []deviceRule
}

// add obeys one rule: one about all devices begins the list anew.
func (l *deviceList) add(allow bool, r deviceRule) {
	at := -1
	for i, e := range l.exceptions {
		if e.kind == r.kind && e.major == r.major && e.minor == r.minor {
			at = i
		}
	}
	if allow == l.allow { // takes exceptions back
		if at >= 0 {
			l.exceptions[at].access = without(l.exceptions[at].access, r.access)
			if l.exceptions[at].access == "" {
				l.exceptions = append(l.exceptions[:at], l.exceptions[at+1:]...)
			}
		}
		return
	}
	if at >= 0 {
		l.exceptions[at].access = without(l.exceptions[at].access, r.access) + r.access
		return
	}
	l.exceptions = append(l.exceptions, r)
}

func without(access, less string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune(less, c) {
			return -1
		}
		return c
	}, access)
}

// newDeviceList obeys the rules, from all denied on, and allows what every
// container has.
func newDeviceList(rules []specs.LinuxDeviceCgroup) (*deviceList, error) {
	l := new(deviceList)
	for i, r := range rules {
		access := r.Access
		if access == "" {
			access = "rwm"
		}
		if strings.Trim(access, "rwm") != "" {
			return nil, errs.New(errs.Invalid, "linux.resources.devices[%d]: access %q is not made of r, w and m", i, r.Access)
		}
		major, err := deviceNumber(r.Major)
		minor, err2 := deviceNumber(r.Minor)
		if err = errors.Join(err, err2); err != nil {
			return nil, errs.New(errs.Invalid, "linux.resources.devices[%d]: %w", i, err)
		}
		kinds := r.Type
		switch r.Type {
		case "", "a":
			if major < 0 && minor < 0 && without("rwm", access) == "" {
				*l = deviceList{allow: r.Allow}
				continue
			}
			kinds = "cb"
		case "b", "c":
		case "u":
			kinds = "c"
		default:
			return nil, errs.New(errs.Invalid, "linux.resources.devices[%d]: type %q is none of a, b and c", i, r.Type)
		}
		for _, kind := range []byte(kinds) {
			l.add(r.Allow, deviceRule{kind, major, minor, access})
		}
	}
	for _, r := range defaultDeviceRules() {
		l.add(true, r)
	}
	return l, nil
}

func deviceNumber(n *int64) (int32, error) {
	switch {
	case n == nil || *n == -1:
		return -1, nil
	case *n < 0 || *n > math.MaxInt32:
		return 0, fmt.Errorf("%d is no device number", *n)
	}
	return int32(*n), nil
}

// ConfineDevices sets which devices the cgroup's processes may use. A kernel
// that cannot is an error.
func (g *Group) ConfineDevices(rules []specs.LinuxDeviceCgroup) error {
	l, err := newDeviceList(rules)
	if err != nil {
		return err
	}
	if !g.V2() {
		return g.confineV1(l)
	}
	if l.allow && len(l.exceptions) == 0 {
		return nil
	}
	prog, err := sys.LoadDeviceFilter(exceptProgram(l.exceptions, l.allow))
	if err != nil {
		return err
	}
	defer prog.Close()
	dir, err := os.Open(g.c.v2 + g.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return sys.AttachDeviceFilter(dir, prog)
}

func (g *Group) confineV1(l *deviceList) error {
	first, then := "devices.deny", "devices.allow"
	if l.allow {
		first, then = then, first
	}
	file := g.c.file(g.Path, "devices", first)
	if file == "" {
		return nil // no controller: capabilities decide, as everywhere on such a machine
	}
	if err := writeFile(file, "a"); err != nil {
		return err
	}
	return allowDevices(g.c.file(g.Path, "devices", then), l.exceptions)
}
