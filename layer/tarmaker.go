package layer

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// tarMaker writes the members of a tar: pax headers for all that a ustar header
// might not hold, sparse files in GNU's format 1.0. The same files give the same
// bytes.
type tarMaker struct {
	w   io.Writer
	err error
}

// member writes one file called path, as a hard link to another member when
// link is set. Its data is read from tar.
func (m *tarMaker) member(path string, i *inode, link string, tar io.ReaderAt) error {
	if path == "" {
		path = "./"
	}
	var p strings.Builder
	record(&p, "path", path)
	if link != "" {
		record(&p, "linkpath", link)
		m.headers(p.String(), typeLink, &inode{})
		return m.err
	}
	record(&p, "uid", strconv.FormatUint(uint64(i.uid), 10))
	record(&p, "gid", strconv.FormatUint(uint64(i.gid), 10))
	record(&p, "mtime", paxSeconds(i.mtime, i.nsec))
	for _, x := range i.xattrs() {
		if !strings.HasPrefix(x.name, overlayXattrs) {
			record(&p, xattrKey+x.name, x.value)
		}
	}
	typ := byte(typeReg)
	switch i.kind() {
	case kindDir:
		typ = typeDir
	case kindSymlink:
		typ = typeSymlink
		record(&p, "linkpath", i.target())
	case kindChar:
		typ = typeChar
	case kindBlock:
		typ = typeBlock
	case kindFifo:
		typ = typeFifo
	default:
		m.file(&p, path, i, tar)
		return m.err
	}
	m.headers(p.String(), typ, i)
	return m.err
}

func (m *tarMaker) file(p *strings.Builder, path string, i *inode, tar io.ReaderAt) {
	segs, sparse := i.sparse()
	stored, list := i.size, ""
	if sparse {
		list, stored = sparseList(segs)
		record(p, "GNU.sparse.major", "1")
		record(p, "GNU.sparse.minor", "0")
		record(p, "GNU.sparse.name", path)
		record(p, "GNU.sparse.realsize", strconv.FormatInt(i.size, 10))
	} else {
		segs = []segment{{0, i.data, i.size}}
	}
	record(p, "size", strconv.FormatInt(stored, 10))
	m.headers(p.String(), typeReg, i)
	m.write([]byte(list))
	for _, g := range segs {
		if m.err == nil {
			var n int64
			n, m.err = io.Copy(m.w, io.NewSectionReader(tar, g.data, g.n))
			if m.err == nil && n < g.n {
				m.err = io.ErrUnexpectedEOF
			}
		}
	}
	m.pad(stored)
}

// sparseList returns the map of a sparse file, in whole blocks, and the size of
// map and data.
func sparseList(segs []segment) (list string, stored int64) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", len(segs))
	for _, g := range segs {
		fmt.Fprintf(&b, "%d\n%d\n", g.off, g.n)
		stored += g.n
	}
	b.Write(zeros[:-b.Len()&(blockSize-1)])
	return b.String(), stored + int64(b.Len())
}

// record appends "LEN KEY=VALUE\n", where LEN counts itself.
func record(b *strings.Builder, key, value string) {
	rest := len(key) + len(value) + 3
	n := rest + 1
	for n != rest+len(strconv.Itoa(n)) {
		n = rest + len(strconv.Itoa(n))
	}
	fmt.Fprintf(b, "%d %s=%s\n", n, key, value)
}

// paxSeconds is the inverse of paxTime.
func paxSeconds(sec int64, nsec uint32) string {
	sign := ""
	if sec < 0 && nsec > 0 {
		sec, nsec = sec+1, 1e9-nsec
		if sec == 0 {
			sign = "-"
		}
	}
	s := sign + strconv.FormatInt(sec, 10)
	if nsec > 0 {
		s += fmt.Sprintf(".%09d", nsec)
	}
	return s
}

// headers writes an extended header with these records and the member's own.
func (m *tarMaker) headers(records string, typ byte, i *inode) {
	m.header("pax", typePax, int64(len(records)), &inode{})
	m.write([]byte(records))
	m.pad(int64(len(records)))
	m.header("member", typ, 0, i)
}

func (m *tarMaker) header(name string, typ byte, size int64, i *inode) {
	h := make([]byte, blockSize)
	copy(h, name)
	put := func(at, digits int, n int64) { copy(h[at:], fmt.Sprintf("%0*o", digits, n)) }
	put(100, 7, int64(i.mode&0o7777))
	put(108, 7, 0)
	put(116, 7, 0)
	put(124, 11, size)
	put(136, 11, 0)
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	put(329, 7, int64(i.rdev>>8&0xfff))
	put(337, 7, int64(i.rdev&0xff|i.rdev>>12&0xfff00))
	sum := int64(8 * ' ')
	for _, c := range h {
		sum += int64(c)
	}
	put(148, 6, sum)
	h[155] = ' '
	m.write(h)
}

func (m *tarMaker) write(b []byte) {
	if m.err == nil && len(b) > 0 {
		_, m.err = m.w.Write(b)
	}
}

// pad fills up the last block of n bytes.
func (m *tarMaker) pad(n int64) { m.write(zeros[:-n&(blockSize-1)]) }

// end writes the end of the archive.
func (m *tarMaker) end() error {
	m.write(zeros[:])
	m.write(zeros[:])
	return m.err
}
