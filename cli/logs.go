package cli

import (
	"bufio"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"tug/container"
)

func setupLogs(a *app, fs *pflag.FlagSet) func([]string) error {
	var o container.LogOptions
	details := fs.Bool("details", false, "Show extra details provided to logs")
	pattern := fs.String("grep", "", "Show only lines that match a regular expression (RE2); --tail counts those")
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	since := fs.String("since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	tail := fs.StringP("tail", "n", "all", "Number of lines to show from the end of the logs")
	stamps := fs.BoolP("timestamps", "t", false, "Show timestamps")
	until := fs.String("until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	return func(args []string) (err error) {
		now := time.Now()
		if o.Since, err = parseWhen(*since, now); err != nil {
			return fmt.Errorf(`invalid value for "since": %w`, err)
		}
		if o.Until, err = parseWhen(*until, now); err != nil {
			return fmt.Errorf(`invalid value for "until": %w`, err)
		}
		if o.Tail, err = parseTail(*tail); err != nil {
			return err
		}
		if *pattern != "" {
			re, err := regexp.Compile(*pattern)
			if err != nil {
				return fmt.Errorf(`invalid value for "grep": %w`, err)
			}
			o.Match = re.Match
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		c, err := e.Containers.Find(args[0])
		if err != nil {
			return err
		}
		p := newLogPrinter(a, *stamps)
		if *details {
			text, err := container.LogDetails(&c.Container)
			if err != nil {
				return err
			}
			p.details = text + " "
		}
		defer p.followUp(o.Follow)()
		err = e.Containers.Logs(a.ctx, c.ID, o, p.print)
		if ferr := p.flush(); err == nil {
			err = ferr
		}
		return err
	}
}

// setupClear is `logs clear CONTAINER...`. Where nothing but flags follows
// `clear` that is a container's name, see find.
func setupClear(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(names []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(names, func(name string) error {
			c, err := e.Containers.Find(name)
			if err != nil {
				return err
			}
			if err := e.Containers.ClearLog(a.ctx, c.ID); err != nil {
				return err
			}
			return a.printf("%s\n", name)
		})
	}
}

func parseTail(s string) (int, error) {
	if s == "all" || s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf(`invalid value for "tail": %s: want a number of lines, or all`, s)
	}
	return max(n, -1), nil
}

// parseWhen reads a point in time: RFC 3339 and its beginnings (in local time
// without a zone), seconds since 1970, or a duration before now. "" is the zero
// time.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
		"2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
	} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err == nil && len(frac) <= 9 {
		var nsec int64
		if frac != "" {
			nsec, err = strconv.ParseInt(frac+strings.Repeat("0", 9-len(frac)), 10, 64)
		}
		if err == nil && nsec >= 0 {
			return time.Unix(sec, nsec), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a time, such as 2013-01-02T13:23:37Z, nor a duration, such as 42m", s)
}

// logPrinter writes log entries to the stream they came from. Both streams are
// buffered, but the order in which they change over is kept.
type logPrinter struct {
	mu       sync.Mutex
	streams  [2]*bufio.Writer // stdout, stderr
	last     int
	stamps   bool
	details  string  // before each line, behind its time
	midLine  [2]bool // the stream's last entry had no newline
	stamping []byte
}

// stampLayout is RFC 3339 with all nine digits, so that columns line up.
const stampLayout = "2006-01-02T15:04:05.000000000Z07:00 "

func newLogPrinter(a *app, stamps bool) *logPrinter {
	const size = 64 << 10
	return &logPrinter{stamps: stamps, streams: [2]*bufio.Writer{bufio.NewWriterSize(a.Out, size), bufio.NewWriterSize(a.Err, size)}}
}

// followEvery is how long a followed line may wait in the buffer.
const followEvery = 20 * time.Millisecond

// followUp keeps flushing while a log is followed; the returned function ends
// that.
func (p *logPrinter) followUp(follow bool) (stop func()) {
	if !follow {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.flush()
			}
		}
	}()
	return cancel
}

func (p *logPrinter) print(l container.LogLine) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	if l.Stream == "stderr" {
		n = 1
	}
	if n != p.last {
		if err := p.streams[p.last].Flush(); err != nil {
			return err
		}
		p.last = n
	}
	if p.stamps && !p.midLine[n] {
		p.stamping = l.Time.UTC().AppendFormat(p.stamping[:0], stampLayout)
		p.streams[n].Write(p.stamping)
	}
	if p.details != "" && !p.midLine[n] {
		p.streams[n].WriteString(p.details)
	}
	p.midLine[n] = len(l.Text) == 0 || l.Text[len(l.Text)-1] != '\n'
	_, err := p.streams[n].Write(l.Text)
	return err
}

func (p *logPrinter) flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.streams[0].Flush()
	if e := p.streams[1].Flush(); err == nil {
		err = e
	}
	return err
}
