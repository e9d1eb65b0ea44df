package cli

// How tug speaks. Results go to standard output, everything else to standard
// error. An error is one line,
//
//	tug: WHAT WENT WRONG AND WHERE; WHAT TO DO
//
// with Docker's wording where Docker has one and without its "Error response
// from daemon:", since there is no daemon. What to do comes from errs.HintOf; for
// wrong usage it is "see 'tug run --help'", where Docker adds four lines.
// Warnings are "WARNING: TEXT".
//
// Exit codes, Docker's:
//
//	125  wrong flags of any command; an error of the engine in run, and in
//	     create when the flags do not make sense
//	126  run, exec: the program is there but cannot be executed
//	127  run, exec: the program does not exist
//	1    every other error, also a wrong number of arguments, and several
//	     objects of which some failed
//	else run, exec, start -a, attach: the program's own
//
// A command that handles several objects prints an error per failed one, goes
// on with the next and exits with 1.

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"tug/errs"
	"tug/runtime"
)

// exitError is an error with its exit code. Without err nothing is printed:
// the code is the program's, or the errors were printed already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is wrong usage of command name ("tug run").
func usageError(code int, name string, err error) error {
	return &exitError{code: code, err: errs.New(errs.Invalid, "%w", err).WithHint("see '%s --help'", name)}
}

// report prints err and returns the exit code for it.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	var e *exitError
	if !errors.As(err, &e) {
		e = &exitError{code: 1, err: err}
	}
	switch {
	case e.err == nil:
		return e.code
	case brokenPipe(e.err):
		return exitSigpipe
	}
	a.complain(e.err)
	return e.code
}

// exitSigpipe is how a program ends whose reader has gone (128 + SIGPIPE).
const exitSigpipe = 141

// errReaderGone ends a command whose output nobody reads any more.
var errReaderGone = errors.New("the reader of the output has gone")

// brokenPipe reports whether err says that the reader of standard output has
// gone, which is no error to tell anybody about. A socket's EPIPE is one.
func brokenPipe(err error) bool {
	var pe *os.PathError
	return errors.Is(err, errReaderGone) || errors.As(err, &pe) && pe.Op == "write" && errors.Is(pe.Err, syscall.EPIPE)
}

// message is an error as one line: its text and hint.
func message(err error) string {
	text := strings.TrimSpace(oneLine(err.Error()))
	if hint := errs.HintOf(err); hint != "" {
		text += "; " + oneLine(hint)
	}
	return text
}

// oneLine makes text that came from an image, a registry or a file name safe
// to print: no newlines and no escape sequences.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// warn prints a warning.
func (a *app) warn(text string) { fmt.Fprintf(a.Err, "WARNING: %s\n", oneLine(text)) }

// complain prints an error of one object among several.
func (a *app) complain(err error) { fmt.Fprintf(a.Err, "tug: %s\n", message(err)) }

// printf prints a result.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.Out, format, args...)
	return err
}

// each does f for every name. Errors are printed as they come; when there were
// any, the exit code is 1.
func (a *app) each(names []string, f func(name string) error) error {
	failed := false
	for _, n := range names {
		err := f(n)
		if err != nil && brokenPipe(err) {
			return err
		}
		if err != nil {
			a.complain(err)
			failed = true
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

// engineError gives an error of run its exit code: 126 and 127 when the
// program could not be executed, else 125.
func engineError(err error) error {
	var e *exitError
	if err == nil || errors.As(err, &e) {
		return err
	}
	if se := runtime.AsStartError(err); se != nil {
		return &exitError{code: se.Code, err: err}
	}
	return &exitError{code: 125, err: err}
}

// counted is a number of things in words: "1 layer", "2 layers".
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return itoa(n) + " " + thing + "s"
}

// file returns the stream's file, or nil when it is none.
func file(stream any) *os.File {
	f, _ := stream.(*os.File)
	return f
}
