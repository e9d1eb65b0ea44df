package layer

import (
	"errors"
	"io"
	"math"

	"tug/errs"
)

// blockSource delivers a tar in 512-byte blocks.
type blockSource interface {
	// block returns the next block, valid until the next call. io.EOF: the
	// stream ended before it; io.ErrUnexpectedEOF: within it.
	block() ([]byte, error)
	// skip passes over n blocks; io.ErrUnexpectedEOF when there are fewer.
	skip(n int64) error
}

// entry is one member of a tar.
type entry struct {
	name, link   string
	typ          byte // typeReg for all kinds of files
	mode         uint16
	uid, gid     int64
	size         int64 // of the file as seen, holes included
	mtime        int64
	nsec         uint32
	major, minor int64
	xattrs       []xattr
	data         int64     // where the data starts in the tar
	stored       int64     // bytes of data in the tar
	sparse       []segment // nil: the data is the file
}

func isRegular(typ byte) bool { return typ == typeReg || typ == typeRegOld || typ == typeCont }

// tarReader reads members of v7, ustar, pax, GNU and star archives, and tells
// where in the tar their data lies. It accepts what archive/tar accepts, with
// these differences: global pax headers count; the last member's padding must
// be there, because a member's data is later read in whole blocks.
type tarReader struct {
	src      blockSource
	limits   *Limits
	pos      int64 // bytes consumed
	rest     int64 // bytes of the current member's data, with padding, not yet passed
	entries  int
	segments int
	global   *paxSet
	last     string // name of the current member, for messages
}

func (t *tarReader) block() ([]byte, error) {
	b, err := t.src.block()
	if err != nil {
		return nil, t.truncated(err)
	}
	t.pos += blockSize
	return b, nil
}

func (t *tarReader) truncated(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if t.last == "" {
		return errs.New(errs.Corrupt, "the tar ends in the middle, after %d bytes", t.pos)
	}
	return errs.New(errs.Corrupt, "the tar ends in the middle, after %d bytes, at entry %s", t.pos, quote(t.last))
}

// skip passes over the rest of the current member.
func (t *tarReader) skip() error {
	n := t.rest
	t.rest = 0
	if err := t.src.skip(n / blockSize); err != nil {
		return t.truncated(err)
	}
	t.pos += n
	return nil
}

// next returns the next member, and io.EOF at the archive's end. What follows
// the end marker is not looked at.
func (t *tarReader) next() (*entry, error) {
	var local *paxSet
	var longName, longLink string
	for {
		if err := t.skip(); err != nil {
			return nil, err
		}
		h, err := t.header()
		if err != nil {
			return nil, err
		}
		switch h[156] {
		case typePax, typePaxGlobal, typeGNUName, typeGNULink:
			kind := h[156]
			body, err := t.special(h)
			if err != nil {
				return nil, err
			}
			switch kind {
			case typePax:
				local = &paxSet{}
				err = local.parse(body)
			case typePaxGlobal:
				g := (&paxSet{}).over(t.global)
				err = g.parse(body)
				t.global = g
			case typeGNUName:
				longName = cutNUL(body)
			case typeGNULink:
				longLink = cutNUL(body)
			}
			if err != nil {
				return nil, err
			}
		default:
			return t.member(h, local.over(t.global), longName, longLink)
		}
	}
}

// header returns the next header; io.EOF at the end marker of two zero blocks,
// or where the stream ends between two members.
func (t *tarReader) header() (header, error) {
	b, err := t.src.block()
	if err == io.EOF {
		return nil, io.EOF
	}
	if err != nil {
		return nil, t.truncated(err)
	}
	t.pos += blockSize
	if isZero(b) {
		b, err = t.src.block()
		if err == io.EOF || err == nil && isZero(b) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, t.truncated(err)
		}
		return nil, errs.New(errs.Invalid, "the tar has an empty header at byte %d", t.pos-blockSize)
	}
	h := header(b)
	if !h.sumOK() {
		return nil, errs.New(errs.Invalid, "no tar header at byte %d (wrong checksum)", t.pos-blockSize)
	}
	return h, nil
}

// special reads the data of an extended header or long name.
func (t *tarReader) special(h header) (string, error) {
	if err := h.fields(&entry{}); err != nil {
		return "", err
	}
	n, ok := number(h[124:136])
	if !ok || n < 0 || n > maxSpecial {
		return "", errs.New(errs.Invalid, "extended tar header at byte %d: its size is not between 0 and %d", t.pos-blockSize, maxSpecial)
	}
	body := make([]byte, 0, (n+blockSize-1)/blockSize*blockSize)
	for int64(len(body)) < n {
		b, err := t.block()
		if err != nil {
			return "", err
		}
		body = append(body, b...)
	}
	return string(body[:n]), nil
}

// member completes the description of a member from its header h, the extended
// records and the long names before it.
func (t *tarReader) member(h header, p *paxSet, longName, longLink string) (*entry, error) {
	if t.entries++; t.entries > t.limits.Entries {
		return nil, t.limits.tooMany("the tar has")
	}
	e := &entry{}
	if err := h.fields(e); err != nil {
		return nil, err
	}
	if err := p.apply(e); err != nil {
		return nil, err
	}
	if longName != "" {
		e.name = longName
	}
	if longLink != "" {
		e.link = longLink
	}
	t.last = e.name
	if e.size < 0 || e.size > math.MaxInt64-blockSize {
		return nil, badEntry(e.name, "its size of %d bytes is impossible", e.size)
	}
	if e.typ == typeRegOld && len(e.name) > 0 && e.name[len(e.name)-1] == '/' {
		e.typ = typeDir // before ustar, a slash made a directory
	}
	if isRegular(e.typ) || e.typ == typeGNUSparse {
		e.stored = e.size
	}
	if isRegular(e.typ) {
		e.typ = typeReg
	}
	if err := t.sparse(e, h, p); err != nil {
		return nil, err
	}
	if e.typ == typeDir {
		e.size = 0
	}
	e.data = t.pos
	t.rest = (e.stored + blockSize - 1) / blockSize * blockSize
	return e, nil
}

func cutNUL(s string) string { return text([]byte(s)) }
