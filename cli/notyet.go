package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// What Docker has and tug does not have yet. It is refused by name, so that
// nobody believes that it works, and nobody looks for a spelling mistake.

// missing reports whether name is a command of Docker's that tug lacks.
func missing(name string) bool {
	for line := range strings.Lines(missingCommands) {
		if strings.TrimSpace(line) == name {
			return true
		}
	}
	return false
}

const missingCommands = `
bake
build
builder
buildx
checkpoint
compose
config
context
network
node
plugin
secret
service
stack
swarm
trust
image build
manifest annotate
manifest create
manifest push
manifest rm
system dial-stdio
volume update
`

// absent is the value of a flag that tug does not have yet. Values that ask for
// what tug does anyway are accepted.
type absent struct {
	typ string
	ok  []string
	set string // the value given that is not accepted
	any bool
}

func (v *absent) String() string { return "" }
func (v *absent) Type() string   { return v.typ }

func (v *absent) Set(s string) error {
	if !slices.Contains(v.ok, s) {
		v.set, v.any = s, true
	}
	return nil
}

// absentFlags defines flags that are not there yet. Each is
// "name[,shorthand]:type[:value that is accepted]..."; the value "-" is the
// empty one.
func absentFlags(fs *pflag.FlagSet, flags ...string) {
	for _, f := range flags {
		parts := strings.Split(f, ":")
		name, short, _ := strings.Cut(parts[0], ",")
		v := &absent{typ: parts[1]}
		for _, ok := range parts[2:] {
			if ok == "-" {
				ok = ""
			}
			v.ok = append(v.ok, ok)
		}
		flag := fs.VarPF(v, name, short, "")
		flag.Hidden = true
		if v.typ == "bool" {
			flag.NoOptDefVal = "true"
			v.ok = append(v.ok, "false")
		}
	}
}

// missingFlags returns the error for the first flag in use that tug does not
// have yet.
func missingFlags(fs *pflag.FlagSet, name string) (err error) {
	fs.Visit(func(f *pflag.Flag) {
		v, ok := f.Value.(*absent)
		if !ok || !v.any || err != nil {
			return
		}
		what := "--" + f.Name
		if len(v.ok) > 0 && v.typ != "bool" {
			what += " " + v.set
		}
		err = fmt.Errorf("%s is not there yet", oneLine(strings.TrimSpace(name+" "+what)))
	})
	return err
}

// absentRunFlags are those of run and create.
func absentRunFlags(fs *pflag.FlagSet) {
	absentFlags(fs,
		"add-host:list",
		"cpu-count:int", "cpu-percent:int",
		"dns:list", "dns-opt:list", "dns-option:list", "dns-search:list", "expose:list", "gpus:gpu-request",
		"io-maxbandwidth:bytes", "io-maxiops:uint", "ip:string", "ip6:string",
		"isolation:string:-:default", "link:list", "link-local-ip:list",
		"mac-address:string",
		"net-alias:list", "network-alias:list",
		"publish,p:list", "publish-all,P:bool",
		"use-api-socket:bool",
	)
	// It changes nothing: tug has no content trust yet.
	fs.Bool("disable-content-trust", true, "")
	hide(fs, "disable-content-trust")
}

// absentGlobalFlags are those before the command: of a client of a remote
// engine.
func absentGlobalFlags(fs *pflag.FlagSet) {
	absentFlags(fs, "config:string", "context,c:string:default:-", "host,H:string", "tls:bool", "tlscacert:string",
		"tlscert:string", "tlskey:string", "tlsverify:bool")
}
