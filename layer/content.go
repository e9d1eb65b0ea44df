package layer

import (
	"bytes"
	"context"
	"io"

	"tug/spec"
)

// Open returns the data of a regular file, holes as zeros. It reads from the
// tar, until Merged.Close.
func (m *Merged) Open(n *Node) io.Reader {
	return &fileReader{tar: m.srcs[n.pos].tar, i: n.ino}
}

// fileReader reads a file out of its layer's tar.
type fileReader struct {
	tar io.ReaderAt
	i   *inode
	off int64
	seg int // of a sparse file: the first that does not end before off
}

func (r *fileReader) Read(p []byte) (int, error) {
	n, data, err := r.span()
	if err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), n)]
	if data < 0 {
		clear(p)
		r.off += int64(len(p))
		return len(p), nil
	}
	got, err := r.tar.ReadAt(p, data)
	if got == len(p) {
		err = nil
	} else if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	r.off += int64(got)
	return got, err
}

// span is what comes at off: n bytes that lie at data in the tar, or, where
// data is negative, zeros. At the end it is io.EOF.
func (r *fileReader) span() (n, data int64, err error) {
	if r.off >= r.i.size {
		return 0, 0, io.EOF
	}
	segs, sparse := r.i.sparse()
	if !sparse {
		return r.i.size - r.off, r.i.data + r.off, nil
	}
	for r.seg < len(segs) && segs[r.seg].off+segs[r.seg].n <= r.off {
		r.seg++
	}
	if r.seg == len(segs) {
		return r.i.size - r.off, -1, nil
	}
	g := segs[r.seg]
	if r.off < g.off {
		return g.off - r.off, -1, nil
	}
	return g.off + g.n - r.off, g.data + r.off - g.off, nil
}

// compare tells what differs between two files. Contents are read only where
// the sizes are the same; holes on both sides are not read at all, so that a
// file of many terabytes of them costs nothing.
func (m *merger) compare(sa *source, a *inode, sb *source, b *inode) (Detail, error) {
	if a == b {
		return 0, nil
	}
	if a.kind() != b.kind() {
		return DiffType, nil
	}
	d := attrDiff(a, b)
	if a.kind() != kindReg {
		return d, nil
	}
	if a.size != b.size {
		return d | DiffContent, nil
	}
	same, err := m.sameData(&fileReader{tar: sa.tar, i: a}, &fileReader{tar: sb.tar, i: b})
	if !same {
		d |= DiffContent
	}
	return d, err
}

func (m *merger) sameData(a, b *fileReader) (bool, error) {
	if m.buf[0] == nil {
		m.buf[0], m.buf[1] = make([]byte, 64<<10), make([]byte, 64<<10)
	}
	for {
		n, atA, err := a.span()
		if err == io.EOF {
			return true, nil
		}
		o, atB, err := b.span()
		if err != nil {
			return false, err
		}
		if n = min(n, o); atA < 0 && atB < 0 {
			a.off, b.off = a.off+n, b.off+n
			continue
		}
		if err := m.ctx.Err(); err != nil {
			return false, context.Cause(m.ctx)
		}
		n = min(n, int64(len(m.buf[0])))
		if _, err := io.ReadFull(a, m.buf[0][:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(b, m.buf[1][:n]); err != nil {
			return false, err
		}
		if !bytes.Equal(m.buf[0][:n], m.buf[1][:n]) {
			return false, nil
		}
	}
}

// Difference is one path at which two trees differ.
type Difference struct {
	Kind   ChangeKind
	Path   string
	Detail Detail // of a changed file
	A, B   *File  // nil where there is none
}

// Diff compares what two stacks of layers show, lowest first, and calls f for
// each path that differs, parents first. Below the highest layer that both
// stacks have in common from the bottom, what neither covers is not looked at.
func (l *Layers) Diff(ctx context.Context, a, b []spec.Digest, f func(Difference) error) error {
	common := 0
	for common < len(a) && common < len(b) && a[common] == b[common] {
		common++
	}
	m := newMerger(ctx, l)
	defer m.close()
	base, err := m.stack(nil, a[:common])
	if err != nil {
		return err
	}
	below := m.srcs[:len(m.srcs):len(m.srcs)]
	left, err := m.stack(base, a[common:])
	if err != nil {
		return err
	}
	d := &differ{m: m, srcsA: m.srcs, f: f}
	m.srcs = below
	right, err := m.stack(base, b[common:])
	if err != nil {
		return err
	}
	d.srcsB = m.srcs
	return d.nodes("", left, right)
}

// differ is one run of Diff.
type differ struct {
	m            *merger
	srcsA, srcsB []*source
	f            func(Difference) error
}

func (d *differ) nodes(path string, a, b *Node) error {
	if a == b {
		return nil
	}
	if err := d.pair(path, a, b); err != nil {
		return err
	}
	return eachPair(path, a.Children, b.Children, func(path string, a, b *Node) error {
		switch {
		case b == nil:
			return d.lone(path, a, Removed)
		case a == nil:
			return d.lone(path, b, Added)
		}
		return d.nodes(path, a, b)
	})
}

// pair compares two files of one name, without what is in them.
func (d *differ) pair(path string, a, b *Node) error {
	if a.ino == b.ino {
		return nil
	}
	var sa, sb *source
	if len(d.srcsA) > 0 {
		sa = d.srcsA[a.pos]
	}
	if len(d.srcsB) > 0 {
		sb = d.srcsB[b.pos]
	}
	what, err := d.m.compare(sa, a.ino, sb, b.ino)
	if err != nil || what == 0 {
		return err
	}
	return d.f(Difference{Changed, path, what, a.File(path), b.File(path)})
}

// lone is a name that only one tree has, with all below it.
func (d *differ) lone(path string, n *Node, kind ChangeKind) error {
	diff := Difference{Kind: kind, Path: path}
	if kind == Added {
		diff.B = n.File(path)
	} else {
		diff.A = n.File(path)
	}
	if err := d.f(diff); err != nil {
		return err
	}
	for _, c := range n.Children {
		if err := d.lone(path+"/"+c.Name, c, kind); err != nil {
			return err
		}
	}
	return nil
}
