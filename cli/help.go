package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"tug/sys"
)

func itoa(n int) string { return strconv.Itoa(n) }

// width is how wide help texts may be.
func (a *app) width() int {
	if f := file(a.Out); f != nil {
		if _, cols := sys.Winsize(f); cols > 0 {
			return int(cols)
		}
	}
	return 80
}

// help is `tug help [COMMAND]` and `tug --help [COMMAND]`.
func (a *app) help(global *pflag.FlagSet, args []string) error {
	if len(args) == 0 {
		return a.printHelp(global)
	}
	if c, name, _ := find(commands(), args); c != nil {
		fs := newFlagSet()
		c.setup(a, fs)
		return a.printCommandHelp(c, name, fs)
	}
	if args[0] == "completion" {
		return a.complete(append(args, "--help"))
	}
	if g := findGroup(strings.Join(args, " ")); g != nil {
		return a.printGroupHelp(g)
	}
	return &exitError{code: 1, err: fmt.Errorf("unknown help topic: %s", strings.Join(args, " "))}
}

type helpRow struct{ name, short string }

func (a *app) printHelp(global *pflag.FlagSet) error {
	var common, other, managed []helpRow
	for _, c := range commands() {
		row := helpRow{c.names[0], c.short}
		switch {
		case c.hidden || strings.Contains(row.name, " "):
		case c.common:
			common = append(common, row)
		default:
			other = append(other, row)
		}
	}
	other = append(other, helpRow{"completion", "Generate the autocompletion script for the specified shell"})
	for _, g := range groups() {
		if !strings.Contains(g.name, " ") {
			managed = append(managed, helpRow(g))
		}
	}
	slices.SortFunc(other, func(a, b helpRow) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("Usage:  tug [OPTIONS] COMMAND\n\nA container engine: stores, fetches and runs OCI and Docker images\n")
	writeRows(&b, "Common Commands", common)
	writeRows(&b, "Management Commands", managed)
	writeRows(&b, "Commands", other)
	b.WriteString("\nGlobal Options:\n" + global.FlagUsagesWrapped(a.width()))
	b.WriteString("\nRun 'tug COMMAND --help' for more information on a command.\n")
	_, err := io.WriteString(a.Out, b.String())
	return err
}

func (a *app) printGroupHelp(g *group) error {
	var rows []helpRow
	for _, c := range commands() {
		if sub := c.inGroup(g.name); sub != "" && !c.hidden && !strings.Contains(sub, " ") {
			rows = append(rows, helpRow{sub, c.short})
		}
	}
	for _, within := range groups() {
		if sub, ok := strings.CutPrefix(within.name, g.name+" "); ok {
			rows = append(rows, helpRow{sub, within.short})
		}
	}
	slices.SortFunc(rows, func(a, b helpRow) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  tug %s COMMAND\n\n%s\n", g.name, g.short)
	writeRows(&b, "Commands", rows)
	fmt.Fprintf(&b, "\nRun 'tug %s COMMAND --help' for more information on a command.\n", g.name)
	_, err := io.WriteString(a.Out, b.String())
	return err
}

func writeRows(b *strings.Builder, title string, rows []helpRow) {
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, r := range rows {
		fmt.Fprintf(b, "  %-11s %s\n", r.name, r.short)
	}
}

func (a *app) printCommandHelp(c *command, name string, fs *pflag.FlagSet) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  tug %s%s\n\n%s\n", name, c.arguments(), c.short)
	if len(c.names) > 1 {
		// Docker's order: those of the group first.
		aliases := append(slices.Clone(c.names[1:]), c.names[0])
		fmt.Fprintf(&b, "\nAliases:\n  tug %s\n", strings.Join(aliases, ", tug "))
	}
	if fs.HasAvailableFlags() {
		b.WriteString("\nOptions:\n" + fs.FlagUsagesWrapped(a.width()))
	}
	_, err := io.WriteString(a.Out, b.String())
	return err
}
