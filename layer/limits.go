package layer

import "tug/errs"

// Environment variables that the user sets limits with, and errors speak of.
const (
	SizeVar    = "TUG_MAX_LAYER_SIZE"    // bytes, or with a unit: 20g
	EntriesVar = "TUG_MAX_LAYER_ENTRIES" // a number
)

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
	def(&l.Meta, max(512<<20, 128*int64(l.Entries)))
	defInt(&l.Segments, 4<<20)
	def(&l.Index, 4<<30)
	defInt(&l.Path, 16<<10)
	defInt(&l.Depth, 4<<10)
	return l
}

// tooLarge is the error for a tar beyond the limit, or for what is to become one.
func (l *Limits) tooLarge() error {
	return errs.New(errs.Invalid, "its tar is larger than the limit of %d bytes", l.Tar).
		WithHint("if you trust where it comes from, set %s to what it may have (at most 2 TiB)", SizeVar)
}

func (l *Limits) tooMany(what string) error {
	return errs.New(errs.Invalid, "%s more than %d entries", what, l.Entries).
		WithHint("if you trust where it comes from, set %s to what it may have", EntriesVar)
}
