package cli

import (
	"github.com/spf13/pflag"

	"tug/container"
)

func setupCommit(a *app, fs *pflag.FlagSet) func([]string) error {
	var o container.CommitOptions
	changes := &list{}
	fs.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.VarP(changes, "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&o.Message, "message", "m", "", "Commit message")
	fs.BoolVarP(&o.Pause, "pause", "p", true, "Pause container during commit")
	noPause := fs.Bool("no-pause", false, "Disable container pause during commit")
	return func(args []string) error {
		o.Changes = changes.values
		o.Pause = o.Pause && !*noPause
		if len(args) > 1 && args[1] != "" {
			name, err := importName(args[1])
			if err != nil {
				return err
			}
			o.Name = name
		}
		return a.commit(args[0], o)
	}
}

func (a *app) commit(name string, o container.CommitOptions) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	ctx, stop := a.untilSignal()
	defer stop()
	id, err := e.Containers.Commit(ctx, e.Images, name, o)
	if err != nil {
		return a.signalled(ctx, err)
	}
	return a.printf("%s\n", id)
}
