package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"tug/event"
)

func setupEvents(a *app, fs *pflag.FlagSet) func([]string) error {
	var q event.Query
	var filter filterValue
	filter.flag(fs)
	fs.Lookup("filter").Usage = "Filter output based on conditions provided"
	format := fs.String("format", "", "Format output using a custom template: 'json' or a Go template")
	since := fs.String("since", "", "Show all events created since timestamp")
	until := fs.String("until", "", "Stream events until this timestamp")
	cause := fs.Bool("cause", false, "Show behind each event who or what caused it")
	return func([]string) (err error) {
		now := time.Now()
		if q.Since, err = parseWhen(*since, now); err != nil {
			return fmt.Errorf(`invalid value for "since": %w`, err)
		}
		if q.Until, err = parseWhen(*until, now); err != nil {
			return fmt.Errorf(`invalid value for "until": %w`, err)
		}
		if err := filter.known(eventFilters(), []string{"daemon", "network", "plugin", "node", "service", "secret", "config"}); err != nil {
			return err
		}
		write, err := eventWriter(*format, *cause)
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		return e.Events.Read(a.ctx, q, func(ev *event.Event) error {
			if !wantsEvent(filter, ev) {
				return nil
			}
			// A line at a time: whoever reads a pipe waits for it.
			var b bytes.Buffer
			if err := write(&b, ev); err != nil {
				return err
			}
			_, err := a.Out.Write(b.Bytes())
			return err
		})
	}
}

func eventFilters() []string {
	return []string{"container", "event", "image", "label", "scope", "type", "volume"}
}

// wantsEvent applies filters as Docker does: names and IDs by their beginning,
// an image also without its tag, an exec's action without its command.
func wantsEvent(f filterValue, e *event.Event) bool {
	begins := func(s string) func(string) bool {
		return func(want string) bool { return strings.HasPrefix(s, want) }
	}
	action, _, _ := strings.Cut(e.Action, ":")
	image := e.Attributes["image"]
	if e.Type == event.Image {
		image = e.Attributes["name"]
	}
	return f.any("type", func(v string) bool { return v == e.Type }) &&
		f.any("scope", func(v string) bool { return v == "local" }) &&
		f.any("event", func(v string) bool { return v == e.Action || v == action }) &&
		f.any("container", func(v string) bool {
			return e.Type == event.Container && (begins(e.ID)(v) || begins(e.Attributes["name"])(v))
		}) &&
		f.any("image", func(v string) bool {
			return v == e.ID || v == image || v == withoutTag(e.ID) || v == withoutTag(image)
		}) &&
		f.any("volume", func(v string) bool { return e.Type == event.Volume && begins(e.ID)(v) }) &&
		f.labels(e.Attributes)
}

// withoutTag is an image's name less its tag.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') && !strings.HasPrefix(name, "sha256:") {
		return name[:i]
	}
	return name
}

// eventRow is an event as templates and JSON show it: Docker's fields, and
// tug's cause.
type eventRow struct {
	Type   string
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
	Scope    string      `json:"scope"`
	Time     int64       `json:"time"`
	TimeNano int64       `json:"timeNano"`
	Cause    event.Cause `json:"cause"`
}

func newEventRow(e *event.Event) *eventRow {
	r := &eventRow{Type: e.Type, Action: e.Action, Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(), Cause: e.Cause}
	r.Actor.ID, r.Actor.Attributes = e.ID, e.Attributes
	return r
}

// eventWriter returns what writes one event as format says.
func eventWriter(format string, cause bool) (func(io.Writer, *event.Event) error, error) {
	switch format {
	case "":
		return func(w io.Writer, e *event.Event) error {
			_, err := io.WriteString(w, eventLine(e, cause))
			return err
		}, nil
	case "json":
		return func(w io.Writer, e *event.Event) error {
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			return enc.Encode(newEventRow(e))
		}, nil
	}
	tmpl, err := parseTemplate(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format))
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, e *event.Event) error {
		if err := tmpl.Execute(w, newEventRow(e)); err != nil {
			return templateError(err)
		}
		_, err := io.WriteString(w, "\n")
		return err
	}, nil
}

// eventLine is Docker's line: time, type, action, ID, attributes.
func eventLine(e *event.Event, cause bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s %s %s", e.Time.Local().Format(stampLayout), e.Type, oneLine(e.Action), e.ID)
	var attributes []string
	for _, k := range sortedKeys(e.Attributes) {
		attributes = append(attributes, oneLine(k+"="+e.Attributes[k]))
	}
	if len(attributes) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(attributes, ", "))
	}
	if cause {
		fmt.Fprintf(&b, " by %s", oneLine(cmp.Or(e.Cause.String(), "?")))
	}
	b.WriteByte('\n')
	return b.String()
}
