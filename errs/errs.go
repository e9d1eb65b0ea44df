// Package errs is the vocabulary of failure: a few classes, one message, one
// hint. It does no I/O and imports nothing of tug.
//
// Rules. An error that a user can cause is one line that says what went wrong,
// where, and (as the hint, which is data and not glued to the text) what to do.
// Each layer of code wraps at most once, as "verb object: %w". The class travels
// with the error through any number of wraps; only package cli turns classes
// into exit codes, and only the API will turn them into HTTP statuses.
package errs

import (
	"errors"
	"fmt"
)

// Class says what kind of failure an error is, for exit codes and for callers
// that act on it. Errors without a class are Internal.
type Class int

const (
	Internal    Class = iota // a bug, or a failure of the machine
	Invalid                  // the request or the input is malformed
	NotFound                 // the named object does not exist
	Conflict                 // the object's state or another object forbids it
	Corrupt                  // bytes do not match their digest, size or format
	Unavailable              // a registry or the network did not answer
	Denied                   // credentials or permissions are missing
	NoSpace                  // a disk or quota is full
	Unsupported              // this kernel, platform or version cannot do it
)

// Error is an error with a class and, where something can be done, a hint.
type Error struct {
	Class Class
	Msg   string // what and where, one line; empty when Err says it all
	Hint  string // what to do, one line; may be empty
	Err   error  // cause; may be nil
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// New returns an error of class c. The format may wrap one cause with %w.
func New(c Class, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Class: c, Err: err}
}

// WithHint returns e with its hint set, for use in a return statement.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// ClassOf returns the class of the outermost classed error in err's chain, or
// Internal.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Internal
}

// Is reports whether err's class is c.
func Is(err error, c Class) bool { return err != nil && ClassOf(err) == c }

// HintOf returns the first hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
