package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"

	"tug/spec"
)

// A CRC-32C of the tar is kept beside its digest. It finds what disks and
// stray writes do to a file at the speed of reading it, where SHA-256 takes
// several times as long; against intent the digest is there, which verify and
// check compare.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Check reads the tar of l from f, by position, and compares it with its
// checksum, or with its digest where it has none. Corrupt if they differ.
func (l *Layer) Check(ctx context.Context, f *os.File) error {
	var h hash.Hash = sha256.New()
	if l.CRC32C != nil {
		h = crc32.New(castagnoli())
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < l.Size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), l.Size-off)], off)
		h.Write(buf[:n])
		off += int64(n)
		if errors.Is(err, io.EOF) {
			break // too short, or just the end
		}
		if err != nil {
			return err
		}
	}
	switch sum := h.Sum(nil); {
	case l.CRC32C == nil:
		if got := spec.DigestSum(sum); got != l.DiffID {
			return damaged(l.DiffID, "its tar has digest "+string(got))
		}
	case h.(hash.Hash32).Sum32() != *l.CRC32C:
		return damaged(l.DiffID, fmt.Sprintf("its tar has checksum %x instead of %08x", sum, *l.CRC32C))
	}
	return nil
}
