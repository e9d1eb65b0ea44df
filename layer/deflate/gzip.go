package deflate

import (
	"hash/crc32"
	"io"
)

// Reader reads a gzip file member by member. Make one with NewReader, call Next
// before each member, Read until io.EOF.
type Reader struct {
	z    inflater
	crc  uint32
	size uint32
	err  error
}

// NewReader returns a Reader of src, of which it may read more than it needs.
func NewReader(src io.Reader) *Reader {
	r := &Reader{err: io.EOF}
	r.z.reset(src)
	return r
}

// Bits of a header's flags (RFC 1952, 2.3.1).
const (
	flagCRC     = 1 << 1
	flagExtra   = 1 << 2
	flagName    = 1 << 3
	flagComment = 1 << 4
)

// maxText is how long a name or comment in a header may be.
const maxText = 64 << 10

// Next goes on to the next member. It returns io.EOF when nothing follows and
// ErrHeader when it is no member.
func (r *Reader) Next() error {
	r.crc, r.size = 0, 0
	r.z.begin()
	r.err = r.header()
	return r.err
}

func (r *Reader) header() error {
	first, err := r.z.byte()
	if err != nil {
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return err
	}
	h := headerReader{z: &r.z}
	h.note(first)
	if first != 0x1f || h.byte() != 0x8b && (h.err == nil || h.err == io.ErrUnexpectedEOF) {
		return ErrHeader
	}
	if h.byte() != 8 && h.err == nil {
		return ErrCorrupt // another method than DEFLATE
	}
	flags := h.byte()
	for range 6 { // time, compressor's flags, system
		h.byte()
	}
	if flags&flagExtra != 0 {
		for n := int(h.byte()) | int(h.byte())<<8; n > 0 && h.err == nil; n-- {
			h.byte()
		}
	}
	for _, f := range []byte{flagName, flagComment} {
		if flags&f != 0 {
			h.text()
		}
	}
	if flags&flagCRC != 0 {
		want := h.crc & 0xffff
		if got := uint32(h.byte()) | uint32(h.byte())<<8; h.err == nil && got != want {
			return ErrHeader
		}
	}
	return h.err
}

// headerReader remembers the first error.
type headerReader struct {
	z   *inflater
	crc uint32
	err error
}

func (h *headerReader) note(c byte) { h.crc = crc32.Update(h.crc, crc32.IEEETable, []byte{c}) }

func (h *headerReader) byte() byte {
	if h.err != nil {
		return 0
	}
	var c byte
	if c, h.err = h.z.byte(); h.err == nil {
		h.note(c)
	}
	return c
}

func (h *headerReader) text() {
	for range maxText {
		if h.byte() == 0 {
			return
		}
	}
	h.err = ErrHeader
}

// Read reads the member's bytes, and at its end compares their checksum and
// number; then it returns io.EOF.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.z.read(p)
	r.crc = crc32.Update(r.crc, crc32.IEEETable, p[:n])
	r.size += uint32(n)
	if err == io.EOF {
		err = r.trailer()
	}
	r.err = err
	return n, err
}

func (r *Reader) trailer() error {
	h := headerReader{z: &r.z}
	var v [2]uint32
	for i := range v {
		for n := range 4 {
			v[i] |= uint32(h.byte()) << (8 * n)
		}
	}
	switch {
	case h.err != nil:
		return h.err
	case v[0] != r.crc || v[1] != r.size:
		return ErrChecksum
	}
	return io.EOF
}

// Members reads all members of a file as one stream. What follows the last one
// and is no member, like the padding of tapes, is read and left out, as gzip(1)
// does.
type Members struct {
	src io.Reader
	r   *Reader
}

// maxGarbage is where reading what is left out ends: it may be endless.
const maxGarbage = 1 << 30

// NewMembers reads the first member's header.
func NewMembers(src io.Reader) (*Members, error) {
	m := &Members{src, NewReader(src)}
	return m, m.r.Next()
}

func (m *Members) Read(p []byte) (int, error) {
	for {
		n, err := m.r.Read(p)
		if n > 0 {
			return n, nil // an error is met again
		}
		if err != io.EOF {
			return 0, err
		}
		err = m.r.Next()
		if err == ErrHeader {
			// Whoever hashes or feeds the source goes at our pace.
			n, cerr := io.CopyN(io.Discard, m.src, maxGarbage)
			if err = cerr; n == maxGarbage {
				err = ErrHeader
			}
		}
		if err != nil {
			return 0, err
		}
	}
}
