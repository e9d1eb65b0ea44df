package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// bigImage is the name of the image with many files.
const bigImage = "bench.invalid/files:1"

// measureLoad compares loading a layer of many small files, and removing it.
func measureLoad(ctx context.Context, l *lab, c config) (chapter, error) {
	files, err := l.packLayer(ctx, "files", c.files, smallFile, packGzip)
	if err != nil {
		return chapter{}, err
	}
	archive, err := l.packImage("files", bigImage, files)
	if err != nil {
		return chapter{}, err
	}
	t := l.newTug("load", "50ms")
	pod, err := l.newPodman("podman-load")
	if err != nil {
		return chapter{}, err
	}
	tree := l.path("tree")
	untar := fmt.Sprintf("mkdir %s && gzip -dc %s | tar -x -C %s", tree, files.path, tree)
	synced := func(name string, c command) subject { return subject{name, syncDisks, c.run} }
	got, err := l.interleave(ctx, c.loads, 0, []subject{
		synced("tug load", t.command("load", "-i", archive)),
		synced("tug rmi", t.command("rmi", bigImage)),
		synced("podman load", pod.command("load", "-i", archive)),
		synced("podman rmi", pod.command("rmi", "--all")),
		synced("tar", command{args: []string{"sh", "-c", untar}}),
		synced("rm", command{args: []string{"rm", "-rf", tree}}),
		{"inflate", nil, inflate(false, files)},
		{"inflate+hash", nil, inflate(true, files)},
	})
	if err != nil {
		return chapter{}, err
	}
	podLoad := got["podman load"].median()
	return chapter{
		title: "Load and remove an image",
		text: fmt.Sprintf("An OCI archive with one gzip layer of %d files, %.0f MB of tar in %.0f MB of gzip. Caches are warm and `sync` comes before each run. "+
			"tug writes the layer durably (fdatasync) before it reports success; podman and tar leave that to the kernel. "+
			"The budgets are those for a pull.", c.files, float64(files.size)/1e6, float64(files.packed)/1e6),
		unit: "ms",
		figures: []figure{
			{what: "`tug load`", s: got["tug load"], budgets: []budget{
				{"1.3 × inflate and SHA-256 in Go", 1.3 * got["inflate+hash"].median()},
				{"0.15 × podman", 0.15 * podLoad},
			}},
			{what: "`podman load`", s: got["podman load"]},
			{what: "`gzip -dc` into `tar -x`", s: got["tar"]},
			{what: "inflate alone, klauspost", s: got["inflate"]},
			{what: "inflate and SHA-256 of both streams", s: got["inflate+hash"]},
			{what: "`tug rmi`", s: got["tug rmi"], budgets: []budget{{"0.03 × docker's 6.8 s for 69,500 files, seen elsewhere", 0.03 * 6800}}},
			{what: "`podman rmi`", s: got["podman rmi"]},
			{what: "`rm -rf` of the tree", s: got["rm"]},
		},
	}, nil
}

func syncDisks(ctx context.Context) error { return exec.CommandContext(ctx, "sync").Run() }

// inflate is the work that nobody can avoid, layer after layer: reading and
// inflating, and to know that it is the right one, hashing what is read and
// what comes out.
func inflate(hash bool, layers ...*packed) func(context.Context) (time.Duration, error) {
	return func(context.Context) (time.Duration, error) {
		begin := time.Now()
		for _, l := range layers {
			if err := l.inflate(hash); err != nil {
				return 0, err
			}
		}
		return time.Since(begin), nil
	}
}

func (p *packed) inflate(hash bool) error {
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	out := io.Discard
	if hash {
		in, out = io.TeeReader(f, sha256.New()), sha256.New()
	}
	in = bufio.NewReaderSize(in, 1<<18)
	if p.how == packZstd {
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		defer z.Close()
		_, err = io.Copy(out, z)
		return err
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, z)
	return err
}
