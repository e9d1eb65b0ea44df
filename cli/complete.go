package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// complete is shell completion: `tug completion bash` and what such a script
// calls while its user types. Only here the whole table becomes cobra commands.
func (a *app) complete(args []string) error {
	root := &cobra.Command{Use: "tug", SilenceErrors: true, SilenceUsage: true}
	root.SetArgs(args)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetIn(a.In)
	var g globals
	root.PersistentFlags().AddFlagSet(a.globalFlags(&g))
	parents := map[string]*cobra.Command{}
	for _, g := range groups() {
		parents[g.name] = &cobra.Command{Use: g.name, Short: g.short}
		parent := root
		if i := strings.LastIndexByte(g.name, ' '); i > 0 { // after the one it is in
			parent, parents[g.name].Use = parents[g.name[:i]], g.name[i+1:]
		}
		parent.AddCommand(parents[g.name])
	}
	for _, c := range commands() {
		for _, name := range c.names {
			parent := root
			if i := strings.LastIndexByte(name, ' '); i > 0 {
				parent, name = parents[name[:i]], name[i+1:]
			}
			if parent == nil {
				continue // logs clear: the shell completes the logs
			}
			parent.AddCommand(a.cobraCommand(&c, name))
		}
	}
	return root.Execute()
}

func (a *app) cobraCommand(c *command, name string) *cobra.Command {
	cc := &cobra.Command{
		Use: name + c.arguments(), Short: c.short, Hidden: c.hidden,
		Run: func(*cobra.Command, []string) {},
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.candidates(c, given), cobra.ShellCompDirectiveNoFileComp
		},
	}
	if c.usage == "" {
		cc.ValidArgsFunction = nil
	}
	flags := newFlagSet()
	c.setup(a, flags)
	flags.VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Value.(*absent); !ok {
			cc.Flags().AddFlag(f)
		}
	})
	cc.Flags().SetInterspersed(!c.passArgs)
	return cc
}

// candidates are the containers, images or volumes that may come next on a command line
// of c. A store that cannot be opened has none.
func (a *app) candidates(c *command, given []string) []string {
	if c.args.max >= 0 && len(given) >= c.args.max || c.passArgs && len(given) > 0 {
		return nil
	}
	e, err := a.engine()
	if err != nil {
		return nil
	}
	var names []string
	if strings.Contains(c.usage, "CONTAINER") || strings.Contains(c.usage, "NAME|ID") {
		list, _ := e.Containers.List()
		for _, s := range list {
			names = append(names, s.Name)
		}
	}
	if strings.Contains(c.usage, "IMAGE") || strings.Contains(c.usage, "NAME|ID") || strings.Contains(c.usage, "REPOSITORY") {
		list, _ := e.Images.List()
		for _, i := range list {
			names = append(names, i.Names...)
		}
	}
	if strings.Contains(c.usage, "VOLUME") || strings.Contains(c.usage, "NAME|ID") {
		list, _, _ := e.Volumes.List()
		for _, v := range list {
			names = append(names, v.Name)
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(given, n) })
}
