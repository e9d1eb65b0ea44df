package cli

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/container"
	"tug/sys"
)

type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string
}

// statsEvery is how often stats looks.
const statsEvery = time.Second

func setupStats(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &statsOptions{}
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.StringVar(&o.format, "format", "", formatUsage)
	fs.BoolVar(&o.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
	return func(args []string) error {
		if o.format == "" {
			o.format = a.userConfig().StatsFormat
		}
		return a.stats(o, args)
	}
}

// stats shows a table each second until the user has enough, or the containers
// that were named are gone.
func (a *app) stats(o *statsOptions, names []string) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	var ids []string
	called := map[string]string{}
	for _, n := range names {
		c, err := e.Containers.Find(n)
		if err != nil {
			return err
		}
		if called[c.ID] == "" {
			ids = append(ids, c.ID)
		}
		called[c.ID] = n
	}
	// A template that is wrong is said at once.
	if err := o.write(&bytes.Buffer{}, nil, nil); err != nil {
		return err
	}
	s := e.Containers.Sampler()
	if _, err := s.Sample(ids, o.all); err != nil {
		return err
	}
	screen := &statsScreen{app: a, o: o, called: called, history: map[string][]float64{}}
	if file(a.Out) != nil && isTerminal(a.Out) && !o.noStream {
		screen.live = true
	}
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		<-tick.C
		list, err := s.Sample(ids, o.all)
		if err != nil {
			return err
		}
		if len(list) == 0 && len(ids) > 0 {
			return nil // all were removed
		}
		if err := screen.show(list); err != nil || o.noStream {
			return err
		}
	}
}

// statsScreen is what stats shows on a terminal: the table, drawn over the last
// one, with a line of how busy each container was lately.
type statsScreen struct {
	*app
	o       *statsOptions
	called  map[string]string // names that the user called containers by
	live    bool
	history map[string][]float64 // CPUPercent by id, the newest last
}

func (s *statsScreen) show(list []*container.Stats) error {
	var b bytes.Buffer
	var sparks []string
	if s.live && (s.o.format == "" || s.o.format == "table") {
		sparks = s.remember(list)
	}
	rows := make([]*statsRow, len(list))
	for i, st := range list {
		rows[i] = &statsRow{Stats: st, noTrunc: s.o.noTrunc, called: s.called[st.ID]}
	}
	if err := s.o.write(&b, rows, sparks); err != nil {
		return err
	}
	if !s.live {
		_, err := s.Out.Write(b.Bytes())
		return err
	}
	height, width := sys.Winsize(file(s.Out))
	_, err := s.Out.Write(overdraw(b.String(), int(height), int(width)))
	return err
}

// overdraw makes of a text one that is drawn over what the screen shows, without
// clearing it first, as that flickers.
func overdraw(text string, height, width int) []byte {
	var b bytes.Buffer
	b.WriteString("\x1b[H")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if height > 1 && len(lines) > height-1 {
		lines = append(lines[:height-2], fmt.Sprintf("... and %d more", len(lines)-(height-2)))
	}
	for _, l := range lines {
		if r := []rune(l); width > 0 && len(r) > width {
			l = string(r[:width])
		}
		b.WriteString(l + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	return b.Bytes()
}

// sparkLength is how many seconds a sparkline shows.
const sparkLength = 20

// remember keeps what containers use now and returns their sparklines.
func (s *statsScreen) remember(list []*container.Stats) []string {
	now := make(map[string][]float64, len(list))
	var sparks []string
	for _, st := range list {
		h := append(s.history[st.ID], st.CPUPercent)
		now[st.ID] = h[max(0, len(h)-sparkLength):]
		sparks = append(sparks, sparkline(now[st.ID]))
	}
	s.history = now
	return sparks
}

// sparkline draws values as bars. The highest bar is a whole processor, or the
// highest value when that is more. What is not nothing has a bar.
func sparkline(values []float64) string {
	bars := []rune(" ▁▂▃▄▅▆▇█")
	top := 100.0
	for _, v := range values {
		top = max(top, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := 0
		if v >= 0.05 {
			i = 1 + int(v/top*float64(len(bars)-2)+0.5)
		}
		b.WriteRune(bars[min(i, len(bars)-1)])
	}
	return b.String()
}

func (o *statsOptions) write(b *bytes.Buffer, rows []*statsRow, sparks []string) error {
	columns, defaults := statsColumns(), strings.Fields("ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs")
	if sparks != nil {
		for i, r := range rows {
			r.spark = sparks[i]
		}
		columns = append(columns, column[*statsRow]{"spark", "CPU HISTORY", func(r *statsRow) string { return r.spark }})
		defaults = append(defaults, "spark")
	}
	return writeTable(b, o.format, columns, defaults, rows, nil)
}

type statsRow struct {
	*container.Stats
	noTrunc bool
	called  string
	spark   string
}

func statsColumns() []column[*statsRow] {
	return []column[*statsRow]{
		{"Container", "CONTAINER", func(r *statsRow) string {
			if r.called != "" {
				return r.called
			}
			return r.shownID()
		}},
		{"ID", "CONTAINER ID", (*statsRow).shownID},
		{"Name", "NAME", func(r *statsRow) string { return r.Summary.Name }},
		{"CPUPerc", "CPU %", func(r *statsRow) string { return percent2(r.CPUPercent) }},
		{"MemUsage", "MEM USAGE / LIMIT", func(r *statsRow) string {
			return units.BytesSize(float64(r.Usage.Memory)) + " / " + units.BytesSize(float64(r.MemoryLimit))
		}},
		{"MemPerc", "MEM %", func(r *statsRow) string {
			if r.MemoryLimit == 0 {
				return percent2(0)
			}
			return percent2(float64(r.Usage.Memory) / float64(r.MemoryLimit) * 100)
		}},
		{"NetIO", "NET I/O", func(r *statsRow) string { return size3(int64(r.Received)) + " / " + size3(int64(r.Sent)) }},
		{"BlockIO", "BLOCK I/O", func(r *statsRow) string { return size3(int64(r.Read)) + " / " + size3(int64(r.Written)) }},
		{"PIDs", "PIDS", func(r *statsRow) string { return fmt.Sprint(r.Pids) }},
	}
}

func (r *statsRow) shownID() string {
	if r.noTrunc {
		return r.ID
	}
	return r.ID[:min(12, len(r.ID))]
}

func percent2(f float64) string { return fmt.Sprintf("%.2f%%", f) }
