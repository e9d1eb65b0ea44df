package image

import (
	"os"
	"path/filepath"

	"tug/errs"
	"tug/spec"
)

// Usage is what one image takes.
type Usage struct {
	Shared     int64 // bytes of the files in layers that other images have as well
	Unique     int64 // and in those of this image alone
	Containers int   // made from it
}

// Usages returns the Usage of each of imgs among all images in the store, of
// which imgs are some. It reads a record per layer and per container, no tree.
func (s *Images) Usages(imgs []*Image) (map[spec.Digest]Usage, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	owners := map[spec.Digest]int{} // images by layer
	for _, id := range ids {
		if r, err := s.readRecord(id); err == nil {
			for d := range setOf(r.Layers) {
				owners[d]++
			}
		}
	}
	sizes := map[spec.Digest]int64{}
	infos, err := s.layers.List()
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		sizes[info.DiffID] = info.Content
	}
	containers, err := s.containers()
	if err != nil {
		return nil, err
	}
	users := map[spec.Digest]int{}
	for _, c := range containers {
		for _, id := range c.images() {
			users[id]++
		}
	}
	out := map[spec.Digest]Usage{}
	for _, img := range imgs {
		u := Usage{Containers: users[img.ID]}
		for d := range setOf(img.Layers()) {
			if owners[d] > 1 {
				u.Shared += sizes[d]
			} else {
				u.Unique += sizes[d]
			}
		}
		out[img.ID] = u
	}
	return out, nil
}

func setOf(all []spec.Digest) map[spec.Digest]bool {
	m := map[spec.Digest]bool{}
	for _, d := range all {
		m[d] = true
	}
	return m
}

// Total is what all images take on the disk.
type Total struct {
	Images, Active    int   // Active have containers
	Size, Reclaimable int64 // bytes; Reclaimable are needed by no container
}

// Total adds up the sizes of all layers, index files, manifests and configs, as
// their records and the file system's tell them. Layers that belong to no image,
// as of an interrupted pull, count as reclaimable.
func (s *Images) Total() (Total, error) {
	var t Total
	containers, err := s.containers()
	if err != nil {
		return t, err
	}
	active := map[spec.Digest]bool{}
	needed := references{map[spec.Digest]bool{}, map[spec.Digest]bool{}}
	for _, c := range containers {
		for _, id := range c.images() {
			active[id] = true
		}
		for _, d := range c.Layers {
			needed.layers[d] = true
		}
	}
	ids, err := s.ids()
	if err != nil {
		return t, err
	}
	for _, id := range ids {
		r, err := s.readRecord(id)
		if err != nil && !errs.Is(err, errs.Corrupt) {
			continue // removed meanwhile
		}
		t.Images++
		if err == nil && active[id] {
			t.Active++
			needed.add(r)
		}
	}
	infos, err := s.layers.List()
	if err != nil {
		return t, err
	}
	for _, info := range infos {
		n := s.layers.OnDisk(info)
		t.Size += n
		if !needed.layers[info.DiffID] {
			t.Reclaimable += n
		}
	}
	eachEntry(filepath.Dir(s.st.Blob("x")), func(e os.DirEntry, _ string) {
		if fi, err := e.Info(); err == nil {
			t.Size += fi.Size()
			if !needed.blobs[spec.Digest("sha256:"+e.Name())] {
				t.Reclaimable += fi.Size()
			}
		}
	})
	return t, nil
}

// onDisk returns how much each layer takes on the disk.
func (s *Images) onDisk() (map[spec.Digest]int64, error) {
	infos, err := s.layers.List()
	if err != nil {
		return nil, err
	}
	all := map[spec.Digest]int64{}
	for _, info := range infos {
		all[info.DiffID] = s.layers.OnDisk(info)
	}
	return all, nil
}
