package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var tree = sync.OnceValues(func() ([]*Source, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	return Sources(root)
})

func sources(t *testing.T) []*Source {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// within reports whether dir is one of dirs or below one.
func within(dir string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") })
}

// rowOf returns the row with the longest Dir that holds dir.
func rowOf(dir string) (best row, ok bool) {
	for _, r := range importTable {
		if within(dir, []string{r.Dir}) && len(r.Dir) >= len(best.Dir) {
			best, ok = r, true
		}
	}
	return best, ok
}

// reach returns every Dir that r may import: its own, May, and what those may.
func reach(r row) map[string]bool {
	seen := map[string]bool{r.Dir: true}
	todo := slices.Clone(r.May)
	for len(todo) > 0 {
		dir := todo[0]
		todo = todo[1:]
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if next, ok := rowOf(dir); ok {
			todo = append(todo, next.May...)
		}
	}
	return seen
}

func TestImportDirection(t *testing.T) {
	for _, s := range sources(t) {
		r, ok := rowOf(s.Dir)
		if !ok {
			t.Errorf("%s: no row in importTable for %s", s.Path, s.Dir)
			continue
		}
		may := reach(r)
		for _, imp := range s.Imports() {
			dir, ours := strings.CutPrefix(imp, module+"/")
			if !ours || s.Test && dir == "test/fixture" {
				continue // fixture may be used by every test, as it uses nothing of tug
			}
			// A subpackage with a row of its own is not its parent's.
			target, ok := rowOf(dir)
			if !ok || !(may[target.Dir] || within(dir, []string{r.Dir}) || within(target.Dir, mapKeys(may))) {
				t.Errorf("%s imports %s: against the direction of importTable", s.Path, imp)
			}
		}
	}
}

func mapKeys(m map[string]bool) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// The table itself must not go in circles.
func TestImportTableHasNoCycle(t *testing.T) {
	for _, r := range importTable {
		for _, dir := range r.May {
			next, ok := rowOf(dir)
			if !ok || next.Dir != dir {
				t.Errorf("row %s names %s, which has no row", r.Dir, dir)
			} else if reach(next)[r.Dir] {
				t.Errorf("%s and %s reach each other", r.Dir, dir)
			}
		}
	}
}

func TestReservedImports(t *testing.T) {
	for _, s := range sources(t) {
		for _, imp := range s.Imports() {
			for _, r := range reserved {
				hit := imp == r.Import || strings.HasSuffix(r.Import, "/") && strings.HasPrefix(imp, r.Import)
				if hit && !within(s.Dir, r.For) && (r.Tests || !s.Test && !s.Tool) {
					t.Errorf("%s imports %s: %s", s.Path, imp, r.Reason)
				}
			}
		}
	}
}

func TestReservedUse(t *testing.T) {
	for _, s := range sources(t) {
		if s.Test || s.Tool {
			continue
		}
		names := importNames(s)
		ast.Inspect(s.Syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok || names[pkg.Name] == "" {
				return true
			}
			full := names[pkg.Name] + "." + sel.Sel.Name
			for _, u := range usage {
				if slices.ContainsFunc(u.Names, func(p string) bool { return matches(p, full) }) && !within(s.Dir, u.For) {
					t.Errorf("%s: %s: %s", s.Fset.Position(sel.Pos()), full, u.Reason)
				}
			}
			return true
		})
	}
}

// importNames maps the names by which a file calls its imports to their paths.
// A package is taken to be called like the last element of its path.
func importNames(s *Source) map[string]string {
	names := map[string]string{}
	for _, spec := range s.Syntax.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	return names
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return name == pattern
}

func TestSizes(t *testing.T) {
	used := map[string]bool{}
	excused := func(key string) bool {
		used[key] = true
		return oversized[key] != ""
	}
	for _, s := range sources(t) {
		if s.Lines > maxFileLines && !excused(s.Path) {
			t.Errorf("%s has %d lines, more than %d: split it, or say why in oversized", s.Path, s.Lines, maxFileLines)
		}
		for _, d := range s.Syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := s.Fset.Position(f.End()).Line - s.Fset.Position(f.Pos()).Line + 1
			if lines > maxFunctionLines && !s.Test && !excused(s.Path+":"+f.Name.Name) {
				t.Errorf("%s:%s has %d lines, more than %d: split it, or say why in oversized", s.Path, f.Name.Name, lines, maxFunctionLines)
			}
		}
	}
	for key := range oversized {
		if !used[key] {
			t.Errorf("oversized names %s, which is small or gone", key)
		}
	}
}

// A container engine's binary is started for every command, so nothing is
// computed before main.
func TestNothingRunsBeforeMain(t *testing.T) {
	for _, s := range sources(t) {
		if s.Test || s.Tool || within(s.Dir, []string{"test", "internal/arch", "bench"}) {
			continue
		}
		for _, d := range s.Syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" && starters[s.Path] == "" {
					t.Errorf("%s has an init function", s.Path)
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					checkStartValues(t, s, d)
				}
			}
		}
	}
}

func checkStartValues(t *testing.T, s *Source, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		for i, value := range v.Values {
			name := s.Path + ":" + v.Names[min(i, len(v.Names)-1)].Name
			if starters[name] != "" {
				continue
			}
			if what := startCost(value); what != "" {
				t.Errorf("%s is %s made at the start of every command", name, what)
			}
		}
	}
}

func startCost(value ast.Expr) string {
	cost := ""
	ast.Inspect(value, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false // runs when called
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "regexp" {
					cost = "a regular expression"
				}
			}
		case *ast.CompositeLit:
			if _, ok := n.Type.(*ast.MapType); ok && len(n.Elts) > maxStartMap {
				cost = fmt.Sprintf("a map of %d entries", len(n.Elts))
			}
		}
		return true
	})
	return cost
}

func TestDirectoryNames(t *testing.T) {
	for _, s := range sources(t) {
		for _, elem := range strings.Split(s.Dir, "/") {
			if slices.Contains(emptyNames, elem) {
				t.Errorf("%s: a directory called %q says nothing about what is in it", s.Path, elem)
			}
		}
	}
}

// The lists of linked modules are what a reviewer reads when a dependency
// comes or goes. They are made by `make modules`.
func TestLinkedModules(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, binary := range Binaries {
		got, err := LinkedModules(root, binary)
		if err != nil {
			t.Error(err)
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, ModuleList(binary)))
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(strings.Fields(string(b)), strings.Fields(strings.Join(got, "\n"))); diff != "" {
			t.Errorf("%s is not what %s links (-reviewed +linked); run make modules and review the diff:\n%s",
				ModuleList(binary), binary, diff)
		}
	}
}

// changelog/NNNN-slug.md: one file per change that a user sees, so that two
// branches never touch the same one.
func TestChangelog(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(root, "changelog"))
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^(\d{4})-[a-z0-9]+(-[a-z0-9]+)*\.md$`)
	numbers := map[string]string{}
	for _, e := range entries {
		if e.Name() == "README.md" {
			continue
		}
		m := name.FindStringSubmatch(e.Name())
		if m == nil {
			t.Errorf("changelog/%s is not called NNNN-slug.md", e.Name())
			continue
		}
		if other := numbers[m[1]]; other != "" {
			t.Errorf("changelog/%s has the number of %s", e.Name(), other)
		}
		numbers[m[1]] = e.Name()
		b, err := os.ReadFile(filepath.Join(root, "changelog", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte("# ")) {
			t.Errorf("changelog/%s does not begin with a heading", e.Name())
		}
	}
}

// Whoever clones the repository has all that the build needs, and nothing
// that was built.
func TestNoBinariesInRepo(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("git ls-files: ", err)
	}
	for _, file := range strings.Split(strings.Trim(string(out), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(root, file))
		if err == nil && bytes.HasPrefix(b, []byte("\x7fELF")) {
			t.Errorf("%s is a program", file)
		}
		if len(b) > 1<<20 {
			t.Errorf("%s has %d bytes, more than 1 MiB", file, len(b))
		}
	}
}
