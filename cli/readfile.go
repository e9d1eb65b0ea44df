package cli

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"tug/spec"
)

// readLines reads a file of NAME=VALUE lines: --env-file and --label-file.
// Empty lines and lines that begin with # are skipped, blanks before a line are
// dropped; a value may hold anything else, also quotes and #.
func readLines(path string, lookup func(name string) (string, bool)) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	in := bufio.NewScanner(io.LimitReader(f, maxLines))
	in.Buffer(nil, maxLine)
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if !utf8.ValidString(line) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d of %s", n, path)
		}
		if line = strings.TrimLeft(line, " \t"); line == "" || line[0] == '#' {
			continue
		}
		if line, err = checkLine(line, lookup); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		if line != "" {
			out = append(out, line)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

const (
	maxLine  = 1 << 20
	maxLines = 64 << 20
)

// checkLine returns the entry of a line; "" for NAME alone that lookup does not
// know.
func checkLine(line string, lookup func(string) (string, bool)) (string, error) {
	name, _, set := strings.Cut(line, "=")
	if name == "" {
		return "", fmt.Errorf("no variable name on line '%s'", line)
	}
	if strings.ContainsAny(name, " \t") {
		return "", fmt.Errorf("variable '%s' contains whitespaces", name)
	}
	if set {
		return line, nil
	}
	if v, ok := lookup(name); ok {
		return name + "=" + v, nil
	}
	return "", nil
}

// readEnv joins the environment files and the -e values, which win by coming
// later.
func readEnv(files, values []string) ([]string, error) {
	var env []string
	for _, f := range files {
		lines, err := readLines(f, os.LookupEnv)
		if err != nil {
			return nil, err
		}
		env = append(env, lines...)
	}
	return append(env, values...), nil
}

// readLabels joins the label files and the -l values.
func readLabels(files, values []string) (map[string]string, error) {
	var all []string
	for _, f := range files {
		lines, err := readLines(f, func(string) (string, bool) { return "", true })
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	labels := map[string]string{}
	for _, l := range append(all, values...) {
		name, value, _ := strings.Cut(l, "=")
		labels[name] = value
	}
	return labels, nil
}

// readSecurity reads the seccomp profiles that --security-opt names and checks
// that each option is one that tug knows.
func readSecurity(opts []string) ([]string, error) {
	out := slices.Clone(opts)
	for i, o := range opts {
		name, value, hasValue := cutEither(o)
		switch {
		case name == "no-new-privileges" && (!hasValue || value == "true" || value == "false"):
			out[i] = strings.Replace(o, "=", ":", 1)
		case name == "no-new-privileges":
			return nil, fmt.Errorf("invalid --security-opt: %q: want no-new-privileges, or no-new-privileges=true or false", o)
		case name == "seccomp" && (value == "unconfined" || value == "builtin"):
			out[i] = "seccomp=" + value
		case name == "seccomp" && value != "":
			b, err := os.ReadFile(value)
			if err != nil {
				return nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
			}
			out[i] = "seccomp=" + string(b)
		case name == "systempaths" && value == "unconfined":
			out[i] = spec.Unmasked
		case name == "systempaths":
			return nil, fmt.Errorf("invalid --security-opt: %q: there is systempaths=unconfined", o)
		case (name == "apparmor" || name == "label") && value != "":
			out[i] = name + "=" + value // what of it there is depends on the kernel
		case name == "writable-cgroups":
			return nil, fmt.Errorf("--security-opt %s is not there yet", name)
		default:
			return nil, fmt.Errorf("Invalid --security-opt: %q", o)
		}
	}
	return out, nil
}

// cutEither cuts at the first = or, as in old Docker options, colon.
func cutEither(s string) (name, value string, found bool) {
	if i := strings.IndexAny(s, "=:"); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// parseTmpfs turns --tmpfs values, TARGET[:OPTIONS], into the request's map.
func parseTmpfs(values []string) (map[string]string, error) {
	var out map[string]string
	for _, v := range values {
		target, options, _ := strings.Cut(v, ":")
		if !strings.HasPrefix(target, "/") {
			return nil, fmt.Errorf("invalid --tmpfs %q: the mount path must be absolute", v)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[target] = options
	}
	return out, nil
}

// parsePlatform is --platform; empty is nil.
func parsePlatform(s string) (*spec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	p, err := spec.ParsePlatform(s)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// sortedKeys returns a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
