package supervisor

import "os"

// program is the file that this supervisor was started from. When another one
// is there, because tug was upgraded, the next request that comes is left to a
// new supervisor: this one ends, as it might at any moment, the keeper starts
// the program that is there now, and the command asks that one. Nothing of what
// runs notices.
type program struct {
	path string
	file os.FileInfo // nil: unknown, and never replaced
}

func ownProgram() program {
	path, err := os.Executable()
	if err != nil {
		return program{}
	}
	file, err := os.Stat(path)
	if err != nil {
		return program{}
	}
	return program{path, file}
}

// replaced reports whether another program is at the path. One that is not
// there, in the middle of an upgrade that is no rename, is not another one.
func (p program) replaced() bool {
	if p.file == nil {
		return false
	}
	now, err := os.Stat(p.path)
	return err == nil && now.Mode().IsRegular() && now.Mode()&0o111 != 0 && !os.SameFile(now, p.file)
}
