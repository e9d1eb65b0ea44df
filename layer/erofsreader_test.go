package layer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// erofsImage reads what writeIndex writes, strictly: it shares no code with the
// writer and complains about everything the kernel would.
type erofsImage struct {
	b   []byte
	tar []byte
	err error
	ids map[uint64]bool
}

type erofsFile struct {
	nid      uint64
	mode     uint16
	uid, gid uint32
	size     uint64
	mtime    int64
	nsec     uint32
	nlink    uint32
	rdev     uint32
	xattrs   map[string]string
	content  string // of files and symlinks
	names    []string
}

func (m *erofsImage) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf(format, args...)
	}
}

func (m *erofsImage) at(off, n int64) []byte {
	if off < 0 || n < 0 || off+n > int64(len(m.b)) {
		m.fail("bytes %d+%d are outside the image of %d", off, n, len(m.b))
		return make([]byte, min(max(n, 0), 1<<20))
	}
	return m.b[off : off+n]
}

// readImage returns all files by path ("" is the root).
func readImage(image, tar []byte) (map[string]*erofsFile, error) {
	m := &erofsImage{b: image, tar: tar, ids: make(map[uint64]bool)}
	le := binary.LittleEndian
	sb := bytes.Clone(m.at(1024, 512))
	if le.Uint32(sb) != 0xE0F5E1E2 || sb[12] != 9 || le.Uint32(sb[80:]) != 12 || le.Uint32(sb[8:]) != 2 {
		return nil, fmt.Errorf("bad superblock % x", sb[:128])
	}
	if int64(le.Uint32(sb[36:]))*512 != int64(len(image)) {
		return nil, fmt.Errorf("superblock says %d blocks, image has %d bytes", le.Uint32(sb[36:]), len(image))
	}
	if le.Uint16(sb[86:]) != 1 || le.Uint16(sb[88:]) != 9 || le.Uint32(sb[128+64:]) != uint32(len(tar)/512) {
		return nil, fmt.Errorf("bad device table")
	}
	out := make(map[string]*erofsFile)
	root := uint64(le.Uint16(sb[14:]))
	m.walk("", root, root, out, map[uint64]*erofsFile{}, 0)
	if m.err == nil && le.Uint64(sb[16:]) != uint64(len(m.ids)) {
		m.fail("superblock says %d inodes, found %d", le.Uint64(sb[16:]), len(m.ids))
	}
	return out, m.err
}

func (m *erofsImage) walk(path string, nid, parent uint64, out map[string]*erofsFile, byID map[uint64]*erofsFile, depth int) {
	if m.err != nil {
		return
	}
	f := byID[nid]
	if f == nil {
		f = m.inode(nid)
		byID[nid] = f
		m.ids[nid] = true
	} else if f.mode&kindMask == kindDir {
		m.fail("directory %q has two names", path)
		return
	}
	f.names = append(f.names, path)
	out[path] = f
	if f.mode&kindMask != kindDir {
		return
	}
	subdirs := 0
	for _, d := range m.dirents(f) {
		switch d.name {
		case ".":
			if d.nid != nid {
				m.fail("%q: . leads to %d", path, d.nid)
			}
			continue
		case "..":
			if d.nid != parent {
				m.fail("%q: .. leads to %d", path, d.nid)
			}
			continue
		}
		child := strings.TrimPrefix(path+"/"+d.name, "/")
		m.walk(child, d.nid, nid, out, byID, depth+1)
		if m.err != nil {
			return
		}
		kinds := map[byte]uint16{1: kindReg, 2: kindDir, 3: kindChar, 4: kindBlock, 5: kindFifo, 7: kindSymlink}
		if kinds[d.typ] != out[child].mode&kindMask {
			m.fail("%q: type %d in its directory, mode %o", child, d.typ, out[child].mode)
		}
		if d.typ == 2 {
			subdirs++
		}
	}
	if int(f.nlink) != subdirs+2 {
		m.fail("%q: %d links, %d subdirectories", path, f.nlink, subdirs)
	}
	f.content = ""
}

type erofsDirent struct {
	name string
	nid  uint64
	typ  byte
}

func (m *erofsImage) dirents(f *erofsFile) []erofsDirent {
	var out []erofsDirent
	le := binary.LittleEndian
	data, last := f.content, ""
	for len(data) > 0 {
		block := []byte(data[:min(512, len(data))])
		data = data[len(block):]
		first := int(le.Uint16(block[8:]))
		if first%12 != 0 || first == 0 || first > len(block) {
			m.fail("first name at %d", first)
			return nil
		}
		n := first / 12
		for i := range n {
			e := block[i*12:]
			from, to := int(le.Uint16(e[8:])), len(block)
			if i+1 < n {
				to = int(le.Uint16(e[12+8:]))
			}
			if from >= to || to > len(block) {
				m.fail("name from %d to %d", from, to)
				return nil
			}
			name := string(block[from:to])
			if i+1 == n {
				name = strings.TrimRight(name, "\x00")
			}
			if name <= last || name == "" {
				m.fail("name %q after %q", name, last)
			}
			last = name
			out = append(out, erofsDirent{name, le.Uint64(e), e[10]})
		}
	}
	return out
}

func (m *erofsImage) inode(nid uint64) *erofsFile {
	le := binary.LittleEndian
	pos := int64(nid) * 32
	if pos%512+64 > 512 {
		m.fail("inode %d crosses a block", nid)
	}
	b := m.at(pos, 64)
	f := &erofsFile{
		nid: nid, mode: le.Uint16(b[4:]), size: le.Uint64(b[8:]), uid: le.Uint32(b[24:]), gid: le.Uint32(b[28:]),
		mtime: int64(le.Uint64(b[32:])), nsec: le.Uint32(b[40:]), nlink: le.Uint32(b[44:]),
	}
	format := le.Uint16(b)
	if format&1 != 1 {
		m.fail("inode %d is not extended", nid)
	}
	head := int64(64)
	if n := int64(le.Uint16(b[2:])); n > 0 {
		size := 12 + 4*(n-1)
		f.xattrs = m.xattrs(m.at(pos+64, size))
		head += size
	}
	u := le.Uint32(b[16:])
	if int64(f.size) < 0 || f.size > 1<<30 && format>>1 != 4 {
		m.fail("inode %d has %d bytes", nid, f.size)
		return f
	}
	switch kind := f.mode & kindMask; {
	case kind == kindChar || kind == kindBlock:
		f.rdev = u
	case format>>1 == 0 && f.size > 0:
		f.content = string(m.at(int64(u)*512, int64(f.size)))
	case format>>1 == 2:
		full := int64(f.size) / 512 * 512
		tail := int64(f.size) - full
		if tail == 0 || (pos+head)%512+tail > 512 {
			m.fail("inode %d: tail of %d bytes at %d", nid, tail, (pos+head)%512)
		}
		if full > 0 {
			f.content = string(m.at(int64(u)*512, full))
		}
		f.content += string(m.at(pos+head, tail))
	case format>>1 == 4:
		f.content = m.chunks(f, (pos+head+7)&^7, u)
	}
	return f
}

func (m *erofsImage) chunks(f *erofsFile, table int64, u uint32) string {
	le := binary.LittleEndian
	if u&^0x1f != 0x20 {
		m.fail("chunk format %x", u)
		return ""
	}
	bits := int(u&0x1f) + 9
	var out strings.Builder
	const most = 16 << 20 // larger files are compared by the root tests
	for k := int64(0); k<<bits < int64(f.size); k++ {
		e := m.at(table+8*k, 8)
		block, n := int64(le.Uint32(e[4:])), min(int64(1)<<bits, int64(f.size)-k<<bits)
		if m.err != nil || int64(out.Len())+n > most {
			return "large"
		}
		switch dev := le.Uint16(e[2:]); {
		case block == 0xffffffff:
			out.Write(make([]byte, n))
		case dev == 0:
			out.Write(m.at(block*512, n))
		case dev == 1 && block*512+n <= int64(len(m.tar)):
			out.Write(m.tar[block*512 : block*512+n])
		default:
			m.fail("chunk at block %d of device %d, tar of %d bytes", block, dev, len(m.tar))
		}
	}
	return out.String()
}

func (m *erofsImage) xattrs(b []byte) map[string]string {
	out := make(map[string]string)
	prefix := map[byte]string{1: "user.", 2: aclAccess, 3: aclDefault, 4: "trusted.", 6: "security."}
	for b = b[12:]; len(b) > 0; {
		if len(b) < 4 {
			m.fail("attribute cut short")
			return out
		}
		name, value := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
		n := (4 + name + value + 3) &^ 3
		if prefix[b[1]] == "" || n > len(b) {
			m.fail("attribute of namespace %d, %d bytes", b[1], n)
			return out
		}
		out[prefix[b[1]]+string(b[4:4+name])] = string(b[4+name : 4+name+value])
		b = b[n:]
	}
	return out
}

// indexOf reads a tar and writes its index, in memory.
func indexOf(tar []byte, limits Limits) (*tree, []byte, error) {
	limits = limits.withDefaults()
	t, err := readTree(&fileBlocks{f: bytes.NewReader(tar), size: int64(len(tar))}, &limits)
	if err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	n, err := writeIndex(&out, t, bytes.NewReader(tar), int64(len(tar)), [16]byte{1})
	if err == nil && n != int64(out.Len()) {
		err = io.ErrShortWrite
	}
	return t, out.Bytes(), err
}
