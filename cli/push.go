package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"tug/image"
	"tug/spec"
)

func setupPush(a *app, fs *pflag.FlagSet) func([]string) error {
	all := fs.BoolP("all-tags", "a", false, "Push all tags of an image to the repository")
	platform := fs.String("platform", "", "Push the image for one platform of an index, without the index")
	quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
	fs.Bool("disable-content-trust", true, "")
	hide(fs, "disable-content-trust")
	return func(args []string) error {
		ref, err := spec.ParseReference(args[0])
		if err != nil {
			return err
		}
		p, err := parsePlatform(*platform)
		if err != nil {
			return err
		}
		out := a.Out
		if *quiet {
			out = io.Discard
		}
		if p != nil {
			printNote(out, "Using --platform pushes only the specified platform manifest of a multi-platform image index.",
				"Other components, like attestations, will not be included.",
				"To push the complete multi-platform image, remove the --platform flag.", "")
		}
		switch bare := ref.Tag == "" && ref.Digest == ""; {
		case *all && !bare:
			return errors.New("tag can't be used with --all-tags/-a")
		case !*all && bare:
			ref = ref.WithDefaultTag()
			fmt.Fprintln(out, "Using default tag:", ref.Tag)
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		progress := newProgress(out, a.width())
		pushed, err := e.Images.Push(a.ctx, ref, image.PushOptions{Platform: p, AllTags: *all, Progress: progress})
		progress.close()
		for _, one := range pushed {
			if one.Instead != "" {
				printNote(out, "Not all multiplatform-content is present and only the available single-platform image was pushed",
					string(one.Instead)+" -> "+string(one.Digest))
			}
		}
		if err == nil && *quiet {
			err = a.printf("%s\n", ref)
		}
		return err
	}
}

// printNote prints lines as the Docker client prints its notes.
func printNote(w io.Writer, lines ...string) {
	const header = " Info -> "
	fmt.Fprintf(w, "\n%s%s\n", header, strings.Join(lines, "\n"+strings.Repeat(" ", len(header))))
}
