package stack

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// fill sets a value as Firestore's client would decode a document field written as the YAML value v: a list only from a
// list, a text only from a text, nothing from null. A member unknown to the target type is an error. The errors name
// the field by its path, such as "annotations.0.kind". path is the path of v, empty for the document.
func fill(path string, v any, to reflect.Value) []error {
	fail := func(format string, args ...any) []error {
		return []error{fmt.Errorf(strings.TrimPrefix(path+": ", ": ")+format, args...)}
	}
	below := func(name any) string { return strings.TrimPrefix(fmt.Sprint(path, ".", name), ".") }
	if v == nil {
		return nil
	}
	if to.Type() == reflect.TypeFor[time.Time]() {
		at, ok := v.(time.Time)
		if !ok {
			return fail("not a time such as 2026-01-31T12:00:00Z")
		}
		to.Set(reflect.ValueOf(at))
		return nil
	}
	var errs []error
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		return fill(path, v, to.Elem())
	case reflect.Interface:
		to.Set(reflect.ValueOf(v))
	case reflect.String:
		text, ok := v.(string)
		if !ok {
			return fail("not a text")
		}
		to.SetString(text)
	case reflect.Bool:
		truth, ok := v.(bool)
		if !ok {
			return fail("not true or false")
		}
		to.SetBool(truth)
	case reflect.Int64:
		n, ok := number(v)
		if !ok || n != math.Trunc(n) {
			return fail("not a whole number")
		}
		to.SetInt(int64(n))
	case reflect.Float64:
		n, ok := number(v)
		if !ok {
			return fail("not a number")
		}
		to.SetFloat(n)
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			return fail("not a list")
		}
		to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
		for i, e := range list {
			errs = append(errs, fill(below(i), e, to.Index(i))...)
		}
	case reflect.Map, reflect.Struct:
		members, ok := v.(map[string]any)
		if !ok {
			return fail("not a list of names with values")
		}
		if to.Kind() == reflect.Map {
			to.Set(reflect.MakeMap(to.Type()))
		}
		for _, name := range slices.Sorted(maps.Keys(members)) {
			if to.Kind() == reflect.Map {
				member := reflect.New(to.Type().Elem()).Elem()
				errs = append(errs, fill(below(name), members[name], member)...)
				to.SetMapIndex(reflect.ValueOf(name), member)
			} else if member := field(to, name); member.IsValid() {
				errs = append(errs, fill(below(name), members[name], member)...)
			} else {
				errs = append(errs, fail("unknown field %q", name)...)
			}
		}
	default:
		panic(fmt.Sprintf("no part reads a %s from a document", to.Type()))
	}
	return errs
}

// field returns the struct field stored by Firestore under a name, or the invalid Value.
func field(of reflect.Value, name string) reflect.Value {
	for i := range of.NumField() {
		if kept, _, _ := strings.Cut(of.Type().Field(i).Tag.Get("firestore"), ","); kept == name && kept != "-" {
			return of.Field(i)
		}
	}
	return reflect.Value{}
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
