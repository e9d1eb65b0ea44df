package layer

// Limits bound what one layer may cost. They exist for hostile archives; the
// defaults are far above any real layer. Zero means the default.
type Limits struct {
	Tar      int64 // bytes of the uncompressed tar; at most 2 TiB - 512, EROFS's 32-bit block numbers
	Entries  int   // members of the tar
	Meta     int64 // bytes of names, link targets and extended attributes kept in memory
	Segments int   // data pieces of all sparse files
	Index    int64 // bytes of index.erofs
	Path     int   // bytes of one member's name
	Depth    int   // nested directories
}

const (
	maxTar      = 1<<41 - 512
	maxSpecial  = 1 << 20 // bytes of one PAX header or GNU long name
	maxName     = 255     // NAME_MAX of Linux and EROFS
	maxTarget   = 4095    // PATH_MAX less the NUL
	maxSymlinks = 40      // followed in one path, as in the kernel
)

func (l Limits) withDefaults() Limits {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	defInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Tar, 1<<40)
	l.Tar = min(l.Tar, maxTar)
	defInt(&l.Entries, 4<<20)
	def(&l.Meta, 512<<20)
	defInt(&l.Segments, 4<<20)
	def(&l.Index, 4<<30)
	defInt(&l.Path, 16<<10)
	defInt(&l.Depth, 4<<10)
	return l
}
