package deadletter_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/deadletter"
)

func ExampleNew() {
	err := fmt.Errorf("send whisper: %w", deadletter.New(deadletter.RecipientRefused, errors.New("the user blocks the bot")))
	var dead *deadletter.Error
	if errors.As(err, &dead) {
		fmt.Println(dead.Reason)
	}
	// a platform's own code is not a reason
	fmt.Println(deadletter.New("msg_rejected", errors.New("held for review")))
	// Output:
	// recipient_refused
	// platform_refused: msg_rejected: held for review
}

func TestReasonIsFoundInAWrappedError(t *testing.T) {
	cause := errors.New("blocked by a safety setting")
	err := fmt.Errorf("answer: %w", deadletter.New(deadletter.ModelRefused, cause))
	var d *deadletter.Error
	if !errors.As(err, &d) || d.Reason != deadletter.ModelRefused || !errors.Is(err, cause) {
		t.Errorf("found %v in %v", d, err)
	}
}

func TestUnknownReasonIsPlatformRefusedWithTheCode(t *testing.T) {
	cause := errors.New("held for review")
	for r, want := range map[deadletter.Reason]string{"msg_rejected": "platform_refused: msg_rejected: held for review", "": "platform_refused: held for review"} {
		got := deadletter.New(r, cause)
		if got.Reason != deadletter.PlatformRefused || got.Error() != want || !errors.Is(got, cause) {
			t.Errorf("New(%q) = %v; want %s", r, got, want)
		}
	}
}

// declaredReasons returns the constants of reason.go by name.
func declaredReasons(t *testing.T) map[string]deadletter.Reason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]deadletter.Reason{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Reason" {
				value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				declared[spec.Names[0].Name] = deadletter.Reason(value)
			}
		}
		return true
	})
	return declared
}

func TestEveryReasonIsInTheTableOnce(t *testing.T) {
	declared := slices.Sorted(maps.Values(declaredReasons(t)))
	var table []deadletter.Reason
	for _, r := range deadletter.Reasons {
		if r.Meaning == "" {
			t.Errorf("%q has no meaning", r.Reason)
		}
		table = append(table, r.Reason)
	}
	slices.Sort(table)
	if len(declared) < 10 || !slices.Equal(declared, table) {
		t.Errorf("declared: %q\nin the table: %q", declared, table)
	}
}

// A text that becomes a Reason would bypass the table: a literal, or a conversion. Conversions are needed where a stored
// or announced reason is read.
func TestProductionCodeUsesOnlyReasonsOfTheTable(t *testing.T) {
	mayConvert := []string{"shared/deadletter/announcement.go", "shared/delivery/reap.go", "gateway/operator/deadletters.go"}
	const root = "../.."
	used := map[string]bool{}
	for _, dir := range []string{"functions", "gateway", "shared"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(root, path)
			own := file.Name.Name == "deadletter"
			is := func(n ast.Expr, want string) bool {
				if id, ok := n.(*ast.Ident); ok {
					return own && id.Name == want
				}
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return false
				}
				pkg, ok := sel.X.(*ast.Ident)
				return ok && pkg.Name == "deadletter" && sel.Sel.Name == want
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					_, literal := slices.Concat(n.Args, []ast.Expr{nil})[0].(*ast.BasicLit)
					if is(n.Fun, "New") && literal {
						t.Errorf("%s: deadletter.New with a literal; use a constant of package deadletter", name)
					}
					if is(n.Fun, "Reason") && !slices.Contains(mayConvert, name) {
						t.Errorf("%s: conversion to deadletter.Reason; use a constant of package deadletter", name)
					}
				case *ast.SelectorExpr:
					if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "deadletter" {
						used[n.Sel.Name] = true
					}
				case *ast.Ident:
					used[n.Name] = used[n.Name] || own && name != "shared/deadletter/reason.go"
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range declaredReasons(t) {
		if !used[name] {
			t.Errorf("no production code uses %s (%s)", name, value)
		}
	}
}

func TestHourlyFailuresOfOneSenderShareADeadLetter(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	first := deadletter.Hourly(deadletter.Forbidden, errors.New("no role"), "twitch:1", at)
	for _, tt := range []struct {
		name   string
		reason deadletter.Reason
		sender string
		at     time.Time
		shared bool
	}{
		{"the end of the hour", deadletter.Forbidden, "twitch:1", at.Add(time.Hour - 1), true},
		{"another time zone", deadletter.Forbidden, "twitch:1", at.Add(time.Minute).In(time.FixedZone("half", 30*60)), true},
		{"the next hour", deadletter.Forbidden, "twitch:1", at.Add(time.Hour), false},
		{"the hour before", deadletter.Forbidden, "twitch:1", at.Add(-1), false},
		{"another sender", deadletter.Forbidden, "twitch:12", at, false},
		{"an unknown sender", deadletter.Forbidden, "", at, false},
		{"another reason", deadletter.InvalidEvent, "twitch:1", at, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := deadletter.Hourly(tt.reason, errors.New("other words"), tt.sender, tt.at)
			if got.ID == "" || (got.ID == first.ID) != tt.shared || got.Reason != tt.reason {
				t.Errorf("got %+v after %+v; want shared: %v", got, first, tt.shared)
			}
		})
	}
	if e := deadletter.New(deadletter.Forbidden, errors.New("no role")); e.ID != "" {
		t.Errorf("New made the id %s", e.ID)
	}
}
