// Package deflate inflates gzip streams (RFC 1951, RFC 1952). Inflating is what
// a pull waits for, on machines with SHA instructions alone; this decoder takes
// about half the time of the libraries' (docs/decisions/0008-inflating.md).
//
// It only reads. What it accepts is what compress/gzip accepts, which is the
// oracle of its tests; the compressed data is hostile, and no input makes it
// read or write outside of its buffers, use more memory than those, or loop
// without either reading or making bytes.
package deflate

import (
	"encoding/binary"
	"errors"
	"io"
)

var (
	// ErrCorrupt is data that is not DEFLATE.
	ErrCorrupt = errors.New("deflate: invalid data")
	// ErrHeader is a gzip header that is none.
	ErrHeader = errors.New("gzip: invalid header")
	// ErrChecksum is a member whose bytes or length are not what it says.
	ErrChecksum = errors.New("gzip: invalid checksum")
)

const (
	inputSize  = 64 << 10
	window     = 32 << 10
	outputSize = 256 << 10
	// What one step of the fast loop may write beyond its beginning: three
	// literals, the longest match, and what is written behind it.
	stepOut = 3 + 258 + 16
	// What it may read: the bit buffer is filled twice, eight bytes at a time.
	stepIn = 16
)

// inflater decodes one DEFLATE stream after another. Bits are taken from the
// low end of bits; those above n are zero or the next of the input.
type inflater struct {
	src io.Reader
	err error // of src; io.EOF when it has ended
	bad error // of the stream; what was decoded before is handed out first

	in      []byte // in[ip:il] is not read yet
	ip, il  int
	bits    uint64
	n       uint // valid bits
	out     []byte
	op      int // end of what is decoded
	rp      int // end of what is handed out
	last    bool
	stored  int // bytes left of a stored block
	state   state
	pending int // bytes of a match that did not fit
	dist    int

	lit     [litSize]uint32
	dists   [distSize]uint32
	fixed   bool // the tables are the fixed ones
	lengths [maxLit + maxDist]uint8
}

type state byte

const (
	atHeader state = iota // of a block
	inStored
	inCodes
	atEnd
)

func (z *inflater) reset(src io.Reader) {
	z.src, z.err = src, nil
	if z.in == nil {
		z.in, z.out = make([]byte, inputSize), make([]byte, outputSize)
	}
	z.ip, z.il, z.bits, z.n = 0, 0, 0, 0
	z.begin()
}

// fixedTables makes the tables of RFC 1951, 3.2.6.
func (z *inflater) fixedTables() {
	var lengths [288]uint8
	for s := range lengths {
		switch {
		case s < 144:
			lengths[s] = 8
		case s < 256:
			lengths[s] = 9
		case s < 280:
			lengths[s] = 7
		default:
			lengths[s] = 8
		}
	}
	build(z.lit[:], litBits, lengths[:], litEntry)
	for s := range 32 {
		lengths[s] = 5
	}
	build(z.dists[:], distBits, lengths[:32], distEntry)
	z.fixed = true
}

// dynamicTables reads the tables of a block (RFC 1951, 3.2.7).
func (z *inflater) dynamicTables() error {
	z.fixed = false
	h, err := z.get(14)
	if err != nil {
		return err
	}
	lits, dists, codes := int(h&31)+257, int(h>>5&31)+1, int(h>>10)+4
	if lits > maxLit || dists > maxDist {
		return ErrCorrupt
	}
	lengths := z.lengths[:]
	clear(lengths[:19])
	for i := range codes {
		v, err := z.get(3)
		if err != nil {
			return err
		}
		lengths[codeOrder[i]] = uint8(v)
	}
	// The other table is not in use yet.
	table := z.dists[:1<<codeBits]
	if !build(table, codeBits, lengths[:19], codeEntry) {
		return ErrCorrupt
	}
	for i := 0; i < lits+dists; {
		// A repeat's entry has the least number of times as its value, and what
		// is repeated in the flags.
		e, n, err := z.symbol(table, codeBits)
		if err != nil {
			return err
		}
		v := uint8(0)
		switch {
		case e&isLiteral != 0:
			n, v = 1, uint8(n)
		case e&isEnd == 0:
		case i == 0:
			return ErrCorrupt
		default:
			v = lengths[i-1]
		}
		if i+n > lits+dists {
			return ErrCorrupt
		}
		for range n {
			lengths[i] = v
			i++
		}
	}
	if !build(z.lit[:], litBits, lengths[:lits], litEntry) || !build(z.dists[:], distBits, lengths[lits:lits+dists], distEntry) {
		return ErrCorrupt
	}
	return nil
}

// begin starts the next stream. The one before must not be referred to.
func (z *inflater) begin() {
	z.op, z.rp, z.last, z.stored, z.pending, z.state, z.bad = 0, 0, false, 0, 0, atHeader, nil
}

// more reads input. Bytes that are left move to the front.
func (z *inflater) more() error {
	if z.err != nil {
		return z.err
	}
	copy(z.in, z.in[z.ip:z.il])
	z.il -= z.ip
	z.ip = 0
	for range 100 {
		n, err := z.src.Read(z.in[z.il:])
		z.il += n
		z.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	z.err = io.ErrNoProgress
	return z.err
}

// need has at least n bits, up to 48, in the bit buffer.
func (z *inflater) need(n uint) error {
	for z.n < n {
		if z.ip == z.il {
			if err := z.more(); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		z.bits |= uint64(z.in[z.ip]) << z.n
		z.ip++
		z.n += 8
	}
	return nil
}

func (z *inflater) take(n uint) uint {
	v := uint(z.bits & (1<<n - 1))
	z.bits >>= n
	z.n -= n
	return v
}

func (z *inflater) get(n uint) (uint, error) {
	if err := z.need(n); err != nil {
		return 0, err
	}
	return z.take(n), nil
}

// byte returns the next whole byte; bits before it are dropped.
func (z *inflater) byte() (byte, error) {
	z.take(z.n & 7)
	v, err := z.get(8)
	return byte(v), err
}

// read fills p from the stream; io.EOF at its end.
func (z *inflater) read(p []byte) (int, error) {
	for z.rp == z.op {
		switch {
		case z.bad != nil:
			return 0, z.bad
		case z.state == atEnd:
			return 0, io.EOF
		}
		z.bad = z.fill()
	}
	n := copy(p, z.out[z.rp:z.op])
	z.rp += n
	return n, nil
}

// fill decodes until the output buffer is full or the stream ends. All of the
// buffer has been handed out.
func (z *inflater) fill() error {
	if z.op > window {
		copy(z.out, z.out[z.op-window:z.op])
		z.op, z.rp = window, window
	}
	for z.state != atEnd && z.op < len(z.out) {
		var err error
		switch z.state {
		case atHeader:
			err = z.header()
		case inStored:
			err = z.copyStored()
		case inCodes:
			err = z.codes()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// header begins a block.
func (z *inflater) header() error {
	if z.last {
		z.state = atEnd
		return nil
	}
	h, err := z.get(3)
	if err != nil {
		return err
	}
	z.last = h&1 != 0
	switch h >> 1 {
	case 0:
		return z.beginStored()
	case 1:
		if !z.fixed {
			z.fixedTables()
		}
	case 2:
		if err := z.dynamicTables(); err != nil {
			return err
		}
	default:
		return ErrCorrupt
	}
	z.state = inCodes
	return nil
}

func (z *inflater) beginStored() error {
	z.take(z.n & 7)
	v, err := z.get(32)
	if err != nil {
		return err
	}
	if v&0xffff != ^v>>16&0xffff {
		return ErrCorrupt
	}
	z.stored = int(v & 0xffff)
	z.state = inStored
	return nil
}

func (z *inflater) copyStored() error {
	for z.stored > 0 && z.op < len(z.out) {
		if z.n > 0 { // whole bytes that are in the bit buffer already
			z.out[z.op] = byte(z.take(8))
			z.op++
			z.stored--
			continue
		}
		if z.ip == z.il {
			if err := z.more(); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		n := copy(z.out[z.op:], z.in[z.ip:min(z.il, z.ip+z.stored)])
		z.ip += n
		z.op += n
		z.stored -= n
	}
	if z.stored == 0 {
		z.state = atHeader
	}
	return nil
}

// codes decodes a block of symbols: fast while there is room and input for any
// step, then with care.
func (z *inflater) codes() error {
	for z.op < len(z.out) && z.state == inCodes {
		if z.pending > 0 {
			z.copyPending()
			continue
		}
		if z.il-z.ip >= stepIn && len(z.out)-z.op >= stepOut {
			if err := z.fast(); err != nil {
				return err
			}
			continue
		}
		if err := z.slow(); err != nil {
			return err
		}
	}
	return nil
}

// slow decodes one symbol, and input is read byte by byte as it is needed: the
// stream may end behind any of them.
func (z *inflater) slow() error {
	e, v, err := z.symbol(z.lit[:], litBits)
	if err != nil {
		return err
	}
	switch {
	case e&isLiteral != 0:
		z.out[z.op] = byte(v)
		z.op++
		return nil
	case e&isEnd != 0:
		z.state = atHeader
		return nil
	}
	length := v
	if _, z.dist, err = z.symbol(z.dists[:], distBits); err != nil {
		return err
	}
	if z.dist > z.op {
		return ErrCorrupt
	}
	z.pending = length
	return nil
}

// symbol decodes one code of a table with its extra bits, taking no more bits
// than it has, and returns its entry and value.
func (z *inflater) symbol(table []uint32, primary uint) (e uint32, value int, err error) {
	for {
		e = table[z.bits&(1<<primary-1)]
		if e&isSub != 0 {
			e = table[uint(e>>valueShift)+uint(z.bits>>primary)&(1<<(e>>lengthShift&lengthMask)-1)]
		}
		// Bits that are not there yet are zeros; an entry whose code needs no
		// more than there are is the right one all the same.
		n := uint(e >> lengthShift & lengthMask)
		switch {
		case n != 0 && n <= z.n:
			total := uint(e & totalMask)
			if err := z.need(total); err != nil {
				return 0, 0, err
			}
			return e, int(e>>valueShift) + int(z.take(total)>>n), nil
		case z.n >= maxCode:
			return 0, 0, ErrCorrupt
		}
		if err := z.need(z.n + 1); err != nil {
			return 0, 0, err
		}
	}
}

func (z *inflater) copyPending() {
	n := min(z.pending, len(z.out)-z.op)
	for range n {
		z.out[z.op] = z.out[z.op-z.dist]
		z.op++
	}
	z.pending -= n
}

// fast decodes symbols while each step is sure to have room and input.
func (z *inflater) fast() error {
	in, ip := z.in[:z.il], z.ip
	out, op := z.out, z.op
	bits, n := z.bits, z.n
	lit, dists := &z.lit, &z.dists
	lastIn, lastOut := len(in)-stepIn, len(out)-stepOut
	var err error
	for ip <= lastIn && op <= lastOut {
		bits |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
		ip += int((63 - n) >> 3 & 7)
		n |= 56

		e := lit[bits&(1<<litBits-1)]
		if e&isLiteral != 0 {
			bits >>= e & totalMask
			n -= uint(e & totalMask)
			out[op] = byte(e >> valueShift)
			op++
			e = lit[bits&(1<<litBits-1)]
			if e&isLiteral != 0 {
				bits >>= e & totalMask
				n -= uint(e & totalMask)
				out[op] = byte(e >> valueShift)
				op++
				// Two literals of the first table took at most 22 bits of 56.
				e = lit[bits&(1<<litBits-1)]
				if e&isLiteral != 0 {
					bits >>= e & totalMask
					n -= uint(e & totalMask)
					out[op] = byte(e >> valueShift)
					op++
					continue
				}
			}
			bits |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
			ip += int((63 - n) >> 3 & 7)
			n |= 56
		}
		if e&(isSub|isEnd) != 0 || e == 0 {
			if e&isSub != 0 {
				e = lit[(uint(e>>valueShift)+uint(bits>>litBits)&(1<<(e>>lengthShift&lengthMask)-1))%litSize]
			}
			if e == 0 {
				err = ErrCorrupt
				break
			}
			if e&(isLiteral|isEnd) != 0 {
				bits >>= e & totalMask
				n -= uint(e & totalMask)
				if e&isEnd != 0 {
					z.state = atHeader
					break
				}
				out[op] = byte(e >> valueShift)
				op++
				continue
			}
		}
		// At most 48 bits from here: 15 and 5 extra, 15 and 13 extra.
		length := int(e>>valueShift) + int(bits&(1<<(e&totalMask)-1)>>(e>>lengthShift&lengthMask))
		bits >>= e & totalMask
		n -= uint(e & totalMask)

		d := dists[bits&(1<<distBits-1)]
		if d&isSub != 0 {
			d = dists[(uint(d>>valueShift)+uint(bits>>distBits)&(1<<(d>>lengthShift&lengthMask)-1))%distSize]
		}
		dist := int(d>>valueShift) + int(bits&(1<<(d&totalMask)-1)>>(d>>lengthShift&lengthMask))
		bits >>= d & totalMask
		n -= uint(d & totalMask)
		if dist > op || d == 0 {
			err = ErrCorrupt
			break
		}
		from := op - dist
		switch {
		case dist >= 8:
			// Eight at a time; what is written beyond the end is written over.
			// Most matches end within the first sixteen.
			a, b := out[op:op+stepOut-3], out[from:]
			binary.LittleEndian.PutUint64(a, binary.LittleEndian.Uint64(b))
			binary.LittleEndian.PutUint64(a[8:], binary.LittleEndian.Uint64(b[8:]))
			for i := 16; i < length; i += 8 {
				binary.LittleEndian.PutUint64(a[i:], binary.LittleEndian.Uint64(b[i:]))
			}
		case dist == 1:
			v := uint64(out[from]) * 0x0101010101010101
			for i := 0; i < length; i += 8 {
				binary.LittleEndian.PutUint64(out[op+i:], v)
			}
		default:
			for i := range length {
				out[op+i] = out[from+i]
			}
		}
		op += length
	}
	z.giveBack(ip, op, bits, n)
	return err
}

// giveBack ends fast: whole bytes that were read too early go back.
func (z *inflater) giveBack(ip, op int, bits uint64, n uint) {
	z.ip, z.op, z.n = ip-int(n>>3), op, n&7
	z.bits = bits & (1<<z.n - 1)
}
