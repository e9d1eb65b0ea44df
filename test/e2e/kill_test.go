//go:build root

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
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
// while containers are created, start and write: no container, no exit code and
// no byte of a log or of a living command's output is lost.
func TestKilledAtRandomMoments(t *testing.T) { killMany(t, kills) }

// The same, a few times, for the virtual machines.
func TestCoreKilled(t *testing.T) { killMany(t, 6) }

func killMany(t *testing.T, times int) {
	t.Parallel()
	g := newBusybox(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	lost := 0
	for n := range times {
		if problem := g.killOne(n, random); problem != "" {
			t.Error(problem)
			if lost++; lost == 5 {
				t.Fatal("and so on")
			}
		}
	}
}

// trial is one container that talks while something is killed.
type trial struct {
	*tug
	name, label string
	what        string        // command, supervisor, both
	early       bool          // before the first byte: while it is created and started
	delay       time.Duration // since the command's start, or since the first byte
	mode        string        // "", "-t", "-i"
	want        string        // what it writes
	stdout      *firstByte
	stderr      bytes.Buffer
}

// killOne runs one trial; it returns what was wrong.
func (g *tug) killOne(n int, random *rand.Rand) string {
	k := &trial{
		tug: g, name: fmt.Sprintf("talk%d", n), early: random.IntN(2) == 0,
		what:   []string{"command", "supervisor", "both"}[random.IntN(3)],
		mode:   []string{"", "", "-t", "-i"}[random.IntN(4)],
		delay:  time.Duration(random.IntN(40_000)) * time.Microsecond,
		want:   talked(),
		stdout: &firstByte{seen: make(chan struct{})},
	}
	k.label = fmt.Sprintf("kill %d (%s%s after %v, early %v)", n, k.what, k.mode, k.delay, k.early)
	script := talkScript
	switch k.mode {
	case "-t":
		k.want = strings.ReplaceAll(k.want, "\n", "\r\n")
	case "-i":
		script = "cat; exit 42"
	}
	args := []string{"run", "--name", k.name, image, "sh", "-c", script}
	if k.mode != "" {
		args = slices.Insert(args, 1, k.mode)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ended := false
	defer func() {
		if !ended { // the test was ended in it
			g.t.Log(k.label)
		}
	}()
	problem := k.run(ctx, g.command(ctx, args...))
	ended = true
	if problem != "" {
		return k.label + ": " + problem
	}
	return ""
}

func (k *trial) run(ctx context.Context, cmd *exec.Cmd) string {
	cmd.Stdout, cmd.Stderr = k.stdout, &k.stderr
	if k.mode == "-i" {
		cmd.Stdin = &drip{text: talked()}
	}
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	if !k.early {
		select {
		case <-k.stdout.seen:
		case <-ctx.Done():
			return "no output: " + k.stderr.String()
		}
	}
	time.Sleep(k.delay)
	if k.what != "command" {
		if _, supervisor := k.resident(); supervisor != 0 {
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
		}
	}
	if k.what != "supervisor" {
		_ = cmd.Process.Kill()
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return "the command did not end"
	}
	if k.what == "supervisor" {
		if code := cmd.ProcessState.ExitCode(); code != 42 {
			return fmt.Sprintf("the command ended with %d (%v), want 42: %s", code, err, k.stderr.String())
		}
		if got := k.stdout.String(); got != k.want {
			return "the command's output is not the container's: " + difference(got, k.want)
		}
	}
	return k.outcome()
}

// outcome checks that there is a whole container, or where the command died
// early, none or one that was not started, and never anything in between.
func (k *trial) outcome() string {
	if k.early && k.what != "supervisor" {
		r := k.do(nil, "inspect", "--format", "{{.State.Status}}", k.name)
		switch {
		case r.code == 1 && strings.Contains(r.stderr, k.name): // and the name is free
			r = k.do(nil, "create", "--name", k.name, image, "sh", "-c", talkScript)
			k.want = talked()
		case r.code != 0:
			return r.String()
		}
		if k.state(k.name).State.Status == "created" {
			// Not started, or just being started by a supervisor that was asked
			// to before the command died: start takes both.
			k.do(nil, "start", "-ai", k.name)
		}
		if r.code != 0 {
			return r.String()
		}
	}
	if r := k.do(nil, "wait", k.name); r.stdout != "42\n" {
		return fmt.Sprintf("%v, want 42", r)
	}
	r := k.do(nil, "logs", k.name)
	// Input that died with the command is no loss of ours.
	cut := k.mode == "-i" && k.what != "supervisor" && strings.HasPrefix(k.want, r.stdout)
	if r.stdout != k.want && !cut {
		return fmt.Sprintf("the log is not what the container wrote: %s %s", difference(r.stdout, k.want), r.stderr)
	}
	if s := k.state(k.name); s.State.Status != "exited" || s.State.ExitCode != 42 {
		return fmt.Sprintf("%+v", s)
	}
	if r := k.do(nil, "rm", k.name); r.code != 0 {
		return r.String()
	}
	return ""
}

// drip is text that comes in many small pieces.
type drip struct{ text string }

func (d *drip) Read(b []byte) (int, error) {
	if d.text == "" {
		return 0, io.EOF
	}
	time.Sleep(100 * time.Microsecond)
	n := copy(b, d.text[:min(len(d.text), 199)])
	d.text = d.text[n:]
	return n, nil
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
