package cli

import (
	"context"
	"fmt"
	"io"

	"tug/engine"
	"tug/image"
	"tug/spec"
)

// pullAll is pull -a: a line with the digest after each tag, and the status of
// all at the end.
func (a *app) pullAll(e *engine.Engine, out io.Writer, ref spec.Reference, o image.PullOptions) error {
	newer := false
	err := a.interruptible(func(ctx context.Context) error {
		var err error
		newer, err = e.Images.PullAll(ctx, ref, o, func(tag string) (image.Progress, func(*image.Pulled)) {
			p := newProgress(out, a.width())
			return p, func(got *image.Pulled) {
				p.close()
				if got != nil {
					fmt.Fprintf(out, "Digest: %s\n", got.Digest)
				}
			}
		})
		return err
	})
	if err != nil {
		return err
	}
	status := image.Pulled{Ref: ref, Newer: newer}
	fmt.Fprintln(out, status.Status())
	return a.printf("%s\n", ref)
}
