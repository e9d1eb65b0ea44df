package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
	"unicode/utf8"

	"tug/spec"
)

// Tables and --format, Docker's. A list is made of rows; each kind of row has
// columns, the placeholders of templates. The default table is written without
// a template, which would cost more than the listing itself.

// column is one placeholder of rows T.
type column[T any] struct {
	name   string // in templates and JSON
	header string // in tables
	get    func(T) string
}

// fields is a row in a template: {{.Name}} by column and {{.Label "x"}}. A
// column that does not exist is an error.
type fields map[string]any

// labelsKey is where the row's labels are, in no template's reach.
const labelsKey = ""

// Label returns the value of one label.
func (f fields) Label(name string) string {
	labels, _ := f[labelsKey].(map[string]string)
	return labels[name]
}

// MarshalJSON gives all columns, in order of their names.
func (f fields) MarshalJSON() ([]byte, error) {
	m := map[string]any{}
	for k, v := range f {
		if k != labelsKey {
			m[k] = v
		}
	}
	return json.Marshal(m)
}

// headers is the first row of a table.
type headers map[string]string

// Label is the heading of a label: its last part, in words.
func (headers) Label(name string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndexByte(name, '.')+1:])
}

// isDefaultTable reports whether format asks for the default columns.
func isDefaultTable(format string) bool { return format == "" || format == "table" }

// writeTable writes rows the way that format says. "" and "table" are the given
// default columns, "json" is one JSON object per line. What is "raw" to a list
// that has it is a template of the caller's.
func writeTable[T any](out io.Writer, format string, all []column[T], defaults []string, rows []T, labels func(T) map[string]string) error {
	switch {
	case isDefaultTable(format):
		return writeColumns(out, all, defaults, rows)
	case format == "json":
		format = "{{json .}}"
	}
	text, isTable := strings.CutPrefix(format, "table") // also tableTEMPLATE, as with Docker
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
	tmpl, err := parseTemplate(text)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, row := range rows {
		f := fields{}
		if labels != nil {
			f[labelsKey] = labels(row)
		}
		for _, c := range all {
			f[c.name] = c.get(row)
		}
		if err := tmpl.Execute(&b, f); err != nil {
			return templateError(err)
		}
		b.WriteByte('\n')
	}
	if !isTable {
		_, err = out.Write(b.Bytes())
		return err
	}
	return writeTemplateTable(out, tmpl, all, b.Bytes())
}

func writeTemplateTable[T any](out io.Writer, tmpl *template.Template, all []column[T], body []byte) error {
	h := headers{}
	for _, c := range all {
		h[c.name] = c.header
	}
	var b bytes.Buffer
	w := newTabWriter(&b)
	// The heading of {{json .Labels}} is LABELS, not "LABELS" in quotes.
	if err := tmpl.Funcs(headerFuncs()).Execute(w, h); err != nil {
		return templateError(err)
	}
	w.Write([]byte("\n"))
	w.Write(body)
	w.Flush()
	_, err := out.Write(b.Bytes())
	return err
}

// newTabWriter aligns columns. It writes each cell and each gap on its own:
// 16 writes a row, which is why all that goes into memory first.
func newTabWriter(out *bytes.Buffer) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
}

func writeColumns[T any](out io.Writer, all []column[T], names []string, rows []T) error {
	var cols []column[T]
	var heads []string
	for _, n := range names {
		for _, c := range all {
			if c.name == n {
				cols = append(cols, c)
				heads = append(heads, c.header)
			}
		}
	}
	var b bytes.Buffer
	w := newTabWriter(&b)
	io.WriteString(w, strings.Join(heads, "\t")+"\n")
	for _, row := range rows {
		for i, c := range cols {
			if i > 0 {
				io.WriteString(w, "\t")
			}
			io.WriteString(w, c.get(row))
		}
		io.WriteString(w, "\n")
	}
	w.Flush()
	_, err := out.Write(b.Bytes())
	return err
}

// parseTemplate parses a --format template with Docker's functions.
func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{
		"json":     toJSON,
		"split":    strings.Split,
		"join":     join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
	}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

func templateError(err error) error {
	if brokenPipe(err) {
		return err
	}
	return fmt.Errorf("template parsing error: %w", err)
}

// headerFuncs leave headings as they are.
func headerFuncs() template.FuncMap {
	same := func(s string) string { return s }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": same,
		"truncate": func(s string, _ int) string { return s },
		"join":     func(s, _ string) string { return s },
		"split":    func(s, _ string) string { return s },
	}
}

func toJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// join is strings.Join for digests, too, and for the lists of an object's JSON.
func join(list any, sep string) (string, error) {
	var words []string
	switch list := list.(type) {
	case []string:
		words = list
	case []spec.Digest:
		for _, d := range list {
			words = append(words, string(d))
		}
	case []any:
		for _, v := range list {
			w, ok := v.(string)
			if !ok {
				return "", errors.New("join: no list of strings")
			}
			words = append(words, w)
		}
	default:
		return "", fmt.Errorf("join: %T is no list of strings", list)
	}
	return strings.Join(words, sep), nil
}

// title makes the first letter of each word upper case.
func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		word := unicode.IsLetter(prev) || unicode.IsDigit(prev) || prev == '_' || prev == '\''
		prev = r
		if word {
			return r
		}
		return unicode.ToTitle(r)
	}, s)
}

// pad adds blanks around s, none when it is empty.
func pad(s string, before, after int) (string, error) {
	if before < 0 || after < 0 || before > maxPad || after > maxPad {
		return "", errors.New("pad: too many blanks")
	}
	if s == "" {
		return s, nil
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after), nil
}

const maxPad = 1 << 16

// truncate cuts s to n bytes, at a character.
func truncate(s string, n int) string {
	if n < 0 || len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// ellipsis shortens s to n characters, the last of them a …
func ellipsis(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
