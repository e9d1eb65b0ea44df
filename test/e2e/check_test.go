//go:build root

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// harm does something to a file that must be there.
func harm(t *testing.T, pattern string, f func(path string) error) {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	if err := f(found[0]); err != nil {
		t.Fatal(err)
	}
}

func flipByte(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o600)
}

// Every kind of damage is named, what can be mended is, and then the image and
// the container run.
func TestSystemCheck(t *testing.T) {
	g := newBusybox(t)
	id := g.ok("create", "--name", "box", "busybox:test", "echo", "it runs")
	if out := g.ok("system", "check"); out != "No faults found" {
		t.Fatal(out)
	}
	if out := g.ok("image", "verify", "--all"); !strings.Contains(out, "busybox:test") || !strings.Contains(out, "verified") {
		t.Error(out)
	}
	dir := filepath.Join(g.root(), "containers", id)
	for _, c := range []struct {
		name, pattern, words string
		do                   func(path string) error
		leaves               bool // what the user has to decide about
		mend                 func(path string) error
	}{
		{"index", g.root() + "/layers/*/index.erofs", "index.erofs differs from what the tar says", flipByte, false, nil},
		{"meta", g.root() + "/layers/*/meta.json", "meta.json is missing", os.Remove, false, nil},
		{"record", g.root() + "/images/ids/*.json", "is not the record of this image", func(p string) error { return os.Truncate(p, 10) }, false, nil},
		{"container name", g.root() + "/containers-by-name/box", "does not lead to the container", os.Remove, false, nil},
		{"container of another name", g.root() + "/containers-by-name/box", "does not lead to the container", func(p string) error {
			return os.WriteFile(p, []byte(strings.Repeat("0", 64)+"\n"), 0o600)
		}, false, nil},
		{"work", dir + "/work", "work is missing", os.RemoveAll, false, nil},
		{"config open", dir + "/config.json", "has mode 0644", func(p string) error { return os.Chmod(p, 0o644) }, false, nil},
		{"start record", dir + "/config.json", "start.json is not the record", func(p string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(p), "start.json"), []byte("{"), 0o600)
		}, false, nil},
		{"tar", g.root() + "/layers/*/tar", "tar has digest", flipByte, true, flipByte},
		{"stranger", g.root() + "/layers", "does not belong there", func(p string) error { return os.Mkdir(p+"/mine", 0o700) }, true, func(p string) error { return os.Remove(p + "/mine") }},
		{"upper", dir + "/upper", "what the container had written is lost", func(p string) error { return os.Rename(p, p+"x") }, true, func(p string) error { return os.Rename(dir+"/upperx", p) }},
	} {
		path := ""
		harm(t, c.pattern, func(p string) error { path = p; return c.do(p) })
		r := g.do(nil, "system", "check")
		words := c.words
		if c.name == "upper" {
			words = "upper is missing"
		}
		if r.code != 1 || !strings.Contains(r.stdout, words) {
			t.Errorf("%s: %v", c.name, r)
		}
		r = g.do(nil, "system", "check", "--repair")
		if !strings.Contains(r.stdout, c.words) || (r.code != 0) != c.leaves || strings.Contains(r.stdout, "[mended") == c.leaves {
			t.Errorf("%s: repair: %v", c.name, r)
		}
		if c.mend != nil {
			if err := c.mend(path); err != nil {
				t.Fatal(err)
			}
		}
		if r := g.do(nil, "system", "check"); r.code != 0 || r.stdout != "No faults found\n" {
			t.Fatalf("%s: after repair: %v", c.name, r)
		}
		same(t, c.name, g.ok("run", "--rm", "busybox:test", "echo", "yes"), "yes")
	}
	same(t, "the container", g.ok("start", "-a", "box"), "it runs")
	harm(t, g.root()+"/layers/*/tar", flipByte)
	g.fails(1, args("image", "verify", "busybox:test"), "not what its digests say")
	r := g.do(nil, "system", "check", "--format", "json")
	var v struct {
		OK     bool
		Faults []struct{ Object, ID, Path, What, Effect string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.OK || len(v.Faults) != 1 || v.Faults[0].Object != "layer" || r.code != 1 {
		t.Errorf("%v: %v", err, r)
	}
	if r := g.do(nil, "system", "check", "--quick"); r.code != 0 {
		t.Errorf("quick reads layers: %v", r)
	}
}

// What a killed command leaves is named, no fault, and removed by --repair; a
// container that runs is not disturbed.
func TestSystemCheckLeftovers(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "runs", "busybox:test", "sleep", "1000")
	for _, p := range []string{"tmp/layer-1", "containers-by-name/nobody"} {
		if err := os.WriteFile(filepath.Join(g.root(), p), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := g.ok("system", "check")
	if strings.Count(out, "leftover: ") != 2 || !strings.Contains(out, "2 leftovers of killed commands that do no harm") {
		t.Error(out)
	}
	if out := g.ok("system", "check", "--repair"); strings.Count(out, "[mended: removed it]") != 2 {
		t.Error(out)
	}
	same(t, "check", g.ok("system", "check"), "No faults found")
	same(t, "the container", g.ok("exec", "runs", "echo", "still"), "still")
}

// A second repair waits for the first, says so, and goes on when that is killed.
func TestRepairWaits(t *testing.T) {
	t.Parallel()
	g, r := newTug(t), startSlowRegistry(t)
	name, sum := g.bigBusybox(r, 8<<20)
	g.ok("pull", "-q", name)
	ids := strings.Fields(g.ok("inspect", "-f", `{{range .RootFS.Layers}}{{.}} {{end}}`, name))
	harm(t, filepath.Join(g.root(), "layers", strings.TrimPrefix(ids[len(ids)-1], "sha256:"), "tar"), flipByte)
	r.reset(2 << 20)
	first, _ := g.fetching(r, 1<<20, "system", "check", "--repair")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	second := g.command(ctx, "system", "check", "--repair")
	said, err := second.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	second.Stdout = &out
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "Another repair of this store is under way") {
		t.Errorf("%q, %v", line, err)
	}
	_ = first.Process.Kill()
	_ = first.Wait()
	r.rate.Store(0)
	if err := second.Wait(); err != nil || !strings.Contains(out.String(), "[mended: fetched it again]") {
		t.Errorf("%v: %s", err, &out)
	}
	g.bigIs(name, sum)
	same(t, "check", g.ok("system", "check"), "No faults found")
}

func TestExploreAndDiff(t *testing.T) {
	g := newBusybox(t)
	g.ok("run", "--rm", "tug.local/hello")
	out := g.ok("image", "explore", "busybox:test")
	for _, words := range []string{"Efficiency:", "LAYER", "CREATED BY", "/bin/busybox"} {
		if !strings.Contains(out, words) {
			t.Errorf("no %q in\n%s", words, out)
		}
	}
	var v struct {
		Data, Wasted int64
		Layers       []struct {
			DiffID  string
			Changes []struct{ Kind, Path, Type string }
		}
	}
	if err := json.Unmarshal([]byte(g.ok("image", "explore", "--format", "json", "busybox:test")), &v); err != nil || v.Data == 0 || len(v.Layers) == 0 || len(v.Layers[0].Changes) == 0 {
		t.Error(err, v)
	}
	same(t, "diff with itself", g.ok("image", "diff", "busybox:test", "busybox:test"), "")
	out = g.ok("image", "diff", "tug.local/hello", "busybox:test")
	if !strings.Contains(out, "A /bin/busybox") || !strings.Contains(out, "Config:") {
		t.Error(out)
	}
	g.fails(1, args("image", "explore", "--layer", "99", "busybox:test"), "has no layer 99")
	g.fails(1, args("image", "explore", "nope"), "No such image: nope:latest")
}
