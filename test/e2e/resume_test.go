//go:build root

package e2e

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tug/test/fixture"
)

// A slowRegistry is a registry behind a proxy that counts the bytes of blobs
// and lets them through at so many a second per connection.
type slowRegistry struct {
	*fixture.Registry
	addr  string
	rate  atomic.Int64 // 0: as fast as can be
	bytes atomic.Int64 // of blobs, since the last reset
	open  atomic.Int32 // answers with blobs under way
	most  atomic.Int32

	mu     sync.Mutex
	target string
}

func startSlowRegistry(t *testing.T) *slowRegistry {
	t.Helper()
	s := &slowRegistry{Registry: startRegistry(t)}
	s.target = s.Addr
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			s.mu.Lock()
			defer s.mu.Unlock()
			r.Out.URL.Scheme, r.Out.URL.Host = "http", s.target
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			if strings.Contains(r.Request.URL.Path, "/blobs/") {
				s.most.Store(max(s.most.Load(), s.open.Add(1)))
				r.Body = &slowBody{r.Body, s}
			}
			return nil
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.addr = server.Listener.Addr().String()
	return s
}

// restart starts the stopped registry again, with what it had.
func (s *slowRegistry) restart(t *testing.T) {
	t.Helper()
	r, err := fixture.StartRegistry(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Registry, s.target = r, r.Addr
}

// begins counting anew.
func (s *slowRegistry) reset(rate int64) {
	s.bytes.Store(0)
	s.most.Store(0)
	s.rate.Store(rate)
}

type slowBody struct {
	io.ReadCloser
	s *slowRegistry
}

func (b *slowBody) Read(p []byte) (int, error) {
	if rate := b.s.rate.Load(); rate > 0 {
		p = p[:min(int64(len(p)), rate/100)]
		time.Sleep(10 * time.Millisecond)
	}
	n, err := b.ReadCloser.Read(p)
	b.s.bytes.Add(int64(n))
	return n, err
}

func (b *slowBody) Close() error {
	b.s.open.Add(-1)
	return b.ReadCloser.Close()
}

// bigBusybox is busybox with one more layer, of size bytes that do not compress.
// The store has all but that layer, so that each pull is of one blob.
func (g *tug) bigBusybox(r *slowRegistry, size int) (name, sum string) {
	t := g.t
	t.Helper()
	i := busybox(t)
	i.Name = "base:test"
	push(t, r.Registry, i, fixture.Gzip)
	g.ok("pull", "-q", r.addr+"/base:test")
	content := random(t, size)
	i.Layers = append(i.Layers, fixture.NewLayer().File("big", 0o644, content).Bytes())
	i.Name = "big:test"
	push(t, r.Registry, i, fixture.Gzip)
	return r.addr + "/big:test", strings.TrimPrefix(fixture.Digest([]byte(content)), "sha256:")
}

// pulling starts a pull and waits until the registry has sent so many bytes of
// blobs to it.
func (g *tug) pulling(r *slowRegistry, name string, bytes int64) (*exec.Cmd, *strings.Builder) {
	g.t.Helper()
	return g.fetching(r, bytes, "pull", name)
}

// fetching is pulling with another command.
func (g *tug) fetching(r *slowRegistry, bytes int64, command ...string) (*exec.Cmd, *strings.Builder) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	g.t.Cleanup(cancel)
	cmd := g.command(ctx, command...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	eventually(g.t, patience, func() string {
		if got := r.bytes.Load(); got < bytes {
			return fmt.Sprintf("%d bytes were sent, want %d", got, bytes)
		}
		return ""
	})
	return cmd, &said
}

// bigIs checks the content of the big file of an image.
func (g *tug) bigIs(name, sum string) {
	g.t.Helper()
	same(g.t, "the big file", strings.Fields(g.ok("run", "--rm", name, "sha256sum", "/big"))[0], sum)
}

func (g *tug) partials() []string {
	g.t.Helper()
	files, err := filepath.Glob(filepath.Join(g.root(), "partial/*"))
	if err != nil {
		g.t.Fatal(err)
	}
	return files
}

// lost is how much of what a proxy has sent may be on the way, in buffers and
// begun chunks, when tug dies.
const lost = 1 << 20

// A pull that is killed again and again gets each byte once, also when the run
// directory goes with a reboot.
func TestResumeAfterKill(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startSlowRegistry(t)
	const size = 16 << 20
	name, sum := g.bigBusybox(r, size)
	var all int64
	for n := range 4 {
		r.reset(8 << 20)
		cmd, _ := g.pulling(r, name, 3<<20)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if len(g.partials()) != 1 {
			t.Errorf("kill %d: partials %q", n, g.partials())
		}
		if n%2 == 1 {
			if err := os.RemoveAll(g.runRoot()); err != nil {
				t.Fatal(err)
			}
		}
		all += r.bytes.Load()
	}
	r.reset(0)
	g.ok("pull", "-q", name)
	last := r.bytes.Load()
	t.Logf("%d bytes before, %d at last", all, last)
	if all+last > size+5*lost || last > size-4*(3<<20-lost) {
		t.Errorf("%d bytes came in four cut pulls and %d in the last, of %d", all, last, size)
	}
	g.bigIs(name, sum)
	same(t, "partials", strings.Join(g.partials(), "\n"), "")
	g.ok("rmi", name)
	same(t, "tmp", strings.Join(storeFilesIn(t, g, "tmp"), "\n"), "")
}

// Ctrl-C ends a pull at once and without a word; nothing stays but what the
// next pull goes on with.
func TestResumeAfterInterrupt(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startSlowRegistry(t)
	const size = 8 << 20
	name, sum := g.bigBusybox(r, size)
	for _, c := range []struct {
		sig  syscall.Signal
		code int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}} {
		r.reset(4 << 20)
		cmd, said := g.pulling(r, name, 2<<20)
		start := time.Now()
		_ = cmd.Process.Signal(c.sig)
		_ = cmd.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%v: took %v", c.sig, took)
		}
		if code := cmd.ProcessState.ExitCode(); code != c.code || said.String() != "" {
			t.Errorf("%v: code %d, want %d: %q", c.sig, code, c.code, said)
		}
		same(t, "tmp", strings.Join(storeFilesIn(t, g, "tmp"), "\n"), "")
		if len(g.partials()) != 1 {
			t.Errorf("%v: partials %q", c.sig, g.partials())
		}
	}
	r.reset(0)
	g.ok("pull", "-q", name)
	if got := r.bytes.Load(); got > size-2*(2<<20-lost) {
		t.Errorf("%d bytes came at last, of %d", got, size)
	}
	g.bigIs(name, sum)
}

// The pull of run and create ends as pull does, and leaves no --cidfile.
func TestResumeAfterInterruptedRun(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startSlowRegistry(t)
	const size = 8 << 20
	name, sum := g.bigBusybox(r, size)
	cidfile := filepath.Join(t.TempDir(), "cid")
	for _, c := range []struct {
		sig     syscall.Signal
		code    int
		command string
	}{{syscall.SIGINT, 130, "run"}, {syscall.SIGTERM, 143, "create"}} {
		r.reset(4 << 20)
		cmd, said := g.fetching(r, 2<<20, c.command, "--cidfile", cidfile, name, "true")
		start := time.Now()
		_ = cmd.Process.Signal(c.sig)
		_ = cmd.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s, %v: took %v", c.command, c.sig, took)
		}
		last := said.String()[strings.LastIndexByte(strings.TrimSpace(said.String()), '\n')+1:]
		if code := cmd.ProcessState.ExitCode(); code != c.code || strings.Contains(said.String(), "tug:") || !strings.HasSuffix(strings.TrimSpace(last), "Pulling fs layer") {
			t.Errorf("%s, %v: code %d, want %d: %q", c.command, c.sig, code, c.code, said)
		}
		same(t, "tmp", strings.Join(storeFilesIn(t, g, "tmp"), "\n"), "")
		same(t, "containers", g.ok("ps", "-aq"), "")
		if _, err := os.Stat(cidfile); err == nil {
			t.Errorf("%s: a --cidfile stays", c.command)
		}
		if len(g.partials()) != 1 {
			t.Errorf("%s, %v: partials %q", c.command, c.sig, g.partials())
		}
	}
	r.reset(0)
	g.bigIs(name, sum)
	if got := r.bytes.Load(); got > size-2*(2<<20-lost) {
		t.Errorf("%d bytes came at last, of %d", got, size)
	}
}

// A registry that dies and comes back costs a pull nothing; where it stays away
// too long, the next pull goes on.
func TestResumeAfterRegistry(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startSlowRegistry(t)
	const size = 8 << 20
	name, sum := g.bigBusybox(r, size)
	r.reset(4 << 20)
	cmd, said := g.pulling(r, name, 2<<20)
	r.Stop()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the registry is gone: %v", err)
	}
	if !strings.Contains(said.String(), name) || strings.Count(strings.TrimSpace(said.String()), "\n") > 1 {
		t.Errorf("%q", said)
	}
	t.Log(said)
	r.restart(t)
	cmd, said = g.pulling(r, name, 4<<20)
	r.Stop()
	r.restart(t)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the registry came back: %v: %s", err, said)
	}
	if got := r.bytes.Load(); got > size+3*lost {
		t.Errorf("%d bytes came, of %d", got, size)
	}
	g.bigIs(name, sum)
}

// A large layer over slow connections comes over several, faster than over one,
// and a kill then loses no more.
func TestParallelRanges(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startSlowRegistry(t)
	const size, rate = 64 << 20, 6 << 20
	name, sum := g.bigBusybox(r, size)
	r.reset(rate)
	cmd, _ := g.pulling(r, name, 32<<20)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	before := r.bytes.Load()
	if most := r.most.Load(); most < 3 {
		t.Errorf("%d connections", most)
	}
	start := time.Now()
	r.most.Store(0)
	g.ok("pull", "-q", name)
	took, all := time.Since(start), r.bytes.Load()
	t.Logf("%d bytes, killed, %d bytes in %v over at most %d connections", before, all-before, took, r.most.Load())
	if all > size+6*lost {
		t.Errorf("%d bytes came, of %d", all, size)
	}
	g.bigIs(name, sum)
}

// On a nearly full disk a partial, and what a killed pull left, give way to the
// layer.
func TestResumeOnFullDisk(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startSlowRegistry(t)
	smallDisk(t, g, "48M")
	const size = 8 << 20
	name, sum := g.bigBusybox(r, size)
	r.reset(4 << 20)
	cmd, _ := g.pulling(r, name, 4<<20)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if len(g.partials()) != 1 {
		t.Fatalf("partials %q", g.partials())
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(g.root(), &fs); err != nil {
		t.Fatal(err)
	}
	leave := int64(size + 1<<20) // enough for the tar, not for the rest of the partial, too
	fill := make([]byte, int64(fs.Bavail)*fs.Bsize-leave)
	if err := os.WriteFile(filepath.Join(g.root(), "fill"), fill, 0o600); err != nil {
		t.Fatal(err)
	}
	r.reset(0)
	g.ok("pull", "-q", name)
	same(t, "partials", strings.Join(g.partials(), "\n"), "")
	if err := os.Remove(filepath.Join(g.root(), "fill")); err != nil {
		t.Fatal(err)
	}
	g.bigIs(name, sum)
}
