package volume

import (
	"cmp"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"tug/errs"
	"tug/sys"
)

// Mount makes the mount that a volume with options stands for, attached to
// nothing; nil for a plain directory. Each call makes a new one: of a tmpfs, an
// empty one. A name of a server is looked up, which may take its time.
func (v *Volumes) Mount(vol *Volume) (*os.File, error) {
	s, err := v.Source(vol)
	if err != nil || s == nil {
		return nil, err
	}
	m, err := s.mount()
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, syscall.ENODEV):
		return nil, errs.New(errs.Unsupported, "mount volume %s: this kernel has no file system %q", vol.Name, s.Type)
	case errors.Is(err, fs.ErrNotExist):
		return nil, errs.New(errs.NotFound, "mount volume %s: %s: no such file or directory", vol.Name, s.Device)
	}
	return nil, errs.New(errs.ClassOf(err), "mount volume %s: %w", vol.Name, err)
}

func (s *Source) mount() (*os.File, error) {
	if s.Type == "" {
		return s.bind()
	}
	if err := s.address(); err != nil {
		return nil, err
	}
	// The device's name goes last: nfs wants to know its version before.
	var opts []sys.Option
	for _, word := range s.Data {
		key, value, _ := strings.Cut(word, "=")
		opts = append(opts, sys.Option{Key: key, Value: value})
	}
	set, _ := attributes(s.Flags)
	if set&sys.AttrReadOnly != 0 {
		// Of the file system as well: a device may be one that nobody can write.
		opts = append(opts, sys.Option{Key: "ro"})
	}
	if s.Device != "" {
		opts = append(opts, sys.Option{Key: "source", Value: s.Device})
	}
	return sys.NewMount(s.Type, int(set), opts...)
}

func (s *Source) bind() (*os.File, error) {
	place, err := sys.OpenPath(s.Device)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	m, err := sys.CloneTree(place, "", s.Recursive)
	if err != nil {
		return nil, err
	}
	err = sys.SetTreePropagation(m, sys.PropagationPrivate, true)
	if set, clear := attributes(s.Flags); err == nil && set|clear != 0 {
		err = sys.SetMountAttr(m, "", set, clear, false)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// attributes are the flags as the kernel has them: those to set, and those to
// clear of a mount that has some already. The last word of two that contradict
// one another counts.
func attributes(flags []string) (set, clear uint64) {
	for _, f := range flags {
		attr, on := attribute(f)
		switch {
		case attr&sys.AttrAtimeSetting != 0 || f == "atime" || f == "relatime":
			set, clear = set&^sys.AttrAtimeSetting|attr, clear|sys.AttrAtimeSetting
		case on:
			set, clear = set|attr, clear&^attr
		default:
			set, clear = set&^attr, clear|attr
		}
	}
	return set, clear
}

func attribute(flag string) (attr uint64, on bool) {
	switch flag {
	case "ro":
		return sys.AttrReadOnly, true
	case "rw":
		return sys.AttrReadOnly, false
	case "noatime":
		return sys.AttrNoAtime, true
	case "strictatime":
		return sys.AttrStrictAtime, true
	}
	name, no := strings.CutPrefix(flag, "no")
	switch name {
	case "suid":
		return sys.AttrNoSuid, no
	case "dev":
		return sys.AttrNoDev, no
	case "exec":
		return sys.AttrNoExec, no
	case "diratime":
		return sys.AttrNoDirAtime, no
	}
	return 0, false // atime, relatime and what undoes an option: the kernel's default
}

// address replaces names of servers by addresses, which is all that the kernel
// understands, and names the address where the user did not.
func (s *Source) address() error {
	var host string
	switch {
	case s.Type == "nfs" || s.Type == "nfs4":
		// host:/path or [v6]:/path
		host, _, _ = strings.Cut(s.Device, ":/")
		host = strings.Trim(host, "[]")
	case s.Type == "cifs" || s.Type == "smb3":
		host, _, _ = strings.Cut(strings.TrimPrefix(s.Device, "//"), "/")
	default:
		return nil
	}
	i := slices.IndexFunc(s.Data, func(w string) bool { return strings.HasPrefix(w, "addr=") || strings.HasPrefix(w, "ip=") })
	if i >= 0 {
		_, host, _ = strings.Cut(s.Data[i], "=")
	}
	if host == "" {
		return nil // the kernel will say what is missing
	}
	if net.ParseIP(host) == nil {
		ips, err := net.LookupIP(host)
		if err != nil || len(ips) == 0 {
			return errs.New(errs.Unavailable, "look up the server %s: %w", host, cmp.Or(err, errors.New("it has no address")))
		}
		host = ips[0].String()
	}
	if i >= 0 {
		s.Data[i] = "addr=" + host
	} else {
		s.Data = append(s.Data, "addr="+host)
	}
	return nil
}
