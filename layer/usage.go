package layer

import (
	"os"

	"tug/spec"
)

// OnDisk returns how many bytes a layer's files have: tar, index and record, and
// where it is extracted, those of its files.
func (l *Layers) OnDisk(info Info) int64 {
	n := info.Size + info.IndexSize
	if fi, err := os.Lstat(l.path(info.DiffID, fileMeta)); err == nil {
		n += fi.Size()
	}
	if _, err := os.Lstat(l.path(info.DiffID, dirFS)); err == nil {
		n += info.Content
	}
	return n
}

// DiffIDs returns the names of all layers there are, whole or not.
func (l *Layers) DiffIDs() ([]spec.Digest, error) {
	entries, err := os.ReadDir(l.st.Layers())
	if err != nil {
		return nil, err
	}
	var all []spec.Digest
	for _, e := range entries {
		if spec.IsHex64(e.Name()) {
			all = append(all, spec.Digest("sha256:"+e.Name()))
		}
	}
	return all, nil
}
