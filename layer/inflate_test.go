package layer

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// What may follow a gzip member: more members, and what gzip(1) leaves out. The
// blob's digest is over all of it.
func TestGzipFraming(t *testing.T) {
	tar := fixture.NewLayer().File("a", 0o644, "some text").Bytes()
	whole, _ := fixture.Compress(fixture.Gzip, tar)
	head, _ := fixture.Compress(fixture.Gzip, tar[:700])
	tail, _ := fixture.Compress(fixture.Gzip, tar[700:])
	empty, _ := fixture.Compress(fixture.Gzip, nil)
	noise := make([]byte, 5<<20) // more than all queues hold
	random := rand.New(rand.NewPCG(3, 3))
	for i := range noise {
		noise[i] = byte(random.Uint32() | 1) // never the beginning of a member
	}
	noise[0] = 'x'
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		blob []byte
		bad  bool
	}{
		"one member":                    {whole, false},
		"two members":                   {join(head, tail), false},
		"empty members":                 {join(empty, head, empty, tail, empty), false},
		"zeros":                         {join(whole, make([]byte, 1<<20)), false},
		"one byte of garbage":           {join(whole, []byte("x")), false},
		"a lot of garbage":              {join(whole, noise), false},
		"garbage between members":       {join(head, []byte("xxx"), tail), true}, // the tar is cut
		"a member that is cut":          {join(head, tail[:len(tail)/2]), true},
		"a member with a wrong sum":     {join(head, tail[:len(tail)-5], []byte("xxxxx")), true},
		"a second header that is cut":   {join(whole, empty[:5]), true},
		"a second member that is wrong": {join(whole, empty[:10], noise[:100]), true},
	} {
		t.Run(name, func(t *testing.T) {
			l := openTestLayers(t)
			want := Expect{Blob: spec.DigestOf(c.blob), BlobSize: int64(len(c.blob)), DiffID: spec.DigestOf(tar)}
			got, err := l.Add(t.Context(), bytes.NewReader(c.blob), want)
			if err == nil {
				got.Close()
			}
			if c.bad != (err != nil) || err != nil && !errs.Is(err, errs.Corrupt) {
				t.Errorf("%v", err)
			}
			// One byte more or less of what follows is another blob.
			if _, err := l.Add(t.Context(), bytes.NewReader(append(c.blob[:len(c.blob):len(c.blob)], 'x')), want); !errs.Is(err, errs.Corrupt) {
				t.Errorf("with one byte more: %v", err)
			}
		})
	}
}
