package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"tug/image"
)

// The interactive screen of image explore: browser.go holds what is shown and
// what keys do, without a terminal; this file moves bytes.

const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // alternate screen, no cursor, no wrapping
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// canBrowse reports whether there is a terminal to show a screen on.
func (a *app) canBrowse() bool {
	return isTerminal(a.In) && isTerminal(a.Out) && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// browse shows the screen until the user quits. The terminal is given back on
// every way out, also to the shell while the program is stopped.
func (a *app) browse(x *image.Explored) error {
	s := newBrowser(x, !utf8Locale())
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, append(deadly(), syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT)...)
	defer signal.Stop(signals)
	if err := a.raw(); err != nil {
		return err
	}
	defer a.restore()
	defer io.WriteString(a.Out, leaveScreen)
	keys := make(chan []byte)
	done := make(chan struct{})
	defer close(done)
	a.background(func() { readKeys(a.In, keys, done) })
	if _, err := io.WriteString(a.Out, enterScreen); err != nil {
		return err
	}
	for {
		rows, cols := a.size()
		if _, err := io.WriteString(a.Out, s.draw(int(rows), int(cols))); err != nil {
			return err
		}
		select {
		case b, ok := <-keys:
			if !ok {
				return nil
			}
			for len(b) > 0 {
				var k string
				k, b = nextKey(b)
				if k == "\x1a" {
					if err := a.suspend(signals); err != nil {
						return err
					}
				} else if !s.key(k) {
					return nil
				}
			}
		case sig := <-signals:
			switch sig {
			case syscall.SIGWINCH, syscall.SIGCONT:
			case syscall.SIGTSTP:
				if err := a.suspend(signals); err != nil {
					return err
				}
			default:
				io.WriteString(a.Out, leaveScreen)
				a.dieOf(sig)
			}
		}
	}
}

// suspend gives the terminal back and stops the program, until it is continued:
// not before, since the shell sets the terminal to its liking meanwhile.
func (a *app) suspend(signals <-chan os.Signal) error {
	io.WriteString(a.Out, leaveScreen)
	a.restore()
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		p.Signal(syscall.SIGSTOP)
	}
	for sig := <-signals; sig != syscall.SIGCONT; sig = <-signals {
		if sig != syscall.SIGTSTP && sig != syscall.SIGWINCH {
			a.dieOf(sig)
		}
	}
	if err := a.raw(); err != nil {
		return err
	}
	_, err := io.WriteString(a.Out, enterScreen)
	return err
}

func readKeys(in io.Reader, keys chan<- []byte, done <-chan struct{}) {
	defer close(keys)
	for {
		b := make([]byte, 256)
		n, err := in.Read(b)
		if n > 0 {
			select {
			case keys <- b[:n]:
			case <-done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// nextKey splits one key off what was read: a character, or an escape sequence
// under a name.
func nextKey(b []byte) (key string, rest []byte) {
	if b[0] != 0x1b || len(b) == 1 {
		_, n := utf8.DecodeRune(b)
		return string(b[:n]), b[n:]
	}
	if b[1] != '[' && b[1] != 'O' {
		return "\x1b", b[1:]
	}
	n := 2
	for n < len(b) && (b[n] < 0x40 || b[n] > 0x7e) {
		n++
	}
	n = min(n+1, len(b))
	switch string(b[2:n]) {
	case "A":
		key = "up"
	case "B":
		key = "down"
	case "C":
		key = "right"
	case "D":
		key = "left"
	case "H", "1~", "7~":
		key = "home"
	case "F", "4~", "8~":
		key = "end"
	case "5~":
		key = "pgup"
	case "6~":
		key = "pgdn"
	case "Z":
		key = "\t"
	default:
		key = "unknown"
	}
	return key, b[n:]
}

// utf8Locale reports whether the terminal's locale says that it shows UTF-8.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// fit makes s exactly n characters wide.
func fit(s string, n int) string {
	if n <= 0 {
		return ""
	}
	have := utf8.RuneCountInString(s)
	if have > n {
		return string([]rune(s)[:n])
	}
	return fmt.Sprintf("%s%*s", s, n-have, "")
}
