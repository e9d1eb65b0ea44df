package boot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// makeDevices makes the nodes and links of /dev that the specification wants,
// and those of the configuration, where they are not there already.
func (c *ociStarter) makeDevices() error {
	for i := range c.plan.Devices {
		d := &c.plan.Devices[i]
		var err error
		if c.oci.BindDevices {
			err = c.bindDevice(d)
		} else {
			err = makeDeviceIn(c.root, d)
		}
		if err != nil {
			return failf(125, "make device %s: %v", d.Path, err)
		}
	}
	if c.oci.HostDev {
		return nil
	}
	dev, err := sys.MkdirIn(c.root, "/dev")
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, l := range [][2]string{
		{"pts/ptmx", "ptmx"},
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"/proc/kcore", "core"},
	} {
		if err := sys.SymlinkAt(l[0], dev, l[1]); err != nil && !errors.Is(err, fs.ErrExist) {
			return failf(125, "make /dev/%s: %v", l[1], err)
		}
	}
	return nil
}

// bindDevice shows a node of the host's where none can be made.
func (c *ociStarter) bindDevice(d *plan.Device) error {
	tree, err := hostDevice(d)
	if err != nil {
		return err
	}
	defer tree.Close()
	at, err := sys.CreateIn(c.root, d.Path)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := checkTarget(at); err != nil {
		return err
	}
	return sys.AttachMount(tree, at, "")
}

// openConsole makes the container's terminal in its own devpts and shows it as
// /dev/console. What is mounted there is the slave that the kernel gives for
// the master, by descriptor: no path that the image or a mount could have
// replaced (CVE-2025-52565).
func (c *ociStarter) openConsole() (*os.File, error) {
	master, std, err := joinTerminal(c.root)
	if err != nil {
		return nil, err
	}
	c.std = std
	if err := sys.SetBlocking(master); err != nil {
		return nil, err
	}
	if c.oci.Rows > 0 && c.oci.Cols > 0 {
		if err := sys.SetWinsize(master, c.oci.Rows, c.oci.Cols); err != nil {
			return nil, err
		}
	}
	at, err := sys.OpenIn(c.root, "/dev/console", sys.OPath, true)
	if errors.Is(err, os.ErrNotExist) {
		at, err = sys.CreateIn(c.root, "/dev/console")
	}
	if err != nil {
		return nil, failf(125, "make /dev/console: %v", err)
	}
	defer at.Close()
	if err := checkTarget(at); err != nil {
		return nil, failf(125, "make /dev/console: %v", err)
	}
	tree, err := sys.CloneTree(std[0], "", false)
	if err != nil {
		return nil, failf(125, "make /dev/console: %v", err)
	}
	defer tree.Close()
	return master, sys.AttachMount(tree, at, "")
}

// copyUp copies what a directory of the image holds, and its owner and mode,
// into the new tmpfs that will cover it. Nothing else runs in the container yet, and every step is by
// descriptor all the same.
func copyUp(from, to *os.File) error {
	src, err := sys.Reopen(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := copyOwner(from, to, "."); err != nil {
		return err
	}
	for {
		names, err := src.Readdirnames(256)
		for _, name := range names {
			if err := copyEntry(src, to, name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func copyEntry(from, to *os.File, name string) error {
	f, err := sys.OpenPathAt(from, name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := sys.Readlink(f)
		if err == nil {
			err = sys.SymlinkAt(target, to, name)
		}
		if err != nil {
			return err
		}
		return sys.ChownAt(to, name, st.Uid, st.Gid)
	case fi.IsDir():
		dir, err := sys.MkdirAt(to, name)
		if err != nil {
			return err
		}
		defer dir.Close()
		return copyUp(f, dir)
	case fi.Mode().IsRegular():
		if err := copyContent(f, to, name); err != nil {
			return err
		}
	default:
		return nil // sockets, fifos and devices of an image are of no use here
	}
	return copyOwner(f, to, name)
}

func copyContent(f, to *os.File, name string) error {
	in, err := sys.Reopen(f)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := sys.CreateAt(to, name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// copyOwner gives name in to the owner and mode of f. Ids that a user namespace
// does not have stay what they became.
func copyOwner(f, to *os.File, name string) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if err := sys.ChownAt(to, name, st.Uid, st.Gid); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return sys.ChmodAt(to, name, st.Mode&0o7777)
}
