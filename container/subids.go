package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"tug/errs"
	"tug/spec"
)

// subIDs are the ids of the host that users may give to user namespaces, as
// subuid(5) and subgid(5) say. It is the host's administrator who writes them.
type subIDs struct {
	dir    string
	users  []string // whose are looked for, the first that has some
	ranges [2][]spec.IDRange
	owner  string
}

var subIDFiles = [2]string{"subuid", "subgid"}

// SubIDsVar names the variable with the directory of subuid and subgid, /etc
// without it.
const SubIDsVar = "TUG_SUBIDS"

// minIDs is what a container cannot do without: the group of terminals is 5.
const minIDs = 100

// findSubIDs reads the ids of the first of users that has any.
func findSubIDs(users ...string) (*subIDs, error) {
	s := &subIDs{dir: os.Getenv(SubIDsVar), users: users}
	if s.dir == "" {
		s.dir = "/etc"
	}
	for _, name := range users {
		for i := range subIDFiles {
			all, err := s.read(i, name)
			if err != nil {
				return nil, err
			}
			s.ranges[i] = all
		}
		if len(s.ranges[0])+len(s.ranges[1]) > 0 {
			s.owner = name
			break
		}
	}
	for i := range subIDFiles {
		if len(s.ranges[i]) == 0 {
			return nil, s.missing(i)
		}
	}
	return s, nil
}

func (s *subIDs) path(i int) string { return filepath.Join(s.dir, subIDFiles[i]) }

// missing says which line to add, with ids that nobody has.
func (s *subIDs) missing(i int) error {
	files, name := s.path(i), s.owner
	if name == "" {
		name = s.users[0]
	}
	if len(s.ranges[1-i]) == 0 {
		files = s.path(0) + " and to " + s.path(1)
	}
	free := uint64(100000)
	for i := range subIDFiles {
		_ = s.each(i, func(_ string, r spec.IDRange) { free = max(free, uint64(r.First)+uint64(r.Count)) })
	}
	if free > math.MaxInt32 {
		free = 100000 // the file is full of large ranges: the administrator knows better
	}
	return errs.New(errs.NotFound, "user %s has no subordinate IDs in %s", name, s.path(i)).
		WithHint("add the line %s:%d:65536 to %s", name, free, files)
}

// each calls f for the lines of a file that are whole. One that is not there
// has none.
func (s *subIDs) each(i int, f func(owner string, r spec.IDRange)) error {
	file, err := os.Open(s.path(i))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, 1<<20))
	for lines.Scan() {
		field := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(field) != 3 || strings.HasPrefix(field[0], "#") {
			continue
		}
		first, err1 := strconv.ParseUint(field[1], 10, 32)
		count, err2 := strconv.ParseUint(field[2], 10, 32)
		if err1 == nil && err2 == nil && count > 0 {
			f(field[0], spec.IDRange{First: uint32(first), Count: uint32(count)})
		}
	}
	return lines.Err()
}

// read returns a user's ranges. The file may give the user by number.
func (s *subIDs) read(i int, name string) ([]spec.IDRange, error) {
	id := ""
	if u, err := user.Lookup(name); err == nil {
		id = u.Uid
	}
	var all []spec.IDRange
	var bad error
	err := s.each(i, func(owner string, r spec.IDRange) {
		switch {
		case owner != name && (owner != id || id == ""):
			return
		case r.First == 0 || uint64(r.First)+uint64(r.Count) > math.MaxUint32:
			bad = errs.New(errs.Invalid, "%s: %s has %d:%d", s.path(i), owner, r.First, r.Count).
				WithHint("subordinate IDs must be above 0, which is the host's root, and below %d", uint32(math.MaxUint32))
		}
		for _, o := range all {
			if o.Overlaps(r) {
				bad = errs.New(errs.Invalid, "%s: the ranges of %s overlap", s.path(i), owner)
			}
		}
		all = append(all, r)
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, fmt.Errorf("read the subordinate IDs: %w", err)
	}
	return all, nil
}

// whole maps all there are.
func (s *subIDs) whole() (*spec.IDMaps, error) {
	for i, ranges := range s.ranges {
		total := uint64(0)
		for _, r := range ranges {
			total += uint64(r.Count)
		}
		if total < minIDs {
			return nil, errs.New(errs.Invalid, "%s: %s has %d subordinate IDs, a container needs %d at least", s.path(i), s.owner, total, minIDs)
		}
	}
	return &spec.IDMaps{UIDs: spec.MapRanges(s.ranges[0]), GIDs: spec.MapRanges(s.ranges[1])}, nil
}

// take maps size of them that are in no map of used.
func (s *subIDs) take(size uint32, used []*spec.IDMaps) (*spec.IDMaps, error) {
	var taken [2][]spec.IDRange
	for _, m := range used {
		for i, maps := range [2][]spec.IDMap{m.UIDs, m.GIDs} {
			for _, one := range maps {
				taken[i] = append(taken[i], spec.IDRange{First: one.Outside, Count: one.Size})
			}
		}
	}
	var got [2]spec.IDRange
	for i := range subIDFiles {
		r, ok := firstFree(s.ranges[i], taken[i], size)
		if !ok {
			return nil, errs.New(errs.Conflict, "no %d IDs in a row are left of those that %s has in %s: %d containers have theirs", size, s.owner, s.path(i), len(used)).
				WithHint("remove containers that are not needed, give %s more IDs, or use --userns auto:size=N with fewer", s.owner)
		}
		got[i] = r
	}
	return &spec.IDMaps{UIDs: spec.MapRanges(got[:1]), GIDs: spec.MapRanges(got[1:])}, nil
}

// firstFree finds size ids in a row that are in ranges and not in taken.
func firstFree(ranges, taken []spec.IDRange, size uint32) (spec.IDRange, bool) {
	for _, in := range ranges {
		end := uint64(in.First) + uint64(in.Count)
		for at := uint64(in.First); at+uint64(size) <= end; {
			try := spec.IDRange{First: uint32(at), Count: size}
			next := at
			for _, t := range taken {
				if t.Overlaps(try) {
					next = max(next, uint64(t.First)+uint64(t.Count))
				}
			}
			if next == at {
				return try, true
			}
			at = next
		}
	}
	return spec.IDRange{}, false
}
