package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"tug/test/fixture"
)

// packed is a compressed layer on disk.
type packed struct {
	path   string
	how    packing
	diffID string
	size   int64 // of the tar
	packed int64
}

type packing string

const (
	packGzip packing = "application/vnd.oci.image.layer.v1.tar+gzip"
	packZstd packing = "application/vnd.oci.image.layer.v1.tar+zstd"
)

// Largest files of a layer, in bytes.
const (
	smallFile = 8 << 10
	largeFile = 300 << 10
)

// packLayer writes a layer of files with text that packs about 1:3, a hundred
// to a directory, sizes from 0 to largest and mostly small.
func (l *lab) packLayer(ctx context.Context, name string, files, largest int, how packing) (*packed, error) {
	p := &packed{path: l.path(name + ".layer"), how: how}
	f, err := os.Create(p.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var z io.WriteCloser = gzip.NewWriter(f)
	if how == packZstd {
		if z, err = zstd.NewWriter(f); err != nil {
			return nil, err
		}
	}
	sum, count := sha256.New(), new(counter)
	w := tar.NewWriter(io.MultiWriter(z, sum, count))
	if err := writeFiles(ctx, w, name, files, largest); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p.diffID, p.size, p.packed = fmt.Sprintf("sha256:%x", sum.Sum(nil)), int64(*count), st.Size()
	return p, nil
}

func writeFiles(ctx context.Context, w *tar.Writer, name string, files, largest int) error {
	r := rand.New(rand.NewPCG(7, uint64(len(name)+files)))
	words := make([]string, 2000)
	for i := range words {
		word := make([]byte, 2+r.IntN(9))
		for j := range word {
			word[j] = byte('a' + r.IntN(26))
		}
		words[i] = string(word) + " "
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := filepath.Join("srv", name, fmt.Sprintf("%03d", i/10000), fmt.Sprintf("%03d", i/100%100))
		if i%100 == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at}); err != nil {
				return err
			}
		}
		var text strings.Builder
		for size := r.IntN(largest) * r.IntN(largest) / largest; text.Len() < size; {
			text.WriteString(words[r.IntN(len(words))])
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s/file-%05d.txt", dir, i), Mode: 0o644, Size: int64(text.Len()), ModTime: at}
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, text.String()); err != nil {
			return err
		}
	}
	return nil
}

// packImage writes an OCI archive of layers and returns its path.
func (l *lab) packImage(file, name string, layers ...*packed) (string, error) {
	a := &fixture.Archive{}
	descriptor := func(mediaType string, blob []byte) map[string]any {
		a.Add("blobs/sha256/"+fixture.Digest(blob)[7:], blob)
		return map[string]any{"mediaType": mediaType, "digest": fixture.Digest(blob), "size": len(blob)}
	}
	var diffIDs []string
	var blobs []any
	for _, p := range layers {
		b, err := os.ReadFile(p.path)
		if err != nil {
			return "", err
		}
		diffIDs = append(diffIDs, p.diffID)
		blobs = append(blobs, descriptor(string(p.how), b))
	}
	var failed error
	object := func(v map[string]any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			failed = err
		}
		return b
	}
	config := object(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest := object(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": descriptor("application/vnd.oci.image.config.v1+json", config), "layers": blobs,
	})
	entry := descriptor(manifestType, manifest)
	entry["annotations"] = map[string]string{"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
	a.Add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	a.Add("index.json", object(map[string]any{"schemaVersion": 2, "manifests": []any{entry}}))
	if failed != nil {
		return "", failed
	}
	path := l.path(file + ".oci.tar")
	return path, os.WriteFile(path, a.Bytes(), 0o644)
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
