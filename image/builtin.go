package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"tug/layer"
	"tug/spec"
)

// Names of the built-in images.
const (
	HelloName = "tug.local/hello:latest"
	BoxName   = "tug.local/box:latest"
)

// builtIn is an image that is made from a program of this tug's.
type builtIn struct {
	name    string
	program string // of this tug, as history calls it
	path    string // where it is in the image
	note    string // what history says of the second layer
	files   func() ([]builtInFile, error)
	config  spec.RunConfig
}

// Hello returns the built-in image, made from the program at initPath, which
// does its part when it is called hello. It is made when it is not there, or
// when the program is another than the one it was made from. The same program
// gives the same digests everywhere.
func (s *Images) Hello(ctx context.Context, initPath string) (*Image, error) {
	return s.builtIn(ctx, initPath, &builtIn{
		name: HelloName, program: "tug-init", path: "hello", note: "COPY etc usr /",
		files: func() ([]builtInFile, error) { return helloFiles(), nil },
		config: spec.RunConfig{
			Env: []string{"PATH=/"}, Entrypoint: []string{"/hello"}, WorkingDir: "/",
			Labels: map[string]string{"org.opencontainers.image.title": "tug hello", "org.opencontainers.image.description": "tug's built-in image"},
		},
	})
}

// Box returns the built-in image with a userland, made from the program at
// boxPath as Hello is from tug-init. Applets tells what the program can be called;
// it is asked when the image has to be made.
func (s *Images) Box(ctx context.Context, boxPath string, applets func() ([]string, error)) (*Image, error) {
	return s.builtIn(ctx, boxPath, &builtIn{
		name: BoxName, program: "tug-box", path: "bin/tug-box", note: "COPY bin etc /",
		files: func() ([]builtInFile, error) {
			names, err := applets()
			return boxFiles(names), err
		},
		config: spec.RunConfig{
			Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}, WorkingDir: "/",
			Labels: map[string]string{"org.opencontainers.image.title": "tug box", "org.opencontainers.image.description": "a shell and the programs to look around with"},
		},
	})
}

func (s *Images) builtIn(ctx context.Context, path string, b *builtIn) (*Image, error) {
	img, err := s.makeBuiltIn(ctx, path, b)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", b.name, err)
	}
	return img, nil
}

func (s *Images) makeBuiltIn(ctx context.Context, path string, b *builtIn) (*Image, error) {
	ref, err := spec.ParseReference(b.name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Size and time stand for the program, so that a start need not hash it.
	source := fmt.Sprintf("%s %d %d", b.program, fi.Size(), fi.ModTime().UnixNano())
	old, err := s.readName(ref)
	if err == nil {
		if img := s.asMade(old.Image, source); img != nil {
			return img, nil
		}
	}
	layers, err := s.builtInLayers(ctx, b, f, fi.Size())
	defer func() {
		for _, l := range layers {
			l.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	in, err := b.image(layers, source)
	if err != nil {
		return nil, err
	}
	in.names = []spec.Reference{ref}
	if _, err := s.commit(ctx, []*incoming{in}); err != nil {
		return nil, err
	}
	if old.Image != "" && old.Image != in.id {
		s.removeIfUnused(old.Image)
	}
	return s.recorded(in)
}

// asMade returns image id if it was made from source and is whole.
func (s *Images) asMade(id spec.Digest, source string) *Image {
	r, err := s.readRecord(id)
	if err != nil || r.Source != source {
		return nil
	}
	for _, d := range r.Layers {
		l, err := s.layers.Get(d)
		if err != nil {
			return nil
		}
		l.Close()
	}
	img, err := s.byID(id)
	if err != nil {
		return nil
	}
	return img
}

// removeIfUnused removes an image that has no name and no container. What is
// in the way stays: this is tidying up.
func (s *Images) removeIfUnused(id spec.Digest) {
	lock, err := s.st.Refs(true)
	if err != nil {
		return
	}
	defer lock.Close()
	all, err := s.names()
	if err != nil {
		return
	}
	for _, n := range all {
		if n.Image == id {
			return
		}
	}
	if containers, err := s.containers(); err == nil {
		for _, c := range containers {
			if slices.Contains(c.images(), id) {
				return
			}
		}
		r := &removal{s: s, id: id}
		_ = r.image()
	}
}

// builtInFile is a directory, when its name ends in a slash, a symbolic link,
// when it has a target, or a file.
type builtInFile struct {
	name string
	mode int64
	text string
	link string
}

// baseFiles are what any program expects of a system, and nothing more. The
// directories are mount points of a container.
func baseFiles(name, shell string) []builtInFile {
	return []builtInFile{
		{"dev/", 0o755, "", ""},
		{"etc/", 0o755, "", ""},
		{"etc/group", 0o644, "root:x:0:\nnobody:x:65534:\n", ""},
		{"etc/hostname", 0o644, "", ""},
		{"etc/hosts", 0o644, "", ""},
		{"etc/os-release", 0o644, fmt.Sprintf("NAME=\"tug %[1]s\"\nID=tug-%[1]s\nPRETTY_NAME=\"tug's built-in image\"\n", name), ""},
		{"etc/passwd", 0o644, fmt.Sprintf("root:x:0:0:root:/:%[1]s\nnobody:x:65534:65534:nobody:/:%[1]s\n", shell), ""},
		{"etc/resolv.conf", 0o644, "", ""},
		{"proc/", 0o755, "", ""},
		{"sys/", 0o755, "", ""},
		{"tmp/", 0o1777, "", ""},
	}
}

func helloFiles() []builtInFile {
	return append(baseFiles("hello", "/hello"),
		builtInFile{"usr/", 0o755, "", ""},
		builtInFile{"usr/share/", 0o755, "", ""},
		builtInFile{"usr/share/hello.txt", 0o644, "This file lies in the second of two layers.\nThe first holds one program, /hello. Together they are an image:\nfiles that never change, and a note on how to run them.\n", ""},
	)
}

// boxFiles also has a link for each applet, and the paths that scripts expect.
func boxFiles(applets []string) []builtInFile {
	files := []builtInFile{{"bin/", 0o755, "", ""}}
	for _, a := range applets {
		files = append(files, builtInFile{"bin/" + a, 0o777, "", "tug-box"})
	}
	files = append(files, baseFiles("box", "/bin/sh")...)
	return append(files,
		builtInFile{"root/", 0o700, "", ""},
		builtInFile{"usr/", 0o755, "", ""},
		builtInFile{"usr/bin", 0o777, "", "../bin"},
	)
}

func (s *Images) builtInLayers(ctx context.Context, b *builtIn, program *os.File, size int64) ([]*layer.Layer, error) {
	files, err := b.files()
	if err != nil {
		return nil, err
	}
	var held []*layer.Layer
	for i, write := range []func(*tar.Writer) error{
		func(w *tar.Writer) error { return writeProgram(w, b.path, program, size) },
		func(w *tar.Writer) error { return writeFiles(w, files) },
	} {
		r, w := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			tw := tar.NewWriter(w)
			err := write(tw)
			if err == nil {
				err = tw.Close()
			}
			w.CloseWithError(err)
		}()
		l, err := s.layers.Add(ctx, r, layer.Expect{BlobSize: -1, Source: fmt.Sprintf("built in, layer %d", i+1)})
		r.Close() // ends the writer, also one that Add left behind
		<-done
		if err != nil {
			return held, err
		}
		held = append(held, l)
	}
	return held, nil
}

func writeProgram(w *tar.Writer, name string, program io.Reader, size int64) error {
	if dir, _, ok := strings.Cut(name, "/"); ok {
		if err := writeFiles(w, []builtInFile{{dir + "/", 0o755, "", ""}}); err != nil {
			return err
		}
	}
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = io.CopyN(w, program, size)
	}
	return err
}

func writeFiles(w *tar.Writer, files []builtInFile) error {
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: f.mode, Size: int64(len(f.text)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case f.name[len(f.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			return err
		}
	}
	return nil
}

func (b *builtIn) image(layers []*layer.Layer, source string) (*incoming, error) {
	epoch := time.Unix(0, 0).UTC()
	start := spec.HistoryRow{Created: &epoch, Comment: "made by tug", EmptyLayer: true}
	words, err := json.Marshal(append(append([]string{}, b.config.Entrypoint...), b.config.Cmd...))
	if err != nil {
		return nil, err
	}
	start.CreatedBy = "CMD " + string(words)
	if len(b.config.Entrypoint) > 0 {
		start.CreatedBy = "ENTRYPOINT " + string(words)
	}
	cfg := spec.ImageConfig{
		Platform: spec.HostPlatform(),
		Created:  &epoch,
		Author:   "tug",
		Config:   b.config,
		RootFS:   spec.RootFS{Type: "layers"},
		History: []spec.HistoryRow{
			{Created: &epoch, CreatedBy: "COPY " + b.program + " /" + b.path, Comment: "made by tug from its own " + b.program},
			{Created: &epoch, CreatedBy: b.note, Comment: "made by tug"},
			start,
		},
	}
	in := &incoming{source: source}
	for _, l := range layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
		in.size += l.Content
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	in.layers, in.id = cfg.RootFS.DiffIDs, spec.DigestOf(text)
	in.blobs = map[spec.Digest][]byte{in.id: text}
	return in, nil
}
