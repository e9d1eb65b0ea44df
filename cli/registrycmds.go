package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"tug/registry"
)

// registryCommands are about registries: who one is there, what they hold, which to ask.
func registryCommands() []command {
	return []command{
		{
			names: []string{"login"}, usage: "[SERVER]", args: atMost(1), common: true,
			short: "Authenticate to a registry", setup: setupLogin,
		},
		{
			names: []string{"logout"}, usage: "[SERVER]", args: atMost(1), common: true, noOptions: true,
			short: "Log out from a registry", setup: setupLogout,
		},
		{
			names: []string{"search"}, usage: "TERM", args: exactly(1), common: true,
			short: "Search Docker Hub for images", setup: setupSearch,
		},
		{
			names: []string{"manifest inspect"}, usage: "[MANIFEST_LIST] MANIFEST", args: arity{1, 2},
			short: "Display an image manifest, or manifest list", setup: setupManifestInspect,
		},
		{
			names: []string{"mirror add"}, usage: "REGISTRY URL", args: exactly(2), noOptions: true,
			short: "Ask a mirror before a registry", setup: setupMirrorAdd,
		},
		{
			names: []string{"mirror ls", "mirror list"}, args: exactly(0),
			short: "List mirrors", setup: setupMirrorLs,
		},
		{
			names: []string{"mirror rm", "mirror remove"}, usage: "REGISTRY [URL]", args: arity{1, 2}, noOptions: true,
			short: "Ask a mirror, or all mirrors of a registry, no more", setup: setupMirrorRm,
		},
	}
}

func setupMirrorAdd(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error { return registry.AddMirror(args[0], args[1]) }
}

func setupMirrorRm(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		if len(args) == 1 {
			args = append(args, "")
		}
		return registry.RemoveMirror(args[0], args[1])
	}
}

func setupMirrorLs(a *app, fs *pflag.FlagSet) func([]string) error {
	format := fs.String("format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE")
	return func([]string) error {
		rows, err := registry.Mirrors()
		if err != nil {
			return err
		}
		return writeTable(a.Out, *format, mirrorColumns(), []string{"Registry", "URL"}, rows, nil)
	}
}

func mirrorColumns() []column[registry.Mirror] {
	return []column[registry.Mirror]{
		{"Registry", "REGISTRY", func(m registry.Mirror) string { return m.Registry }},
		{"URL", "URL", func(m registry.Mirror) string { return m.URL }},
	}
}

func setupSearch(a *app, fs *pflag.FlagSet) func([]string) error {
	var filter filterValue
	filter.flag(fs)
	format := fs.String("format", "", "Pretty-print search using a Go template")
	limit := fs.Int("limit", 0, "Max number of search results")
	noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
	return func(args []string) error {
		keep, err := a.searchFilter(filter)
		if err != nil {
			return err
		}
		found, err := registry.New(registry.Options{}).Search(a.ctx, args[0], *limit)
		if err != nil {
			return err
		}
		var rows []registry.Found
		for _, f := range found {
			if keep(f) {
				rows = append(rows, f)
			}
		}
		// In JSON a truth is a word, in tables a sign, as with Docker.
		whole := *format == "json" || strings.Contains(strings.ReplaceAll(*format, " ", ""), "json.}}")
		return writeTable(a.Out, *format, searchColumns(!*noTrunc, whole), []string{"Name", "Description", "StarCount", "IsOfficial"}, rows, nil)
	}
}

// searchFilter returns what decides about each result.
func (a *app) searchFilter(filter filterValue) (func(registry.Found) bool, error) {
	if err := filter.known([]string{"is-automated", "is-official", "stars"}, nil); err != nil {
		return nil, err
	}
	if len(filter["is-automated"]) > 0 {
		a.warn(`the "is-automated" filter is deprecated: registries say it of no image any more`)
	}
	automated, anyAutomated, err := filter.bool("is-automated")
	if err != nil {
		return nil, err
	}
	official, anyOfficial, err := filter.bool("is-official")
	if err != nil {
		return nil, err
	}
	stars := 0
	for _, s := range filter["stars"] {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, fmt.Errorf("invalid filter 'stars=%s': want a number", s)
		}
		stars = max(stars, n)
	}
	return func(f registry.Found) bool {
		return f.StarCount >= stars && (!anyOfficial || f.IsOfficial == official) && (!anyAutomated || f.IsAutomated == automated)
	}, nil
}

// maxDescription is how much of a description tables show.
const maxDescription = 45

func searchColumns(trunc, words bool) []column[registry.Found] {
	return []column[registry.Found]{
		{"Name", "NAME", func(f registry.Found) string { return oneLine(f.Name) }},
		{"Description", "DESCRIPTION", func(f registry.Found) string {
			s := oneLine(strings.ReplaceAll(f.Description, "\r", " "))
			if trunc {
				s = ellipsis(s, maxDescription)
			}
			return s
		}},
		{"StarCount", "STARS", func(f registry.Found) string { return itoa(f.StarCount) }},
		{"IsOfficial", "OFFICIAL", func(f registry.Found) string {
			switch {
			case words:
				return strconv.FormatBool(f.IsOfficial)
			case f.IsOfficial:
				return "[OK]"
			}
			return ""
		}},
	}
}
