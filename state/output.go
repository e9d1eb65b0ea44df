package state

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"tug/errs"
	"tug/sys"
)

// Output is a file of the user's that is being written, as by save -o. It
// shows under its path when it is whole, and until then the file that was there
// before does. Where the filesystem can it has no name until then, so that a
// killed command leaves nothing behind. A path that is a device, a FIFO or a
// socket is written to directly.
type Output struct {
	*os.File
	path string
	temp string // its name meanwhile; "" for none
	kind outputKind
}

type outputKind int

const (
	unnamed outputKind = iota
	named
	direct
)

// CreateOutput begins a file that Commit shows at path, with mode 0600.
func CreateOutput(path string) (*Output, error) {
	// Through links: what they lead to is replaced, not they.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	fi, err := os.Stat(path)
	switch {
	case err == nil && fi.IsDir():
		return nil, errs.New(errs.Invalid, "invalid output path: %q is a directory", path).WithHint("name a file in it")
	case err == nil && !fi.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &Output{File: f, path: path, kind: direct}, nil
	}
	if d, derr := os.Stat(dir); errors.Is(derr, fs.ErrNotExist) || derr == nil && !d.IsDir() {
		return nil, errs.New(errs.Invalid, "invalid output path: directory %q does not exist", dir)
	}
	if f, err := sys.UnnamedFile(dir, 0o600); err == nil {
		return &Output{File: f, path: path}, nil
	}
	f, err := os.CreateTemp(dir, "."+short(filepath.Base(path))+"-*")
	if err != nil {
		return nil, err
	}
	return &Output{File: f, path: path, temp: f.Name(), kind: named}, nil
}

func short(name string) string { return name[:min(len(name), 100)] }

// Commit closes the file and shows it at its path.
func (o *Output) Commit() error {
	if o.kind == unnamed {
		// linkat(2) replaces nothing, so by way of a name of its own.
		for try := 0; ; try++ {
			temp := filepath.Join(filepath.Dir(o.path), fmt.Sprintf(".%s-%08x", short(filepath.Base(o.path)), rand.Uint32()))
			err := sys.GiveName(o.File, temp)
			if errors.Is(err, fs.ErrExist) && try < 100 {
				continue
			}
			if err != nil {
				o.File.Close()
				return err
			}
			o.temp = temp
			break
		}
	}
	err := o.File.Close()
	if o.kind == direct {
		return err
	}
	if err == nil {
		err = os.Rename(o.temp, o.path)
	}
	if err != nil {
		os.Remove(o.temp)
	}
	return err
}

// Discard closes the file and leaves the path as it was.
func (o *Output) Discard() {
	o.File.Close()
	if o.temp != "" {
		os.Remove(o.temp)
	}
}
