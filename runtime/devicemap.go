package runtime

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"tug/errs"
	"tug/runtime/plan"
	"tug/spec"
	"tug/sys"
)

// maxDevices bounds what the directories of --device may hold: each device
// costs a rule, and each open(2) of one goes through the rules.
const maxDevices = 1024

// addDevices adds the devices and rules that are asked for.
func (p *Plan) addDevices(h *spec.HostConfig) error {
	for _, m := range h.Devices {
		if h.Privileged && m.PathInContainer == m.PathOnHost {
			continue // it has all of them
		}
		found, err := mappedDevices(m)
		if err != nil {
			return errs.New(errs.Invalid, "error gathering device information while adding custom device %q: %w", m.PathOnHost, err)
		}
		for _, d := range found {
			p.Devices = append(p.Devices, d)
			p.rules = append(p.rules, deviceRule{d.Kind, int32(d.Major), int32(d.Minor), m.CgroupPermissions})
		}
		if len(p.rules) > maxDevices {
			return errs.New(errs.Invalid, "more than %d devices to add", maxDevices)
		}
	}
	for _, text := range h.DeviceCgroupRules {
		rules, ok := parseDeviceRule(text)
		if !ok {
			return errs.New(errs.Invalid, "invalid device cgroup format '%s'", text)
		}
		p.rules = append(p.rules, rules...)
	}
	return nil
}

// mappedDevices finds the device, or those in the directory, that m names.
func mappedDevices(m spec.DeviceMapping) ([]plan.Device, error) {
	if !ValidDeviceAccess(m.CgroupPermissions) {
		return nil, fmt.Errorf("bad mode specified: %s", m.CgroupPermissions)
	}
	target := path.Clean(m.PathInContainer)
	if !path.IsAbs(target) || target == "/" || target == "/dev" {
		return nil, fmt.Errorf("the container's path %q cannot be a device", m.PathInContainer)
	}
	for _, dir := range []string{"/proc", "/sys"} {
		if target == dir || strings.HasPrefix(target, dir+"/") {
			return nil, fmt.Errorf("no device can be at %s in a container", target)
		}
	}
	source, err := filepath.EvalSymlinks(m.PathOnHost)
	if err != nil {
		return nil, err
	}
	var all []plan.Device
	err = filepath.WalkDir(source, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			if at == source {
				return err
			}
			return nil // gone meanwhile, or not for us
		}
		if len(all) > maxDevices {
			return fs.SkipAll
		}
		fi, err := e.Info()
		if err != nil || fi.Mode()&os.ModeDevice == 0 {
			return nil
		}
		if d, ok := describeDevice(fi); ok {
			d.Path, d.Host = path.Join(target, strings.TrimPrefix(at, source)), at
			all = append(all, d)
		}
		return nil
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("not a device node")
	}
	return all, err
}

// describeDevice tells of a device node what is needed to make another.
func describeDevice(fi fs.FileInfo) (plan.Device, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return plan.Device{}, false
	}
	d := plan.Device{Kind: 'b', Mode: uint32(fi.Mode().Perm()), UID: int(st.Uid), GID: int(st.Gid)}
	if fi.Mode()&os.ModeCharDevice != 0 {
		d.Kind = 'c'
	}
	d.Major, d.Minor = sys.SplitDevice(st.Rdev)
	return d, true
}

// ValidDeviceAccess reports whether s is made of r, w and m, each once at most.
func ValidDeviceAccess(s string) bool {
	for i, c := range s {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(s[:i], c) {
			return false
		}
	}
	return s != ""
}

// ValidDeviceRule reports whether s is a rule of --device-cgroup-rule.
func ValidDeviceRule(s string) bool {
	_, ok := parseDeviceRule(s)
	return ok
}

// parseDeviceRule parses "TYPE MAJOR:MINOR ACCESS"; type a is both others.
func parseDeviceRule(s string) ([]deviceRule, bool) {
	f := strings.Split(s, " ")
	if len(f) != 3 || len(f[2]) > 3 || strings.Trim(f[2], "rwm") != "" || f[2] == "" {
		return nil, false
	}
	major, minor, ok := strings.Cut(f[1], ":")
	r := deviceRule{access: f[2]}
	var ok1, ok2 bool
	r.major, ok1 = ruleNumber(major)
	r.minor, ok2 = ruleNumber(minor)
	if !ok || !ok1 || !ok2 {
		return nil, false
	}
	switch f[0] {
	case "b", "c":
		r.kind = f[0][0]
		return []deviceRule{r}, true
	case "a":
		block := r
		r.kind, block.kind = 'c', 'b'
		return []deviceRule{r, block}, true
	}
	return nil, false
}

func ruleNumber(s string) (int32, bool) {
	if s == "*" {
		return -1, true
	}
	n, err := strconv.ParseUint(s, 10, 31)
	return int32(n), err == nil && s[0] != '+'
}

// mergeRules makes one rule of those for the same devices: what two allow
// together is allowed, as on version 1.
func mergeRules(rules []deviceRule) []deviceRule {
	var merged []deviceRule
	for _, r := range rules {
		same := func(m deviceRule) bool { return m.kind == r.kind && m.major == r.major && m.minor == r.minor }
		if i := slices.IndexFunc(merged, same); i >= 0 {
			merged[i].access += r.access
		} else {
			merged = append(merged, r)
		}
	}
	return merged
}
