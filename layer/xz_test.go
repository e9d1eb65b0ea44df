package layer

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand"
	"os/exec"
	"strings"
	"testing"

	"tug/errs"
)

func xz(t testing.TB, b []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("xz", append([]string{"-c"}, args...)...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("xz: %v", err)
	}
	return out
}

func TestXZ(t *testing.T) {
	noise := make([]byte, 60_000)
	rand.New(rand.NewSource(1)).Read(noise)
	data := append(bytes.Repeat([]byte("what repeats compresses "), 4_000), noise...)
	for _, args := range [][]string{
		{}, {"-0"}, {"--check=crc32"}, {"--check=sha256"}, {"--check=none"}, {"--block-size=20000"}, {"-T2", "--block-size=65536", "-0"},
	} {
		for _, d := range [][]byte{nil, []byte("x"), data} {
			got, err := io.ReadAll(NewXZ(bytes.NewReader(xz(t, d, args...))))
			if err != nil || !bytes.Equal(got, d) {
				t.Errorf("%v: %d bytes of %d: %v", args, len(got), len(d), err)
			}
		}
	}
	// Streams one after another, with padding.
	one := xz(t, data)
	joined := append(append(append([]byte{}, one...), 0, 0, 0, 0, 0, 0, 0, 0), one...)
	got, err := io.ReadAll(NewXZ(bytes.NewReader(joined)))
	if err != nil || len(got) != 2*len(data) {
		t.Errorf("two streams: %d bytes, %v", len(got), err)
	}
	// Every byte counts.
	small := xz(t, []byte("a few bytes that are short enough to try all of them"), "--check=sha256", "--lzma2=dict=4KiB")
	for i := range small {
		for _, bit := range []byte{1, 0x40} {
			bad := append([]byte{}, small...)
			bad[i] ^= bit
			if _, err := io.ReadAll(NewXZ(bytes.NewReader(bad))); err == nil {
				t.Errorf("byte %d changed by %#x: no error", i, bit)
			}
		}
		if _, err := io.ReadAll(NewXZ(bytes.NewReader(small[:i]))); err == nil {
			t.Errorf("cut to %d bytes: no error", i)
		}
	}
}

// A header that asks for a dictionary of 4 GiB is refused before it is made.
func TestXZDictionary(t *testing.T) {
	b := xz(t, []byte("x"))
	head := b[12:24] // the block's header, without sizes in it
	if head[0] != 2 || head[2] != 0x21 {
		t.Fatalf("another header: %x", head)
	}
	for props, want := range map[byte]string{40: "dictionary of 4096 MiB", 31: "dictionary of 192 MiB", 41: "damaged"} {
		head[4] = props
		binary.LittleEndian.PutUint32(head[8:], crc32.ChecksumIEEE(head[:8]))
		_, err := io.ReadAll(NewXZ(bytes.NewReader(b)))
		if err == nil || !strings.Contains(err.Error(), want) || props <= 40 && !errs.Is(err, errs.Unsupported) {
			t.Errorf("%d: %v", props, err)
		}
	}
	if _, err := io.ReadAll(NewXZ(bytes.NewReader(xz(t, []byte("x"), "--x86", "--lzma2")))); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a filter: %v", err)
	}
}

func FuzzXZ(f *testing.F) {
	for _, args := range []string{"--check=crc64", "--check=none", "--block-size=4"} {
		f.Add(xz(f, []byte("seed seed seed"), args))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		io.Copy(io.Discard, io.LimitReader(NewXZ(bytes.NewReader(b)), 1<<20))
	})
}
