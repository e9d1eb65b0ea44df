package container

import (
	"errors"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	units "github.com/docker/go-units"

	"tug/errs"
	"tug/spec"
	"tug/supervisor"
)

// Where a container's output goes, and what is kept with it. json-file and
// local are tug's own log (see supervisor/log.go); with journald, the journal
// gets everything as well and `logs` reads tug's own, as Docker's does for
// drivers that cannot be read (it calls that a cache). Reading the journal
// itself would take its library or its file format, and give less: journald
// drops lines when there are many, and forgets what it likes.

// Options that say which attributes go with the output.
const attributeOptions = "labels labels-regex env env-regex tag"

// logOptions are the options of each driver.
func logOptions(driver string) []string {
	switch driver {
	case spec.LogJSONFile, spec.LogLocal:
		return strings.Fields(attributeOptions + " mode max-buffer-size max-size max-file compress")
	case spec.LogJournald:
		return strings.Fields(attributeOptions + " mode max-buffer-size cache-disabled cache-max-size cache-max-file cache-compress")
	}
	return nil
}

// otherDrivers are those of Docker's that tug does not have.
const otherDrivers = "awslogs etwlogs fluentd gcplogs gelf splunk syslog"

// checkLog refuses what cannot be done with the output of ctr, so that nobody
// finds out later.
func checkLog(ctr *spec.Container) error {
	l := &ctr.Host.Log
	driver := l.Name()
	switch {
	case driver == spec.LogNone:
		return nil
	case slices.Contains(strings.Fields(otherDrivers), driver):
		return errs.New(errs.Unsupported, "log driver %s is not there", driver).
			WithHint("there are json-file, local, journald and none; what they write can be passed on with tug logs -f")
	case logOptions(driver) == nil:
		return errs.New(errs.Invalid, "no log driver named '%s' is registered", driver).WithHint("there are json-file, local, journald and none")
	}
	for _, name := range slices.Sorted(maps.Keys(l.Options)) {
		if !slices.Contains(logOptions(driver), name) {
			return errs.New(errs.Invalid, "unknown log opt '%s' for %s log driver", name, driver)
		}
	}
	if len(l.Options) == 0 && driver != spec.LogJournald {
		return nil
	}
	if err := checkLogMode(l.Options); err != nil {
		return err
	}
	if _, err := logLimits(l); err != nil {
		return err
	}
	if _, err := logAttributes(ctr); err != nil {
		return err
	}
	if _, err := logTag(ctr, ""); err != nil || driver != spec.LogJournald {
		return err
	}
	return journalThere()
}

func journalThere() error {
	if fi, err := os.Stat(supervisor.JournalSocket); err != nil || fi.Mode().Type() != os.ModeSocket {
		return errs.New(errs.Unsupported, "journald is not enabled on this host").
			WithHint("it listens at %s where systemd runs; use --log-driver local", supervisor.JournalSocket)
	}
	return nil
}

// checkLogMode refuses what tug does not do: it never drops output, and it does
// not compress.
func checkLogMode(opts map[string]string) error {
	switch mode := opts["mode"]; mode {
	case "", "blocking":
	case "non-blocking":
		return errs.New(errs.Unsupported, "log opt mode=non-blocking is not there").
			WithHint("output is never dropped: a container waits for its log's disk and for attached commands alone")
	default:
		return errs.New(errs.Invalid, "logger: unknown mode %q", mode).WithHint("there is blocking")
	}
	if _, ok := opts["max-buffer-size"]; ok {
		return errs.New(errs.Invalid, "logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	for _, name := range []string{"compress", "cache-compress", "cache-disabled"} {
		value, ok := opts[name]
		if !ok {
			continue
		}
		on, err := strconv.ParseBool(value)
		switch {
		case err != nil:
			return errs.New(errs.Invalid, "log opt %s is %q, want true or false", name, value)
		case on && name == "cache-disabled":
			return errs.New(errs.Unsupported, "log opt cache-disabled=true is not there").WithHint("tug's own log is what logs reads; bound it with cache-max-size and cache-max-file")
		case on:
			return errs.New(errs.Unsupported, "log opt %s=true is not there", name).WithHint("logs are not compressed; bound them with max-size and max-file")
		}
	}
	return nil
}

// Limits of Docker's driver "local", and of its caches.
const (
	localSize  = 20_000_000
	localFiles = 5
)

// logLimits says how large tug's log may get.
func logLimits(l *spec.LogConfig) (limits supervisor.LogLimits, err error) {
	size, files := "max-size", "max-file"
	switch l.Name() {
	case spec.LogJournald:
		size, files = "cache-max-size", "cache-max-file"
		fallthrough
	case spec.LogLocal:
		limits = supervisor.LogLimits{Size: localSize, Files: localFiles}
	}
	if v, ok := l.Options[size]; ok {
		if limits.Size, err = units.FromHumanSize(v); err != nil && v == "-1" {
			limits.Size, err = -1, nil // no limit
		}
		if err != nil || limits.Size == 0 || limits.Size < -1 {
			return limits, errs.New(errs.Invalid, "log opt %s is %.40q, want a size such as 10m, larger than 0", size, v)
		}
		if l.Name() == spec.LogJSONFile {
			limits.Files = 1
		}
	}
	if v, ok := l.Options[files]; ok {
		if limits.Files, err = strconv.Atoi(v); err != nil {
			return limits, errs.New(errs.Invalid, "log opt %s is %.40q, want a number of files", files, v)
		}
		if limits.Files < 1 || limits.Files > maxLogFiles {
			return limits, errs.New(errs.Invalid, "log opt %s cannot be less than 1 or more than %d", files, maxLogFiles)
		}
	}
	return limits, nil
}

// maxLogFiles bounds the directory.
const maxLogFiles = 10_000

// logAttributes are the labels and variables that the options name.
func logAttributes(ctr *spec.Container) (map[string]string, error) {
	env := map[string]string{}
	for _, e := range ctr.Config.Env {
		if name, value, ok := strings.Cut(e, "="); ok {
			env[name] = value
		}
	}
	attrs := map[string]string{}
	for _, from := range []struct {
		opt string
		all map[string]string
	}{{"labels", ctr.Config.Labels}, {"env", env}} {
		if names := ctr.Host.Log.Options[from.opt]; names != "" {
			for name := range strings.SplitSeq(names, ",") {
				if v, ok := from.all[name]; ok {
					attrs[name] = v
				}
			}
		}
		if pattern := ctr.Host.Log.Options[from.opt+"-regex"]; pattern != "" {
			re, err := regexp.Compile(pattern)
			if err != nil {
				return nil, errs.New(errs.Invalid, "log opt %s-regex: %w", from.opt, err)
			}
			for name, v := range from.all {
				if re.MatchString(name) {
					attrs[name] = v
				}
			}
		}
	}
	return attrs, nil
}

// LogDetails are the attributes that go with the output, as `logs --details`
// shows them: sorted, escaped as in a URL's query, with commas between.
func LogDetails(ctr *spec.Container) (string, error) {
	attrs, err := logAttributes(ctr)
	if err != nil {
		return "", err
	}
	tag, err := logTag(ctr, "")
	if err != nil {
		return "", err
	}
	if tag != "" {
		attrs["tag"] = tag
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		all = append(all, url.QueryEscape(name)+"="+url.QueryEscape(attrs[name]))
	}
	return strings.Join(all, ","), nil
}

// tagValues are what a tag's template may use.
type tagValues struct {
	ID, FullID, Name, ImageName, ImageID, ImageFullID, DaemonName, Command string
}

// Hostname is the machine's name.
func (tagValues) Hostname() (string, error) { return os.Hostname() }

// logTag is what the option tag says, or otherwise.
func logTag(ctr *spec.Container, otherwise string) (string, error) {
	text := ctr.Host.Log.Options["tag"]
	if text == "" {
		text = otherwise
	}
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err == nil {
		hex := ctr.ImageID.Hex()
		b := &tagText{}
		err = t.Execute(b, tagValues{
			ID: short(ctr.ID), FullID: ctr.ID, Name: ctr.Name, ImageName: ctr.Image, ImageID: short(hex), ImageFullID: ctr.ImageID.String(),
			DaemonName: "tug", Command: strings.Join(append([]string{ctr.Path}, ctr.Args...), " "),
		})
		text = b.String()
	}
	if err != nil {
		return "", errs.New(errs.Invalid, "log opt tag: %w", err)
	}
	return text, nil
}

// tagText is a tag that does not get long.
type tagText struct{ strings.Builder }

func (t *tagText) Write(b []byte) (int, error) {
	const most = 4 << 10
	if t.Len()+len(b) > most {
		return 0, errors.New("it is longer than 4096 bytes")
	}
	return t.Builder.Write(b)
}

// logTo fills in where the output of a run goes.
func (c *Containers) logTo(l *supervisor.Launch, ctr *spec.Container) (err error) {
	if err := checkLog(ctr); err != nil || ctr.Host.Log.Name() == spec.LogNone {
		return err
	}
	l.LogDir = c.path(ctr.ID, dirLog)
	if l.LogLimits, err = logLimits(&ctr.Host.Log); err != nil || ctr.Host.Log.Name() != spec.LogJournald {
		return err
	}
	l.Journal, err = journalOf(ctr)
	return err
}

// journalOf names what Docker's driver names.
func journalOf(ctr *spec.Container) (*supervisor.Journal, error) {
	attrs, err := logAttributes(ctr)
	if err != nil {
		return nil, err
	}
	tag, err := logTag(ctr, "{{.ID}}")
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for name, v := range attrs {
		if n := supervisor.JournalName(name); n != "" {
			fields[n] = v
		}
	}
	maps.Copy(fields, map[string]string{
		"CONTAINER_ID": short(ctr.ID), "CONTAINER_ID_FULL": ctr.ID, "CONTAINER_NAME": ctr.Name, "CONTAINER_TAG": tag,
		"SYSLOG_IDENTIFIER": tag, "IMAGE_NAME": ctr.Image,
	})
	return &supervisor.Journal{Socket: supervisor.JournalSocket, Fields: fields}, nil
}

// errNoReading is Docker's answer to logs of a container whose output is kept
// nowhere.
func errNoReading() error {
	return errs.New(errs.Unsupported, "configured logging driver does not support reading").
		WithHint("the container was made with --log-driver none")
}
