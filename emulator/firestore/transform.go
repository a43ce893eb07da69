package firestore

import (
	"fmt"
	"math"
	"slices"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
)

const maxTransforms = 500 // on one document in one commit

// A transform is a checked pb.DocumentTransform_FieldTransform.
type transform struct {
	path  fieldPath
	proto *pb.DocumentTransform_FieldTransform
}

func checkTransform(t *pb.DocumentTransform_FieldTransform) error {
	var operand *pb.Value
	switch k := t.GetTransformType().(type) {
	case *pb.DocumentTransform_FieldTransform_SetToServerValue:
		if k.SetToServerValue != pb.DocumentTransform_FieldTransform_REQUEST_TIME {
			return fmt.Errorf("unknown server value %v", k.SetToServerValue)
		}
		return nil
	case *pb.DocumentTransform_FieldTransform_AppendMissingElements:
		return checkValue(arrayValue(k.AppendMissingElements.GetValues()), 0)
	case *pb.DocumentTransform_FieldTransform_RemoveAllFromArray:
		return checkValue(arrayValue(k.RemoveAllFromArray.GetValues()), 0)
	case *pb.DocumentTransform_FieldTransform_Increment:
		operand = k.Increment
	case *pb.DocumentTransform_FieldTransform_Maximum:
		operand = k.Maximum
	case *pb.DocumentTransform_FieldTransform_Minimum:
		operand = k.Minimum
	default:
		return fmt.Errorf("the transform of %q has no type", t.GetFieldPath())
	}
	if kindOf(operand) != kindNumber {
		return fmt.Errorf("the transform of %q needs a number", t.GetFieldPath())
	}
	return nil
}

// apply returns the new value of the field and the value for the answer. now is the commit time in microseconds. The
// rules are in https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1#fieldtransform.
func (t transform) apply(old *pb.Value, now int64) (value, reported *pb.Value) {
	switch k := t.proto.GetTransformType().(type) {
	case *pb.DocumentTransform_FieldTransform_SetToServerValue:
		// Server timestamps of the service have a precision of milliseconds.
		const millisecond = 1000
		value = &pb.Value{ValueType: &pb.Value_TimestampValue{TimestampValue: timestampOf(now - now%millisecond)}}
	case *pb.DocumentTransform_FieldTransform_Increment:
		value = increment(old, k.Increment)
	case *pb.DocumentTransform_FieldTransform_Maximum:
		value = extreme(old, k.Maximum, 1)
	case *pb.DocumentTransform_FieldTransform_Minimum:
		value = extreme(old, k.Minimum, -1)
	case *pb.DocumentTransform_FieldTransform_AppendMissingElements:
		elements := slices.Clone(old.GetArrayValue().GetValues())
		for _, e := range k.AppendMissingElements.GetValues() {
			if !containsValue(elements, e) {
				elements = append(elements, e)
			}
		}
		return arrayValue(elements), nullValue()
	case *pb.DocumentTransform_FieldTransform_RemoveAllFromArray:
		var kept []*pb.Value
		for _, e := range old.GetArrayValue().GetValues() {
			if !containsValue(k.RemoveAllFromArray.GetValues(), e) {
				kept = append(kept, e)
			}
		}
		return arrayValue(kept), nullValue()
	}
	return value, value
}

// increment adds two numbers. An integer sum outside int64 becomes the nearest int64. If old is not a number, the result
// is by.
func increment(old, by *pb.Value) *pb.Value {
	if kindOf(old) != kindNumber {
		return by
	}
	a, aIsInteger := old.ValueType.(*pb.Value_IntegerValue)
	b, bIsInteger := by.ValueType.(*pb.Value_IntegerValue)
	if !aIsInteger || !bIsInteger {
		return doubleValue(numberOf(old) + numberOf(by))
	}
	sum := a.IntegerValue + b.IntegerValue
	switch {
	case b.IntegerValue > 0 && sum < a.IntegerValue:
		sum = math.MaxInt64
	case b.IntegerValue < 0 && sum > a.IntegerValue:
		sum = math.MinInt64
	}
	return integerValue(sum)
}

// extreme returns the larger of two numbers if sign is 1, and the smaller if sign is -1. Of two equal numbers it returns
// old, the stored number. NaN in either gives NaN. If old is not a number, the result is operand.
func extreme(old, operand *pb.Value, sign int) *pb.Value {
	switch {
	case kindOf(old) != kindNumber:
		return operand
	case isNaN(old):
		return old
	case isNaN(operand):
		return operand
	case compareValues(operand, old)*sign > 0:
		return operand
	}
	return old
}

func numberOf(v *pb.Value) float64 {
	if i, ok := v.GetValueType().(*pb.Value_IntegerValue); ok {
		return float64(i.IntegerValue)
	}
	return v.GetDoubleValue()
}
