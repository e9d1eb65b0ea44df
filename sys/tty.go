package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Winsize returns the size of terminal tty, or 0, 0 when it is none or does
// not know.
func Winsize(tty *os.File) (rows, cols uint16) {
	if tty == nil {
		return 0, 0
	}
	ws, err := unix.IoctlGetWinsize(Fd(tty), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return ws.Row, ws.Col
}

// Termios is the state of a terminal, as MakeRaw found it.
type Termios struct{ t unix.Termios }

// MakeRaw puts a terminal into raw mode, as cfmakeraw(3) does, and returns what
// it was before.
func MakeRaw(tty *os.File) (*Termios, error) {
	old, err := unix.IoctlGetTermios(Fd(tty), unix.TCGETS)
	if err != nil {
		return nil, wrap("tcgets", tty.Name(), err)
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(Fd(tty), unix.TCSETS, &raw); err != nil {
		return nil, wrap("tcsets", tty.Name(), err)
	}
	return &Termios{t: *old}, nil
}

// MakeSilent keeps a terminal from showing what is typed, and returns what it
// was before. Lines and signals stay as they are.
func MakeSilent(tty *os.File) (*Termios, error) {
	old, err := unix.IoctlGetTermios(Fd(tty), unix.TCGETS)
	if err != nil {
		return nil, wrap("tcgets", tty.Name(), err)
	}
	silent := *old
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	// What was typed before the question is no answer to it.
	if err := unix.IoctlSetTermios(Fd(tty), unix.TCSETSF, &silent); err != nil {
		return nil, wrap("tcsets", tty.Name(), err)
	}
	return &Termios{t: *old}, nil
}

// RestoreTerminal puts a terminal back to state old, at once: to wait for its
// output could take for ever.
func RestoreTerminal(tty *os.File, old *Termios) error {
	return wrap("tcsets", tty.Name(), unix.IoctlSetTermios(Fd(tty), unix.TCSETS, &old.t))
}
