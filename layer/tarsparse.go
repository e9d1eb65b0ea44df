package layer

import (
	"math"
	"strconv"
	"strings"
)

// segment is one piece of a file's data: n bytes at off in the file lie at
// data in the tar. What no segment covers reads as zeros.
type segment struct{ off, data, n int64 }

// sparse finds out whether e is a sparse file and fills e.sparse, in any of
// GNU tar's four encodings (GNU tar manual, "Storing Sparse Files"). It may
// consume blocks: the map of the old format follows the header, that of 1.0
// begins the data.
func (t *tarReader) sparse(e *entry, h header, p *paxSet) error {
	if e.typ == typeGNUSparse {
		return t.sparseOld(e, h)
	}
	major, minor := p.get(sparseMajor), p.get(sparseMinor)
	v0 := major == "0" && (minor == "0" || minor == "1") || major == "" && minor == "" && p.get(sparseMap) != ""
	v1 := major == "1" && minor == "0"
	if !v0 && !v1 {
		return nil
	}
	if !isRegular(e.typ) {
		return badEntry(e.name, "it is sparse but not a file")
	}
	if v := p.get(sparseName); v != "" {
		e.name = v
	}
	real := p.get(sparseSize)
	if real == "" {
		real = p.get(sparseRealSize)
	}
	if real != "" {
		n, err := strconv.ParseInt(real, 10, 64)
		if err != nil || n < 0 {
			return badEntry(e.name, "its sparse size %s is not a size", quote(real))
		}
		e.size = n
	}
	if v1 {
		return t.sparseInData(e)
	}
	var numbers []int64
	if m := p.get(sparseMap); m != "" {
		for v := range strings.SplitSeq(m, ",") {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return badEntry(e.name, "malformed sparse map")
			}
			numbers = append(numbers, n)
		}
	}
	if c := p.get(sparseCount); c != strconv.Itoa(len(numbers)/2) || len(numbers)%2 != 0 {
		return badEntry(e.name, "its sparse map does not have the number of pieces it claims")
	}
	return t.setSegments(e, numbers)
}

// sparseOld reads the map from the header and the blocks that continue it.
func (t *tarReader) sparseOld(e *entry, h header) error {
	if h.format() != formatGNU {
		return badEntry(e.name, "it is of GNU's sparse type in an archive that is not GNU's")
	}
	e.typ = typeReg
	real, ok := number(h[483:495])
	if !ok {
		return badEntry(e.name, "its sparse size is not a number")
	}
	e.size = real
	pieces, more := h[386:386+4*24], h[482] != 0
	var numbers []int64
	for {
		for ; len(pieces) > 0 && pieces[0] != 0; pieces = pieces[24:] {
			off, ok1 := number(pieces[:12])
			n, ok2 := number(pieces[12:24])
			if !ok1 || !ok2 {
				return badEntry(e.name, "malformed sparse map")
			}
			numbers = append(numbers, off, n)
		}
		if !more {
			return t.setSegments(e, numbers)
		}
		if len(numbers)/2 > t.limits.Segments {
			return t.tooManySegments(e)
		}
		b, err := t.block()
		if err != nil {
			return err
		}
		pieces, more = header(b[:21*24]), b[504] != 0
	}
}

// sparseInData reads the map of format 1.0: decimal numbers, one in a line,
// first how many pieces, then offset and length of each, padded to a block.
func (t *tarReader) sparseInData(e *entry) error {
	var numbers []int64
	want := int64(1)
	var cur int64
	digits := 0
	for done := int64(0); done < want; {
		if e.stored < blockSize {
			return badEntry(e.name, "its sparse map is longer than its data")
		}
		b, err := t.block()
		if err != nil {
			return err
		}
		e.stored -= blockSize
		for _, c := range b {
			if c >= '0' && c <= '9' && digits < 19 && cur <= (math.MaxInt64-9)/10 {
				cur, digits = cur*10+int64(c-'0'), digits+1
				continue
			}
			if c != '\n' || digits == 0 {
				return badEntry(e.name, "malformed sparse map")
			}
			if done == 0 {
				if cur > int64(t.limits.Segments) {
					return t.tooManySegments(e)
				}
				want += 2 * cur
			} else {
				numbers = append(numbers, cur)
			}
			cur, digits = 0, 0
			if done++; done == want {
				break
			}
		}
	}
	return t.setSegments(e, numbers)
}

// setSegments checks a map of offset, length pairs against the file's size and
// against the data there is. The data lies in the tar without gaps.
func (t *tarReader) setSegments(e *entry, numbers []int64) error {
	if t.segments += len(numbers) / 2; t.segments > t.limits.Segments {
		return t.tooManySegments(e)
	}
	if e.size < 0 {
		return badEntry(e.name, "its size is negative")
	}
	segs := make([]segment, 0, len(numbers)/2)
	var end, used int64
	for ; len(numbers) > 0; numbers = numbers[2:] {
		off, n := numbers[0], numbers[1]
		if n < 0 || off < end || off > e.size || n > e.size-off {
			return badEntry(e.name, "its sparse map goes backwards or beyond its size of %d bytes", e.size)
		}
		end = off + n
		if n > e.stored-used {
			return badEntry(e.name, "its sparse map claims more data than the %d bytes there are", e.stored)
		}
		if n > 0 {
			segs = append(segs, segment{off, t.pos + used, n})
		}
		used += n
	}
	if used != e.stored {
		return badEntry(e.name, "its sparse map leaves %d bytes of data unused", e.stored-used)
	}
	e.sparse = segs
	return nil
}

func (t *tarReader) tooManySegments(e *entry) error {
	return badEntry(e.name, "the layer's sparse files have more than %d pieces", t.limits.Segments)
}
