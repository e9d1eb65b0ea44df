//go:build root

package layer

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// oracle extracts layers one over the other into one directory. The files are
// GNU tar's work, a member at a time; what stands in the way is removed before,
// and whiteouts are carried out, as Docker does it: a whiteout takes away what
// is there unless this layer made it. Of package layer's code it uses none.
type oracle struct {
	t    testing.TB
	root string
	own  map[string]bool      // what this layer has made, by path
	bare map[string]bool      // directories of this layer without an entry
	time map[string]time.Time // of all directories

	changes int
	linked  map[string]bool // names of symlinks made by hard links
	unsure  bool            // whether what was just refused has to be
}

func newOracle(t testing.TB) *oracle {
	t.Helper()
	root, err := os.MkdirTemp("", "tug-oracle-")
	if err != nil {
		t.Fatal(err)
	}
	return &oracle{t: t, root: root, time: map[string]time.Time{}}
}

func (o *oracle) close() { os.RemoveAll(o.root) }

func (o *oracle) must(err error) {
	if err != nil {
		o.t.Helper()
		o.t.Fatalf("oracle: %v", err)
	}
}

// layer applies the members that can be, and returns them and the first of the
// others with those before it. It is not clean when one of the others has left
// traces.
func (o *oracle) layer(members []member) (good, bad []member, clean bool) {
	o.own, o.bare, o.linked = map[string]bool{}, map[string]bool{}, map[string]bool{}
	clean = true
	for _, m := range members {
		before := o.changes
		o.unsure = false
		if o.apply(m) {
			good = append(good, m)
			continue
		}
		if bad == nil && !o.unsure {
			bad = append(good[:len(good):len(good)], m)
		}
		clean = clean && before == o.changes
	}
	for path, when := range o.time {
		o.must(os.Chtimes(filepath.Join(o.root, path), when, when))
	}
	return good, bad, clean
}

func (o *oracle) lstat(path string) fs.FileInfo {
	info, err := os.Lstat(filepath.Join(o.root, path))
	if err != nil && !os.IsNotExist(err) {
		o.must(err)
	}
	return info
}

func (o *oracle) remove(path string) {
	o.changes++
	o.must(os.RemoveAll(filepath.Join(o.root, path)))
	for p := range o.time {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(o.time, p)
		}
	}
	for p := range o.own {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(o.own, p)
			delete(o.bare, p)
		}
	}
}

func (o *oracle) mkdir(path string) {
	o.changes++
	full := filepath.Join(o.root, path)
	o.must(os.Mkdir(full, 0o755))
	o.must(os.Chown(full, 0, 0)) // not the group of a set-group-ID directory
	o.must(os.Chmod(full, 0o755))
	o.time[path] = time.Unix(0, 0)
}

// parent returns the directory dir with all links resolved that this layer
// made, and makes what is missing. Links of lower layers give way.
func (o *oracle) parent(dir string) (string, bool) {
	at, links := "", 0
	for rest := dir; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = strings.TrimPrefix(filepath.Dir("/"+at), "/")
			continue
		}
		path := strings.TrimPrefix(at+"/"+name, "/")
		info := o.lstat(path)
		switch {
		case info != nil && info.IsDir():
			if !o.own[path] {
				o.bare[path] = true
				o.changes++
			}
		case info != nil && o.own[path] && info.Mode()&fs.ModeSymlink != 0:
			// A name of a lower layer's symlink is no way to a directory; that
			// rule is for entries of symlinks.
			if links++; links > 40 || o.linked[path] {
				o.unsure = o.linked[path]
				return "", false
			}
			to, err := os.Readlink(filepath.Join(o.root, path))
			o.must(err)
			if strings.HasPrefix(to, "/") {
				at = ""
			}
			rest = to + "/" + rest
			continue
		case info != nil && o.own[path]:
			return "", false
		default:
			if info != nil {
				o.remove(path)
			}
			o.mkdir(path)
			o.bare[path] = true
		}
		o.own[path] = true
		at = path
	}
	return at, true
}

// find resolves the name that a hard link leads to, through all links but one
// at its end.
func (o *oracle) find(name string) (string, bool) {
	at, links := "", 0
	for rest := name; rest != ""; {
		name, rest, _ = strings.Cut(rest, "/")
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = strings.TrimPrefix(filepath.Dir("/"+at), "/")
			continue
		}
		path := strings.TrimPrefix(at+"/"+name, "/")
		info := o.lstat(path)
		switch {
		case info == nil:
			return "", false
		case info.IsDir():
			at = path
		case rest == "":
			return path, true
		case info.Mode()&fs.ModeSymlink == 0:
			return "", false
		default:
			if links++; links > 40 {
				return "", false
			}
			to, err := os.Readlink(filepath.Join(o.root, path))
			o.must(err)
			if strings.HasPrefix(to, "/") {
				at = ""
			}
			rest = to + "/" + rest
		}
	}
	return "", false
}

// apply carries one member out; false when it cannot be.
func (o *oracle) apply(m member) bool {
	if m.Typeflag == tar.TypeLink { // mostly without traces
		if _, ok := o.find(strings.Trim(m.Linkname, "/")); !ok {
			return false
		}
	}
	dir, base := splitOracle(strings.Trim(m.Name, "/"))
	dir, ok := o.parent(dir)
	if !ok {
		return false
	}
	path := strings.TrimPrefix(dir+"/"+base, "/")
	if base == ".wh..wh..opq" {
		o.hide(dir)
		return true
	}
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		path = strings.TrimPrefix(dir+"/"+hidden, "/")
		if !o.own[path] {
			o.remove(path)
			return true
		}
		if info := o.lstat(path); info.IsDir() {
			o.hide(path)
			o.plain(path)
		}
		return true
	}
	if m.Typeflag == tar.TypeLink {
		to, ok := o.find(strings.Trim(m.Linkname, "/"))
		if !ok || strings.HasPrefix(to, path+"/") {
			return false
		}
		if m.Linkname = to; to == path {
			if !o.own[path] {
				o.own[path], o.linked[path] = true, true
			}
			return true
		}
	}
	isDir := m.Typeflag == tar.TypeDir
	if info := o.lstat(path); info != nil && (!isDir || !info.IsDir()) {
		o.remove(path)
	}
	m.Name = path
	o.extract(m)
	o.own[path] = true
	delete(o.bare, path)
	o.linked[path] = m.Typeflag == tar.TypeLink
	if isDir {
		// GNU tar leaves a set-group-ID bit that mkdir(2) inherited.
		o.must(syscall.Chmod(filepath.Join(o.root, path), uint32(m.Mode)))
		o.time[path] = m.ModTime
	}
	return true
}

func splitOracle(path string) (dir, base string) {
	return strings.TrimSuffix(path[:strings.LastIndex(path, "/")+1], "/"), path[strings.LastIndex(path, "/")+1:]
}

func (o *oracle) strip(full string) {
	out, err := exec.Command("setfattr", "-x", "user.d", full).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("No such attribute")) {
		o.t.Fatalf("setfattr: %v\n%s", err, out)
	}
}

// hide removes what is in a directory and not of this layer.
func (o *oracle) hide(dir string) {
	entries, err := os.ReadDir(filepath.Join(o.root, dir))
	o.must(err)
	for _, e := range entries {
		path := strings.TrimPrefix(dir+"/"+e.Name(), "/")
		switch {
		case !o.own[path]:
			o.remove(path)
		case e.IsDir():
			o.hide(path)
			o.plain(path)
		}
	}
}

// plain is for a directory that lower layers do not show any more: without an
// entry nothing says what it is like.
func (o *oracle) plain(path string) {
	if !o.bare[path] {
		return
	}
	full := filepath.Join(o.root, path)
	o.strip(full)
	o.must(os.Chown(full, 0, 0))
	o.must(os.Chmod(full, 0o755))
	o.time[path] = time.Unix(0, 0)
}

func (o *oracle) extract(m member) {
	cmd := exec.Command("tar", "--extract", "--directory", o.root, "--numeric-owner", "--same-owner", "--preserve-permissions",
		"--xattrs", "--xattrs-include=*", "--warning=no-timestamp")
	cmd.Stdin = bytes.NewReader(makeTar(o.t, m))
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("tar: %v\n%s\n%+v", err, out, m.Header)
	}
}
