package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"tug/engine"
	"tug/errs"
	"tug/image"
	"tug/spec"
)

const inspectFormatUsage = "Format output using a custom template:\n" +
	"'json':             Print in JSON format\n" +
	"'TEMPLATE':         Print output using the given Go template"

type inspectOptions struct {
	format, typ string
	size        bool
	platform    *spec.Platform // of images
}

func setupInspect(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &inspectOptions{}
	fs.StringVarP(&o.format, "format", "f", "", inspectFormatUsage)
	fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes if the type is container")
	fs.StringVar(&o.typ, "type", "", `Only inspect objects of the given type ("container", "image", "volume")`)
	return func(args []string) error { return a.inspect(o, args) }
}

func setupContainerInspect(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &inspectOptions{typ: "container"}
	fs.StringVarP(&o.format, "format", "f", "", inspectFormatUsage)
	fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	return func(args []string) error { return a.inspect(o, args) }
}

func setupImageInspect(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &inspectOptions{typ: "image"}
	fs.StringVarP(&o.format, "format", "f", "", inspectFormatUsage)
	platform := fs.String("platform", "", `Inspect a specific platform of the multi-platform image, as "os[/arch[/variant]]" (for example "linux/amd64")`)
	return func(args []string) (err error) {
		if o.platform, err = parsePlatform(*platform); err != nil {
			return err
		}
		return a.inspect(o, args)
	}
}

// inspect prints the objects that names stand for: an array of JSON objects, or
// a template's output per object. What was found is printed also when another
// name does not exist.
func (a *app) inspect(o *inspectOptions, names []string) error {
	find, err := o.finder()
	if err != nil {
		return err
	}
	e, err := a.engine()
	if err != nil {
		return err
	}
	var found []any
	var failed []error
	for _, name := range names {
		v, err := find(a, e, name)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		found = append(found, v)
	}
	if err := o.print(a.Out, found); err != nil {
		return err
	}
	for _, err := range failed {
		a.complain(err)
	}
	if len(failed) > 0 {
		return &exitError{code: 1}
	}
	return nil
}

type finder func(a *app, e *engine.Engine, name string) (any, error)

// finder returns how names are looked up: by the type asked for, else among
// containers, then among images and volumes.
func (o *inspectOptions) finder() (finder, error) {
	switch o.typ {
	case "container":
		return o.findContainer, nil
	case "image":
		return o.findImage, nil
	case "volume":
		return o.findVolume, nil
	case "":
		return func(a *app, e *engine.Engine, name string) (any, error) {
			v, err := o.findContainer(a, e, name)
			if !errs.Is(err, errs.NotFound) {
				return v, err
			}
			if v, err = o.findImage(a, e, name); !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Invalid) {
				return v, err
			}
			if v, err = o.findVolume(a, e, name); errs.Is(err, errs.NotFound) {
				err = errs.New(errs.NotFound, "no such object: %s", name)
			}
			return v, err
		}, nil
	case "config", "network", "node", "plugin", "secret", "service", "task":
		return nil, fmt.Errorf("inspect --type %s is not there yet", o.typ)
	}
	return nil, fmt.Errorf(`unknown type: %q: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`, o.typ)
}

func (o *inspectOptions) findContainer(a *app, e *engine.Engine, name string) (any, error) {
	c, err := e.Containers.Find(name)
	if err != nil {
		return nil, err
	}
	v := toContainerJSON(e, c)
	if o.size {
		rw, root, err := e.Sizes(c)
		if err != nil {
			return nil, err
		}
		v.SizeRw, v.SizeRootFs = &rw, &root
	}
	return v, nil
}

func (o *inspectOptions) findImage(a *app, e *engine.Engine, name string) (any, error) {
	img, err := e.Images.ResolveFor(name, o.platform)
	if err != nil {
		return nil, err
	}
	if o.size {
		a.warn("--size ignored for image")
	}
	return image.Inspect(img), nil
}

func (o *inspectOptions) print(out io.Writer, found []any) error {
	switch o.format {
	case "":
		return printArray(out, found, "    ")
	case "json":
		return printArray(out, found, "")
	}
	tmpl, err := parseTemplate(o.format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, v := range found {
		if err := executeEither(&b, tmpl.Execute, v); err != nil {
			// What came before is printed, as Docker does.
			out.Write(b.Bytes())
			return templateError(err)
		}
		b.WriteByte('\n')
	}
	_, err = out.Write(b.Bytes())
	return err
}

// printOne prints one thing that is no element of a list: json is an object.
func printOne(out io.Writer, format string, v any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	return (&inspectOptions{format: format}).print(out, []any{v})
}

// executeEither executes a template on v and, where v does not have what the
// template asks for, on v's JSON: .Id and .ID both work.
func executeEither(b *bytes.Buffer, execute func(io.Writer, any) error, v any) error {
	var try bytes.Buffer
	if execute(&try, v) != nil {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		var m any
		if err := dec.Decode(&m); err != nil {
			return err
		}
		try.Reset()
		if err := execute(&try, m); err != nil {
			return err
		}
	}
	_, err := try.WriteTo(b)
	return err
}

// printArray prints objects as one JSON array.
func printArray(out io.Writer, found []any, indent string) error {
	if len(found) == 0 {
		_, err := io.WriteString(out, "[]\n")
		return err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(found); err != nil {
		return errors.Join(errors.New("inspect: write JSON"), err)
	}
	_, err := out.Write(b.Bytes())
	return err
}
