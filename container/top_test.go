package container

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParsePs(t *testing.T) {
	const out = `UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 10:00 ?        00:00:01 /sbin/init  two  blanks
root          17       1  0 10:00 ?        00:00:01 sh -c echo 18
-              -       -  0 10:00 -        00:00:01 -
nobody        18       1  0 10:00 ?        00:00:01 sleep 1
-              -       -  0 10:00 -        00:00:01 -
root          19       1  0 10:00 ?        00:00:01
`
	got, err := parsePs([]byte(out), []int{17, 19, 20})
	want := [][]string{
		{"root", "17", "1", "0", "10:00", "?", "00:00:01", "sh -c echo 18"},
		{"-", "-", "-", "0", "10:00", "-", "00:00:01", "-"},
		{"root", "19", "1", "0", "10:00", "?", "00:00:01"},
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got.Rows); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "UID CMD\nroot x\n", "PID CMD\nx y\n"} {
		if _, err := parsePs([]byte(bad), []int{1}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if got, err := parsePs([]byte("CMD PID\nx 17\ny 8\n"), []int{17}); err != nil || len(got.Rows) != 1 || got.Rows[0][0] != "x" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestPsOptions(t *testing.T) {
	for s, ok := range map[string]bool{
		"": true, "-ef": true, "aux": true, "-o pid,cmd": true, "-eo pid,etime=LIFE": true, "-o pid=PID": false,
		"-o cmd=PID": false, "-o pid,ppid=PIDX": false, "-ocmd=PID": false, "-eo comm,uid=PID": false,
	} {
		if err := checkPsOptions(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// What tug says of this process is what the kernel says.
func TestHostProcesses(t *testing.T) {
	own := os.Getpid()
	p := hostProcesses([]int{own, 1 << 30})
	if len(p.Rows) != 1 || len(p.Rows[0]) != len(p.Titles) {
		t.Fatalf("%+v", p)
	}
	r := p.Rows[0]
	if r[1] != strconv.Itoa(own) || r[2] != strconv.Itoa(os.Getppid()) || !strings.HasPrefix(r[7], os.Args[0]) {
		t.Errorf("%q", r)
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "00:00:00", 61500 * time.Millisecond: "00:01:01", 26*time.Hour + 3*time.Second: "1-02:00:03",
	} {
		if got := clock(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
	for dev, want := range map[int64]string{0: "?", 136 << 8: "pts/0", 137<<8 | 3: "pts/259", 4<<8 | 1: "tty1", 4<<8 | 64: "ttyS0", 5<<8 | 1: "5:1"} {
		if got := ttyName(dev); got != want {
			t.Errorf("%d: %s, want %s", dev, got, want)
		}
	}
	v := &procView{now: time.Date(2026, 5, 6, 12, 0, 0, 0, time.Local)}
	for age, want := range map[time.Duration]string{time.Hour: "11:00", 48 * time.Hour: "May04", 300 * 24 * time.Hour: "2025"} {
		if got := v.started(v.now.Add(-age)); got != want {
			t.Errorf("%v: %s, want %s", age, got, want)
		}
	}
}
