package deflate

// A decoding table is indexed by the next bits of the input, primary of them.
// Its entries are
//
//	bits  0-4   total: how many bits code and extra bits have together; 0: no
//	            such code
//	bits  5-8   length: how many bits the code has; of a link, how many bits
//	            index the table that it leads to
//	bits 10-12  what it is: literal, end of the block, link; none: a length or
//	            distance
//	bits 16-31  value: the literal, the length or distance without its extra
//	            bits, or where in the array the linked table begins
//
// Codes of more than primary bits lie in tables of their own behind the first.
const (
	totalMask   = 31
	lengthShift = 5
	lengthMask  = 15
	isLiteral   = 1 << 10
	isEnd       = 1 << 11
	isSub       = 1 << 12
	valueShift  = 16

	litBits  = 11
	distBits = 8
	codeBits = 7
	maxCode  = 15
	maxLit   = 286
	maxDist  = 30
	// Powers of two above the largest tables that codes of up to 15 bits can
	// need: 2342 entries for 288 symbols with 11 bits, 402 for 32 with 8
	// (enough.c of zlib counts them).
	litSize  = 4096
	distSize = 512
)

// RFC 1951, 3.2.5.
var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	// The order in which the lengths of the code length codes come (3.2.7).
	codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// litEntry is the entry of literal/length symbol s, with its extra bits as its
// total, but without the code's length; 0 for
// those that must not be used.
func litEntry(s int) uint32 {
	switch {
	case s < 256:
		return isLiteral | uint32(s)<<valueShift
	case s == 256:
		return isEnd
	case s-257 < len(lengthBase):
		return uint32(lengthBase[s-257])<<valueShift | uint32(lengthExtra[s-257])
	}
	return 0
}

func distEntry(s int) uint32 {
	if s >= len(distBase) {
		return 0
	}
	return uint32(distBase[s])<<valueShift | uint32(max(s/2-1, 0))
}

// codeEntry is for the codes of code lengths: a length, or how often the one
// before (isEnd) or 0 comes again.
func codeEntry(s int) uint32 {
	switch s {
	case 16:
		return isEnd | 3<<valueShift | 2
	case 17:
		return 3<<valueShift | 3
	case 18:
		return 11<<valueShift | 7
	}
	return isLiteral | uint32(s)<<valueShift
}

// build fills table for codes with these lengths (0 to 15). It reports whether
// they are a code: complete, or a single one of one bit, or none at all.
func build(table []uint32, primary uint, lengths []uint8, entry func(int) uint32) bool {
	var count [maxCode + 1]int
	longest := uint(0)
	for _, n := range lengths {
		count[n]++
		longest = max(longest, uint(n))
	}
	clear(table[:1<<primary])
	if longest == 0 {
		return true // using it is the error
	}
	count[0] = 0
	var next [maxCode + 1]int // code by length
	code, total := 0, 0
	for n := uint(1); n <= longest; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
	}
	if total = code + count[longest]; total != 1<<longest && !(total == 1 && longest == 1) {
		return false
	}
	t := filler{table: table, primary: primary, longest: longest, free: 1 << primary, prefix: -1}
	t.left = count
	// By length: codes that share a linked table follow each other then.
	var first, order [288 + maxCode + 1]int
	at := 0
	for n := uint(1); n <= longest; n++ {
		first[n] = at
		at += count[n]
	}
	for s, n := range lengths {
		if n > 0 {
			order[first[n]] = s
			first[n]++
		}
	}
	for _, s := range order[:at] {
		n := uint(lengths[s])
		e := entry(s)
		if e != 0 {
			e += uint32(n) | uint32(n)<<lengthShift
		}
		if !t.put(reverse(next[n], n), n, e) {
			return false
		}
		next[n]++
		t.left[n]--
	}
	return true
}

// filler puts entries into a table, shorter codes first.
type filler struct {
	table            []uint32
	primary, longest uint
	left             [maxCode + 1]int // codes not put yet, by length
	free             int              // where the next linked table begins
	prefix           int              // of the linked table in use
	begin            int
	size             uint
}

func (t *filler) put(code int, n uint, e uint32) bool {
	if n <= t.primary {
		for i := code; i < 1<<t.primary; i += 1 << n {
			t.table[i] = e
		}
		return true
	}
	if low := code & (1<<t.primary - 1); low != t.prefix {
		t.prefix, t.begin, t.size = low, t.free, t.need(n)
		if t.free += 1 << t.size; t.free > len(t.table) {
			return false
		}
		clear(t.table[t.begin:t.free])
		t.table[low] = uint32(t.begin)<<valueShift | uint32(t.size)<<lengthShift | isSub
	}
	for i := code >> t.primary; i < 1<<t.size; i += 1 << (n - t.primary) {
		t.table[t.begin+i] = e
	}
	return true
}

// need returns how many bits index the linked table whose first code has n:
// codes fill the space below a prefix in the order of their lengths.
func (t *filler) need(n uint) uint {
	space := 1 << (n - t.primary)
	for ; n < t.longest; n++ {
		if space -= t.left[n]; space <= 0 {
			break
		}
		space <<= 1
	}
	return n - t.primary
}

func reverse(code int, n uint) int {
	r := 0
	for range n {
		r = r<<1 | code&1
		code >>= 1
	}
	return r
}
