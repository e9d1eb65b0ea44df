package cli

import (
	"bytes"
	"fmt"
	"strings"
)

// defaultDetachKeys are Docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys turns "ctrl-p,ctrl-q" or "a,ctrl-x" into the bytes that a
// terminal sends for them. "" is the default.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultDetachKeys
	}
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		b, ok := keyByte(key)
		if !ok {
			return nil, fmt.Errorf("invalid detach keys (%s) provided: unknown character: '%s'", oneLine(s), oneLine(key))
		}
		keys = append(keys, b)
	}
	return keys, nil
}

func keyByte(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	c, ok := strings.CutPrefix(strings.ToLower(key), "ctrl-")
	if !ok || len(c) != 1 {
		return 0, false
	}
	if c[0] >= 'a' && c[0] <= 'z' || strings.Contains(`@[\]^_`, c) {
		return c[0] & 0x1f, true
	}
	return 0, false
}

// detacher looks for the detach keys in what a user types. The beginning of the
// sequence is held back until it is complete or turns out to be something else,
// and is then passed on.
type detacher struct {
	keys []byte
	held int // how many of keys have been typed
}

// feed appends to out what of in may be passed on, and reports whether the
// sequence is complete; what follows it is dropped.
func (d *detacher) feed(out, in []byte) ([]byte, bool) {
	if len(d.keys) == 0 {
		return append(out, in...), false
	}
	for _, b := range in {
		// Give up the oldest held byte until what is left, with b, is again a
		// beginning of the sequence.
		for d.held > 0 && d.keys[d.held] != b {
			n := d.shorter()
			out = append(out, d.keys[:d.held-n]...)
			d.held = n
		}
		if d.keys[d.held] != b {
			out = append(out, b)
			continue
		}
		if d.held++; d.held == len(d.keys) {
			d.held = 0
			return out, true
		}
	}
	return out, false
}

// shorter is the length of the longest beginning of keys that ends what is
// held and is shorter than it.
func (d *detacher) shorter() int {
	for n := d.held - 1; n > 0; n-- {
		if bytes.HasSuffix(d.keys[:d.held], d.keys[:n]) {
			return n
		}
	}
	return 0
}
