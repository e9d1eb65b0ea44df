package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"tug/layer"
	"tug/spec"
)

// HelloName is the built-in image.
const HelloName = "tug.local/hello:latest"

// Hello returns the built-in image, made from the program at initPath, which
// does its part when it is called hello. It is made when it is not there, or
// when the program is another than the one it was made from. The same program
// gives the same digests everywhere.
func (s *Images) Hello(ctx context.Context, initPath string) (*Image, error) {
	img, err := s.hello(ctx, initPath)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", HelloName, err)
	}
	return img, nil
}

func (s *Images) hello(ctx context.Context, initPath string) (*Image, error) {
	ref, err := spec.ParseReference(HelloName)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(initPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Size and time stand for the program, so that a start need not hash it.
	source := fmt.Sprintf("tug-init %d %d", fi.Size(), fi.ModTime().UnixNano())
	old, err := s.readName(ref)
	if err == nil {
		if img := s.helloAsMade(old.Image, source); img != nil {
			return img, nil
		}
	}
	layers, err := s.helloLayers(ctx, f, fi.Size())
	defer func() {
		for _, l := range layers {
			l.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	in, err := helloImage(layers, source)
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

// helloAsMade returns image id if it was made from source and is whole.
func (s *Images) helloAsMade(id spec.Digest, source string) *Image {
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
			if c.ImageID == id {
				return
			}
		}
		r := &removal{s: s, id: id}
		_ = r.image()
	}
}

type helloFile struct {
	name string
	mode int64
	text string
}

// The image's second layer: what any program expects of a system, and nothing
// more. The directories are mount points of a container.
func helloFiles() []helloFile {
	return []helloFile{
		{"dev/", 0o755, ""},
		{"etc/", 0o755, ""},
		{"etc/group", 0o644, "root:x:0:\nnobody:x:65534:\n"},
		{"etc/hostname", 0o644, ""},
		{"etc/hosts", 0o644, ""},
		{"etc/os-release", 0o644, "NAME=\"tug hello\"\nID=tug-hello\nPRETTY_NAME=\"tug's built-in image\"\n"},
		{"etc/passwd", 0o644, "root:x:0:0:root:/:/hello\nnobody:x:65534:65534:nobody:/:/hello\n"},
		{"etc/resolv.conf", 0o644, ""},
		{"proc/", 0o755, ""},
		{"sys/", 0o755, ""},
		{"tmp/", 0o1777, ""},
		{"usr/", 0o755, ""},
		{"usr/share/", 0o755, ""},
		{"usr/share/hello.txt", 0o644, "This file lies in the second of two layers.\nThe first holds one program, /hello. Together they are an image:\nfiles that never change, and a note on how to run them.\n"},
	}
}

func (s *Images) helloLayers(ctx context.Context, program *os.File, size int64) ([]*layer.Layer, error) {
	var held []*layer.Layer
	for i, write := range []func(*tar.Writer) error{
		func(w *tar.Writer) error { return writeProgram(w, program, size) },
		writeHelloFiles,
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

func writeProgram(w *tar.Writer, program io.Reader, size int64) error {
	err := w.WriteHeader(&tar.Header{Name: "hello", Typeflag: tar.TypeReg, Mode: 0o755, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = io.CopyN(w, program, size)
	}
	return err
}

func writeHelloFiles(w *tar.Writer) error {
	for _, f := range helloFiles() {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: f.mode, Size: int64(len(f.text)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if f.name[len(f.name)-1] == '/' {
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

func helloImage(layers []*layer.Layer, source string) (*incoming, error) {
	epoch := time.Unix(0, 0).UTC()
	cfg := spec.ImageConfig{
		Platform: spec.HostPlatform(),
		Created:  &epoch,
		Author:   "tug",
		Config: spec.RunConfig{
			Env:        []string{"PATH=/"},
			Entrypoint: []string{"/hello"},
			WorkingDir: "/",
			Labels:     map[string]string{"org.opencontainers.image.title": "tug hello", "org.opencontainers.image.description": "tug's built-in image"},
		},
		RootFS: spec.RootFS{Type: "layers"},
		History: []spec.HistoryRow{
			{Created: &epoch, CreatedBy: "COPY tug-init /hello", Comment: "made by tug from its own tug-init"},
			{Created: &epoch, CreatedBy: "COPY etc usr /", Comment: "made by tug"},
			{Created: &epoch, CreatedBy: `ENTRYPOINT ["/hello"]`, Comment: "made by tug", EmptyLayer: true},
		},
	}
	in := &incoming{source: source}
	for _, l := range layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
		in.size += l.Content
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	in.layers, in.id = cfg.RootFS.DiffIDs, spec.DigestOf(b)
	in.blobs = map[spec.Digest][]byte{in.id: b}
	return in, nil
}

// IsHello reports whether a user who wrote name means the built-in image.
func IsHello(name string) bool {
	ref, err := spec.ParseDockerReference(name)
	return err == nil && ref.String() == HelloName
}
