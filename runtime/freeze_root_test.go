//go:build root

package runtime

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tug/sys"
)

// The freezer of every layout that this machine has.
func TestFreeze(t *testing.T) {
	have, err := findCgroups("x")
	if err != nil {
		t.Fatal(err)
	}
	layouts := map[string]*cgroups{}
	if len(have.v1) > 0 {
		layouts["v1"] = have
	}
	for _, dir := range []string{have.v2, "/sys/fs/cgroup/unified"} {
		if dir != "" && sys.IsCgroup2(dir) {
			layouts["v2"] = &cgroups{v2: dir}
		}
	}
	for name, c := range layouts {
		t.Run(name, func(t *testing.T) {
			c.parent = "/tug-freeze-" + strconv.Itoa(os.Getpid())
			slot, err := c.create("", nil)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				c.thaw(slot)
				cmd.Process.Kill()
				cmd.Wait()
				c.removeLater(slot)
				c.removing.Wait()
				c.removeParent()
			}()
			f := c.freezer(slot)
			if err := writeFile(filepath.Dir(f.file)+"/cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if c.frozen(slot) {
					t.Fatal("frozen before")
				}
				if err := f.freeze(context.Background()); err != nil {
					t.Fatal(err)
				}
				if !c.frozen(slot) {
					t.Fatal("not frozen")
				}
				if err := c.thaw(slot); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.freeze(context.Background()); err != nil {
				t.Fatal(err)
			}
			cmd.Process.Signal(os.Kill)
			if name == "v1" && !sys.SignalPending(cmd.Process.Pid, 9) { // on version 2 it ends at once
				t.Error("the SIGKILL is not pending")
			}
			c.thaw(slot)
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				b, _ := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
				if strings.Contains(string(b), ") Z ") {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("it does not end: %s", b)
				}
			}
		})
	}
}
