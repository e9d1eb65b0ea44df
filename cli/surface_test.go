package cli

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// dockerSurface reads testdata/docker-commands.tsv.
func dockerSurface(t *testing.T) (rows [][]string) {
	t.Helper()
	f, err := os.Open("testdata/docker-commands.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if line := in.Text(); !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	if len(rows) < 700 {
		t.Fatalf("only %d rows", len(rows))
	}
	return rows
}

// Every command of Docker's is there or refused by name.
func TestDockerCommandsAreKnown(t *testing.T) {
	for _, r := range dockerSurface(t) {
		args := strings.Fields(r[0])
		if r[1] != "(command)" || len(args) == 0 {
			continue
		}
		if c, _, _ := find(commands(), args); c != nil || len(args) == 1 && findGroup(args[0]) != nil {
			continue
		}
		// tug network ls: the first missing word is the one that is named.
		if !missing(args[0]) && !missing(r[0]) {
			t.Errorf("%q is neither there nor refused", r[0])
		}
	}
}

// What is refused as missing must not be there.
func TestMissingIsMissing(t *testing.T) {
	for _, c := range commands() {
		for _, n := range c.names {
			if missing(n) {
				t.Errorf("%s is there, and refused", n)
			}
		}
	}
}

// Every flag of Docker's is there, with its shorthand, type and default, or
// refused by name.
func TestDockerFlagsAreKnown(t *testing.T) {
	sets := map[string]*pflag.FlagSet{"": (&app{}).globalFlags(&globals{})}
	for _, c := range commands() {
		for _, n := range c.names {
			sets[n] = newFlagSet()
			c.setup(&app{}, sets[n])
		}
	}
	checked := 0
	for _, r := range dockerSurface(t) {
		command, flag, short, typ, def := r[0], strings.TrimPrefix(r[1], "--"), strings.TrimPrefix(r[2], "-"), r[3], r[4]
		if flag == "(command)" {
			continue
		}
		fs := sets[command]
		if fs == nil {
			t.Errorf("no command %q", command)
			continue
		}
		got := fs.Lookup(flag)
		if got == nil {
			t.Errorf("%s --%s is neither there nor refused", command, flag)
			continue
		}
		if got.Shorthand != short {
			t.Errorf("%s --%s has shorthand %q, want %q", command, flag, got.Shorthand, short)
		}
		checked++
		if _, ok := got.Value.(*absent); ok {
			continue
		}
		if got.Value.Type() != typ {
			t.Errorf("%s --%s has type %s, want %s", command, flag, got.Value.Type(), typ)
		}
		if d := got.DefValue; d != def && !(typ == "bool" && def == "" && d == "false") && !(typ == "int" && def == "" && d == "0") {
			t.Errorf("%s --%s is %q by default, want %q", command, flag, d, def)
		}
	}
	if checked < 500 {
		t.Errorf("only %d flags were checked", checked)
	}
}
