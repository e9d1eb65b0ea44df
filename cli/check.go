package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"tug/engine"
	"tug/image"
	"tug/spec"
)

func setupVerify(a *app, fs *pflag.FlagSet) func([]string) error {
	all := fs.Bool("all", false, "Verify all images")
	format := fs.String("format", "", `Format output ("json": one object for each image)`)
	return func(args []string) error {
		if err := onlyJSON(*format); err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		switch {
		case *all && len(args) > 0:
			return errors.New("name images or use --all, not both")
		case *all:
			list, err := e.Images.List()
			if err != nil {
				return err
			}
			for _, img := range list {
				args = append(args, string(img.ID))
			}
		case len(args) == 0:
			return usageError(1, "tug "+a.name, fmt.Errorf("'tug %s' requires at least 1 argument, or --all", a.name))
		}
		return a.each(args, func(name string) error { return a.verify(e, name, *format) })
	}
}

func onlyJSON(format string) error {
	if format != "" && format != "json" {
		return fmt.Errorf("unknown format %q: only json is known", format)
	}
	return nil
}

func (a *app) verify(e *engine.Engine, name, format string) error {
	v, err := e.Images.Verify(a.ctx, name)
	if err != nil {
		return err
	}
	if format == "json" {
		err = a.printJSON(toVerifyJSON(v))
	} else {
		err = a.printVerified(v)
	}
	if err == nil && len(v.Faults) > 0 {
		return &exitError{code: 1, err: fmt.Errorf("image %s: what is on disk is not what its digests say: %s; mend with: tug system check --repair", imageTitle(v.Image), counted(len(v.Faults), "fault"))}
	}
	return err
}

func (a *app) printVerified(v *image.Verified) error {
	for _, f := range v.Faults {
		if err := a.printf("%s\n", printable(f.Text())); err != nil {
			return err
		}
	}
	if len(v.Faults) > 0 {
		return nil
	}
	return a.printf("%s: verified %s and %s, %s\n", printable(imageTitle(v.Image)), counted(v.Layers, "layer"), counted(v.Blobs, "blob"), size3(v.Bytes))
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

type verifyJSON struct {
	ID     spec.Digest `json:"id"`
	Names  []string    `json:"names"`
	Layers int         `json:"layers"`
	Blobs  int         `json:"blobs"`
	Bytes  int64       `json:"bytes"`
	Faults []faultJSON `json:"faults"`
}

type faultJSON struct {
	Object string `json:"object"`
	ID     string `json:"id,omitempty"`
	Path   string `json:"path"`
	What   string `json:"what"`
	Effect string `json:"effect,omitempty"`
	Mended string `json:"mended,omitempty"`
	Left   string `json:"left,omitempty"`
}

func toVerifyJSON(v *image.Verified) *verifyJSON {
	return &verifyJSON{ID: v.Image.ID, Names: append([]string{}, v.Image.Names...), Layers: v.Layers, Blobs: v.Blobs, Bytes: v.Bytes, Faults: toFaultsJSON(v.Faults)}
}

func toFaultsJSON(faults []image.Fault) []faultJSON {
	out := []faultJSON{}
	for _, f := range faults {
		out = append(out, faultJSON(f))
	}
	return out
}

func setupCheck(a *app, fs *pflag.FlagSet) func([]string) error {
	var o engine.CheckOptions
	fs.BoolVar(&o.Repair, "repair", false, "Mend what can be mended, also by fetching it again, and remove leftovers")
	fs.BoolVar(&o.Quick, "quick", false, "Do not read the contents of layers")
	format := fs.String("format", "", `Format output ("json")`)
	return func([]string) error {
		if err := onlyJSON(*format); err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		o.Wait = func() { fmt.Fprintln(a.Err, "Another repair of this store is under way; waiting for it to end") }
		faults, err := e.Check(a.ctx, o)
		if err != nil {
			return err
		}
		if *format == "json" {
			err = a.printJSON(struct {
				Faults []faultJSON `json:"faults"`
				OK     bool        `json:"ok"`
			}{toFaultsJSON(faults), !image.IsLeft(faults)})
		} else {
			err = a.printFaults(faults)
		}
		if err == nil && image.IsLeft(faults) {
			return &exitError{code: 1}
		}
		return err
	}
}

// printFaults prints a line for each fault and one that sums up.
func (a *app) printFaults(faults []image.Fault) error {
	mended, leftovers := 0, 0
	for _, f := range faults {
		switch {
		case f.Mended != "":
			mended++
		case f.Object == image.Leftover && f.Left == "":
			leftovers++
		}
		if err := a.printf("%s\n", printable(f.Text())); err != nil {
			return err
		}
	}
	if len(faults) == 0 {
		return a.printf("No faults found\n")
	}
	return a.printf("%s, %d mended, %s of killed commands that do no harm, %d left\n",
		counted(len(faults)-leftovers, "fault"), mended, counted(leftovers, "leftover"), len(faults)-mended-leftovers)
}
