package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"tug/engine"
	"tug/image"
	"tug/spec"
)

func setupPull(a *app, fs *pflag.FlagSet) func([]string) error {
	platform := fs.String("platform", "", "Set platform if the image has several")
	quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
	fs.Bool("disable-content-trust", true, "")
	hide(fs, "disable-content-trust")
	all := fs.BoolP("all-tags", "a", false, "Download all tagged images in the repository")
	return func(args []string) error {
		ref, err := spec.ParseReference(args[0])
		if err != nil {
			return err
		}
		p, err := parsePlatform(*platform)
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		out := a.Out
		if *quiet {
			out = io.Discard
		}
		if *all {
			return a.pullAll(e, out, ref, image.PullOptions{Platform: p})
		}
		if ref.Tag == "" && ref.Digest == "" {
			ref = ref.WithDefaultTag()
			fmt.Fprintln(out, "Using default tag:", ref.Tag)
		}
		progress := newProgress(out, a.width())
		var got *image.Pulled
		err = a.interruptible(func(ctx context.Context) error {
			var err error
			got, err = e.Images.Pull(ctx, ref, image.PullOptions{Platform: p, Progress: progress})
			return err
		})
		progress.close()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "Digest: %s\n%s\n", got.Digest, got.Status())
		return a.printf("%s\n", got.Ref)
	}
}

func setupLoad(a *app, fs *pflag.FlagSet) func([]string) error {
	input := fs.StringP("input", "i", "", "Read from tar archive file, instead of STDIN")
	quiet := fs.BoolP("quiet", "q", false, "Suppress the load output")
	var o image.LoadOptions
	fs.Var((*platformsValue)(&o.Platforms), "platform", `Load only the given platform variants, as "os[/arch[/variant]]" (for example "linux/amd64")`)
	return func([]string) error {
		in, dir := a.In, ""
		switch {
		case *input != "" && *input != "-" && isDir(*input):
			dir = *input
		case *input != "" && *input != "-":
			f, err := os.Open(*input)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		case isTerminal(a.In):
			return errors.New("requested load from stdin, but stdin is a terminal; name a file with -i")
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		p := newProgress(a.Out, a.width())
		p.silent = *quiet || !p.live // as in Docker, layers show on a terminal only
		o.Progress = p
		ctx, stop := a.untilSignal()
		defer stop()
		var loaded []image.Loaded
		if dir != "" {
			loaded, err = e.Images.LoadDir(ctx, dir, o)
		} else {
			loaded, err = e.Images.LoadWith(ctx, in, o)
		}
		err = a.signalled(ctx, err)
		p.close()
		for _, l := range loaded {
			err = firstError(err, a.printf("%s\n", oneLine(l.String())))
		}
		return err
	}
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func setupTag(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return e.Images.Tag(args[0], args[1])
	}
}

func setupRmi(a *app, fs *pflag.FlagSet) func([]string) error {
	force := fs.BoolP("force", "f", false, "Force removal of the image")
	fs.Bool("no-prune", false, "Do not delete untagged parents (tug has none)")
	var platforms []spec.Platform
	fs.Var((*platformsValue)(&platforms), "platform", `Remove only the given platform variants, as "os[/arch[/variant]]" (for example "linux/amd64")`)
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			removed, err := a.removeImage(e, name, *force, platforms)
			if *force && isGone(err) {
				a.complain(err)
				return nil
			}
			for _, r := range removed {
				err = firstError(err, a.printf("%s\n", r))
			}
			return err
		})
	}
}

// removeImage removes what name means, or its variants for these platforms.
func (a *app) removeImage(e *engine.Engine, name string, force bool, platforms []spec.Platform) (removed []image.Removed, err error) {
	if len(platforms) == 0 {
		return e.Images.Remove(name, force, e.Containers.UsersOf)
	}
	// All are found before the name may go with the first.
	var names []string
	for _, p := range platforms {
		img, err := e.Images.ResolveFor(name, &p)
		if err != nil {
			return nil, err
		}
		target := string(img.ID)
		if own, err := e.Images.Resolve(name); err == nil && own.ID == img.ID {
			target = name
		}
		if !slices.Contains(names, target) {
			names = append(names, target)
		}
	}
	for _, n := range names {
		more, err := e.Images.Remove(n, force, e.Containers.UsersOf)
		removed = append(removed, more...)
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// firstError returns the first error there is.
func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}
