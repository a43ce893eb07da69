package rule

import (
	"strings"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"parley.internal/shared/event"
)

// input is the event for expressions. Its views are made when an expression first needs them. An input is not safe for
// concurrent use.
type input struct {
	event *event.Event
	raw   bool // some rule uses a raw JSON member
	views [2]map[string]any
}

// view returns the variables of an expression.
func (in *input) view(n numbers) map[string]any {
	if !in.raw {
		n = exact // both views are equal without raw members
	}
	if in.views[n] == nil {
		in.views[n] = map[string]any{"event": newView(in.event, in.raw, n)}
	}
	return in.views[n]
}

// expression is a compiled expression.
type expression struct {
	program cel.Program
	first   numbers // the types of numbers to try first
}

// eval evaluates the expression. If it does not fit the types of numbers in raw JSON, eval tries the other types.
func (x *expression) eval(in *input) (ref.Val, error) {
	v, _, err := x.program.Eval(in.view(x.first))
	if err == nil || !in.raw || !strings.Contains(err.Error(), "no such overload") {
		return v, err
	}
	other := doubles
	if x.first == doubles {
		other = exact
	}
	if v, _, otherErr := x.program.Eval(in.view(other)); otherErr == nil {
		return v, nil
	}
	return v, err
}

// firstNumbers returns doubles for an expression that divides by a raw number, or divides one. The division of two ints
// would drop the fraction, so a rule written for doubles would silently get another result.
func firstNumbers(a *cel.Ast) numbers {
	first := exact
	checked := a.NativeRep()
	celast.PostOrderVisit(checked.Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		if e.Kind() != celast.CallKind || e.AsCall().FunctionName() != operators.Divide {
			return
		}
		for _, operand := range e.AsCall().Args() {
			if checked.GetType(operand.ID()).Kind() == types.DynKind {
				first = doubles
			}
		}
	}))
	return first
}
