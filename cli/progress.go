package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	units "github.com/docker/go-units"

	"tug/sys"
)

// progress shows how a pull or load goes on. On a terminal each layer has a
// line that is redrawn in place, below the messages printed so far:
//
//	a1b2c3d4e5f6: Downloading [=======>          ]  12.3MB/45.6MB
//	0f1e2d3c4b5a: Pull complete
//
// Elsewhere each change of a layer's status is one line, without numbers. Its
// methods may be called from several goroutines.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	width int  // of the terminal
	rows  int  // of the terminal
	live  bool // out is a terminal

	silent bool // show messages, but no layers
	lines  []*progressLine
	drawn  int // lines on the screen, all below the messages
	last   time.Time
	now    func() time.Time
}

type progressLine struct {
	id, status     string
	current, total int64
	printed        string // last status printed in plain mode
	shown          string // what is on the screen
}

// redrawEvery bounds how often bars move.
const redrawEvery = 80 * time.Millisecond

func newProgress(out io.Writer, width int) *progress {
	p := &progress{out: out, now: time.Now, rows: 24}
	if f := file(out); f != nil && isTerminal(out) {
		p.live = true
		if rows, cols := sys.Winsize(f); cols > 0 {
			width, p.rows = int(cols), int(rows)
		}
	}
	p.width, p.rows = width, max(p.rows, 2)
	return p
}

// Layer sets the status of one layer. A total of 0 means that there is no
// number to show.
func (p *progress) Layer(id, status string, current, total int64) {
	if p.silent {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id, status = oneLine(id), oneLine(status)
	l := p.line(id)
	fresh := l.status != status
	l.status, l.current, l.total = status, current, total
	switch {
	case !p.live:
		// A status with numbers is on the way to one without.
		if total <= 0 && l.printed != status {
			fmt.Fprintf(p.out, "%s: %s\n", id, status)
			l.printed = status
		}
	case fresh || p.now().Sub(p.last) >= redrawEvery:
		p.draw()
	}
}

// Message prints a line above the layers.
func (p *progress) Message(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live && p.drawn > 0 {
		p.draw()
		p.drawn, p.lines = 0, nil // the lines stay where they are
	}
	fmt.Fprintln(p.out, oneLine(line))
}

// close draws the last state.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live && len(p.lines) > 0 {
		p.draw()
	}
}

func (p *progress) line(id string) *progressLine {
	for _, l := range p.lines {
		if l.id == id {
			return l
		}
	}
	l := &progressLine{id: id}
	p.lines = append(p.lines, l)
	return l
}

// draw brings the screen up to date: up to the first line that is still on it,
// then down again, writing what changed.
func (p *progress) draw() {
	var b strings.Builder
	up := min(p.drawn, p.rows-1)
	if up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	for i := p.drawn - up; i < len(p.lines); i++ {
		l := p.lines[i]
		if text := l.text(p.width); i >= p.drawn || text != l.shown {
			b.WriteString("\r\x1b[2K" + text)
			l.shown = text
		}
		b.WriteString("\n")
	}
	p.drawn, p.last = len(p.lines), p.now()
	io.WriteString(p.out, b.String())
}

// text is the line on a terminal, at most width-1 columns wide so that it
// never wraps.
func (l *progressLine) text(width int) string {
	s := l.id + ": " + l.status
	if l.total > 0 {
		s += " " + bar(l.current, l.total, width-len(s)-2)
	}
	if r := []rune(s); len(r) >= width {
		s = string(r[:max(width-1, 1)])
	}
	return s
}

// bar is Docker's: 50 columns where there is room, the numbers alone where it
// is narrow.
func bar(current, total int64, room int) string {
	current = max(0, min(current, total))
	numbers := fmt.Sprintf("%8v/%v", units.HumanSize(float64(current)), units.HumanSize(float64(total)))
	size := min(50, room-len(numbers)-4)
	if size < 10 {
		return strings.TrimSpace(numbers)
	}
	done := int(float64(current) / float64(total) * float64(size))
	arrow := strings.Repeat("=", done)
	if done < size {
		arrow += ">"
	}
	return fmt.Sprintf("[%-*s] %s", size, arrow, numbers)
}
