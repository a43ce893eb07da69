package rule

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// numbers selects the CEL types for the numbers of raw JSON.
type numbers int

const (
	// exact makes an integer an int, or a uint if it is too large for an int. 5.0 is an integer, too. Other numbers are
	// doubles. A number outside of the ranges of all three types is a hugeNumber.
	exact numbers = iota

	// doubles makes every number a double, except a number outside of a double's range. Rules written for earlier
	// revisions of this package need it: there, every number of raw JSON was a double.
	doubles
)

// decode converts raw JSON to values for CEL. The JSON is well-formed, because it is part of a decoded event.
func (n numbers) decode(raw jsontext.Value) any {
	if len(raw) == 0 {
		return empty
	}
	var v any
	if err := json.Unmarshal(raw, &v, n.unmarshalers()); err != nil {
		return empty
	}
	return v
}

// empty replaces a missing raw member, so that has(event.payload.x) is false and not an error.
var empty = map[string]any{}

func (n numbers) unmarshalers() json.Options {
	return json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, v *any) error {
		if d.PeekKind() != '0' {
			return errors.ErrUnsupported
		}
		literal, err := d.ReadValue()
		if err == nil {
			*v = n.convert(string(literal))
		}
		return err
	}))
}

// integerSyntax matches a JSON number without fraction and exponent.
var integerSyntax = regexp.MustCompile(`^-?[0-9]+$`)

// convert converts a JSON number.
func (n numbers) convert(literal string) any {
	if n == exact && integerSyntax.MatchString(literal) {
		if i, err := strconv.ParseInt(literal, 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(literal, 10, 64); err == nil {
			return u
		}
		return hugeNumber(literal)
	}
	f, err := strconv.ParseFloat(literal, 64)
	if err != nil {
		return hugeNumber(literal)
	}
	if n == exact && f == math.Trunc(f) && math.Abs(f) < maxExactDouble {
		return int64(f) // JSON does not distinguish 5 and 5.0
	}
	return f
}

// maxExactDouble bounds the integers of which a double holds each one.
const maxExactDouble = 1 << 53

// hugeNumber is a JSON number that fits into no number type of CEL. Expressions can test for its presence, compare it
// for equality, and print an integer. Every other use is an error, which affects only the using expression.
type hugeNumber string

var hugeNumberType = types.NewOpaqueType("number_out_of_range")

// ConvertToNative is not supported.
func (h hugeNumber) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("a number out of range as %s", t)
}

// ConvertToType returns the digits of an integer as a string.
func (h hugeNumber) ConvertToType(t ref.Type) ref.Val {
	switch {
	case t == types.StringType && integerSyntax.MatchString(string(h)):
		return types.String(h)
	case t == types.TypeType:
		return hugeNumberType
	}
	return types.NewErr("a number is out of range: %.32s", string(h))
}

// Equal reports whether other is the same number in the same notation.
func (h hugeNumber) Equal(other ref.Val) ref.Val {
	o, ok := other.(hugeNumber)
	return types.Bool(ok && h == o)
}

// Type returns an opaque type.
func (h hugeNumber) Type() ref.Type { return hugeNumberType }

// Value returns the literal.
func (h hugeNumber) Value() any { return string(h) }

// toText converts a value to a text: null to nothing, a double to digits without an exponent, and other values as CEL's
// string() does.
func toText(v ref.Val) (string, error) {
	switch v := v.(type) {
	case types.Null:
		return "", nil
	case types.Double:
		return strconv.FormatFloat(float64(v), 'f', -1, 64), nil
	}
	switch s := v.ConvertToType(types.StringType).(type) {
	case types.String:
		return string(s), nil
	case *types.Err:
		if _, huge := v.(hugeNumber); huge {
			return "", s
		}
	}
	return "", errors.New("a " + v.Type().TypeName() + " has no text form")
}
