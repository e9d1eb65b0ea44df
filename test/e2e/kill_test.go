//go:build root

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// kills is how often something is killed.
const kills = 200

// talk writes numbered lines for a while and ends with code 42.
const (
	talkLines  = 4000
	talkScript = `i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo "line $i of many"; done; exit 42`
)

func talked() string {
	var b strings.Builder
	for i := range talkLines {
		fmt.Fprintf(&b, "line %d of many\n", i+1)
	}
	return b.String()
}

// kill -9 of the command, of the supervisor, or of both, at random moments
// while containers write: no container, no exit code and no byte of a log or
// of a living command's output is lost.
func TestKilledAtRandomMoments(t *testing.T) { killMany(t, kills) }

// The same, a few times, for the virtual machines.
func TestCoreKilled(t *testing.T) { killMany(t, 6) }

func killMany(t *testing.T, times int) {
	t.Parallel()
	g := newBusybox(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	want := talked()
	lost := 0
	for n := range times {
		if problem := g.killOne(n, random, want); problem != "" {
			t.Error(problem)
			if lost++; lost == 5 {
				t.Fatal("and so on")
			}
		}
	}
}

func (g *tug) killOne(n int, random *rand.Rand, want string) string {
	what := []string{"command", "supervisor", "both"}[random.IntN(3)]
	delay := time.Duration(random.IntN(40_000)) * time.Microsecond
	name := fmt.Sprintf("talk%d", n)
	label := fmt.Sprintf("kill %d (%s after %v)", n, what, delay)

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := g.command(ctx, "run", "--name", name, image, "sh", "-c", talkScript)
	out := &firstByte{seen: make(chan struct{})}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	select {
	case <-out.seen:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		return label + ": no output: " + stderr.String()
	}
	time.Sleep(delay)
	if what != "command" {
		if _, supervisor := g.resident(); supervisor != 0 {
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
		}
	}
	if what != "supervisor" {
		_ = cmd.Process.Kill()
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return label + ": the command did not end"
	}
	if what == "supervisor" {
		if code := cmd.ProcessState.ExitCode(); code != 42 {
			return fmt.Sprintf("%s: the command ended with %d (%v), want 42: %s", label, code, err, stderr.String())
		}
		if got := out.String(); got != want {
			return fmt.Sprintf("%s: the command's output is not the container's: %s", label, difference(got, want))
		}
	}
	if r := g.do(nil, "wait", name); r.stdout != "42\n" {
		return fmt.Sprintf("%s: %v, want 42", label, r)
	}
	r := g.do(nil, "logs", name)
	if r.stdout != want {
		return fmt.Sprintf("%s: the log is not what the container wrote: %s %s", label, difference(r.stdout, want), r.stderr)
	}
	if s := g.state(name); s.State.Status != "exited" || s.State.ExitCode != 42 {
		return fmt.Sprintf("%s: %+v", label, s)
	}
	if r := g.do(nil, "rm", name); r.code != 0 {
		return fmt.Sprintf("%s: %v", label, r)
	}
	return ""
}

// firstByte collects what is written and tells when something was.
type firstByte struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	seen chan struct{}
}

func (f *firstByte) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.buf.Len() == 0 && len(b) > 0 {
		close(f.seen)
	}
	return f.buf.Write(b)
}

func (f *firstByte) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.buf.String()
}

func difference(got, want string) string {
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	from := max(0, at-30)
	return fmt.Sprintf("%d bytes, want %d, different from byte %d on: got %q, want %q",
		len(got), len(want), at, got[from:min(len(got), at+30)], want[from:min(len(want), at+30)])
}

// A terminal and a program that goes on survive the supervisor too.
func TestCoreTerminalSurvivesSupervisor(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	p := g.terminal(24, 80, "run", "-it", "--name", "term", image, "sh")
	for n := range 5 {
		p.typed(fmt.Sprintf("echo before-%d-$((1+1))\n", n))
		p.shows(fmt.Sprintf("before-%d-2", n))
		keeper, supervisor := g.resident()
		if keeper == 0 || supervisor == 0 {
			t.Fatalf("keeper %d, supervisor %d", keeper, supervisor)
		}
		if err := syscall.Kill(supervisor, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.typed(fmt.Sprintf("echo after-%d-$((1+1))\n", n))
		p.shows(fmt.Sprintf("after-%d-2", n))
	}
	p.typed("exit 3\n")
	if code := p.ends(); code != 3 {
		t.Errorf("exit code %d, want 3:\n%s", code, p.output())
	}
}

// With nothing running and the quiet time over, no process is left.
func TestNothingResident(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "--rm", image, "true")
	start := time.Now()
	eventually(t, 60*time.Second, func() string {
		if pids := g.processes(); len(pids) > 0 {
			return fmt.Sprintf("processes %v are still there", pids)
		}
		return ""
	})
	t.Logf("gone after %v", time.Since(start).Round(time.Second))
	same(t, "and back at once", g.ok("run", "--rm", image, "echo", "again"), "again")
}

func TestParallelRuns(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	var wg sync.WaitGroup
	problems := make(chan string, 32)
	for n := range 32 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			cmd := g.command(ctx, "run", "--rm", image, "sh", "-c", fmt.Sprintf("echo out %d; exit %d", n, n))
			out, err := cmd.CombinedOutput()
			if want := fmt.Sprintf("out %d\n", n); string(out) != want || cmd.ProcessState.ExitCode() != n {
				problems <- fmt.Sprintf("run %d: %v, %q", n, err, out)
			}
		})
	}
	wg.Wait()
	close(problems)
	for p := range problems {
		t.Error(p)
	}
	same(t, "containers left", g.ok("ps", "-aq"), "")
}

// yes | head -c 1G | tug run -i ... wc -c, and back out.
func TestGibibyte(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const size = 1 << 30
	r := g.do(io.LimitReader(zeros{}, size), "run", "--rm", "-i", image, "wc", "-c")
	same(t, "bytes in", strings.TrimSpace(r.stdout), fmt.Sprint(size))

	cmd := g.command(t.Context(), "run", "--rm", image, "head", "-c", fmt.Sprint(size), "/dev/zero")
	var n counter
	cmd.Stdout = &n
	if err := cmd.Run(); err != nil || n != size {
		t.Errorf("%d bytes came out, want %d: %v", n, size, err)
	}
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// The shell's own pipes.
func TestShellPipes(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	for script, want := range map[string]string{
		`"$TUG" run --rm busybox:test yes | head -3 | tr '\n' ' '`:                             "y y y ",
		`yes | head -c 100000000 | "$TUG" run --rm -i busybox:test wc -c`:                      "100000000\n",
		`"$TUG" run --rm -i busybox:test sh -c 'read a; echo $a' < /dev/null; echo $?`:         "\n0\n",
		`yes | "$TUG" run --rm -i busybox:test head -1`:                                        "y\n",
		`"$TUG" run --rm busybox:test sh -c 'echo a; echo b >&2' 2>/dev/null`:                  "a\n",
		`"$TUG" run --rm busybox:test sh -c 'exec >&-; sleep 0.1; echo gone >&2' 2>&1`:         "gone\n",
		`"$TUG" run --rm busybox:test sh -c '(sleep 0.3; echo late) & echo early' | tr '\n' ,`: "early,",
	} {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
		env := g.command(t.Context())
		cmd.Env = append(env.Env, "TUG="+g.path)
		out, err := cmd.CombinedOutput()
		if string(out) != want {
			t.Errorf("%s\n got %q (%v)\nwant %q", script, out, err, want)
		}
	}
}
