package main

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"tug/test/fixture"
)

// bigImage is the name of the image with many files.
const bigImage = "bench.invalid/files:1"

// measureLoad compares loading a layer of many small files, and removing it.
func measureLoad(ctx context.Context, l *lab, c config) (chapter, error) {
	big, err := l.bigLayer(ctx, c.files)
	if err != nil {
		return chapter{}, err
	}
	t := l.newTug("load", "50ms")
	pod, err := l.newPodman("podman-load")
	if err != nil {
		return chapter{}, err
	}
	tree := l.path("tree")
	untar := fmt.Sprintf("mkdir %s && gzip -dc %s | tar -x -C %s", tree, big.layer, tree)
	inflate := func(hash bool) func(context.Context) (time.Duration, error) {
		return func(context.Context) (time.Duration, error) { return inflateAlone(big.layer, hash) }
	}
	sync := func(ctx context.Context) error { return exec.CommandContext(ctx, "sync").Run() }
	synced := func(name string, c command) subject { return subject{name, sync, c.run} }
	got, err := l.interleave(ctx, c.loads, 0, []subject{
		synced("tug load", t.command("load", "-i", big.archive)),
		synced("tug rmi", t.command("rmi", bigImage)),
		synced("podman load", pod.command("load", "-i", big.archive)),
		synced("podman rmi", pod.command("rmi", "--all")),
		synced("tar", command{args: []string{"sh", "-c", untar}}),
		synced("rm", command{args: []string{"rm", "-rf", tree}}),
		{"inflate", nil, inflate(false)},
		{"inflate+hash", nil, inflate(true)},
	})
	if err != nil {
		return chapter{}, err
	}
	podLoad := got["podman load"].median()
	return chapter{
		title: "Load and remove an image",
		text: fmt.Sprintf("An OCI archive with one gzip layer of %d files, %.0f MB of tar in %.0f MB of gzip. Caches are warm and `sync` comes before each run. "+
			"tug writes the layer durably (fdatasync) before it reports success; podman and tar leave that to the kernel. "+
			"The budgets are those for a pull.", big.files, float64(big.size)/1e6, float64(big.packed)/1e6),
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

// inflateAlone is the work that nobody can avoid: reading and inflating the
// layer, and to know that it is the right one, hashing what is read and what
// comes out.
func inflateAlone(file string, hash bool) (time.Duration, error) {
	begin := time.Now()
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var in io.Reader = f
	out := io.Discard
	if hash {
		in, out = io.TeeReader(f, sha256.New()), sha256.New()
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(in, 1<<18))
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(out, z)
	return time.Since(begin), err
}

type bigLayer struct {
	layer, archive string
	files          int
	size, packed   int64
}

// bigLayer writes the layer and an OCI archive of it.
func (l *lab) bigLayer(ctx context.Context, files int) (*bigLayer, error) {
	b := &bigLayer{layer: l.path("layer.tar.gz"), archive: l.path("files.tar"), files: files}
	diffID, err := b.writeLayer(ctx)
	if err != nil {
		return nil, err
	}
	packed, err := os.ReadFile(b.layer)
	if err != nil {
		return nil, err
	}
	b.packed = int64(len(packed))
	a := &fixture.Archive{}
	descriptor := func(mediaType string, blob []byte) map[string]any {
		a.Add("blobs/sha256/"+fixture.Digest(blob)[7:], blob)
		return map[string]any{"mediaType": mediaType, "digest": fixture.Digest(blob), "size": len(blob)}
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)},
	})
	if err != nil {
		return nil, err
	}
	entry := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
	entry["annotations"] = map[string]string{"org.opencontainers.image.ref.name": bigImage, "io.containerd.image.name": bigImage}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{entry}})
	if err != nil {
		return nil, err
	}
	a.Add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	a.Add("index.json", index)
	return b, os.WriteFile(b.archive, a.Bytes(), 0o644)
}

// writeLayer makes files of up to 8 KiB with text that packs about 1:3, 100 to
// a directory, and returns the diffID.
func (b *bigLayer) writeLayer(ctx context.Context) (string, error) {
	f, err := os.Create(b.layer)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z := gzip.NewWriter(f)
	sum := sha256.New()
	count := new(counter)
	w := tar.NewWriter(io.MultiWriter(z, sum, count))
	r := rand.New(rand.NewPCG(7, 7))
	words := make([]string, 2000)
	for i := range words {
		word := make([]byte, 2+r.IntN(9))
		for j := range word {
			word[j] = byte('a' + r.IntN(26))
		}
		words[i] = string(word)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range b.files {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		dir := filepath.Join("srv", fmt.Sprintf("%03d", i/10000), fmt.Sprintf("%03d", i/100%100))
		if i%100 == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at}); err != nil {
				return "", err
			}
		}
		var text strings.Builder
		for size := r.IntN(8192) * r.IntN(8192) / 8192; text.Len() < size; {
			text.WriteString(words[r.IntN(len(words))] + " ")
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s/file-%05d.txt", dir, i), Mode: 0o644, Size: int64(text.Len()), ModTime: at}
		if err := w.WriteHeader(&h); err != nil {
			return "", err
		}
		if _, err := io.WriteString(w, text.String()); err != nil {
			return "", err
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	b.size = int64(*count)
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
