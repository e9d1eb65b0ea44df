package engine

import "tug/container"

// Sizes returns how many bytes of files a container has written, and how many
// it sees altogether.
func (e *Engine) Sizes(c *container.Summary) (rw, rootfs int64, err error) {
	rw, err = e.Containers.SizeRw(c)
	if err != nil {
		return 0, 0, err
	}
	if img, err := e.Images.Resolve(string(c.ImageID)); err == nil {
		rootfs = img.Size
	}
	return rw, rw + rootfs, nil
}
