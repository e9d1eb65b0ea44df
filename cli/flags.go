package cli

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"

	units "github.com/docker/go-units"

	"tug/spec"
)

// The values of flags, with Docker's words for what is wrong with them. Type is
// what help texts show behind the flag.

// list collects the values of a flag that may be repeated. Commas do not
// separate.
type list struct {
	values []string
	typ    string                       // "list" when empty
	check  func(string) (string, error) // may change the value
}

func (l *list) String() string { return "" }

func (l *list) Type() string {
	if l.typ == "" {
		return "list"
	}
	return l.typ
}

func (l *list) Set(s string) (err error) {
	if l.check != nil {
		if s, err = l.check(s); err != nil {
			return err
		}
	}
	l.values = append(l.values, s)
	return nil
}

// checkEnv fills NAME alone in from tug's own environment. A variable that is
// not set there stays NAME: it is to be unset in the container.
func checkEnv(s string) (string, error) {
	name, _, set := strings.Cut(s, "=")
	if name == "" {
		return "", fmt.Errorf("invalid environment variable: %s", s)
	}
	if strings.ContainsRune(s, 0) {
		return "", errors.New("invalid environment variable: it has a NUL byte")
	}
	if v, ok := os.LookupEnv(name); !set && ok {
		return name + "=" + v, nil
	}
	return s, nil
}

func checkLabel(s string) (string, error) {
	if name, _, _ := strings.Cut(s, "="); name == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", s)
	}
	return s, nil
}

func checkStream(s string) (string, error) {
	s = strings.ToLower(s)
	switch s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return "", errors.New("valid streams are STDIN, STDOUT and STDERR")
}

// bytesValue is a number of bytes such as 512m.
type bytesValue int64

func (v *bytesValue) String() string {
	if *v == 0 {
		return "0"
	}
	return units.BytesSize(float64(*v))
}
func (v *bytesValue) Type() string { return "bytes" }
func (v *bytesValue) Set(s string) error {
	n, err := units.RAMInBytes(s)
	*v = bytesValue(n)
	return err
}

// cpusValue is a number of CPUs such as 1.5, in billionths.
type cpusValue int64

func (v *cpusValue) String() string { return "" }
func (v *cpusValue) Type() string   { return "decimal" }
func (v *cpusValue) Set(s string) error {
	n, err := parseCPUs(s)
	*v = cpusValue(n)
	return err
}

func parseCPUs(s string) (int64, error) {
	// A rational takes exponents: "1e999999999" would fill the memory.
	if len(s) > 32 || strings.ContainsAny(s, "eEpPxX") {
		return 0, fmt.Errorf("failed to parse %.40s as a rational number", s)
	}
	cpus, ok := new(big.Rat).SetString(s)
	if !ok {
		return 0, fmt.Errorf("failed to parse %s as a rational number", s)
	}
	nano := cpus.Mul(cpus, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return 0, errors.New("value is too precise")
	}
	if nano.Sign() < 0 || !nano.Num().IsInt64() {
		return 0, errors.New("value is out of range")
	}
	return nano.Num().Int64(), nil
}

// ulimitValue collects NAME=SOFT[:HARD].
type ulimitValue []spec.Ulimit

func (v *ulimitValue) String() string { return "[]" }
func (v *ulimitValue) Type() string   { return "ulimit" }
func (v *ulimitValue) Set(s string) error {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	limit := spec.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
	same := func(l spec.Ulimit) bool { return l.Name == u.Name }
	if i := slices.IndexFunc(*v, same); i >= 0 {
		(*v)[i] = limit
	} else {
		*v = append(*v, limit)
	}
	return nil
}

// networkValue is --network. Without bridge networks yet there are two.
type networkValue string

func (v *networkValue) String() string { return string(*v) }
func (v *networkValue) Type() string   { return "network" }
func (v *networkValue) Set(s string) error {
	switch s {
	case "none", "host":
		*v = networkValue(s)
		return nil
	case "":
		return errors.New("it is empty")
	}
	return errors.New("of networks, only none and host are there yet")
}
