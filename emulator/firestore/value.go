package firestore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The kinds of values, in the service's order of kinds:
// https://firebase.google.com/docs/firestore/manage-data/data-types#value_type_ordering.
const (
	kindNull = iota
	kindBoolean
	kindNumber
	kindTimestamp
	kindString
	kindBytes
	kindReference
	kindGeoPoint
	kindArray
	kindVector
	kindMap
)

// A vector travels as a map with these two keys.
const (
	vectorTypeKey   = "__type__"
	vectorTypeValue = "__vector__"
	vectorValueKey  = "value"
)

// kindOf returns the kind of v. A value without a type counts as null. checkValue refuses such values in documents.
func kindOf(v *pb.Value) int {
	switch v := v.GetValueType().(type) {
	case *pb.Value_BooleanValue:
		return kindBoolean
	case *pb.Value_IntegerValue, *pb.Value_DoubleValue:
		return kindNumber
	case *pb.Value_TimestampValue:
		return kindTimestamp
	case *pb.Value_StringValue:
		return kindString
	case *pb.Value_BytesValue:
		return kindBytes
	case *pb.Value_ReferenceValue:
		return kindReference
	case *pb.Value_GeoPointValue:
		return kindGeoPoint
	case *pb.Value_ArrayValue:
		return kindArray
	case *pb.Value_MapValue:
		if vectorOf(v.MapValue) != nil {
			return kindVector
		}
		return kindMap
	default:
		return kindNull
	}
}

// vectorOf returns the components of a vector, or nil for a plain map.
func vectorOf(m *pb.MapValue) *pb.ArrayValue {
	if len(m.GetFields()) != 2 || m.Fields[vectorTypeKey].GetStringValue() != vectorTypeValue {
		return nil
	}
	return m.Fields[vectorValueKey].GetArrayValue()
}

// compareValues orders any two values as the service does in a query. It is a total order: NaN equals NaN and is less
// than all numbers, and an integer equals the double of the same amount.
func compareValues(a, b *pb.Value) int {
	ka, kb := kindOf(a), kindOf(b)
	if ka != kb {
		return cmp.Compare(ka, kb)
	}
	switch ka {
	case kindBoolean:
		return compareBooleans(a.GetBooleanValue(), b.GetBooleanValue())
	case kindNumber:
		return compareNumbers(a, b)
	case kindTimestamp:
		return compareTimestamps(a.GetTimestampValue(), b.GetTimestampValue())
	case kindString:
		return strings.Compare(a.GetStringValue(), b.GetStringValue())
	case kindBytes:
		return bytes.Compare(a.GetBytesValue(), b.GetBytesValue())
	case kindReference:
		return compareNames(a.GetReferenceValue(), b.GetReferenceValue())
	case kindGeoPoint:
		p, q := a.GetGeoPointValue(), b.GetGeoPointValue()
		return cmp.Or(cmp.Compare(p.GetLatitude(), q.GetLatitude()), cmp.Compare(p.GetLongitude(), q.GetLongitude()))
	case kindArray:
		return slices.CompareFunc(a.GetArrayValue().GetValues(), b.GetArrayValue().GetValues(), compareValues)
	case kindVector:
		p, q := vectorOf(a.GetMapValue()).GetValues(), vectorOf(b.GetMapValue()).GetValues()
		return cmp.Or(cmp.Compare(len(p), len(q)), slices.CompareFunc(p, q, compareValues))
	case kindMap:
		return compareMaps(a.GetMapValue().GetFields(), b.GetMapValue().GetFields())
	default:
		return 0
	}
}

func compareBooleans(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func compareNumbers(a, b *pb.Value) int {
	ia, aIsInteger := a.ValueType.(*pb.Value_IntegerValue)
	ib, bIsInteger := b.ValueType.(*pb.Value_IntegerValue)
	switch {
	case aIsInteger && bIsInteger:
		return cmp.Compare(ia.IntegerValue, ib.IntegerValue)
	case aIsInteger:
		return -compareDoubleToInteger(b.GetDoubleValue(), ia.IntegerValue)
	case bIsInteger:
		return compareDoubleToInteger(a.GetDoubleValue(), ib.IntegerValue)
	default:
		// As in the service, NaN is less than -Inf, and -0 equals 0.
		return cmp.Compare(a.GetDoubleValue(), b.GetDoubleValue())
	}
}

// compareDoubleToInteger is exact for all of int64. A conversion of the integer to a double would lose the low bits.
func compareDoubleToInteger(d float64, i int64) int {
	const twoTo63 = 1 << 63
	switch {
	case math.IsNaN(d) || d < -twoTo63:
		return -1
	case d >= twoTo63:
		return 1
	}
	whole := math.Trunc(d)
	return cmp.Or(cmp.Compare(int64(whole), i), cmp.Compare(d, whole))
}

func compareTimestamps(a, b *timestamppb.Timestamp) int {
	return cmp.Or(cmp.Compare(a.GetSeconds(), b.GetSeconds()), cmp.Compare(a.GetNanos(), b.GetNanos()))
}

// compareMaps compares the entries in the order of the keys: first the keys, then the values.
func compareMaps(a, b map[string]*pb.Value) int {
	ka, kb := slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))
	for i := range min(len(ka), len(kb)) {
		if c := strings.Compare(ka[i], kb[i]); c != 0 {
			return c
		}
		if c := compareValues(a[ka[i]], b[kb[i]]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(ka), len(kb))
}

// equalValues reports whether a and b are equal for an equality filter.
func equalValues(a, b *pb.Value) bool { return compareValues(a, b) == 0 }

func containsValue(values []*pb.Value, v *pb.Value) bool {
	return slices.ContainsFunc(values, func(w *pb.Value) bool { return equalValues(v, w) })
}

func isNaN(v *pb.Value) bool {
	d, ok := v.GetValueType().(*pb.Value_DoubleValue)
	return ok && math.IsNaN(d.DoubleValue)
}

// identicalValues is stricter than equalValues: 1 and 1.0 are not identical. A write without a different value does not
// change the document.
func identicalValues(a, b *pb.Value) bool {
	switch va := a.GetValueType().(type) {
	case *pb.Value_IntegerValue:
		vb, ok := b.GetValueType().(*pb.Value_IntegerValue)
		return ok && va.IntegerValue == vb.IntegerValue
	case *pb.Value_DoubleValue:
		vb, ok := b.GetValueType().(*pb.Value_DoubleValue)
		return ok && math.Float64bits(va.DoubleValue) == math.Float64bits(vb.DoubleValue)
	case *pb.Value_ArrayValue:
		vb, ok := b.GetValueType().(*pb.Value_ArrayValue)
		return ok && slices.EqualFunc(va.ArrayValue.GetValues(), vb.ArrayValue.GetValues(), identicalValues)
	case *pb.Value_MapValue:
		vb, ok := b.GetValueType().(*pb.Value_MapValue)
		return ok && maps.EqualFunc(va.MapValue.GetFields(), vb.MapValue.GetFields(), identicalValues)
	default:
		return equalValues(a, b)
	}
}

func nullValue() *pb.Value {
	return &pb.Value{ValueType: &pb.Value_NullValue{NullValue: structpb.NullValue_NULL_VALUE}}
}

func integerValue(i int64) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_IntegerValue{IntegerValue: i}}
}

func doubleValue(d float64) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_DoubleValue{DoubleValue: d}}
}

func arrayValue(values []*pb.Value) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_ArrayValue{ArrayValue: &pb.ArrayValue{Values: values}}}
}

func mapValue(fields map[string]*pb.Value) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_MapValue{MapValue: &pb.MapValue{Fields: fields}}}
}

// The limits on a document, from https://firebase.google.com/docs/firestore/quotas#limits.
// Sizes are in bytes.
const (
	maxDocumentSize  = 1 << 20
	maxValueSize     = 1<<20 - 89
	maxFieldNameSize = 1500
	maxValueDepth    = 20
)

// checkFields returns an error for invalid fields of a document. It truncates timestamps to microseconds, the service's
// precision. So the fields must belong to the caller alone, or be stored already: stored timestamps are truncated, and
// checkFields only reads them, as other goroutines may do at the same time.
func checkFields(fields map[string]*pb.Value) error {
	for name, v := range fields {
		if err := checkFieldName(name); err != nil {
			return err
		}
		if err := checkValue(v, 0); err != nil {
			return fmt.Errorf("property %s: %w", name, err)
		}
	}
	return nil
}

func checkFieldName(name string) error {
	switch {
	case name == "":
		return errors.New("the property name is the empty string")
	case len(name) > maxFieldNameSize:
		return fmt.Errorf("the property name has %d bytes, more than the limit of %d bytes", len(name), maxFieldNameSize)
	case isReserved(name):
		return fmt.Errorf("the property name %q is reserved", name)
	case !utf8.ValidString(name):
		return errors.New("the property name is not valid UTF-8")
	}
	return nil
}

// checkValue checks v. depth is the number of maps and arrays around v.
func checkValue(v *pb.Value, depth int) error {
	switch v := v.GetValueType().(type) {
	case nil:
		return errors.New("the value has no type")
	case *pb.Value_TimestampValue:
		if err := v.TimestampValue.CheckValid(); err != nil {
			return fmt.Errorf("invalid timestamp: %w", err)
		}
		if below := v.TimestampValue.Nanos % 1000; below != 0 {
			v.TimestampValue.Nanos -= below
		}
	case *pb.Value_StringValue:
		if len(v.StringValue) > maxValueSize {
			return fmt.Errorf("the string is longer than %d bytes", maxValueSize)
		}
	case *pb.Value_BytesValue:
		if len(v.BytesValue) > maxValueSize {
			return fmt.Errorf("the value is longer than %d bytes", maxValueSize)
		}
	case *pb.Value_ReferenceValue:
		if _, err := parseDocumentName(v.ReferenceValue); err != nil {
			return fmt.Errorf("invalid reference: %w", err)
		}
	case *pb.Value_GeoPointValue:
		p := v.GeoPointValue
		if !(math.Abs(p.GetLatitude()) <= 90) || !(math.Abs(p.GetLongitude()) <= 180) {
			return errors.New("the latitude must lie in [-90, 90] and the longitude in [-180, 180]")
		}
	case *pb.Value_ArrayValue:
		if depth >= maxValueDepth {
			return fmt.Errorf("maps and arrays nest deeper than %d levels", maxValueDepth)
		}
		for _, e := range v.ArrayValue.GetValues() {
			if _, nested := e.GetValueType().(*pb.Value_ArrayValue); nested {
				return errors.New("cannot convert an array value in an array value")
			}
			if err := checkValue(e, depth+1); err != nil {
				return err
			}
		}
	case *pb.Value_MapValue:
		if depth >= maxValueDepth {
			return fmt.Errorf("maps and arrays nest deeper than %d levels", maxValueDepth)
		}
		if vectorOf(v.MapValue) != nil {
			return checkVector(vectorOf(v.MapValue))
		}
		for name, e := range v.MapValue.GetFields() {
			if err := checkFieldName(name); err != nil {
				return err
			}
			if err := checkValue(e, depth+1); err != nil {
				return err
			}
		}
	case *pb.Value_NullValue, *pb.Value_BooleanValue, *pb.Value_IntegerValue, *pb.Value_DoubleValue:
	default:
		return fmt.Errorf("a value of type %T cannot be stored", v)
	}
	return nil
}

func checkVector(components *pb.ArrayValue) error {
	const maxDimensions = 2048 // https://firebase.google.com/docs/firestore/vector-search#limitations
	if n := len(components.GetValues()); n == 0 || n > maxDimensions {
		return fmt.Errorf("a vector must have between 1 and %d dimensions, not %d", maxDimensions, n)
	}
	for _, c := range components.GetValues() {
		if kindOf(c) != kindNumber {
			return errors.New("a vector must hold numbers only")
		}
	}
	return nil
}

// documentSize is the size of a document in bytes, for maxDocumentSize:
// https://firebase.google.com/docs/firestore/storage-size.
func documentSize(d *pb.Document) int {
	const overhead = 32
	return overhead + nameSize(d.GetName()) + fieldsSize(d.GetFields())
}

func nameSize(name string) int {
	const overhead = 16
	// Each id counts with its length plus one byte. The path already has one byte, a slash, behind each id but the last.
	return overhead + len(relativePath(name)) + 1
}

func fieldsSize(fields map[string]*pb.Value) int {
	n := 0
	for name, v := range fields {
		n += len(name) + 1 + valueSize(v)
	}
	return n
}

func valueSize(v *pb.Value) int {
	switch v := v.GetValueType().(type) {
	case *pb.Value_StringValue:
		return len(v.StringValue) + 1
	case *pb.Value_BytesValue:
		return len(v.BytesValue)
	case *pb.Value_ReferenceValue:
		return nameSize(v.ReferenceValue)
	case *pb.Value_GeoPointValue:
		return 16
	case *pb.Value_ArrayValue:
		n := 0
		for _, e := range v.ArrayValue.GetValues() {
			n += valueSize(e)
		}
		return n
	case *pb.Value_MapValue:
		return fieldsSize(v.MapValue.GetFields())
	case *pb.Value_IntegerValue, *pb.Value_DoubleValue, *pb.Value_TimestampValue:
		return 8
	default:
		return 1
	}
}
