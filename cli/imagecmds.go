package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

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
	absentFlags(fs, "platform:string")
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			removed, err := e.Images.Remove(name, *force, e.Containers.UsersOf)
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

// firstError returns the first error there is.
func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}
