package deadletter_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

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

func TestEveryReasonIsInTheTableOnce(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []deadletter.Reason
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Reason" {
				value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				declared = append(declared, deadletter.Reason(value))
			}
		}
		return true
	})
	var table []deadletter.Reason
	for _, r := range deadletter.Reasons {
		if r.Meaning == "" {
			t.Errorf("%q has no meaning", r.Reason)
		}
		table = append(table, r.Reason)
	}
	slices.Sort(declared)
	slices.Sort(table)
	if len(declared) < 10 || !slices.Equal(declared, table) {
		t.Errorf("declared: %q\nin the table: %q", declared, table)
	}
}
