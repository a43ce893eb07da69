package firestore

import (
	"math"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// codec is the gRPC codec of the server, for the wire format of protobuf. It decodes commits by hand: package proto
// handles maps by reflection and takes three to five times as long, see BenchmarkCodec. Answers hold packed documents,
// so package proto is fast enough for them.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Unmarshal decodes a request.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	req, ok := v.(*pb.CommitRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	if decodeCommit(buf.ReadOnlyData(), req) {
		return nil
	}
	return proto.Unmarshal(buf.ReadOnlyData(), req) // resets req first
}

// Field numbers of google.firestore.v1, as in
// https://github.com/googleapis/googleapis/blob/master/google/firestore/v1/document.proto.
const (
	documentNameField, documentFieldsField, documentCreateField, documentUpdateField = 1, 2, 3, 4

	booleanField, integerField, doubleField, referenceField, mapField, geoPointField = 1, 2, 3, 5, 6, 8
	arrayField, timestampField, nullField, stringField, bytesField                   = 9, 10, 11, 17, 18
)

// sizeField is the size of a length-delimited field with a payload of n bytes. All field numbers below 16 have the same
// size; stringField and bytesField need a byte more.
func sizeField(n int) int { return 1 + protowire.SizeBytes(n) }

func sizeDocument(d *pb.Document) int {
	n := sizeFields(d.Fields)
	if d.Name != "" {
		n += sizeField(len(d.Name))
	}
	if d.CreateTime != nil {
		n += sizeField(sizeTimestamp(d.CreateTime))
	}
	if d.UpdateTime != nil {
		n += sizeField(sizeTimestamp(d.UpdateTime))
	}
	return n
}

func sizeFields(fields map[string]*pb.Value) int {
	n := 0
	for name, v := range fields {
		n += sizeField(sizeField(len(name)) + sizeField(sizeValue(v)))
	}
	return n
}

func sizeTimestamp(t *timestamppb.Timestamp) int {
	n := 0
	if t.Seconds != 0 {
		n += 1 + protowire.SizeVarint(uint64(t.Seconds))
	}
	if t.Nanos != 0 {
		n += 1 + protowire.SizeVarint(uint64(int64(t.Nanos)))
	}
	return n
}

func sizeValue(v *pb.Value) int {
	switch v := v.GetValueType().(type) {
	case *pb.Value_BooleanValue:
		return 2
	case *pb.Value_NullValue:
		return 1 + protowire.SizeVarint(uint64(int64(v.NullValue)))
	case *pb.Value_IntegerValue:
		return 1 + protowire.SizeVarint(uint64(v.IntegerValue))
	case *pb.Value_DoubleValue:
		return 1 + 8
	case *pb.Value_ReferenceValue:
		return sizeField(len(v.ReferenceValue))
	case *pb.Value_StringValue:
		return 1 + sizeField(len(v.StringValue))
	case *pb.Value_BytesValue:
		return 1 + sizeField(len(v.BytesValue))
	case *pb.Value_TimestampValue:
		return sizeField(sizeTimestamp(v.TimestampValue))
	case *pb.Value_MapValue:
		return sizeField(sizeFields(v.MapValue.GetFields()))
	case *pb.Value_ArrayValue:
		n := 0
		for _, e := range v.ArrayValue.GetValues() {
			n += sizeField(sizeValue(e))
		}
		return sizeField(n)
	case *pb.Value_GeoPointValue:
		return sizeField(proto.Size(v.GeoPointValue))
	default:
		return 0
	}
}

// pack encodes the fields of a document as in the wire format of a pb.Document.
func pack(fields map[string]*pb.Value) []byte {
	size := sizeFields(fields)
	e := encoder{b: make([]byte, size), at: size}
	e.fields(documentFieldsField, fields)
	return e.b
}

// encoder fills a buffer of the exact size from the end. The length of a message is known when its prefix is written, so
// no size is computed twice.
type encoder struct {
	b  []byte
	at int // b[at:] is filled
}

func (e *encoder) raw(p []byte) {
	e.at -= len(p)
	copy(e.b[e.at:], p)
}

func (e *encoder) varint(v uint64) {
	e.at -= protowire.SizeVarint(v)
	protowire.AppendVarint(e.b[e.at:e.at], v)
}

func (e *encoder) tag(number protowire.Number, t protowire.Type) {
	e.varint(protowire.EncodeTag(number, t))
}

func (e *encoder) number(field protowire.Number, v uint64) {
	e.varint(v)
	e.tag(field, protowire.VarintType)
}

func (e *encoder) bytes(field protowire.Number, p []byte) {
	e.raw(p)
	e.varint(uint64(len(p)))
	e.tag(field, protowire.BytesType)
}

func (e *encoder) string(field protowire.Number, s string) {
	e.at -= len(s)
	copy(e.b[e.at:], s)
	e.varint(uint64(len(s)))
	e.tag(field, protowire.BytesType)
}

// end writes the prefix of the message that fills b[e.at:end].
func (e *encoder) end(field protowire.Number, end int) {
	e.varint(uint64(end - e.at))
	e.tag(field, protowire.BytesType)
}

// fields writes a map of names and values.
func (e *encoder) fields(field protowire.Number, fields map[string]*pb.Value) {
	for name, v := range fields {
		end := e.at
		e.value(v)
		e.end(2, end)
		e.string(1, name)
		e.end(field, end)
	}
}

func (e *encoder) timestamp(t *timestamppb.Timestamp) {
	if t.Nanos != 0 {
		e.number(2, uint64(int64(t.Nanos)))
	}
	if t.Seconds != 0 {
		e.number(1, uint64(t.Seconds))
	}
}

func (e *encoder) value(v *pb.Value) {
	end := e.at
	switch v := v.GetValueType().(type) {
	case *pb.Value_BooleanValue:
		e.number(booleanField, protowire.EncodeBool(v.BooleanValue))
	case *pb.Value_NullValue:
		e.number(nullField, uint64(int64(v.NullValue)))
	case *pb.Value_IntegerValue:
		e.number(integerField, uint64(v.IntegerValue))
	case *pb.Value_DoubleValue:
		e.at -= 8
		protowire.AppendFixed64(e.b[e.at:e.at], math.Float64bits(v.DoubleValue))
		e.tag(doubleField, protowire.Fixed64Type)
	case *pb.Value_ReferenceValue:
		e.string(referenceField, v.ReferenceValue)
	case *pb.Value_StringValue:
		e.string(stringField, v.StringValue)
	case *pb.Value_BytesValue:
		e.bytes(bytesField, v.BytesValue)
	case *pb.Value_TimestampValue:
		e.timestamp(v.TimestampValue)
		e.end(timestampField, end)
	case *pb.Value_MapValue:
		e.fields(1, v.MapValue.GetFields())
		e.end(mapField, end)
	case *pb.Value_ArrayValue:
		values := v.ArrayValue.GetValues()
		for i := len(values) - 1; i >= 0; i-- {
			inner := e.at
			e.value(values[i])
			e.end(1, inner)
		}
		e.end(arrayField, end)
	case *pb.Value_GeoPointValue:
		e.at -= proto.Size(v.GeoPointValue)
		_, _ = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(e.b[e.at:e.at], v.GeoPointValue)
		e.end(geoPointField, end)
	}
}
