package layer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"tug/errs"
	"tug/spec"
)

// Stack returns what to mount for layers, lowest first, to get the tree that
// extracting them one over the other would make. Mostly that is the layers. But
// a layer may depend on those below it, in two ways that an overlay of its own
// files cannot show: it may have hard links to their files, and it may put files
// into their directories without an entry for these. Right above such a layer
// goes another one, made here, that has
//
//   - each file that a hard link leads to, under all its names: one file, the
//     copy that link(2) into a lower layer would make, with what the layers up to
//     this one show as its content, owner, mode, attributes and time;
//   - each directory that the layer has without an entry, as it was before;
//   - the directories in which these lie.
//
// What is made is a layer like any other; the same layers give the same one.
// Made layers are returned with their locks: they may go when these do, unless
// something refers to them by then. The caller holds layers, and not the
// exclusive reference lock. Errors: Invalid for a hard link to what is not there
// (or not any more: entries count in the order of the archive) or is a
// directory; otherwise as of Get and Add.
func (l *Layers) Stack(ctx context.Context, layers []spec.Digest) (stack []spec.Digest, made []*Layer, err error) {
	infos := make([]Info, len(layers))
	last := -1 // the highest that depends on others
	for n, d := range layers {
		if infos[n], err = l.info(d); err != nil {
			return nil, nil, err
		}
		if infos[n].Loose > 0 {
			last = n
		}
	}
	if last < 0 {
		return layers, nil, nil
	}
	limits := l.Limits.withDefaults()
	b := &stacking{l: l, view: newView(&limits)}
	b.open = func(n int) (tarFile, error) { return l.Tar(b.tars[n]) }
	defer func() {
		if err != nil {
			closeAll(b.made)
		}
	}()
	for n, info := range infos {
		b.stack = append(b.stack, layers[n])
		if n > last {
			continue
		}
		if err := b.add(ctx, info); err != nil {
			if ctx.Err() != nil {
				return nil, nil, context.Cause(ctx)
			}
			return nil, nil, fmt.Errorf("layer %s: %w", layers[n].Short(), err)
		}
	}
	return b.stack, b.made, nil
}

func closeAll(layers []*Layer) {
	for _, l := range layers {
		l.Close()
	}
}

// stacking is one run of Stack.
type stacking struct {
	l     *Layers
	view  *view
	tars  []spec.Digest // by the view's numbers
	open  func(n int) (tarFile, error)
	stack []spec.Digest
	made  []*Layer
}

type tarFile interface {
	io.ReaderAt
	io.Closer
}

// add lays a layer over the view and makes what has to lie above it.
func (b *stacking) add(ctx context.Context, info Info) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tar, err := b.l.Tar(info.DiffID)
	if err != nil {
		return err
	}
	defer tar.Close()
	var lower *view
	if info.Loose > 0 {
		lower = b.view
	}
	t, err := b.l.readAgain(info, tar, lower)
	if err != nil {
		return err
	}
	b.tars = append(b.tars, info.DiffID)
	kept, err := b.view.cover(t)
	if err != nil || len(kept)+len(t.links) == 0 {
		return err
	}
	files := b.patch(t, kept)
	made, err := b.write(ctx, files, info)
	if err != nil {
		return err
	}
	b.made = append(b.made, made)
	b.stack = append(b.stack, made.DiffID)
	return b.lay(made.DiffID)
}

// lay lays a layer that was just made over the view.
func (b *stacking) lay(d spec.Digest) error {
	t, tar, err := b.l.readBack(d)
	if err != nil {
		return err
	}
	tar.Close()
	b.tars = append(b.tars, d)
	_, err = b.view.cover(t)
	return err
}

// patch returns what lies in the layer above t, by path.
func (b *stacking) patch(t *tree, kept []string) map[string]*target {
	files := make(map[string]*target)
	for _, path := range kept {
		n := b.view.at(path)
		files[path] = &target{n.ino, n.layer}
	}
	if len(t.links) > 0 {
		dirs := make(map[*inode]string)
		dirPaths(t.root, "", dirs)
		all := make(map[*inode]bool)
		for _, link := range t.links {
			to := t.foreign[link.to]
			b.view.put(dirs[link.dir], link.name, to)
			all[to.ino] = true
		}
		b.view.root.eachFile("", func(path string, n *node) {
			if all[n.ino] {
				files[path] = &target{n.ino, n.layer}
			}
		})
	}
	var parents []string
	for path := range files {
		parents = append(parents, path)
	}
	for _, path := range parents {
		for dir, _ := splitLast(path); dir != "" && files[dir] == nil; dir, _ = splitLast(dir) {
			n := b.view.at(dir)
			files[dir] = &target{n.ino, n.layer}
		}
	}
	if b.view.dress != nil {
		files[""] = &target{b.view.dress, 0}
	}
	return files
}

// dirPaths fills out with the paths of all directories below i, each with a
// slash at its end.
func dirPaths(i *inode, path string, out map[*inode]string) {
	out[i] = path
	for _, c := range i.dir.sorted {
		if c.ino.isDir() {
			dirPaths(c.ino, path+c.name+"/", out)
		}
	}
}

// write makes a layer of files.
func (b *stacking) write(ctx context.Context, files map[string]*target, above Info) (*Layer, error) {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(b.writeTar(w, files))
	}()
	made, err := b.l.Add(ctx, r, Expect{BlobSize: -1, Source: "made to lie above " + string(above.DiffID)})
	r.Close() // ends the writer, also one that Add left behind
	<-done
	if errs.Is(err, errs.Invalid) {
		err = fmt.Errorf("copy what its hard links lead to: %w", err)
	}
	return made, err
}

func (b *stacking) writeTar(out io.Writer, files map[string]*target) error {
	bw := bufio.NewWriterSize(out, 256<<10)
	w := &tarMaker{w: bw}
	var paths []string
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	first := make(map[*inode]string)
	for _, path := range paths {
		f := files[path]
		if f.ino.isDir() {
			if err := w.member(strings.TrimPrefix(path+"/", "/"), f.ino, "", nil); err != nil {
				return err
			}
			continue
		}
		err := b.writeFile(w, path, f, first[f.ino])
		if err != nil {
			return err
		}
		if first[f.ino] == "" {
			first[f.ino] = path
		}
	}
	if err := w.end(); err != nil {
		return err
	}
	return bw.Flush()
}

func (b *stacking) writeFile(w *tarMaker, path string, f *target, link string) error {
	if link != "" || f.ino.kind() != kindReg {
		return w.member(path, f.ino, link, nil)
	}
	tar, err := b.open(f.layer)
	if err != nil {
		return err
	}
	defer tar.Close()
	return w.member(path, f.ino, "", tar)
}
