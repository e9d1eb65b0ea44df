package engine

import (
	"context"

	"tug/image"
	"tug/spec"
)

// CheckOptions say how thorough a Check is and whether it mends.
type CheckOptions struct {
	Repair bool
	Quick  bool   // do not read the contents of layers
	Wait   func() // called when another repair has to end first; may be nil
}

// Check looks at everything in the store and names each fault; with Repair it
// does what it can about them. Other commands go on meanwhile.
func (e *Engine) Check(ctx context.Context, o CheckOptions) ([]image.Fault, error) {
	faults, err := e.Images.Check(ctx, image.CheckOptions{
		Repair: o.Repair, Quick: o.Quick, Wait: o.Wait, Busy: func(d spec.Digest) bool { return e.Containers.Running()[d] },
	})
	if err != nil {
		return nil, err
	}
	more, err := e.Containers.Check(o.Repair)
	return append(faults, more...), err
}
