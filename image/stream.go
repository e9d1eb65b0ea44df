package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"tug/errs"
	"tug/layer"
	"tug/layer/deflate"
)

// plain is an archive without its compression.
type plain struct {
	io.Reader
	packed bool // and so has checksums
	close  func()
}

// Inflate undoes the compression of an archive as a whole, should it have one.
func Inflate(r io.Reader) (io.ReadCloser, error) {
	p, err := inflate(r)
	if err != nil {
		return nil, err
	}
	return inflated{p}, nil
}

type inflated struct{ *plain }

func (i inflated) Close() error { i.close(); return nil }

// inflate undoes the compression of the archive as a whole.
func inflate(r io.Reader) (*plain, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, archiveError(err)
	}
	switch {
	case isGzip(head):
		z, err := deflate.NewMembers(br)
		if err != nil {
			return nil, archiveError(err)
		}
		return &plain{z, true, func() {}}, nil
	case isZstd(head):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, archiveError(err)
		}
		return &plain{z, true, z.Close}, nil
	case len(head) == 0:
		return nil, errs.New(errs.Invalid, "the archive is empty")
	case isBzip2(head):
		return &plain{bzip2.NewReader(br), true, func() {}}, nil
	case isXZ(head):
		return &plain{layer.NewXZ(br), true, func() {}}, nil
	}
	return &plain{br, false, func() {}}, nil
}

func isBzip2(b []byte) bool { return bytes.HasPrefix(b, []byte("BZh")) }
func isXZ(b []byte) bool    { return bytes.HasPrefix(b, []byte("\xfd7zX")) }
func isGzip(b []byte) bool  { return bytes.HasPrefix(b, []byte("\x1f\x8b")) }

// isZstd knows the skippable frame as well that parallel compressors begin with.
func isZstd(b []byte) bool {
	return bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")) || len(b) >= 4 && b[0]&0xf0 == 0x50 && string(b[1:4]) == "\x2a\x4d\x18"
}

// isTar reports whether b begins with a tar header or is the end of one: an
// empty tar is zeros only.
func isTar(b []byte) bool {
	if len(b) < 512 {
		return false
	}
	sum, zero := 0, true
	for i, c := range b[:512] {
		zero = zero && c == 0
		if i >= 148 && i < 156 {
			c = ' ' // the checksum field counts as spaces
		}
		sum += int(c)
	}
	if zero {
		return true
	}
	var want int
	_, err := fmt.Sscanf(string(bytes.Trim(b[148:156], " \x00")), "%o", &want)
	return err == nil && want == sum
}

// drain reads what follows the end of the tar. Of a compressed archive that is
// where the last checksum is compared, so the end must be reached; r reads
// from a. Of a plain one nobody says what it must be: tar pads with zeros, and
// devices are larger than what was written on them. It is read, to a limit, for
// whoever writes into the other end of a pipe.
func (a *plain) drain(r io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, maxTrailer+1))
	switch {
	case err != nil:
		return archiveError(err)
	case a.packed && n > maxTrailer:
		return errs.New(errs.Invalid, "more than %d MiB follow the end of the archive", maxTrailer>>20).WithHint("make it again")
	}
	return nil
}

// archiveError is for failures to read the archive as such.
func archiveError(err error) error {
	var sys interface{ Timeout() bool } // an errno in a PathError
	if errors.As(err, &sys) {
		return fmt.Errorf("read archive: %w", err)
	}
	var classed *errs.Error
	if errors.As(err, &classed) {
		return fmt.Errorf("read archive: %w", err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.New(errs.Corrupt, "read archive: it is cut short").WithHint("make or copy it again")
	}
	return errs.New(errs.Corrupt, "read archive: %w", err).WithHint("make or copy it again")
}

// archiveReader ends with ctx, and remembers that the archive itself failed.
type archiveReader struct {
	ctx context.Context
	r   io.Reader
}

func (a *archiveReader) Read(p []byte) (int, error) {
	if err := a.ctx.Err(); err != nil {
		return 0, err
	}
	return a.r.Read(p)
}
