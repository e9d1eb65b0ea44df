package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// filterValue collects -f NAME=VALUE. Values of one name are alternatives,
// except for labels; different names must all match.
type filterValue map[string][]string

func (v *filterValue) String() string { return "" }
func (v *filterValue) Type() string   { return "filter" }

func (v *filterValue) Set(s string) error {
	if s == "" {
		return nil
	}
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("invalid filter '%s': want NAME=VALUE", s)
	}
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	if *v == nil {
		*v = filterValue{}
	}
	if !slices.Contains((*v)[name], value) {
		(*v)[name] = append((*v)[name], value)
	}
	return nil
}

func (v *filterValue) flag(fs *pflag.FlagSet) {
	fs.VarP(v, "filter", "f", "Filter output based on conditions provided")
}

// known refuses filters that are not among names; those among later are
// Docker's that tug does not have yet.
func (v filterValue) known(names, later []string) error {
	for _, n := range sortedKeys(v) {
		switch {
		case slices.Contains(names, n):
		case slices.Contains(later, n):
			return fmt.Errorf("filter '%s' is not there yet", n)
		default:
			return fmt.Errorf("invalid filter '%s'; there are %s", n, strings.Join(names, ", "))
		}
	}
	return nil
}

// any reports whether no filter name is given or one of its values satisfies f.
func (v filterValue) any(name string, f func(value string) bool) bool {
	return len(v[name]) == 0 || slices.ContainsFunc(v[name], f)
}

// labels reports whether a set of labels has all that are asked for: NAME, or
// NAME=VALUE.
func (v filterValue) labels(have map[string]string) bool {
	for _, want := range v["label"] {
		name, value, exact := strings.Cut(want, "=")
		got, ok := have[name]
		if !ok || exact && got != value {
			return false
		}
	}
	return true
}

// bool returns the value of a filter that is true or false; given is false when
// it is not there.
func (v filterValue) bool(name string) (value, given bool, err error) {
	for _, s := range v[name] {
		switch strings.ToLower(s) {
		case "1", "true", "t":
			value, given = true, true
		case "0", "false", "f":
			value, given = false, true
		default:
			return false, false, fmt.Errorf("invalid filter '%s=%s': want true or false", name, s)
		}
	}
	return value, given, nil
}

// labelText is labels as tables show them: NAME=VALUE,NAME=VALUE.
func labelText(labels map[string]string) string {
	var all []string
	for _, k := range sortedKeys(labels) {
		all = append(all, k+"="+labels[k])
	}
	return strings.Join(all, ",")
}
