package boot

import (
	"encoding/json"
	"os"

	"tug/runtime/plan"
)

// runHooks runs hooks in the container's namespaces, one after the other; the
// first that fails ends the start. They read the container's state, in which
// the process has the number it has in the container.
func (c *ociStarter) runHooks(kind string, hooks []plan.Hook, status string) error {
	if len(hooks) == 0 {
		return nil
	}
	state := c.oci.State
	state.Status, state.Pid = status, os.Getpid()
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for i := range hooks {
		if err := hooks[i].Run(text); err != nil {
			return failf(125, "%s hook %s: %v", kind, hooks[i].Path, err)
		}
	}
	return nil
}
