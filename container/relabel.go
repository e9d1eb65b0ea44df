package container

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"tug/errs"
	"tug/sys"
)

// hasSELinux reports whether files need labels for containers.
func hasSELinux() bool {
	_, err := os.Lstat("/sys/fs/selinux/enforce")
	return err == nil
}

// sharedLabel is that of files that any container may use. Containers have no
// categories of their own yet, so Z is the same as z.
const sharedLabel = "system_u:object_r:container_file_t:s0"

const labelAttr = "security.selinux"

// checkRelabel refuses to relabel what the host needs as it is.
func checkRelabel(source string) error {
	of := []string{
		"/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64", "/media", "/opt", "/proc",
		"/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
	}
	if slices.Contains(of, path.Clean(source)) {
		return errs.New(errs.Invalid, "SELinux relabeling of %s is not allowed", source)
	}
	return nil
}

// relabel gives what is at place, and all in it on the same file system, the
// label. It follows nothing: containers may be changing it.
func relabel(place *os.File, label string) error {
	st, err := statOf(place)
	if err != nil {
		return err
	}
	return relabelBelow(place, label, st.Dev, 0)
}

func relabelBelow(place *os.File, label string, dev uint64, depth int) error {
	st, err := statOf(place)
	if err != nil || st.Dev != dev {
		return err
	}
	if depth > maxExportDepth {
		return errs.New(errs.Unsupported, "there are more than %d directories in each other", maxExportDepth)
	}
	if err := sys.SetXattrOf(place, labelAttr, []byte(label)); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return nil
	}
	dir, err := sys.Reopen(place)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := sys.OpenPathAt(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = relabelBelow(f, label, dev, depth+1)
			f.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
