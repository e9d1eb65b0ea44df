package layer

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// PAX keys that mean something here; all others are passed over.
type paxKey int

const (
	paxPath paxKey = iota
	paxLink
	paxSize
	paxUID
	paxGID
	paxMtime
	sparseMajor
	sparseMinor
	sparseName
	sparseSize
	sparseRealSize
	sparseCount
	sparseMap
	paxKeys
)

const xattrKey = "SCHILY.xattr."

func paxKeyOf(k string) paxKey {
	switch k {
	case "path":
		return paxPath
	case "linkpath":
		return paxLink
	case "size":
		return paxSize
	case "uid":
		return paxUID
	case "gid":
		return paxGID
	case "mtime":
		return paxMtime
	case "GNU.sparse.major":
		return sparseMajor
	case "GNU.sparse.minor":
		return sparseMinor
	case "GNU.sparse.name":
		return sparseName
	case "GNU.sparse.size":
		return sparseSize
	case "GNU.sparse.realsize":
		return sparseRealSize
	case "GNU.sparse.numblocks":
		return sparseCount
	case "GNU.sparse.map":
		return sparseMap
	}
	return -1
}

type xattr struct{ name, value string }

// paxSet is the records of one extended header. A key with an empty value
// takes a global record back (POSIX pax, "pax Extended Header").
type paxSet struct {
	has    [paxKeys]bool
	val    [paxKeys]string
	xattrs []xattr
}

// parse adds the records in body; later ones win.
func (p *paxSet) parse(body string) error {
	var pieces []string // GNU.sparse.offset and .numbytes of format 0.0, in turn
	for len(body) > 0 {
		key, value, rest, ok := paxRecord(body)
		if !ok {
			return badEntry("", "malformed extended header")
		}
		body = rest
		switch key {
		case "GNU.sparse.offset", "GNU.sparse.numbytes":
			if (len(pieces)%2 == 0) != (key == "GNU.sparse.offset") || strings.Contains(value, ",") {
				return badEntry("", "malformed sparse map in an extended header")
			}
			pieces = append(pieces, value)
			continue
		}
		if name, ok := strings.CutPrefix(key, xattrKey); ok && name != "" {
			p.setXattr(name, value)
			continue
		}
		if k := paxKeyOf(key); k >= 0 {
			if k <= paxLink && strings.IndexByte(value, 0) >= 0 {
				return badEntry(value, "a name holds a NUL byte")
			}
			p.has[k], p.val[k] = true, value
		}
	}
	if len(pieces) > 0 {
		p.has[sparseMap], p.val[sparseMap] = true, strings.Join(pieces, ",")
	}
	return nil
}

func (p *paxSet) setXattr(name, value string) {
	for i := range p.xattrs {
		if p.xattrs[i].name == name {
			p.xattrs[i].value = value
			return
		}
	}
	p.xattrs = append(p.xattrs, xattr{name, value})
}

// paxRecord cuts "LEN KEY=VALUE\n" off s, where LEN counts all of it.
func paxRecord(s string) (key, value, rest string, ok bool) {
	sp := strings.IndexByte(s, ' ')
	if sp < 1 || sp > 10 {
		return
	}
	n, err := strconv.ParseUint(s[:sp], 10, 32)
	if err != nil || s[0] == '+' || int(n) > len(s) || int(n) < sp+3 {
		return
	}
	rec := s[sp+1 : n]
	if rec[len(rec)-1] != '\n' {
		return
	}
	key, value, ok = strings.Cut(rec[:len(rec)-1], "=")
	if !ok || key == "" || strings.IndexByte(key, 0) >= 0 {
		return "", "", "", false
	}
	return key, value, s[n:], true
}

// over returns local records on top of global ones.
func (p *paxSet) over(global *paxSet) *paxSet {
	if global == nil {
		return p
	}
	out := *global
	out.xattrs = slices.Clone(global.xattrs)
	if p != nil {
		for k := range paxKeys {
			if p.has[k] {
				out.has[k], out.val[k] = true, p.val[k]
			}
		}
		for _, x := range p.xattrs {
			out.setXattr(x.name, x.value)
		}
	}
	return &out
}

func (p *paxSet) get(k paxKey) string {
	if p == nil {
		return ""
	}
	return p.val[k]
}

// apply overwrites e's fields with the records.
func (p *paxSet) apply(e *entry) error {
	if p == nil {
		return nil
	}
	if v := p.val[paxPath]; v != "" {
		e.name = v
	}
	if v := p.val[paxLink]; v != "" {
		e.link = v
	}
	for _, n := range []struct {
		k  paxKey
		to *int64
	}{{paxSize, &e.size}, {paxUID, &e.uid}, {paxGID, &e.gid}} {
		if v := p.val[n.k]; v != "" {
			i, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return badEntry(e.name, "%s in its extended header is not a number", quote(v))
			}
			*n.to = i
		}
	}
	if v := p.val[paxMtime]; v != "" {
		var ok bool
		if e.mtime, e.nsec, ok = paxTime(v); !ok {
			return badEntry(e.name, "its modification time %s is not a time", quote(v))
		}
	}
	e.xattrs = p.xattrs
	return nil
}

// paxTime reads seconds with an optional fraction; nsec counts upwards, so
// -1.5 is -2 s and 500,000,000 ns.
func paxTime(s string) (sec int64, nsec uint32, ok bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	for i := range 9 {
		nsec *= 10
		if i < len(frac) {
			nsec += uint32(frac[i] - '0')
		}
	}
	for _, c := range []byte(frac) {
		if c < '0' || c > '9' {
			return 0, 0, false
		}
	}
	if strings.HasPrefix(s, "-") && nsec > 0 {
		if sec == math.MinInt64 {
			return 0, 0, false
		}
		return sec - 1, 1e9 - nsec, true
	}
	return sec, nsec, true
}
