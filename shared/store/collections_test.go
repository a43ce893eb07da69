package store_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"parley.internal/shared/store"
)

// root is the root of the module.
const root = "../.."

// packages parses the non-test files below shared, gateway and functions. The keys are package paths in the module.
func packages(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	all := map[string]map[string]*ast.File{}
	for _, dir := range []string{"shared", "gateway", "functions"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			if all[path.Dir(rel)] == nil {
				all[path.Dir(rel)] = map[string]*ast.File{}
			}
			all[path.Dir(rel)][path.Base(rel)] = file
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// method returns the receiver and the text argument of a call x.name("text"). ok is false for other calls. The text of
// an expression "text" + y is its constant beginning.
func method(n ast.Node, name string) (receiver ast.Expr, text string, ok bool) {
	call, isCall := n.(*ast.CallExpr)
	if !isCall || len(call.Args) != 1 {
		return nil, "", false
	}
	f, isSelector := call.Fun.(*ast.SelectorExpr)
	if !isSelector || f.Sel.Name != name {
		return nil, "", false
	}
	arg := call.Args[0]
	for {
		sum, isSum := arg.(*ast.BinaryExpr)
		if !isSum {
			break
		}
		arg = sum.X
	}
	if literal, isLiteral := arg.(*ast.BasicLit); isLiteral && literal.Kind == token.STRING {
		text, _ = strconv.Unquote(literal.Value)
	}
	return f.X, text, true
}

// TestOnlyTheOwnerTouchesACollection scans the source for calls of Collection, and for calls of Doc with a path.
func TestOnlyTheOwnerTouchesACollection(t *testing.T) {
	owners := map[string]string{}
	for _, c := range store.Collections {
		if owners[c.Name] != "" {
			t.Errorf("collection %s is listed twice", c.Name)
		}
		owners[c.Name] = c.Owner
	}
	used := map[string]bool{}
	for dir, files := range packages(t) {
		check := func(file, collection string) {
			switch owner := owners[collection]; {
			case collection == "":
				t.Errorf("%s/%s: a collection without a constant name", dir, file)
			case owner == "":
				t.Errorf("%s/%s: collection %q is missing in store.Collections", dir, file, collection)
			case owner != dir:
				t.Errorf("%s/%s: collection %q belongs to %s", dir, file, collection, owner)
			}
			used[collection] = true
		}
		for name, file := range files {
			parents := map[ast.Node]bool{} // collections named only on the path to a subcollection
			ast.Inspect(file, func(n ast.Node) bool {
				if receiver, text, ok := method(n, "Collection"); ok {
					if !parents[n] {
						check(name, text)
					}
					if parent, _, ok := method(receiver, "Doc"); ok {
						parents[parent] = true
					}
				}
				if _, text, ok := method(n, "Doc"); ok && strings.Contains(text, "/") {
					segments := strings.Split(text, "/")
					check(name, segments[(len(segments)-1)/2*2]) // the last segment at an even position is a collection
				}
				return true
			})
		}
	}
	for name := range owners {
		if !used[name] {
			t.Errorf("no code uses collection %s", name)
		}
	}
}

func TestEveryCollectionIsDescribed(t *testing.T) {
	all := packages(t)
	for _, c := range store.Collections {
		segments := strings.Split(c.Document, "/")
		if len(segments)%2 != 0 || segments[len(segments)-2] != c.Name || !regexp.MustCompile(`\{.+\}$`).MatchString(c.Document) {
			t.Errorf("%s: %q is no path of a document in the collection", c.Name, c.Document)
		}
		if c.Content == "" || c.Retention == "" {
			t.Errorf("%s has no content or no retention", c.Name)
		}
		found := false
		for _, file := range all[c.Owner] {
			for _, d := range file.Decls {
				decl, ok := d.(*ast.GenDecl)
				if !ok {
					continue
				}
				found = found || slices.ContainsFunc(decl.Specs, func(s ast.Spec) bool {
					spec, ok := s.(*ast.TypeSpec)
					return ok && spec.Name.Name == c.Struct
				})
			}
		}
		if !found {
			t.Errorf("%s: package %s has no type %s", c.Name, c.Owner, c.Struct)
		}
	}
}
