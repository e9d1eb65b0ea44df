package layer

import (
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"

	"tug/errs"
	"tug/layer/deflate"
	"tug/spec"
)

type compression int

const (
	plainTar compression = iota
	gzipped
	zstandard
	bzipped
	xzipped
)

func (c compression) mediaType() string {
	switch c {
	case gzipped:
		return spec.TypeOCILayerGzip
	case zstandard:
		return spec.TypeOCILayerZstd
	}
	return spec.TypeOCILayer
}

// registry reports whether registries take layers compressed like that, so that
// the form is worth remembering. bzip2 and xz come from archives alone.
func (c compression) registry() bool { return c != bzipped && c != xzipped }

// detect tells the compression by the first bytes, of which there may be few.
// Media types and file names are not asked: archives lie about both.
func detect(b []byte) compression {
	has := func(magic string) bool { return bytes.HasPrefix(b, []byte(magic)) }
	switch {
	case has("\x1f\x8b"):
		return gzipped
	case has("\x28\xb5\x2f\xfd"), len(b) >= 4 && b[0]&0xf0 == 0x50 && has(string(b[0])+"\x2a\x4d\x18"):
		return zstandard
	case has("BZh"):
		return bzipped
	case has(xzMagic):
		return xzipped
	}
	return plainTar
}

// inflater returns a reader of the uncompressed bytes of r, and what frees it.
func inflater(c compression, r io.Reader) (io.Reader, func(), error) {
	switch c {
	case gzipped:
		z, err := deflate.NewMembers(r)
		return errReader{z}, func() {}, inflateError(err)
	case zstandard:
		// A window of 128 MiB is what `zstd --long` makes and its decoder
		// accepts by default.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, inflateError(err)
		}
		return errReader{z}, z.Close, nil
	case bzipped:
		return errReader{bzip2.NewReader(r)}, func() {}, nil
	case xzipped:
		return errReader{NewXZ(r)}, func() {}, nil
	}
	return r, func() {}, nil
}

// errReader gives a decompressor's errors their class.
type errReader struct{ r io.Reader }

func (e errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	return n, inflateError(err)
}

func inflateError(err error) error {
	var e *errs.Error
	switch {
	case err == nil, err == io.EOF, errors.As(err, &e):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errs.New(errs.Corrupt, "the layer's compressed data ends in the middle")
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return errs.New(errs.Unsupported, "the layer's zstd data needs a window of more than 128 MiB").
			WithHint("recompress it without --ultra or --long")
	}
	// An error of the stream below has stopped the flow already, and the first
	// error is the one that counts; so what is left is the data's own fault.
	return errs.New(errs.Corrupt, "the layer's compressed data is damaged: %w", err)
}
