package deflate

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

// inflateAll reads all members; garbage behind the last is ErrHeader.
func inflateAll(src io.Reader, out io.Writer) error {
	r := NewReader(src)
	for {
		switch err := r.Next(); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if _, err := io.Copy(out, r); err != nil {
			return err
		}
	}
}

// samples are contents that compressors treat in different ways.
func samples() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	var words strings.Builder
	for words.Len() < 700_000 {
		fmt.Fprintf(&words, "word%d ", r.IntN(3000))
	}
	mixed := bytes.Join([][]byte{noise[:70_000], []byte(words.String()), bytes.Repeat([]byte("ab"), 100_000), noise[:50_000]}, nil)
	skewed := make([]byte, 400_000)
	for i := range skewed {
		skewed[i] = byte(min(r.ExpFloat64()*12, 255)) // long codes for rare bytes
	}
	return map[string][]byte{
		"empty": {}, "one": []byte("x"), "zeros": make([]byte, 500_000), "noise": noise,
		"words": []byte(words.String()), "mixed": mixed, "skewed": skewed, "pairs": bytes.Repeat([]byte("abc"), 120_000),
	}
}

func pack(t testing.TB, level int, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&buf, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestInflate(t *testing.T) {
	for name, want := range samples() {
		for level := stdgzip.HuffmanOnly; level <= stdgzip.BestCompression; level++ {
			packed := pack(t, level, want)
			for how, src := range map[string]io.Reader{
				"whole":        bytes.NewReader(packed),
				"with its end": iotest.DataErrReader(bytes.NewReader(packed)),
				"halves":       iotest.HalfReader(bytes.NewReader(packed)),
			} {
				var got bytes.Buffer
				if err := inflateAll(src, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
					t.Errorf("%s, level %d, %s: %d bytes of %d, %v", name, level, how, got.Len(), len(want), err)
				}
			}
		}
	}
}

func TestMembersAndOneByteAtATime(t *testing.T) {
	var all, want []byte
	for _, b := range samples() {
		b = b[:min(len(b), 20_000)]
		all, want = append(all, pack(t, 6, b)...), append(want, b...)
	}
	var got bytes.Buffer
	if err := inflateAll(iotest.OneByteReader(bytes.NewReader(all)), &got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Fatalf("%d bytes of %d, %v", got.Len(), len(want), err)
	}
	got.Reset()
	if err := inflateAll(bytes.NewReader(append(all, "garbage"...)), &got); err != ErrHeader || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("garbage behind the last member: %v", err)
	}
}

// A source that has more to come is not asked for it when the member is whole.
func TestReadsNoFurtherThanNeeded(t *testing.T) {
	packed := pack(t, 6, []byte("all there is"))
	stuck := errors.New("asked for more")
	r := NewReader(io.MultiReader(iotest.OneByteReader(bytes.NewReader(packed)), iotest.ErrReader(stuck)))
	if err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "all there is" {
		t.Fatalf("%q, %v", b, err)
	}
	if err := r.Next(); err != stuck {
		t.Errorf("then %v", err)
	}
}

func TestErrorOfTheSource(t *testing.T) {
	packed := pack(t, 6, samples()["words"])
	broken := errors.New("broken")
	for cut := range 40 {
		n := len(packed) * cut / 40
		var got bytes.Buffer
		err := inflateAll(io.MultiReader(bytes.NewReader(packed[:n]), iotest.ErrReader(broken)), &got)
		if err != broken {
			t.Errorf("broken after %d bytes: %v", n, err)
		}
		if n > 0 {
			if err := inflateAll(bytes.NewReader(packed[:n]), io.Discard); err != io.ErrUnexpectedEOF {
				t.Errorf("cut after %d bytes: %v", n, err)
			}
		}
	}
}

// Every single bit counts: flipped, the data is refused.
func TestFlippedBits(t *testing.T) {
	packed := pack(t, 6, []byte(strings.Repeat("some text, ", 40)+"and its end"))
	for i := 8 * 4; i < 8*len(packed); i++ {
		if i/8 >= 4 && i/8 < 10 {
			continue // time, flags and system, which nobody checks
		}
		bad := bytes.Clone(packed)
		bad[i/8] ^= 1 << (i % 8)
		var got bytes.Buffer
		want, oracle := stdlib(bad)
		if err := inflateAll(bytes.NewReader(bad), &got); (err == nil) != (oracle == nil) || err == nil && !bytes.Equal(got.Bytes(), want) {
			t.Errorf("bit %d: %v, the oracle says %v", i, err, oracle)
		}
	}
}

func stdlib(b []byte) ([]byte, error) {
	r, err := stdgzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 64<<20))
}

// FuzzInflate compares with compress/gzip.
func FuzzInflate(f *testing.F) {
	for _, b := range samples() {
		for _, level := range []int{stdgzip.HuffmanOnly, 0, 1, 6, 9} {
			f.Add(pack(f, level, b[:min(len(b), 3000)]))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return // no members, which the oracle calls an error
		}
		want, oracle := stdlib(b)
		var got bytes.Buffer
		err := inflateAll(bytes.NewReader(b), &limited{&got, 64 << 20})
		switch {
		case oracle == nil && (err != nil || !bytes.Equal(got.Bytes(), want)):
			t.Fatalf("%v, %d bytes, want %d", err, got.Len(), len(want))
		case oracle != nil && err == nil:
			t.Fatalf("accepted what the oracle refuses: %v", oracle)
		case oracle != nil && !bytes.HasPrefix(got.Bytes(), want) && !bytes.HasPrefix(want, got.Bytes()):
			t.Fatal("other bytes before the error")
		}
	})
}

// FuzzBlocks compares with compress/flate: without checksums, which a fuzzer
// does not find.
func FuzzBlocks(f *testing.F) {
	for _, b := range samples() {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 6, 9} {
			var buf bytes.Buffer
			w, _ := flate.NewWriter(&buf, level)
			if _, err := w.Write(b[:min(len(b), 3000)]); err != nil {
				f.Fatal(err)
			}
			if err := w.Close(); err != nil {
				f.Fatal(err)
			}
			f.Add(buf.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 8 << 20
		want, oracle := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), limit))
		var z inflater
		z.reset(bytes.NewReader(b))
		got, err := io.ReadAll(io.LimitReader(readerFunc(z.read), limit))
		if (err == nil) != (oracle == nil) {
			t.Fatalf("%v, the oracle says %v", err, oracle)
		}
		// How much comes before an error is nobody's business.
		n := min(len(got), len(want))
		if !bytes.Equal(got[:n], want[:n]) || err == nil && len(got) != len(want) {
			t.Fatalf("%d bytes differ from %d", len(got), len(want))
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("enough")
	}
	return l.w.Write(p)
}

func BenchmarkInflate(b *testing.B) {
	data := samples()
	for _, name := range []string{"words", "mixed", "skewed", "noise", "zeros"} {
		packed := pack(b, 6, data[name])
		run := func(who string, f func() error) {
			b.Run(name+"/"+who, func(b *testing.B) {
				b.SetBytes(int64(len(data[name])))
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		buf := make([]byte, 256<<10)
		type onlyWriter struct{ io.Writer }
		out := onlyWriter{io.Discard}
		run("tug", func() error {
			r := NewReader(bytes.NewReader(packed))
			if err := r.Next(); err != nil {
				return err
			}
			_, err := io.CopyBuffer(out, r, buf)
			return err
		})
		run("klauspost", func() error {
			r, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				return err
			}
			_, err = io.CopyBuffer(out, struct{ io.Reader }{r}, buf)
			return err
		})
		run("stdlib", func() error {
			r, err := stdgzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				return err
			}
			_, err = io.CopyBuffer(out, r, buf)
			return err
		})
	}
}
