package spec

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"

	"tug/errs"
)

const hex64 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func referenceSeeds() []string {
	d := "@sha256:" + hex64
	seeds := []string{
		"", "/", ":", "@", "busybox", "busybox:1.36", "busybox" + d, "busybox:1.36" + d, "library/busybox", "docker.io/busybox",
		"index.docker.io/busybox", "index.docker.io/library/busybox:x", "docker.io/library/a/b", "localhost/a", "localhost:5000/a:b",
		"localhost", "localhost:5000", "127.0.0.1/a", "[::1]/a", "[::1]:5000/a/b:c", "[::1", "[::1]x/a", "[]/a", "[fe80::1%eth0]/a", "[::1]:/a",
		"Busybox", "a/B", "A/b", "FOO.com/a", "FOO/a:T", "a:T", "a:-x", "a:.x", "a:_x", "a: x", "a:b:c", "a:b@c", "a@b", "a@sha256:" + hex64[:63],
		"a@sha256:" + strings.ToUpper(hex64), "a@sha512:" + hex64 + hex64, "a@md5:d41d8cd98f00b204e9800998ecf8427e", "a@sha256:" + hex64 + "@x",
		hex64, "library/" + hex64, hex64 + ":x", hex64[:63], "x" + hex64, "a_b.com/x", "a_b:80/x", "-a.com/x", "a-.com/x", "a..b/x", ".a/x",
		"a.b:/x", "a.b:x/y", "a.b:80/", "a.b/", "a.b//x", "a//b", "/a", "a/", "a__b", "a___b", "a.-b", "a--b", "a-", "-a", "a.", "a..b", "a_.b",
		"a\n", "a:b\n", "a\x00", "ä", "a/ä", "a\xff", "é.com/a", "docker.io/", "docker.io", "registry.k8s.io/pause:3.9", "quay.io/a/b/c/d:v1_2-3.4",
		strings.Repeat("a", 255), strings.Repeat("a", 248), strings.Repeat("a", 247), "a.b/" + strings.Repeat("a", 255), "a.b/" + strings.Repeat("a", 256),
		"a:" + strings.Repeat("t", 128), "a:" + strings.Repeat("t", 129), "library/ubuntu:latest" + d, "x.y/library/a", "docker.io/library/a-b",
		"LOCALHOST/a", "a.b:80:90/x", "a@" + d, "a:@sha256:" + hex64, "index.docker.io/a/b", "a+b", "a/b+c:d", "sha256:" + hex64, "K/a", "ſ/a",
	}
	return seeds
}

// compareWithOracle holds ParseReference to what distribution/reference says.
func compareWithOracle(t *testing.T, s string) {
	t.Helper()
	want, oracleErr := reference.ParseNormalizedNamed(s)
	got, err := ParseReference(s)
	if errs.Is(err, errs.Unsupported) {
		return // another digest algorithm: the oracle knows sha384 and sha512
	}
	if (err == nil) != (oracleErr == nil) {
		t.Fatalf("%q: error %v, the oracle says %v", s, err, oracleErr)
	}
	if err != nil {
		if errs.ClassOf(err) != errs.Invalid {
			t.Errorf("%q: class %d", s, errs.ClassOf(err))
		}
		return
	}
	ref := Reference{Domain: reference.Domain(want), Path: reference.Path(want)}
	if v, ok := want.(reference.Tagged); ok {
		ref.Tag = v.Tag()
	}
	if v, ok := want.(reference.Digested); ok {
		ref.Digest = Digest(v.Digest())
	}
	docker, err := reference.ParseDockerRef(s)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := ParseDockerReference(s)
	if err != nil {
		t.Fatalf("%q: ParseDockerReference: %v", s, err)
	}
	for _, pair := range [][2]any{
		{ref, got},
		{want.String(), got.String()},
		{want.Name(), got.Name()},
		{reference.FamiliarString(want), got.Familiar()},
		{reference.FamiliarName(want), got.FamiliarName()},
		{reference.TagNameOnly(want).String(), got.WithDefaultTag().String()},
		{docker.String(), ours.String()},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%q (-oracle +ours):\n%s", s, diff)
		}
	}
}

func TestReferenceAgainstOracle(t *testing.T) {
	for _, s := range referenceSeeds() {
		compareWithOracle(t, s)
	}
	// Every string of up to four characters of a small alphabet that has one of
	// each kind: the grammar's corners, exhaustively.
	const alphabet = "aA0./:@_-["
	var walk func(prefix string, left int)
	walk = func(prefix string, left int) {
		compareWithOracle(t, prefix)
		if left == 0 {
			return
		}
		for i := range len(alphabet) {
			walk(prefix+alphabet[i:i+1], left-1)
		}
	}
	depth := 4
	if testing.Short() {
		depth = 3
	}
	walk("", depth)
}

func TestReferenceMessages(t *testing.T) {
	for in, want := range map[string]string{
		"a b":         `invalid reference format: "a b"`,
		"Foo":         "invalid reference format: repository name (library/Foo) must be lowercase",
		"x/Foo:t":     "invalid reference format: repository name (x/Foo) must be lowercase",
		hex64:         "invalid repository name (" + hex64 + "), cannot specify 64-byte hexadecimal strings",
		"a@sha256:00": `invalid reference format: invalid digest "sha256:00": want 64 lower-case hex digits`,
	} {
		if _, err := ParseReference(in); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range referenceSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { compareWithOracle(t, s) })
}
