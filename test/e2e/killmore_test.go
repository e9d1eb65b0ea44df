//go:build root

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kill -9 of the command, of the supervisor, or of both, while execs run, a log
// is rotated, a container is paused, and one is committed: what runs goes on, no
// output is lost or doubled, nothing stays paused, and the store is whole.
func TestKilledAmidOthers(t *testing.T) { killAmid(t, 80) }

// The same, a few times, for the virtual machines.
func TestCoreKilledAmidOthers(t *testing.T) { killAmid(t, 8) }

// chatter counts lines for ever, about as fast as they can be logged.
const chatter = `i=0; while :; do i=$((i+1)); echo line $i; done`

func killAmid(t *testing.T, times int) {
	t.Parallel()
	g := newBusybox(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	k := &amid{tug: g, random: rand.New(rand.NewPCG(seed, 1))}
	g.ok("run", "-d", "--name", "calm", "--pids-limit", "200", image, "sh", "-c", "echo file > /made; while :; do sleep 1000; done")
	g.ok("run", "-d", "--name", "chatter", "--log-opt", "max-size=200k", "--log-opt", "max-file=3", image, "sh", "-c", chatter)
	pid := k.pid("calm")
	for n := range times {
		what := []func() string{k.exec, k.commit, k.pause, k.follow}
		if problem := what[n%len(what)](); problem != "" {
			t.Errorf("kill %d: %s", n, problem)
		}
		if s := g.state("calm"); s.State.Status != "running" || k.pid("calm") != pid {
			t.Fatalf("kill %d: calm is %+v", n, s)
		}
		if problem := contiguous(g.do(nil, "logs", "--tail", "500", "chatter").stdout); problem != "" {
			t.Errorf("kill %d: the log of chatter: %s", n, problem)
		}
		if t.Failed() {
			break
		}
	}
	g.ok("kill", "chatter")
	g.ok("wait", "chatter")
	if problem := contiguous(g.ok("logs", "chatter") + "\n"); problem != "" {
		t.Errorf("the whole log: %s", problem)
	}
	g.ok("system", "check")
}

type amid struct {
	*tug
	random *rand.Rand
}

func (k *amid) pid(name string) int {
	var s struct{ State struct{ Pid int } }
	k.inspect(&s, name)
	return s.State.Pid
}

// strike runs a command and kills at a random moment; it reports whether the
// command itself was killed.
func (k *amid) strike(within time.Duration, cmd *exec.Cmd) (killed bool, err error) {
	if err := cmd.Start(); err != nil {
		return false, err
	}
	time.Sleep(time.Duration(k.random.Int64N(int64(within))))
	what := k.random.IntN(3)
	if what != 0 {
		if _, supervisor := k.resident(); supervisor != 0 {
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
		}
	}
	if what != 1 {
		_ = cmd.Process.Kill()
	}
	return what != 1, cmd.Wait()
}

func (k *amid) cmd(args ...string) (*exec.Cmd, *strings.Builder, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := k.command(ctx, args...)
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out, cancel
}

// exec: all output and the exit code, unless the command was killed.
func (k *amid) exec() string {
	cmd, out, cancel := k.cmd("exec", "calm", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; exit 9")
	defer cancel()
	killed, _ := k.strike(40*time.Millisecond, cmd)
	if killed {
		return ""
	}
	if code := cmd.ProcessState.ExitCode(); code != 9 || strings.Count(out.String(), "\n") != 2000 {
		return fmt.Sprintf("exec: exit code %d, %d lines: %s", code, strings.Count(out.String(), "\n"), clip(out.String()))
	}
	return contiguous(out.String())
}

// commit: an image or none, and the container goes on.
func (k *amid) commit() string {
	cmd, out, cancel := k.cmd("commit", "calm", "committed:test")
	defer cancel()
	killed, err := k.strike(60*time.Millisecond, cmd)
	if !killed && err != nil {
		return fmt.Sprintf("commit: %v: %s", err, out)
	}
	problem := ""
	eventually(k.t, patience, func() string {
		if k.state("calm").State.Status != "running" {
			return "calm stays paused after a commit that was killed"
		}
		return ""
	})
	if r := k.do(nil, "run", "--rm", "committed:test", "cat", "/made"); r.code == 0 && r.stdout != "file\n" {
		problem = fmt.Sprintf("the committed image: %v", r)
	}
	k.do(nil, "rmi", "-f", "committed:test")
	return problem
}

// pause: it is paused or not, as inspect says, and goes on when told to.
func (k *amid) pause() string {
	cmd, out, cancel := k.cmd("pause", "calm")
	defer cancel()
	killed, err := k.strike(20*time.Millisecond, cmd)
	if !killed && err != nil {
		return fmt.Sprintf("pause: %v: %s", err, out)
	}
	switch s := k.state("calm").State.Status; {
	case s == "paused":
		if r := k.do(nil, "unpause", "calm"); r.code != 0 {
			return r.String()
		}
	case s != "running" || !killed:
		return "after pause calm is " + s
	}
	if r := k.do(nil, "exec", "calm", "echo", "on"); r.stdout != "on\n" {
		return fmt.Sprintf("after unpause: %v", r)
	}
	return ""
}

// follow: what an attached client sees has no gap, whatever log file it is in.
func (k *amid) follow() string {
	cmd, out, cancel := k.cmd("attach", "--no-stdin", "--sig-proxy=false", "chatter")
	defer cancel()
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	time.Sleep(time.Duration(k.random.IntN(30)) * time.Millisecond)
	if _, supervisor := k.resident(); supervisor != 0 {
		_ = syscall.Kill(supervisor, syscall.SIGKILL)
	}
	time.Sleep(100 * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	text := out.String()
	// It may begin and end within a line.
	if i := strings.Index(text, "\n"); i >= 0 {
		text = text[i+1:]
	}
	return contiguous(text)
}

// contiguous says what is wrong with lines "line N": N rises by one. What comes
// after the last newline is not looked at.
func contiguous(text string) string {
	last := 0
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		number, ok := strings.CutPrefix(line, "line ")
		if !ok {
			return fmt.Sprintf("%q", clip(line))
		}
		n, err := strconv.Atoi(strings.TrimSpace(number))
		if err != nil || last != 0 && n != last+1 {
			return fmt.Sprintf("%q after line %d", clip(line), last)
		}
		last = n
	}
	return ""
}
