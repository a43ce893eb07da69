package firestore

import (
	"math"
	"unicode/utf8"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/genproto/googleapis/type/latlng"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxDecodeDepth is the deepest nesting of values decoded by hand. checkFields refuses values of half this depth.
const maxDecodeDepth = 2 * maxValueDepth

// decodeCommit decodes a CommitRequest as encoded by the client libraries. For any other encoding, valid or not, it
// returns false and leaves req in an unknown state. Then the caller uses package proto.
func decodeCommit(b []byte, req *pb.CommitRequest) bool {
	return eachField(b, func(number protowire.Number, p []byte) bool {
		switch number {
		case 1:
			return decodeString(p, &req.Database)
		case 2:
			w := &pb.Write{}
			req.Writes = append(req.Writes, w)
			return decodeWrite(p, w)
		case 3:
			req.Transaction = append([]byte{}, p...)
			return true
		}
		return false
	})
}

// eachField calls f with the number and the payload of each field. All fields must be length-delimited.
func eachField(b []byte, f func(number protowire.Number, payload []byte) bool) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			return false
		}
		p, m := protowire.ConsumeBytes(b[n:])
		if m < 0 || !f(number, p) {
			return false
		}
		b = b[n+m:]
	}
	return true
}

func decodeString(p []byte, s *string) bool {
	*s = string(p)
	return utf8.ValidString(*s)
}

func decodeWrite(b []byte, w *pb.Write) bool {
	return eachField(b, func(number protowire.Number, p []byte) bool {
		switch number {
		case 1:
			if w.Operation != nil {
				return false
			}
			d := &pb.Document{}
			w.Operation = &pb.Write_Update{Update: d}
			return decodeDocument(p, d)
		case 2:
			if w.Operation != nil {
				return false
			}
			op := &pb.Write_Delete{}
			w.Operation = op
			return decodeString(p, &op.Delete)
		case 3:
			if w.UpdateMask != nil {
				return false
			}
			w.UpdateMask = &pb.DocumentMask{}
			return decodeMask(p, w.UpdateMask)
		case 4:
			if w.CurrentDocument != nil {
				return false
			}
			w.CurrentDocument = &pb.Precondition{}
			return proto.Unmarshal(p, w.CurrentDocument) == nil
		case 7:
			t := &pb.DocumentTransform_FieldTransform{}
			w.UpdateTransforms = append(w.UpdateTransforms, t)
			return proto.Unmarshal(p, t) == nil
		}
		return false
	})
}

func decodeMask(b []byte, mask *pb.DocumentMask) bool {
	return eachField(b, func(number protowire.Number, p []byte) bool {
		var path string
		if number != 1 || !decodeString(p, &path) {
			return false
		}
		mask.FieldPaths = append(mask.FieldPaths, path)
		return true
	})
}

func decodeDocument(b []byte, d *pb.Document) bool {
	return eachField(b, func(number protowire.Number, p []byte) bool {
		switch number {
		case documentNameField:
			return decodeString(p, &d.Name)
		case documentFieldsField:
			if d.Fields == nil {
				d.Fields = make(map[string]*pb.Value)
			}
			return decodeEntry(p, d.Fields, 0)
		}
		return false
	})
}

// unpack decodes the fields packed by pack.
func unpack(packed []byte) map[string]*pb.Value {
	fields := make(map[string]*pb.Value)
	ok := eachField(packed, func(_ protowire.Number, entry []byte) bool { return decodeEntry(entry, fields, 0) })
	if !ok {
		panic("firestore: a stored document is not readable") // pack made it from checked fields
	}
	return fields
}

// unpackField decodes the value at path, and no other value. It returns nil if there is no such field.
func unpackField(packed []byte, path fieldPath) *pb.Value {
	value := findPacked(packed, path[0])
	for _, name := range path[1:] {
		number, _, n := protowire.ConsumeTag(value)
		if n < 0 || number != mapField {
			return nil
		}
		entries, _ := protowire.ConsumeBytes(value[n:])
		value = findPacked(entries, name)
	}
	if value == nil {
		return nil
	}
	v, ok := decodeValue(value, 0)
	if !ok {
		panic("firestore: a stored value is not readable") // as in unpack
	}
	return v
}

// findPacked returns the encoded value of one of the entries of a map, or nil.
func findPacked(entries []byte, name string) []byte {
	const tag = 1 // size of the tag of each field here
	for len(entries) > 0 {
		entry, n := protowire.ConsumeBytes(entries[tag:])
		entries = entries[tag+n:]
		key, n := protowire.ConsumeBytes(entry[tag:])
		if string(key) == name {
			value, _ := protowire.ConsumeBytes(entry[tag+n+tag:])
			return value
		}
	}
	return nil
}

// decodeEntry decodes one entry of a map: a name, then a value.
func decodeEntry(b []byte, fields map[string]*pb.Value, depth int) bool {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number != 1 || kind != protowire.BytesType {
		return false
	}
	name, m := protowire.ConsumeBytes(b[n:])
	if m < 0 || !utf8.Valid(name) {
		return false
	}
	b = b[n+m:]
	if number, kind, n = protowire.ConsumeTag(b); n < 0 || number != 2 || kind != protowire.BytesType {
		return false
	}
	p, m := protowire.ConsumeBytes(b[n:])
	if m < 0 || n+m != len(b) {
		return false
	}
	v, ok := decodeValue(p, depth)
	if ok {
		fields[string(name)] = v
	}
	return ok
}

// These types allocate a value together with the oneof wrapper and the message inside.
type (
	booleanBox struct {
		v pb.Value
		t pb.Value_BooleanValue
	}
	integerBox struct {
		v pb.Value
		t pb.Value_IntegerValue
	}
	doubleBox struct {
		v pb.Value
		t pb.Value_DoubleValue
	}
	stringBox struct {
		v pb.Value
		t pb.Value_StringValue
	}
	timestampBox struct {
		v pb.Value
		t pb.Value_TimestampValue
		m timestamppb.Timestamp
	}
	arrayBox struct {
		v pb.Value
		t pb.Value_ArrayValue
		m pb.ArrayValue
	}
	mapBox struct {
		v pb.Value
		t pb.Value_MapValue
		m pb.MapValue
	}
)

// decodeValue decodes a value with at most one field.
func decodeValue(b []byte, depth int) (*pb.Value, bool) {
	if len(b) == 0 {
		return &pb.Value{}, true
	}
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return nil, false
	}
	b = b[n:]
	switch kind {
	case protowire.VarintType:
		i, n := protowire.ConsumeVarint(b)
		if n != len(b) {
			return nil, false
		}
		return decodeScalar(number, i)
	case protowire.Fixed64Type:
		bits, n := protowire.ConsumeFixed64(b)
		if n != len(b) || number != doubleField {
			return nil, false
		}
		x := &doubleBox{}
		x.t.DoubleValue = math.Float64frombits(bits)
		x.v.ValueType = &x.t
		return &x.v, true
	case protowire.BytesType:
		p, n := protowire.ConsumeBytes(b)
		if n != len(b) {
			return nil, false
		}
		return decodeDelimited(number, p, depth)
	}
	return nil, false
}

func decodeScalar(number protowire.Number, i uint64) (*pb.Value, bool) {
	switch number {
	case booleanField:
		x := &booleanBox{}
		x.t.BooleanValue = protowire.DecodeBool(i)
		x.v.ValueType = &x.t
		return &x.v, true
	case integerField:
		x := &integerBox{}
		x.t.IntegerValue = int64(i)
		x.v.ValueType = &x.t
		return &x.v, true
	case nullField:
		return nullValue(), i == uint64(structpb.NullValue_NULL_VALUE)
	}
	return nil, false
}

func decodeDelimited(number protowire.Number, p []byte, depth int) (*pb.Value, bool) {
	if depth > maxDecodeDepth {
		return nil, false
	}
	switch number {
	case stringField:
		x := &stringBox{}
		x.v.ValueType = &x.t
		return &x.v, decodeString(p, &x.t.StringValue)
	case bytesField:
		return &pb.Value{ValueType: &pb.Value_BytesValue{BytesValue: append([]byte{}, p...)}}, true
	case referenceField:
		x := &pb.Value_ReferenceValue{}
		return &pb.Value{ValueType: x}, decodeString(p, &x.ReferenceValue)
	case geoPointField:
		x := &pb.Value_GeoPointValue{GeoPointValue: &latlng.LatLng{}}
		return &pb.Value{ValueType: x}, proto.Unmarshal(p, x.GeoPointValue) == nil
	case timestampField:
		x := &timestampBox{}
		x.t.TimestampValue = &x.m
		x.v.ValueType = &x.t
		return &x.v, decodeTimestamp(p, &x.m)
	case arrayField:
		x := &arrayBox{}
		x.t.ArrayValue = &x.m
		x.v.ValueType = &x.t
		return &x.v, eachField(p, func(number protowire.Number, p []byte) bool {
			e, ok := decodeValue(p, depth+1)
			x.m.Values = append(x.m.Values, e)
			return ok && number == 1
		})
	case mapField:
		x := &mapBox{}
		x.t.MapValue = &x.m
		x.v.ValueType = &x.t
		return &x.v, eachField(p, func(number protowire.Number, p []byte) bool {
			if x.m.Fields == nil {
				x.m.Fields = make(map[string]*pb.Value)
			}
			return number == 1 && decodeEntry(p, x.m.Fields, depth+1)
		})
	}
	return nil, false
}

func decodeTimestamp(b []byte, t *timestamppb.Timestamp) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.VarintType {
			return false
		}
		v, m := protowire.ConsumeVarint(b[n:])
		if m < 0 {
			return false
		}
		switch number {
		case 1:
			t.Seconds = int64(v)
		case 2:
			t.Nanos = int32(v)
		default:
			return false
		}
		b = b[n+m:]
	}
	return true
}
