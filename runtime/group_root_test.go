//go:build root

package runtime

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Many that make and remove cgroups below the same parent take it away from
// each other whenever it is empty for a moment.
func TestGroupsShareParent(t *testing.T) {
	top := fmt.Sprintf("/tug-test-%d", os.Getpid())
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			g, err := OpenGroup(fmt.Sprintf("%s/a/%d", top, n))
			for range 100 {
				if err == nil {
					err = g.Create()
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err = g.Remove(); err != nil {
					t.Error(err)
					return
				}
				g.RemoveAbove(top)
			}
		})
	}
	wg.Wait()
	g, _ := OpenGroup(top)
	for _, dir := range g.Dirs() {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}
