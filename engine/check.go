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
	faults = append(faults, more...)
	if err != nil {
		return faults, err
	}
	more, err = e.checkVolumes(o.Repair)
	return append(faults, more...), err
}

func (e *Engine) checkVolumes(repair bool) (faults []image.Fault, err error) {
	found, err := e.Volumes.Check()
	for _, v := range found {
		f := image.Fault{Object: "volume", ID: v.Volume, Path: v.Path, What: v.What, Effect: v.Effect}
		if v.Volume == "" {
			f.Object = "store"
		}
		if repair {
			f.Left = v.Left
		}
		if repair && v.Mend != nil {
			done, err := v.Mend()
			if f.Mended = done; err != nil {
				f.Mended, f.Left = "", err.Error()
			}
		}
		faults = append(faults, f)
	}
	return faults, err
}
