package sys

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// LoopDevice attaches backing to a free loop device, read-only, and returns the
// device. It detaches itself when the last user, an open file or a mount, is
// gone (loop(4), LO_FLAGS_AUTOCLEAR).
func LoopDevice(backing *os.File) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	// Between asking for a free device and taking it somebody else may.
	for range 64 {
		n, err := unix.IoctlRetInt(Fd(ctl), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, wrap("ioctl", "/dev/loop-control", err)
		}
		dev, err := configureLoop("/dev/loop"+strconv.Itoa(n), backing)
		if !errors.Is(err, unix.EBUSY) {
			return dev, err
		}
	}
	return nil, wrap("ioctl", "/dev/loop-control", unix.EBUSY)
}

func configureLoop(path string, backing *os.File) (*os.File, error) {
	dev, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	cfg := unix.LoopConfig{Fd: uint32(Fd(backing)), Size: 512}
	cfg.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	copy(cfg.Info.File_name[:len(cfg.Info.File_name)-1], backing.Name())
	if err := unix.IoctlLoopConfigure(Fd(dev), &cfg); err != nil {
		dev.Close()
		return nil, wrap("loop configure", path, err)
	}
	return dev, nil
}
