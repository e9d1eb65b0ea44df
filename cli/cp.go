package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/container"
	"tug/errs"
	"tug/image"
)

// copying is one cp.
type copying struct {
	a       *app
	ctx     context.Context
	archive bool // keep owners
	follow  bool // a symlink as the source
	quiet   bool
	n       int64 // bytes of tar that were copied
}

func setupCp(a *app, fs *pflag.FlagSet) func([]string) error {
	c := &copying{a: a}
	fs.BoolVarP(&c.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&c.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return func(args []string) error {
		if args[0] == "" {
			return errors.New("source can not be empty")
		}
		if args[1] == "" {
			return errors.New("destination can not be empty")
		}
		if !fs.Changed("quiet") {
			c.quiet = !isTerminal(a.Out)
		}
		from, src := splitCopy(args[0])
		to, dst := splitCopy(args[1])
		switch {
		case from != "" && to != "":
			return errors.New("copying between containers is not supported")
		case from == "" && to == "":
			return errors.New("must specify at least one container source")
		}
		return c.run(from, src, to, dst)
	}
}

// splitCopy divides CONTAINER:PATH. What begins with a slash or a dot is a path
// of the host, colons or not.
func splitCopy(arg string) (name, p string) {
	name, p, ok := strings.Cut(arg, ":")
	if !ok || filepath.IsAbs(arg) || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	return name, p
}

func (c *copying) run(from, src, to, dst string) error {
	e, err := c.a.engine()
	if err != nil {
		return err
	}
	ctx, stop := c.a.untilSignal()
	defer stop()
	c.ctx = ctx
	r, err := e.Containers.OpenRoot(ctx, from+to)
	if err != nil {
		return c.a.signalled(ctx, err)
	}
	defer r.Close()
	shown := ""
	if from != "" {
		shown, err = c.out(r, src, dst)
	} else {
		shown, err = c.in(r, src, to, dst)
	}
	if err != nil || c.quiet || shown == "" {
		return c.a.signalled(ctx, err)
	}
	_, err = fmt.Fprintf(c.a.Err, "Successfully copied %s to %s\n", units.HumanSizeWithPrecision(float64(c.n), 3), printable(shown))
	return err
}

// baseOf is the name under which a source arrives in a directory; "." for what
// is in it.
func baseOf(p string) string {
	if p == "." || strings.HasSuffix(p, "/.") {
		return "."
	}
	if b := path.Base(path.Clean(p)); b != "/" {
		return b
	}
	return "."
}

// saysDirectory reports whether a path can only be a directory's.
func saysDirectory(p string) bool {
	return strings.HasSuffix(p, "/") || p == "." || p == ".." || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")
}

// place decides as docker cp does where a source goes: into which directory and
// under which name.
func place(base string, isDir bool, dst string, exists, dstIsDir bool) (dir, as string, err error) {
	switch {
	case exists && dstIsDir:
		return dst, base, nil
	case exists && isDir:
		return "", "", errors.New("cannot copy directory")
	case !exists && !isDir && saysDirectory(dst):
		return "", "", errors.New("no such directory")
	}
	clean := path.Clean(dst)
	return path.Dir(clean), path.Base(clean), nil
}

// out copies from the container.
func (c *copying) out(r *container.Root, src, dst string) (shown string, err error) {
	f, err := r.Find(src, c.follow || saysDirectory(src))
	if err != nil {
		return "", err
	}
	if !f.Exists() {
		return "", errs.New(errs.NotFound, "Could not find the file %s in container %s", src, r.ID())
	}
	if dst == "-" {
		return "", r.CopyOut(c.ctx, f.Path, baseOf("/"+src), c.a.Out)
	}
	abs, err := absolute(dst)
	if err != nil {
		return "", err
	}
	if dir := filepath.Dir(filepath.Clean(abs)); !isDirectory(dir) {
		return "", errs.New(errs.NotFound, "invalid output path: directory %q does not exist", dir)
	}
	fi, err := os.Stat(abs)
	exists := err == nil
	if exists && !fi.IsDir() && !fi.Mode().IsRegular() {
		return "", errs.New(errs.Invalid, "invalid output path: %q must be a directory or a regular file", abs)
	}
	to := abs
	if exists && !fi.IsDir() {
		if to, err = filepath.EvalSymlinks(abs); err != nil {
			return "", err
		}
	}
	dir, as, err := place(baseOf("/"+src), f.IsDir(), to, exists, exists && fi.IsDir())
	if err != nil {
		return "", err
	}
	return abs, c.pipe(
		func(w io.Writer) error { return r.CopyOut(c.ctx, f.Path, as, w) },
		func(in io.Reader) error { return container.Unpack(c.ctx, dir, in, c.archive) })
}

// absolute makes a path of the host absolute. What it says at its end stays.
func absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	switch {
	case err != nil || abs == "/":
	case p == "." || strings.HasSuffix(p, "/."):
		abs += "/."
	case strings.HasSuffix(p, "/"):
		abs += "/"
	}
	return abs, err
}

func isDirectory(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.IsDir()
}

// in copies into the container called name.
func (c *copying) in(r *container.Root, src, name, dst string) (shown string, err error) {
	f, err := r.Find(dst, true)
	if err != nil {
		return "", err
	}
	if src == "-" {
		if !f.IsDir() {
			return "", errs.New(errs.Invalid, "destination %q must be a directory", name+":"+dst)
		}
		plain, err := image.Inflate(c.a.In)
		if err != nil {
			return "", err
		}
		defer plain.Close()
		return "", r.CopyIn(c.ctx, f.Path, plain, true)
	}
	if f.Exists() && !f.IsDir() && !f.IsRegular() {
		return "", errs.New(errs.Invalid, "destination %q must be a directory or a regular file", name+":"+dst)
	}
	abs, err := absolute(src)
	if err != nil {
		return "", err
	}
	look := os.Lstat
	if c.follow {
		look = os.Stat
	}
	fi, err := look(abs)
	if err != nil {
		return "", err
	}
	dir, as, err := place(baseOf(abs), fi.IsDir(), f.Path, f.Exists(), f.IsDir())
	if err != nil {
		return "", err
	}
	return name + ":" + dst, c.pipe(
		func(w io.Writer) error { return container.Pack(c.ctx, abs, c.follow, as, w) },
		func(in io.Reader) error { return r.CopyIn(c.ctx, dir, in, c.archive) })
}

// pipe lets a tar go from one to the other. The error that came first counts.
func (c *copying) pipe(from func(io.Writer) error, to func(io.Reader) error) error {
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		b := bufio.NewWriterSize(w, 256<<10)
		err := from(b)
		if err == nil {
			err = b.Flush()
		}
		w.CloseWithError(err)
		sent <- err
	}()
	in := bufio.NewReaderSize(&counter{r, &c.n}, 256<<10)
	err := to(in)
	if err == nil {
		_, err = io.Copy(io.Discard, in) // what is behind the last member
	}
	r.CloseWithError(io.ErrClosedPipe)
	if first := <-sent; first != nil && !errors.Is(first, io.ErrClosedPipe) {
		return first
	}
	return err
}

type counter struct {
	r io.Reader
	n *int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	*c.n += int64(n)
	return n, err
}
