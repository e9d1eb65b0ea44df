package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// shared returns images that have layers in common: all the lowest, and each
// one more with its neighbour.
func shared(n int) *fixture.Image {
	return &fixture.Image{
		Name:   fmt.Sprintf("own%d:v1", n),
		Layers: [][]byte{fileLayer("base", "all have this"), fileLayer("pair", strconv.Itoa(n/2)), fileLayer("own", strconv.Itoa(n))},
		Config: map[string]any{"User": strconv.Itoa(n)},
	}
}

// churn loads and removes images, round after round: its own, which must be
// whole between the two, and one that all others load and remove, too.
func churn(ctx context.Context, s *Images, n, rounds int) error {
	own, common := shared(n), shared(1000)
	for round := range rounds {
		archive := fixture.DockerArchive(own, common)
		if round%2 == 1 {
			archive = fixture.OCIArchive(fixture.Gzip, common, own)
		}
		if _, err := s.Load(ctx, bytes.NewReader(archive.Bytes()), nil); err != nil {
			return fmt.Errorf("round %d: load: %w", round, err)
		}
		img, err := s.Resolve(own.Name)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		for i, d := range img.Layers() {
			l, err := s.layers.Get(d)
			if err != nil {
				return fmt.Errorf("round %d: layer %d is lost: %w", round, i, err)
			}
			l.Close()
			b, err := os.ReadFile(filepath.Join(s.st.Layer(d.Hex()), "tar"))
			if err != nil || spec.DigestOf(b) != d {
				return fmt.Errorf("round %d: layer %d has changed: %w", round, i, err)
			}
		}
		if err := s.Tag(own.Name, fmt.Sprintf("common:tag%d", round%3)); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if _, err := s.List(); err != nil {
			return fmt.Errorf("round %d: list: %w", round, err)
		}
		if _, err := s.Remove(string(img.ID), true, nil); err != nil {
			return fmt.Errorf("round %d: remove: %w", round, err)
		}
		if _, err := s.Remove(common.Name, true, nil); err != nil && !errs.Is(err, errs.NotFound) {
			return fmt.Errorf("round %d: remove the common one: %w", round, err)
		}
	}
	return nil
}

// settled checks the store after everybody has stopped.
func settled(t *testing.T, s *Images) {
	t.Helper()
	whole(t, s)
	imgs, err := s.List()
	must(t, err)
	for _, img := range imgs {
		remove(t, s, string(img.ID), true)
	}
	age(t, s)
	must(t, s.Sweep())
	empty(t, s)
}

// No image loses a layer while others that share it come and go.
func TestConcurrentGoroutines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newImages(t, dir)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			s := s
			if n%2 == 1 {
				s = newImages(t, dir) // as another command would
			}
			if err := churn(t.Context(), s, n, 6); err != nil {
				t.Errorf("worker %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	settled(t, s)
}

const workerEnv = "TUG_TEST_IMAGE_WORKER"

// The same in processes of their own, some of which are killed on the way.
func TestConcurrentProcesses(t *testing.T) {
	if n, err := strconv.Atoi(os.Getenv(workerEnv)); err == nil {
		if err := churn(t.Context(), newImages(t, os.Getenv(workerEnv+"_DIR")), n, 5); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	dir := t.TempDir()
	s := newImages(t, dir)
	exe, err := os.Executable()
	must(t, err)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestConcurrentProcesses$")
			cmd.Env = append(os.Environ(), workerEnv+"="+strconv.Itoa(n), workerEnv+"_DIR="+dir)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			if n >= 4 {
				// Killed at whatever it does when this is done.
				if err := churn(t.Context(), s, 100+n, 1); err != nil {
					t.Errorf("beside process %d: %v", n, err)
				}
				_ = cmd.Process.Kill() // it may have ended
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); err != nil && !(n >= 4 && errors.As(err, &exit)) {
				t.Errorf("process %d: %v\n%s", n, err, out.Bytes())
			}
		})
	}
	wg.Wait()
	settled(t, s)
}
