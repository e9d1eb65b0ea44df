package image

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"tug/layer"
	"tug/spec"
)

// Comparison is how image B differs from image A.
type Comparison struct {
	A, B   *Image
	Common int // layers that both have, from the lowest
	Files  []layer.Difference
	Config []ConfigChange
}

// ConfigChange is one value in which two configs differ. A field that holds
// many, such as the environment, has one for each; Key says which.
type ConfigChange struct {
	Kind   layer.ChangeKind
	Field  string // as in the config: Env, Cmd, Labels, ...
	Key    string // of a variable, label, port or volume
	Before string
	After  string
}

// Compare compares two images: what a container would see, and how it would be
// run. Files that differ only in their time are left out unless times is set.
func (s *Images) Compare(ctx context.Context, a, b string, times bool) (*Comparison, error) {
	c := &Comparison{}
	var err error
	if c.A, err = s.Resolve(a); err != nil {
		return nil, err
	}
	if c.B, err = s.Resolve(b); err != nil {
		return nil, err
	}
	la, lb := c.A.Layers(), c.B.Layers()
	for c.Common < min(len(la), len(lb)) && la[c.Common] == lb[c.Common] {
		c.Common++
	}
	err = s.layers.Diff(ctx, c.A.Stack, c.B.Stack, func(d layer.Difference) error {
		if !times && d.Kind == layer.Changed {
			if d.Detail &^= layer.DiffTimes; d.Detail == 0 {
				return nil
			}
		}
		c.Files = append(c.Files, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.Config = compareConfigs(&c.A.Config, &c.B.Config)
	return c, nil
}

// compareConfigs lists what differs, field by field.
func compareConfigs(a, b *spec.ImageConfig) []ConfigChange {
	var out configChanges
	out.text("Architecture", a.Platform.String(), b.Platform.String())
	out.text("Author", a.Author, b.Author)
	x, y := &a.Config, &b.Config
	out.text("User", x.User, y.User)
	out.set("ExposedPorts", keys(x.ExposedPorts), keys(y.ExposedPorts))
	out.set("Env", variables(x.Env), variables(y.Env))
	out.list("Entrypoint", x.Entrypoint, y.Entrypoint)
	out.list("Cmd", x.Cmd, y.Cmd)
	out.set("Volumes", keys(x.Volumes), keys(y.Volumes))
	out.text("WorkingDir", x.WorkingDir, y.WorkingDir)
	out.set("Labels", x.Labels, y.Labels)
	out.text("StopSignal", x.StopSignal, y.StopSignal)
	out.list("OnBuild", x.OnBuild, y.OnBuild)
	out.list("Shell", x.Shell, y.Shell)
	out.text("Healthcheck", healthText(x.Healthcheck), healthText(y.Healthcheck))
	return out
}

type configChanges []ConfigChange

func (c *configChanges) add(field, key string, before, after string, had, has bool) {
	switch {
	case had && !has:
		*c = append(*c, ConfigChange{layer.Removed, field, key, before, ""})
	case !had && has:
		*c = append(*c, ConfigChange{layer.Added, field, key, "", after})
	case before != after:
		*c = append(*c, ConfigChange{layer.Changed, field, key, before, after})
	}
}

func (c *configChanges) text(field, a, b string) { c.add(field, "", a, b, a != "", b != "") }

func (c *configChanges) list(field string, a, b []string) {
	c.add(field, "", listText(a), listText(b), len(a) > 0, len(b) > 0)
}

func (c *configChanges) set(field string, a, b map[string]string) {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	for _, k := range slices.SortedFunc(maps.Keys(all), cmp.Compare[string]) {
		before, had := a[k]
		after, has := b[k]
		c.add(field, k, before, after, had, has)
	}
}

func keys(m map[string]struct{}) map[string]string {
	out := map[string]string{}
	for k := range m {
		out[k] = ""
	}
	return out
}

// variables splits NAME=VALUE; the last one of a name counts.
func variables(env []string) map[string]string {
	out := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		out[name] = value
	}
	return out
}

// listText and healthText are JSON, as in the config.
func listText(list []string) string { return jsonText(list) }

func healthText(h *spec.Healthcheck) string {
	if h == nil {
		return ""
	}
	return jsonText(h)
}

func jsonText(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSpace(b.String())
}
