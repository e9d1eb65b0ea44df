package image

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// ApplyChanges changes c as Dockerfile instructions say: those that docker
// import -c and docker commit -c take. Together they are read as one Dockerfile.
// All but CMD, ENTRYPOINT, HEALTHCHECK and ONBUILD see the variables that ENV
// has set. An ENTRYPOINT takes away the command that c had before.
func ApplyChanges(c *spec.RunConfig, changes []string) error {
	all := instructions(strings.Join(changes, "\n"))
	if len(all) == 0 && len(changes) > 0 {
		return errs.New(errs.Invalid, "the changes hold no instruction").WithHint("leave out --change, or give it one, such as 'ENV NAME=VALUE'")
	}
	newCmd := false
	for _, line := range all {
		word, rest := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			word, rest = line[:i], strings.TrimSpace(line[i:])
		}
		word = strings.ToUpper(word)
		if err := applyChange(c, word, rest); err != nil {
			return errs.New(errs.Invalid, "change %.200q: %w", line, err)
		}
		switch {
		case word == "CMD":
			newCmd = newCmd || rest != "" && len(c.Cmd) > 0
		case word == "ENTRYPOINT" && !newCmd:
			c.Cmd = nil
		}
	}
	return nil
}

// instructions are a Dockerfile's, without comments and empty lines. A backslash
// at the end of a line continues it.
func instructions(text string) []string {
	var all []string
	begun := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		part, more := strings.CutSuffix(line, `\`)
		if begun += part; !more {
			all = append(all, begun)
			begun = ""
		}
	}
	if begun = strings.TrimSpace(begun); begun != "" {
		all = append(all, begun)
	}
	return all
}

func applyChange(c *spec.RunConfig, instruction, rest string) error {
	if rest == "" && strings.Contains(" ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR ", " "+instruction+" ") {
		return fmt.Errorf("%s requires an argument", instruction)
	}
	switch instruction {
	case "CMD":
		c.Cmd = command(c, rest)
		return nil
	case "ENTRYPOINT":
		c.Entrypoint = nil
		if rest != "" {
			c.Entrypoint = command(c, rest)
		}
		return nil
	case "HEALTHCHECK":
		return changeHealth(c, rest)
	case "ONBUILD":
		return changeOnBuild(c, rest)
	case "ENV":
		return changeEnv(c, rest)
	case "LABEL":
		return changeLabels(c, rest)
	case "EXPOSE", "VOLUME":
		return changeSets(c, instruction, rest)
	case "STOPSIGNAL", "USER", "WORKDIR":
		word, err := expand(rest, c.Env)
		if err != nil {
			return err
		}
		return changeWord(c, instruction, word)
	}
	return fmt.Errorf("%.40s is not a valid change command", strings.ToLower(instruction))
}

// command is a JSON array of strings, or a line for the shell. With no line at
// all it is the shell alone, as with Docker.
func command(c *spec.RunConfig, rest string) []string {
	if words, ok := jsonWords(rest); ok {
		return words
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	if rest == "" {
		return slices.Clone(shell)
	}
	return append(slices.Clone(shell), rest)
}

func jsonWords(s string) ([]string, bool) {
	var words []string
	return words, strings.HasPrefix(s, "[") && json.Unmarshal([]byte(s), &words) == nil
}

func changeWord(c *spec.RunConfig, instruction, word string) error {
	switch instruction {
	case "STOPSIGNAL":
		if _, err := sys.ParseSignal(word); err != nil {
			return err
		}
		c.StopSignal = word
	case "USER":
		c.User = word
	case "WORKDIR":
		if !path.IsAbs(word) {
			word = path.Join("/", c.WorkingDir, word)
		}
		c.WorkingDir = path.Clean(word)
	}
	return nil
}

func changeOnBuild(c *spec.RunConfig, rest string) error {
	word, _, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(word) {
	case "ONBUILD":
		return fmt.Errorf("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "FROM", "MAINTAINER":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(word))
	}
	c.OnBuild = append(c.OnBuild, rest)
	return nil
}

// pairs reads NAME=VALUE words, or the old form NAME VALUE of one.
func pairs(rest string, env []string) ([][2]string, error) {
	words, err := splitWords(rest)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(words[0], "=") {
		name, value, ok := strings.Cut(rest, " ")
		if !ok {
			return nil, fmt.Errorf("%.100q is no NAME=VALUE", rest)
		}
		value, err = expand(strings.TrimSpace(value), env)
		return [][2]string{{name, value}}, err
	}
	var out [][2]string
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%.100q is no NAME=VALUE", w)
		}
		if name, err = expand(name, env); err == nil {
			value, err = expand(value, env)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, [2]string{name, value})
	}
	return out, nil
}

func changeEnv(c *spec.RunConfig, rest string) error {
	all, err := pairs(rest, c.Env)
	for _, p := range all {
		c.Env = setEnv(c.Env, p[0], p[1])
	}
	return err
}

func setEnv(env []string, name, value string) []string {
	for i, e := range env {
		if strings.HasPrefix(e, name+"=") {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}

func changeLabels(c *spec.RunConfig, rest string) error {
	all, err := pairs(rest, c.Env)
	for _, p := range all {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[p[0]] = p[1]
	}
	return err
}

func changeSets(c *spec.RunConfig, instruction, rest string) error {
	words, ok := jsonWords(rest)
	if !ok || instruction == "EXPOSE" {
		var err error
		if words, err = splitWords(rest); err != nil {
			return err
		}
	}
	for _, w := range words {
		w, err := expand(w, c.Env)
		if err != nil {
			return err
		}
		to, keys := &c.Volumes, []string{w}
		if instruction == "EXPOSE" {
			to = &c.ExposedPorts
			if keys, err = ports(w); err != nil {
				return err
			}
		}
		if w == "" {
			return fmt.Errorf("%s names an empty word", instruction)
		}
		if *to == nil {
			*to = map[string]struct{}{}
		}
		for _, k := range keys {
			(*to)[k] = struct{}{}
		}
	}
	return nil
}

// ports are PORT[-PORT][/PROTOCOL] as single ones.
func ports(s string) ([]string, error) {
	bad := errs.New(errs.Invalid, "invalid port %.100q", s).WithHint("a port is PORT[-PORT][/tcp|udp|sctp]")
	span, proto, ok := strings.Cut(s, "/")
	if strings.Contains(span, ":") {
		return nil, errs.New(errs.Invalid, "invalid port %.100q: an image names no address or port of the host", s).WithHint("run -p maps ports")
	}
	if !ok {
		proto = "tcp"
	}
	switch proto = strings.ToLower(proto); proto {
	case "tcp", "udp", "sctp":
	default:
		return nil, bad
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return nil, bad
	}
	b, err := strconv.ParseUint(last, 10, 16)
	if err != nil || b < a {
		return nil, bad
	}
	var out []string
	for n := a; n <= b; n++ {
		out = append(out, fmt.Sprintf("%d/%s", n, proto))
	}
	return out, nil
}

// changeHealth is HEALTHCHECK NONE, or [--interval=D ...] CMD ...
func changeHealth(c *spec.RunConfig, rest string) error {
	h := &spec.Healthcheck{}
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest, _ = strings.Cut(rest, " ")
		rest = strings.TrimSpace(rest)
		name, value, _ := strings.Cut(flag[2:], "=")
		if err := healthFlag(h, name, value); err != nil {
			return err
		}
	}
	kind, args, _ := strings.Cut(rest, " ")
	args = strings.TrimSpace(args)
	switch strings.ToUpper(kind) {
	case "NONE":
		if args != "" {
			return fmt.Errorf("HEALTHCHECK NONE takes no arguments")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		if args == "" {
			return fmt.Errorf("missing command after HEALTHCHECK CMD")
		}
		if words, ok := jsonWords(args); ok {
			h.Test = append([]string{"CMD"}, words...)
		} else {
			h.Test = []string{"CMD-SHELL", args}
		}
	default:
		return fmt.Errorf("unknown type %.40q in HEALTHCHECK (try CMD)", kind)
	}
	c.Healthcheck = h
	return nil
}

func healthFlag(h *spec.Healthcheck, name, value string) error {
	to := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}[name]
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("--retries must be a number from 0 on, not %.40q", value)
		}
		h.Retries = n
		return nil
	}
	if to == nil {
		return fmt.Errorf("unknown flag: --%.40s", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < time.Millisecond && d != 0 {
		return fmt.Errorf("--%s must be a duration from 1ms on, not %.40q", name, value)
	}
	*to = d
	return nil
}
