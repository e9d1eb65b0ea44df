package box

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/sys"
)

func processApplets() []applet {
	return []applet{
		{"env", "[-i] [-u NAME] [NAME=VALUE...] [COMMAND...]", env},
		{"hostname", "", hostname},
		{"id", "[-u|-g|-G] [-n] [USER]", id},
		{"kill", "[-SIGNAL | -s SIGNAL | -l] PID...", kill},
		{"nohup", "COMMAND...", nohup},
		{"nproc", "", func(c *call) int { c.printf("%d\n", runtime.NumCPU()); return 0 }},
		{"pidof", "NAME...", pidof},
		{"printenv", "[NAME...]", printenv},
		{"ps", "[aux | -ef | -o COLUMNS]", ps},
		{"sleep", "TIME[s|m|h|d]...", sleep},
		{"timeout", "[-s SIGNAL] [-k TIME] TIME COMMAND...", timeout},
		{"uname", "[-a] [-s] [-n] [-r] [-v] [-m]", uname},
		{"whoami", "", whoami},
	}
}

func env(c *call) int {
	fs := c.flags()
	fs.SetInterspersed(false)
	i, u := flag(fs, "i", "ignore-environment", "begin with nothing"), fs.StringArrayP("unset", "u", nil, "without this variable")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	var vars []string
	if !*i {
		vars = os.Environ()
	}
	drop := func(name string) {
		vars = slices.DeleteFunc(vars, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	}
	for _, name := range *u {
		drop(name)
	}
	for len(rest) > 0 && strings.Contains(rest[0], "=") {
		name, _, _ := strings.Cut(rest[0], "=")
		drop(name)
		vars, rest = append(vars, rest[0]), rest[1:]
	}
	if len(rest) > 0 {
		return c.command(rest, vars, c.in)
	}
	for _, v := range vars {
		c.printf("%s\n", c.shown(v))
	}
	return 0
}

func printenv(c *call) int {
	if len(c.args) == 0 {
		return env(c)
	}
	code := 0
	for _, name := range c.args {
		v, ok := os.LookupEnv(name)
		if !ok {
			code = 1
			continue
		}
		c.printf("%s\n", c.shown(v))
	}
	return code
}

func hostname(c *call) int {
	if _, code, ok := c.parse(c.flags(), 0, 0); !ok {
		return code
	}
	name, err := os.Hostname()
	if err != nil {
		c.fail(err)
		return 1
	}
	c.printf("%s\n", c.shown(name))
	return 0
}

func id(c *call) int {
	fs := c.flags()
	u, g, all, n := flag(fs, "u", "user", "the user's number"), flag(fs, "g", "group", "the group's"), flag(fs, "G", "groups", "all groups'"), flag(fs, "n", "name", "names")
	rest, code, ok := c.parse(fs, 0, 1)
	if !ok {
		return code
	}
	uid, gid := os.Geteuid(), os.Getegid()
	groups, _ := os.Getgroups()
	if len(rest) > 0 {
		other, err := user.Lookup(rest[0])
		if err != nil {
			c.failf("there is no user %s", rest[0])
			return 1
		}
		uid, _ = strconv.Atoi(other.Uid)
		gid, _ = strconv.Atoi(other.Gid)
		groups = nil
		ids, _ := other.GroupIds()
		for _, s := range ids {
			k, _ := strconv.Atoi(s)
			groups = append(groups, k)
		}
	}
	if !slices.Contains(groups, gid) {
		groups = append([]int{gid}, groups...)
	}
	names := newNames()
	pick := func(k int, name func(uint32) string) string {
		if *n {
			return name(uint32(k))
		}
		return strconv.Itoa(k)
	}
	named := func(k int, name func(uint32) string) string {
		if s := name(uint32(k)); s != strconv.Itoa(k) {
			return fmt.Sprintf("%d(%s)", k, s)
		}
		return strconv.Itoa(k)
	}
	var words []string
	switch {
	case *u:
		words = []string{pick(uid, names.user)}
	case *g:
		words = []string{pick(gid, names.group)}
	case *all:
		for _, k := range groups {
			words = append(words, pick(k, names.group))
		}
	default:
		var list []string
		for _, k := range groups {
			list = append(list, named(k, names.group))
		}
		words = []string{"uid=" + named(uid, names.user), "gid=" + named(gid, names.group), "groups=" + strings.Join(list, ",")}
	}
	c.printf("%s\n", strings.Join(words, " "))
	return 0
}

func whoami(c *call) int {
	c.printf("%s\n", newNames().user(uint32(os.Geteuid())))
	return 0
}

// parseSignal reads KILL, SIGKILL and 9.
func parseSignal(s string) (syscall.Signal, error) {
	if s == "0" {
		return 0, nil
	}
	return sys.ParseSignal(strings.ToUpper(s))
}

func kill(c *call) int {
	sig, args := syscall.SIGTERM, c.args
	var err error
	if len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "--" {
		switch a := args[0]; {
		case a == "--help":
			c.help(c.flags())
			return 0
		case a == "-l":
			for n := syscall.Signal(1); n < 32; n++ {
				c.printf("%2d %s\n", n, strings.TrimPrefix(sys.SignalName(n), "SIG"))
			}
			return 0
		case (a == "-s" || a == "-n") && len(args) > 1:
			sig, err = parseSignal(args[1])
			args = args[2:]
		default:
			sig, err = parseSignal(a[1:])
			args = args[1:]
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if err == nil && len(args) == 0 {
		err = errors.New("too few arguments")
	}
	if err != nil {
		return c.misuse(err)
	}
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			c.failf("%s is no process id", a)
			continue
		}
		if err := syscall.Kill(pid, sig); err != nil {
			c.failf("%d: %s", pid, err.Error())
		}
	}
	return c.code
}

// duration is a number of seconds, or with a unit.
func duration(s string) (time.Duration, error) {
	unit, n := time.Second, s
	if s != "" {
		if u, ok := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[s[len(s)-1]]; ok {
			unit, n = u, s[:len(s)-1]
		}
	}
	if s == "infinity" || s == "inf" {
		return 1<<63 - 1, nil
	}
	f, err := strconv.ParseFloat(n, 64)
	if err != nil || f < 0 || f != f {
		return 0, fmt.Errorf("%q is no time", s)
	}
	if f*float64(unit) > 1<<62 {
		return 1<<63 - 1, nil
	}
	return time.Duration(f * float64(unit)), nil
}

func sleep(c *call) int {
	rest, code, ok := c.parse(c.flags(), 1, -1)
	if !ok {
		return code
	}
	var sum time.Duration
	for _, a := range rest {
		d, err := duration(a)
		if err != nil {
			return c.misuse(err)
		}
		if sum += d; sum < 0 {
			sum = 1<<63 - 1
		}
	}
	time.Sleep(sum)
	return 0
}

func nohup(c *call) int {
	if len(c.args) == 0 {
		return c.misuse(errors.New("too few arguments"))
	}
	signal.Ignore(syscall.SIGHUP)
	return become(c.args)
}

func timeout(c *call) int {
	fs := c.flags()
	fs.SetInterspersed(false)
	s, k := fs.StringP("signal", "s", "TERM", "what ends it"), fs.StringP("kill-after", "k", "", "kill it so long after")
	rest, code, ok := c.parse(fs, 2, -1)
	if !ok {
		return code
	}
	sig, err := parseSignal(*s)
	limit, derr := duration(rest[0])
	grace := time.Duration(0)
	if *k != "" && derr == nil {
		grace, derr = duration(*k)
	}
	if err = errors.Join(err, derr); err != nil {
		return c.misuse(err)
	}
	if limit == 0 { // none
		limit = 1<<63 - 1
	}
	dir, _ := os.Getwd()
	cmd, err := start(rest[1:], dir, os.Environ(), c.in, os.Stdout, c.err)
	if err != nil {
		c.failf("%s", execText(rest[1], err))
		return execCode(err)
	}
	timer := time.AfterFunc(limit, func() {
		_ = cmd.Process.Signal(sig)
		if grace > 0 {
			time.AfterFunc(grace, func() { _ = cmd.Process.Kill() })
		}
	})
	code = wait(cmd)
	if !timer.Stop() {
		return 124
	}
	return code
}

func uname(c *call) int {
	fs := c.flags()
	a := flag(fs, "a", "all", "all")
	letters := []string{"s", "n", "r", "v", "m", "o"}
	names := []string{"kernel-name", "nodename", "kernel-release", "kernel-version", "machine", "operating-system"}
	var on []*bool
	for i, l := range letters {
		on = append(on, flag(fs, l, names[i], ""))
	}
	if _, code, ok := c.parse(fs, 0, 0); !ok {
		return code
	}
	kernel := func(name string) string {
		b, _ := os.ReadFile("/proc/sys/kernel/" + name)
		return strings.TrimSpace(string(b))
	}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if machine == "" {
		machine = runtime.GOARCH
	}
	values := []string{"Linux", kernel("hostname"), kernel("osrelease"), kernel("version"), machine, "GNU/Linux"}
	if !slices.ContainsFunc(on, func(b *bool) bool { return *b }) && !*a {
		*on[0] = true
	}
	var words []string
	for i, v := range values {
		if *on[i] || *a {
			words = append(words, v)
		}
	}
	c.printf("%s\n", c.shown(strings.Join(words, " ")))
	return 0
}
