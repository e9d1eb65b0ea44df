package container

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/errs"
)

// procView reads /proc as ps does.
type procView struct {
	boot  time.Time
	now   time.Time
	users map[uint32]string
}

// userHz is the unit of times in /proc/PID/stat, the same on all machines.
const userHz = 100

func newProcView() *procView {
	v := &procView{now: time.Now(), users: map[uint32]string{}}
	b, _ := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "btime "); ok {
			sec, _ := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			v.boot = time.Unix(sec, 0)
		}
	}
	return v
}

// row is UID PID PPID C STIME TTY TIME CMD of a process.
func (v *procView) row(pid int) ([]string, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return nil, errs.New(errs.Corrupt, "%s/stat is not what it should be", dir)
	}
	name, f := string(b[open+1:end]), strings.Fields(string(b[end+1:]))
	if len(f) < 20 {
		return nil, errs.New(errs.Corrupt, "%s/stat is not what it should be", dir)
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(f[i], 10, 64); return n }
	cpu := time.Duration(number(11)+number(12)) * time.Second / userHz
	started := v.boot.Add(time.Duration(number(19)) * time.Second / userHz)
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return nil, os.ErrNotExist
	}
	return []string{
		v.user(st.Uid), strconv.Itoa(pid), f[1], strconv.FormatInt(v.percent(cpu, started), 10), v.started(started),
		ttyName(number(4)), clock(cpu), command(dir, name, f[0]),
	}, nil
}

// percent is the part of its life that a process was on a processor.
func (v *procView) percent(cpu time.Duration, started time.Time) int64 {
	life := v.now.Sub(started)
	if life <= 0 {
		return 0
	}
	return min(int64(cpu*100/life), 99)
}

// started is the time of this day, or the day of this year, or the year.
func (v *procView) started(t time.Time) string {
	t = t.Local()
	switch {
	case v.now.Sub(t) < 24*time.Hour:
		return t.Format("15:04")
	case v.now.Year() == t.Year():
		return t.Format("Jan02")
	}
	return t.Format("2006")
}

func clock(d time.Duration) string {
	s := int64(d / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

// user is the host's name for a user id.
func (v *procView) user(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if _, ok := v.users[uid]; !ok {
		v.users[uid] = id
		if u, err := user.LookupId(id); err == nil && u.Username != "" && !strings.ContainsAny(u.Username, " \t") {
			v.users[uid] = u.Username
		}
	}
	return v.users[uid]
}

// ttyName is the terminal of a device number in /proc/PID/stat.
func ttyName(dev int64) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", minor+(major-136)<<8)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// maxCommand is how much of a command line is shown.
const maxCommand = 128 << 10

// command is the command line, or the name in brackets of a process that has
// none: a zombie, or one that wiped it.
func command(dir, name, state string) string {
	b, _ := os.ReadFile(dir + "/cmdline")
	text := strings.TrimSpace(string(bytes.ReplaceAll(b[:min(len(b), maxCommand)], []byte{0}, []byte{' '})))
	switch {
	case state == "Z":
		return "[" + name + "] <defunct>"
	case text == "":
		return "[" + name + "]"
	}
	return text
}
