package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"tug/engine"
	"tug/image"
	"tug/spec"
)

func setupImport(a *app, fs *pflag.FlagSet) func([]string) error {
	var o image.ImportOptions
	changes := &list{}
	fs.VarP(changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	platform := fs.String("platform", "", "Set platform of the image, if it is not this machine's")
	return func(args []string) error {
		o.Changes = changes.values
		var err error
		if o.Platform, err = parsePlatform(*platform); err != nil {
			return err
		}
		if len(args) > 1 {
			if o.Name, err = importName(args[1]); err != nil {
				return err
			}
		}
		return a.importImage(args[0], o)
	}
}

func importName(s string) (*spec.Reference, error) {
	ref, err := spec.ParseReference(s)
	if err == nil && ref.Digest != "" {
		err = errors.New("cannot import digest reference")
	}
	return &ref, err
}

func (a *app) importImage(source string, o image.ImportOptions) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	ctx, stop := a.untilSignal()
	defer stop()
	in, err := a.importSource(ctx, e, source, &o)
	if err != nil {
		return a.signalled(ctx, err)
	}
	defer in.Close()
	id, err := e.Images.Import(ctx, in, o)
	if err != nil {
		return a.signalled(ctx, err)
	}
	return a.printf("%s\n", id)
}

// importSource opens a file, a URL, or standard input. As with Docker the image
// remembers a URL and of the others only that they were not one.
func (a *app) importSource(ctx context.Context, e *engine.Engine, source string, o *image.ImportOptions) (io.ReadCloser, error) {
	o.Source = "-"
	switch {
	case source == "-":
		if isTerminal(a.In) {
			return nil, errors.New("requested import from stdin, but stdin is a terminal; name a file")
		}
		return io.NopCloser(a.In), nil
	case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
		o.Source = source
		return e.Images.Fetch(ctx, source)
	}
	return os.Open(source)
}
