// Package arch holds the rules of the house as tables, and tests that hold the
// code to them: who may import whom, which packages may touch the kernel, the
// network and the terminal, what each binary links, how long things get. It is
// no part of any binary.
//
// A rule that is in the way is changed here, in the table, with its reason, in
// the commit that needs it.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// module is the path of this module, as in go.mod.
const module = "tug"

// Source is one parsed Go file.
type Source struct {
	Path   string // relative to the module's root, with slashes
	Dir    string // its directory, "." for the root
	Test   bool   // a _test.go file
	Tool   bool   // a program outside cmd/: a generator, no part of tug
	Lines  int
	Syntax *ast.File
	Fset   *token.FileSet
}

// Root returns the module's root directory, seen from the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
}

// Sources parses every Go file below root, whatever its build constraints,
// except generated ones, testdata and other modules.
func Sources(root string) ([]*Source, error) {
	var all []*Source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && skipDir(path, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		s, err := parse(root, path)
		if s != nil {
			all = append(all, s)
		}
		return err
	})
	return all, err
}

func skipDir(path, name string) bool {
	if name == "testdata" || name == "bin" || strings.HasPrefix(name, ".") {
		return true
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil
}

func parse(root, path string) (*Source, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(f) {
		return nil, nil
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return nil, err
	}
	rel = filepath.ToSlash(rel)
	dir := filepath.ToSlash(filepath.Dir(rel))
	return &Source{
		Path:   rel,
		Dir:    dir,
		Test:   strings.HasSuffix(rel, "_test.go"),
		Tool:   f.Name.Name == "main" && !strings.HasPrefix(dir, "cmd/"),
		Lines:  fset.File(f.Pos()).LineCount(),
		Syntax: f,
		Fset:   fset,
	}, nil
}

// Imports returns the import paths of s.
func (s *Source) Imports() []string {
	var paths []string
	for _, spec := range s.Syntax.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	return paths
}

// Binaries are the programs whose linked modules are reviewed.
var Binaries = []string{"tug", "tug-init", "tug-box"}

// ModuleList is the reviewed file of one binary.
func ModuleList(binary string) string { return "docs/modules-" + binary + ".txt" }

// LinkedModules returns "path version" of every module from which a package
// is linked into the binary, as it is built: linux, without cgo.
func LinkedModules(root, binary string) ([]string, error) {
	cmd := exec.Command("go", "list", "-deps", "-f",
		"{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/"+binary)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			return nil, fmt.Errorf("go list ./cmd/%s: %s", binary, exit.Stderr)
		}
		return nil, err
	}
	lines := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
	slices.Sort(lines)
	return slices.Compact(lines), nil
}
