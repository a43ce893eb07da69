package firestore

import (
	"maps"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fieldOf returns the value at path, or nil.
func fieldOf(fields map[string]*pb.Value, path fieldPath) *pb.Value {
	for _, name := range path[:len(path)-1] {
		fields = fields[name].GetMapValue().GetFields()
	}
	return fields[path[len(path)-1]]
}

// setField sets the value at path, or deletes it if v is nil. It changes fields in place and copies the maps inside: the
// maps may belong to a request, or to the fields before the write.
func setField(fields map[string]*pb.Value, path fieldPath, v *pb.Value) {
	name := path[0]
	if len(path) == 1 {
		if v == nil {
			delete(fields, name)
		} else {
			fields[name] = v
		}
		return
	}
	inner, isMap := fields[name].GetValueType().(*pb.Value_MapValue)
	if !isMap && v == nil {
		return
	}
	var copied map[string]*pb.Value
	if isMap {
		copied = maps.Clone(inner.MapValue.GetFields())
	}
	if copied == nil {
		copied = make(map[string]*pb.Value)
	}
	setField(copied, path[1:], v)
	fields[name] = mapValue(copied)
}

// parseMask returns the paths of a read mask. A nil mask, for all fields, gives nil.
func parseMask(mask *pb.DocumentMask) ([]fieldPath, error) {
	if mask == nil {
		return nil, nil
	}
	paths := []fieldPath{}
	for _, f := range mask.GetFieldPaths() {
		path, err := parseFieldPath(f)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		paths = append(paths, path)
	}
	return paths, nil
}
