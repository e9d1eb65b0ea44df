package layer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"tug/errs"
)

// NewXZ returns a reader of the uncompressed bytes of the .xz file r: streams,
// blocks and their checks (xz file format 1.2.1), with the one filter that
// archives have, LZMA2. The format is read here because the library would make
// a dictionary of any size that a header names, up to 4 GiB, before a byte of
// data is there.
func NewXZ(r io.Reader) io.Reader {
	return &xzReader{in: &xzInput{r: bufio.NewReaderSize(r, 64<<10)}}
}

const (
	xzMagic   = "\xfd7zXZ\x00"
	xzFooter  = "YZ"
	maxXZDict = 128 << 20 // xz -9 has 64 MiB
	xzFilter  = 0x21      // LZMA2
)

var errXZ = errors.New("xz: data is damaged")

// xzInput counts what is read, and adds it to a checksum where one is set.
type xzInput struct {
	r   *bufio.Reader
	n   int64
	crc hash.Hash32
}

func (x *xzInput) Read(p []byte) (int, error) {
	n, err := x.r.Read(p)
	x.n += int64(n)
	if x.crc != nil {
		x.crc.Write(p[:n])
	}
	return n, err
}

func (x *xzInput) full(p []byte) error {
	if _, err := io.ReadFull(x, p); err == io.EOF {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	return nil
}

// number reads one of the format's variable-length integers.
func (x *xzInput) number() (int64, error) {
	var v uint64
	var b [1]byte
	for shift := 0; shift < 63; shift += 7 {
		if err := x.full(b[:]); err != nil {
			return 0, err
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			if b[0] == 0 && shift > 0 {
				return 0, errXZ
			}
			return int64(v), nil
		}
	}
	return 0, errXZ
}

type xzReader struct {
	in     *xzInput
	began  bool // a stream has
	flags  [2]byte
	block  *xzBlock // nil between blocks
	blocks int64    // of this stream, and their sizes
	sizes  [2]int64
	err    error
}

// xzBlock is the block that is being read.
type xzBlock struct {
	data             io.Reader
	check            hash.Hash // nil: of a kind that is not known
	checkSize        int
	start            int64 // of its header, in the input
	dataStart        int64
	packed, unpacked int64 // as the header says; -1: it does not
	n                int64 // bytes so far
}

func (z *xzReader) Read(p []byte) (int, error) {
	for z.err == nil && len(p) > 0 {
		if z.block == nil {
			z.err = z.next()
			continue
		}
		n, err := z.block.data.Read(p)
		z.block.n += int64(n)
		if z.block.check != nil {
			z.block.check.Write(p[:n])
		}
		switch {
		case err == io.EOF:
			z.err = z.endBlock()
		case err != nil:
			z.err = err
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, z.err
}

// next reads up to the data of the next block; io.EOF behind the last stream.
func (z *xzReader) next() error {
	if !z.began {
		return z.beginStream()
	}
	start := z.in.n
	var size [1]byte
	if err := z.in.full(size[:]); err != nil {
		return err
	}
	if size[0] == 0 {
		return z.endStream()
	}
	head := make([]byte, (int(size[0])+1)*4)
	head[0] = size[0]
	if err := z.in.full(head[1:]); err != nil {
		return err
	}
	body := head[:len(head)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(head[len(body):]) {
		return errXZ
	}
	b := &xzBlock{start: start, dataStart: z.in.n, packed: -1, unpacked: -1}
	dict, err := b.parse(body[1:])
	if err != nil {
		return err
	}
	b.setCheck(z.flags[1])
	data, err := lzma.Reader2Config{DictCap: dict}.NewReader2(z.in)
	if err != nil {
		return err
	}
	b.data, z.block = data, b
	return nil
}

// parse reads a block's header behind its size and returns the size of the
// dictionary.
func (b *xzBlock) parse(h []byte) (dict int, err error) {
	flags := h[0]
	in := &xzInput{r: bufio.NewReader(bytes.NewReader(h[1:]))}
	if flags&0x3c != 0 {
		return 0, errXZ
	}
	for _, f := range []struct {
		bit byte
		to  *int64
	}{{0x40, &b.packed}, {0x80, &b.unpacked}} {
		if flags&f.bit != 0 {
			if *f.to, err = in.number(); err != nil {
				return 0, errXZ
			}
		}
	}
	id, err := in.number()
	if err != nil {
		return 0, errXZ
	}
	if id != xzFilter || flags&3 != 0 {
		return 0, errs.New(errs.Unsupported, "xz: a filter other than LZMA2 is used").WithHint("compress it with plain xz")
	}
	var props [2]byte
	if in.full(props[:]) != nil || props[0] != 1 || props[1] > 40 {
		return 0, errXZ
	}
	size := int64(2|props[1]&1) << (props[1]/2 + 11)
	if size > maxXZDict {
		return 0, errs.New(errs.Unsupported, "xz: it needs a dictionary of %d MiB, more than %d", size>>20, maxXZDict>>20).
			WithHint("compress it again with xz -9 or less")
	}
	rest, err := io.ReadAll(in)
	if err != nil || len(bytes.Trim(rest, "\x00")) > 0 {
		return 0, errXZ
	}
	return int(size), nil
}

func (b *xzBlock) setCheck(kind byte) {
	switch kind {
	case 1:
		b.check = crc32.NewIEEE()
	case 4:
		b.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		b.check = sha256.New()
	}
	if kind > 0 {
		b.checkSize = 4 << ((kind - 1) / 3)
	}
}

// endBlock compares what the block was with what its header and check say.
func (z *xzReader) endBlock() error {
	b := z.block
	z.block = nil
	packed := z.in.n - b.dataStart
	if b.packed >= 0 && b.packed != packed || b.unpacked >= 0 && b.unpacked != b.n {
		return errXZ
	}
	if err := z.padding(packed); err != nil {
		return err
	}
	sum := make([]byte, b.checkSize)
	if err := z.in.full(sum); err != nil {
		return err
	}
	if b.check != nil {
		got := b.check.Sum(nil)
		if len(got) < 32 { // CRCs are little-endian in the file
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		if !bytes.Equal(got, sum) {
			return errXZ
		}
	}
	z.blocks++
	z.sizes[0] += b.dataStart - b.start + packed + int64(b.checkSize)
	z.sizes[1] += b.n
	return nil
}

// padding reads the zeros up to the next multiple of four.
func (z *xzReader) padding(n int64) error {
	pad := make([]byte, -n&3)
	if err := z.in.full(pad); err != nil {
		return err
	}
	if len(bytes.Trim(pad, "\x00")) > 0 {
		return errXZ
	}
	return nil
}

// beginStream reads a stream's header, or finds that none follows.
func (z *xzReader) beginStream() error {
	var h [12]byte
	if err := z.in.full(h[:]); err != nil {
		return err
	}
	if string(h[:6]) != xzMagic || h[6] != 0 || h[7] > 15 || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return errXZ
	}
	z.began, z.flags = true, [2]byte{h[6], h[7]}
	z.blocks, z.sizes = 0, [2]int64{}
	return nil
}

// endStream reads the index, whose first byte is read, and the footer, and what
// may follow: padding and further streams.
func (z *xzReader) endStream() error {
	z.in.crc = crc32.NewIEEE()
	z.in.crc.Write([]byte{0})
	start := z.in.n - 1
	count, err := z.in.number()
	if err != nil {
		return err
	}
	if count != z.blocks {
		return errXZ
	}
	var sums [2]int64
	for range count {
		for k := range sums {
			n, err := z.in.number()
			if err != nil {
				return err
			}
			if sums[k] += n; n < 0 || sums[k] < 0 {
				return errXZ
			}
		}
	}
	if sums != z.sizes {
		return errXZ
	}
	if err := z.padding(z.in.n - start); err != nil {
		return err
	}
	want := z.in.crc.Sum32()
	z.in.crc = nil
	size := z.in.n - start + 4
	var f [16]byte
	if err := z.in.full(f[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(f[:]) != want || crc32.ChecksumIEEE(f[8:14]) != binary.LittleEndian.Uint32(f[4:]) ||
		(int64(binary.LittleEndian.Uint32(f[8:]))+1)*4 != size || [2]byte(f[12:14]) != z.flags || string(f[14:]) != xzFooter {
		return errXZ
	}
	z.began, z.flags = false, [2]byte{}
	return z.between()
}

// between skips the padding behind a stream.
func (z *xzReader) between() error {
	for {
		head, err := z.in.r.Peek(4)
		switch {
		case err == io.EOF && len(head) == 0:
			return io.EOF
		case err == io.EOF:
			return errXZ
		case err != nil:
			return err
		case string(head) != "\x00\x00\x00\x00":
			return nil
		}
		z.in.r.Discard(4)
	}
}
