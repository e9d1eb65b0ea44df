package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/container"
	"tug/image"
	"tug/state"
	"tug/volume"
)

// What tug can do with the data of volumes and its peers cannot.

func setupVolumeClone(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		ctx, stop := a.untilSignal()
		defer stop()
		vol, err := e.Volumes.Clone(ctx, args[0], args[1])
		if err != nil {
			return a.signalled(ctx, err)
		}
		return a.printf("%s\n", vol.Name)
	}
}

func setupVolumeRename(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return e.Volumes.Rename(args[0], args[1])
	}
}

func setupVolumeExport(a *app, fs *pflag.FlagSet) func([]string) error {
	output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
	return func(args []string) error {
		toStdout := *output == "" || *output == "-"
		if toStdout && isTerminal(a.Out) {
			return errors.New("cowardly refusing to export to a terminal. Use the -o flag or redirect")
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		ctx, stop := a.untilSignal()
		defer stop()
		export := func(w io.Writer) error {
			return e.Volumes.Read(args[0], func(dir string) error { return container.PackTree(ctx, dir, w) })
		}
		if toStdout {
			return a.signalled(ctx, export(a.Out))
		}
		if err := e.Volumes.Read(args[0], func(string) error { return nil }); err != nil {
			return err
		}
		out, err := state.CreateOutput(*output)
		if err != nil {
			return fmt.Errorf("failed to export volume: %w", err)
		}
		if err := export(out.File); err != nil {
			out.Discard()
			return a.signalled(ctx, err)
		}
		return out.Commit()
	}
}

func setupVolumeImport(a *app, fs *pflag.FlagSet) func([]string) error {
	replace := fs.Bool("replace", false, "Replace the data of a volume that has some")
	return func(args []string) error {
		var in io.Reader = a.In
		if args[1] == "-" && isTerminal(a.In) {
			return errors.New("requested import from stdin, but stdin is a terminal; name a file")
		}
		if args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		plain, err := image.Inflate(in)
		if err != nil {
			return err
		}
		defer plain.Close()
		ctx, stop := a.untilSignal()
		defer stop()
		vol, err := e.Volumes.Import(args[0], *replace, func(dir string) error { return container.UnpackTree(ctx, dir, plain) })
		if err != nil {
			return a.signalled(ctx, err)
		}
		return a.printf("%s\n", vol.Name)
	}
}

func setupSnapshotCreate(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		name := ""
		if len(args) > 1 {
			name = args[1]
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		ctx, stop := a.untilSignal()
		defer stop()
		s, err := e.Volumes.TakeSnapshot(ctx, args[0], name)
		if err != nil {
			return a.signalled(ctx, err)
		}
		return a.printf("%s\n", s.Name)
	}
}

func setupSnapshotRestore(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		ctx, stop := a.untilSignal()
		defer stop()
		return a.signalled(ctx, e.Volumes.Restore(ctx, args[0], args[1]))
	}
}

func setupSnapshotRm(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args[1:], func(name string) error {
			if err := e.Volumes.RemoveSnapshot(args[0], name); err != nil {
				return err
			}
			return a.printf("%s\n", name)
		})
	}
}

// snapshotRow is a snapshot in a list.
type snapshotRow struct {
	*volume.Snapshot
	volume string
	now    time.Time
	size   string
}

func snapshotColumns() []column[*snapshotRow] {
	return []column[*snapshotRow]{
		{"CreatedAt", "CREATED AT", func(r *snapshotRow) string { return r.Created.Local().Format("2006-01-02 15:04:05 -0700 MST") }},
		{"CreatedSince", "CREATED", func(r *snapshotRow) string { return units.HumanDuration(r.now.Sub(r.Created)) + " ago" }},
		{"Name", "SNAPSHOT", func(r *snapshotRow) string { return r.Name }},
		{"Size", "SIZE", func(r *snapshotRow) string { return r.size }},
		{"Volume", "VOLUME", func(r *snapshotRow) string { return r.volume }},
	}
}

func setupSnapshotLs(a *app, fs *pflag.FlagSet) func([]string) error {
	format := fs.String("format", "", formatUsage)
	quiet := fs.BoolP("quiet", "q", false, "Only display names")
	return func(args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		all := len(args) == 0
		if all {
			list, _, err := e.Volumes.List()
			if err != nil {
				return err
			}
			for _, vol := range list {
				args = append(args, vol.Name)
			}
		}
		var rows []*snapshotRow
		now := time.Now()
		for _, name := range args {
			list, err := e.Volumes.Snapshots(name)
			if err != nil {
				return err
			}
			for _, s := range list {
				size, err := e.Volumes.SnapshotSize(name, s.Name)
				if err != nil {
					return err
				}
				rows = append(rows, &snapshotRow{s, name, now, units.HumanSize(float64(size))})
			}
		}
		if *quiet {
			*format = "{{.Name}}"
		}
		return writeTable(a.Out, *format, snapshotColumns(), []string{"Volume", "Name", "CreatedSince", "Size"}, rows, nil)
	}
}
