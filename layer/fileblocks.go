package layer

import (
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// fileBlocks is a blockSource over a tar that can be read anywhere.
type fileBlocks struct {
	f    io.ReaderAt
	size int64
	pos  int64 // of b
	b    []byte
	buf  []byte
}

func (s *fileBlocks) block() ([]byte, error) {
	if len(s.b) < blockSize {
		if err := s.fillUp(); err != nil {
			return nil, err
		}
	}
	b := s.b[:blockSize:blockSize]
	s.b, s.pos = s.b[blockSize:], s.pos+blockSize
	return b, nil
}

func (s *fileBlocks) fillUp() error {
	left := s.size - s.pos
	if left <= 0 {
		return io.EOF
	}
	if left < blockSize {
		return io.ErrUnexpectedEOF
	}
	if s.buf == nil {
		s.buf = make([]byte, 64<<10)
	}
	n := min(left/blockSize*blockSize, int64(len(s.buf)))
	m, err := s.f.ReadAt(s.buf[:n], s.pos)
	if int64(m) < n {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	s.b = s.buf[:n]
	return nil
}

func (s *fileBlocks) skip(n int64) error {
	if n > (s.size-s.pos)/blockSize {
		return io.ErrUnexpectedEOF
	}
	s.pos += n * blockSize
	s.b = s.b[min(n*blockSize, int64(len(s.b))):]
	return nil
}

// isThere reports whether a rename failed because the target exists.
func isThere(err error) bool {
	return errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY)
}
