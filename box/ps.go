package box

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/sys"
)

// task is one process as /proc shows it.
type task struct {
	pid, ppid, pgid, sid int
	uid                  uint32
	state                string
	tty                  int64
	cpu                  time.Duration
	started              time.Time
	virtual, resident    int64 // bytes
	threads              int
	name, command        string
}

// userHz is the unit of times in /proc/PID/stat.
const userHz = 100

// tasks reads all processes that can be seen, by their ids.
func tasks() ([]task, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return nil, err
	}
	boot := bootTime()
	var out []task
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if t, err := readTask(pid, boot); err == nil {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b task) int { return a.pid - b.pid })
	return out, nil
}

func bootTime() time.Time {
	b, _ := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "btime "); ok {
			sec, _ := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			return time.Unix(sec, 0)
		}
	}
	return time.Now()
}

var errTask = errors.New("not as it should be")

func readTask(pid int, boot time.Time) (task, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return task{}, err
	}
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return task{}, errTask
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 22 {
		return task{}, errTask
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(f[i], 10, 64); return n }
	t := task{
		pid: pid, state: f[0], ppid: int(number(1)), pgid: int(number(2)), sid: int(number(3)), tty: number(4),
		cpu: time.Duration(number(11)+number(12)) * time.Second / userHz, threads: int(number(17)),
		started: boot.Add(time.Duration(number(19)) * time.Second / userHz), virtual: number(20), resident: number(21) * int64(os.Getpagesize()),
		name: string(b[open+1 : end]),
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return task{}, err
	}
	t.uid = st.Uid
	if status, err := os.ReadFile(dir + "/status"); err == nil { // not dumpable ones are root's by their directory
		for line := range strings.Lines(string(status)) {
			if s, ok := strings.CutPrefix(line, "Uid:"); ok {
				if w := strings.Fields(s); len(w) > 1 {
					n, _ := strconv.ParseUint(w[1], 10, 32)
					t.uid = uint32(n)
				}
			}
		}
	}
	line, _ := os.ReadFile(dir + "/cmdline")
	t.command = strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	if t.command == "" {
		t.command = "[" + t.name + "]"
	}
	return t, nil
}

// psColumn is one column: its title, whether it is a number, and its text.
type psColumn struct {
	title string
	right bool
	text  func(v *psView, t *task) string
}

// psView is what rows need besides the process.
type psView struct {
	names *names
	now   time.Time
	total int64 // bytes of memory
}

func psColumns() map[string]psColumn {
	num := func(f func(*task) int) func(*psView, *task) string {
		return func(_ *psView, t *task) string { return strconv.Itoa(f(t)) }
	}
	user := func(v *psView, t *task) string { return v.names.user(t.uid) }
	clock := func(_ *psView, t *task) string { return clockText(t.cpu) }
	command := func(_ *psView, t *task) string { return t.command }
	return map[string]psColumn{
		"pid":   {"PID", true, num(func(t *task) int { return t.pid })},
		"ppid":  {"PPID", true, num(func(t *task) int { return t.ppid })},
		"pgid":  {"PGID", true, num(func(t *task) int { return t.pgid })},
		"sid":   {"SID", true, num(func(t *task) int { return t.sid })},
		"user":  {"USER", false, user},
		"uname": {"USER", false, user},
		"uid":   {"UID", true, func(_ *psView, t *task) string { return fmt.Sprint(t.uid) }},
		"comm":  {"COMMAND", false, func(_ *psView, t *task) string { return t.name }},
		"args":  {"COMMAND", false, command},
		"cmd":   {"CMD", false, command},
		"stat":  {"STAT", false, func(_ *psView, t *task) string { return t.state }},
		"s":     {"S", false, func(_ *psView, t *task) string { return t.state }},
		"time":  {"TIME", true, clock},
		"vsz":   {"VSZ", true, func(_ *psView, t *task) string { return fmt.Sprint(t.virtual / 1024) }},
		"rss":   {"RSS", true, func(_ *psView, t *task) string { return fmt.Sprint(t.resident / 1024) }},
		"nlwp":  {"NLWP", true, num(func(t *task) int { return t.threads })},
		"tty":   {"TTY", false, func(_ *psView, t *task) string { return ttyText(t.tty) }},
		"start": {"START", true, func(v *psView, t *task) string { return startText(v.now, t.started) }},
		"stime": {"STIME", true, func(v *psView, t *task) string { return startText(v.now, t.started) }},
		"etime": {"ELAPSED", true, func(v *psView, t *task) string { return clockText(v.now.Sub(t.started)) }},
		"%cpu":  {"%CPU", true, func(v *psView, t *task) string { return share(float64(t.cpu), float64(v.now.Sub(t.started))) }},
		"c": {"C", true, func(v *psView, t *task) string {
			return strings.TrimSuffix(share(float64(t.cpu), float64(v.now.Sub(t.started))), ".0")
		}},
		"%mem": {"%MEM", true, func(v *psView, t *task) string { return share(float64(t.resident), float64(v.total)) }},
	}
}

func share(part, whole float64) string {
	if whole <= 0 {
		return "0.0"
	}
	return fmt.Sprintf("%.1f", 100*part/whole)
}

func clockText(d time.Duration) string {
	s := int64(d / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

func startText(now, t time.Time) string {
	if now.Sub(t) < 24*time.Hour {
		return t.Format("15:04")
	}
	return t.Format("Jan02")
}

func ttyText(dev int64) string {
	major, minor := sys.SplitDevice(uint64(dev))
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", minor+(major-136)<<8)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// ps lists all processes that can be seen; there are few in a container.
func ps(c *call) int {
	columns, err := psArguments(c)
	if err != nil {
		return c.misuse(err)
	}
	if columns == nil {
		return 0
	}
	all, err := tasks()
	if err != nil {
		c.fail(err)
		return 1
	}
	v := &psView{names: newNames(), now: time.Now(), total: totalMemory()}
	known := psColumns()
	rows := [][]string{{}}
	var cols []psColumn
	for _, name := range columns {
		col := known[name]
		cols = append(cols, col)
		rows[0] = append(rows[0], col.title)
	}
	for i := range all {
		var row []string
		for _, col := range cols {
			row = append(row, printable(col.text(v, &all[i])))
		}
		rows = append(rows, row)
	}
	c.table(rows, func(i int) bool { return cols[i].right })
	return 0
}

// table lays out rows; the last column is as wide as its text.
func (c *call) table(rows [][]string, right func(column int) bool) {
	var widths []int
	for _, r := range rows {
		for i, s := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(s))
		}
	}
	for _, r := range rows {
		line := ""
		for i, s := range r {
			switch {
			case right(i):
				line += fmt.Sprintf("%*s ", widths[i], s)
			case i == len(r)-1:
				line += s
			default:
				line += fmt.Sprintf("%-*s ", widths[i], s)
			}
		}
		c.printf("%s\n", strings.TrimRight(line, " "))
	}
}

func totalMemory() int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(s)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// psArguments chooses the columns: of ps, ps aux, ps -ef or -o; nil after --help.
func psArguments(c *call) ([]string, error) {
	columns := []string{"pid", "user", "time", "args"}
	args := c.args
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--help":
			c.help(c.flags())
			return nil, nil
		case a == "-o" || a == "-O" || a == "o":
			if len(args) == 0 {
				return nil, errors.New("-o needs columns")
			}
			columns = nil
			for name := range strings.SplitSeq(strings.ReplaceAll(args[0], " ", ","), ",") {
				name, _, _ = strings.Cut(strings.ToLower(name), "=")
				if other := map[string]string{"command": "args", "pcpu": "%cpu", "pmem": "%mem", "tname": "tty", "bsdtime": "time", "thcount": "nlwp"}[name]; other != "" {
					name = other
				}
				if _, ok := psColumns()[name]; !ok {
					return nil, fmt.Errorf("unknown column %s", name)
				}
				columns = append(columns, name)
			}
			args = args[1:]
		case strings.HasPrefix(a, "-"):
			if strings.Trim(a[1:], "efAalwH") != "" {
				return nil, fmt.Errorf("unknown option %s", a)
			}
			if strings.Contains(a, "f") {
				columns = []string{"user", "pid", "ppid", "c", "stime", "tty", "time", "cmd"}
			}
		default:
			if strings.Trim(a, "auxwfe") != "" {
				return nil, fmt.Errorf("unknown option %s", a)
			}
			if strings.Contains(a, "u") {
				columns = []string{"user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "args"}
			}
		}
	}
	return columns, nil
}

func pidof(c *call) int {
	rest, code, ok := c.parse(c.flags(), 1, -1)
	if !ok {
		return code
	}
	all, err := tasks()
	if err != nil {
		c.fail(err)
		return 1
	}
	var out []string
	for _, t := range all {
		word, _, _ := strings.Cut(t.command, " ")
		if i := strings.LastIndexByte(word, '/'); slices.Contains(rest, t.name) || slices.Contains(rest, word[i+1:]) {
			out = append(out, strconv.Itoa(t.pid))
		}
	}
	if len(out) == 0 {
		return 1
	}
	slices.Reverse(out)
	c.printf("%s\n", strings.Join(out, " "))
	return 0
}
