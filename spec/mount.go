package spec

// Kinds of mounts, as Docker calls them.
const (
	MountBind   = "bind"
	MountVolume = "volume"
	MountTmpfs  = "tmpfs"
	MountImage  = "image"
)

// Mount is one mount of a container, as settled when it was created. Its
// source is opened at each start, never remembered.
type Mount struct {
	Type   string // one of the above
	Target string // absolute and clean, seen from the container's root

	Source string `json:",omitempty"` // bind: path on the host; image: as it was asked for
	Volume string `json:",omitempty"` // name of the volume
	Driver string `json:",omitempty"` // of the volume

	// Anonymous says of a volume that it was made for this container and goes
	// with it (rm -v, --rm), unless another container has it as well.
	Anonymous bool `json:",omitempty"`

	Subpath  string `json:",omitempty"` // directory or file below the volume's or image's root
	ReadOnly bool   `json:",omitempty"`

	// Of bind mounts.
	Create       bool   `json:",omitempty"` // make the source, a directory, when it is missing
	NonRecursive bool   `json:",omitempty"` // without what is mounted below the source
	Below        string `json:",omitempty"` // what ReadOnly means for mounts below: BelowAsIs, BelowReadOnly; empty is read-only where the kernel can
	Propagation  string `json:",omitempty"` // empty is rprivate

	// Owner is who the source's owner is in the container: OwnerUser, or
	// numbers as "1000:1000". Others keep their numbers.
	Owner string `json:",omitempty"`

	Mode    string `json:",omitempty"` // the options of -v as they were given, for inspect
	Relabel bool   `json:",omitempty"` // for SELinux: files are to be the containers'

	// Of tmpfs: options as mount(8) takes them.
	Options string `json:",omitempty"`

	// Of images.
	Image  Digest   `json:",omitempty"` // digest of the image's config
	Layers []Digest `json:",omitempty"` // diffIDs, lowest first
}

// Values of Mount.Below.
const (
	BelowAsIs     = "writable"
	BelowReadOnly = "readonly"
)

// OwnerUser as Mount.Owner is the user that the container's program runs as.
const OwnerUser = "U"
