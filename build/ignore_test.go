package build

import (
	"strings"
	"testing"

	"tug/errs"
)

func TestIgnore(t *testing.T) {
	const file = "# comment\n\n*/temp*\n  */*/temp*  \ntemp?\n**/*.log\n!keep.log\n/abs\ndocs\n!docs/README.md\nx/./y/../z\n"
	i, err := ReadIgnore(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"a/temporary": true, "a/b/temporary": true, "a/b/c/temporary": false, "tempa": true, "temp": false, "tempab": false,
		"x.log": true, "a/b/c/x.log": true, "keep.log": false, "a/keep.log": true, "abs": true, "a/abs": false,
		"docs": true, "docs/a": true, "docs/README.md": false, "docs/b/c": true, "x/z": true, "x/z/a": true, "x/y": false,
		"# comment": false, "": false,
	} {
		if got, err := i.Ignored(path); err != nil || got != want {
			t.Errorf("%q: %v, %v", path, got, err)
		}
	}
	for _, none := range []*Ignore{nil, {}} {
		if got, err := none.Ignored("a"); got || err != nil {
			t.Errorf("without a file: %v, %v", got, err)
		}
	}
}

func TestBadIgnore(t *testing.T) {
	for text, want := range map[string]string{
		"[":                                   "syntax error in pattern",
		"!":                                   "illegal exclusion pattern",
		strings.Repeat("a\n", 10_001):         "more than 10000 patterns",
		strings.Repeat("#aaaaaaa\n", 130_000): "larger than 1 MiB",
		strings.Repeat("a", 80_000):           "token too long",
	} {
		_, err := ReadIgnore(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) || errs.ClassOf(err) != errs.Invalid {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}

// A pattern that path/filepath takes and a regular expression does not.
func TestBadRange(t *testing.T) {
	i, err := ReadIgnore(strings.NewReader("*[z-a]"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Ignored("a"); errs.ClassOf(err) != errs.Invalid || !strings.Contains(err.Error(), "syntax error in pattern") {
		t.Error(err)
	}
}

// A file of anybody's: no panic, and every answer is the same twice.
func FuzzIgnore(f *testing.F) {
	for _, seed := range []string{"*", "!a", "**/b", "a[b-", "[^]", "\\", "a\\*b\n!**", "\ufeff#x\n*.go", "{a,b}", "(?i)a", "+|$.^", "**\n!**/**/**"} {
		f.Add(seed, "a/b/c.go")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		i, err := ReadIgnore(strings.NewReader(text))
		if err != nil {
			if errs.ClassOf(err) != errs.Invalid {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		first, err1 := i.Ignored(path)
		second, err2 := i.Ignored(path)
		if first != second || (err1 == nil) != (err2 == nil) {
			t.Errorf("%q, %q: %v %v, then %v %v", text, path, first, err1, second, err2)
		}
	})
}
