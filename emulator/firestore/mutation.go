package firestore

import (
	"fmt"
	"maps"
	"slices"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A write is a checked pb.Write.
type write struct {
	name       documentName
	isDelete   bool
	isUpdate   bool // false for a delete, and for a write of transforms only
	fields     map[string]*pb.Value
	mask       []fieldPath // fields to set or delete; nil: replace the document
	transforms []transform
	condition  *pb.Precondition
}

// parseWrites checks the writes as far as possible without the stored documents. req is the whole request.
func parseWrites(database string, protos []*pb.Write, req proto.Message) ([]*write, error) {
	if _, err := parseDatabase(database); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// The exact size costs as much as decoding the request. It is needed only near the limit.
	const margin = 64 << 10
	if writesSize(protos) > maxRequestSize-margin {
		if n := proto.Size(req); n > maxRequestSize {
			return nil, status.Errorf(codes.InvalidArgument, "request payload size of %d bytes exceeds the limit: %d bytes", n, maxRequestSize)
		}
	}
	writes := make([]*write, len(protos))
	for i, p := range protos {
		w, err := parseWrite(p)
		if err == nil && w.name.database != database {
			err = fmt.Errorf("document %q is not in the database %q of the request", w.name.full, database)
		}
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		writes[i] = w
	}
	return writes, nil
}

// writesSize is the encoded size of writes in bytes, or slightly more.
func writesSize(protos []*pb.Write) int {
	const perField = 16 // tags and lengths
	n := 0
	for _, p := range protos {
		n += perField + len(p.GetDelete()) + proto.Size(p.GetTransform()) + proto.Size(p.GetCurrentDocument())
		if d := p.GetUpdate(); d != nil {
			n += sizeDocument(d)
		}
		for _, path := range p.GetUpdateMask().GetFieldPaths() {
			n += perField + len(path)
		}
		for _, t := range p.GetUpdateTransforms() {
			n += perField + proto.Size(t)
		}
	}
	return n
}

func parseWrite(p *pb.Write) (*write, error) {
	w := &write{condition: p.GetCurrentDocument()}
	var name string
	var transforms []*pb.DocumentTransform_FieldTransform
	switch op := p.GetOperation().(type) {
	case *pb.Write_Update:
		name, transforms = op.Update.GetName(), p.GetUpdateTransforms()
		w.isUpdate = true
		w.fields = op.Update.GetFields()
	case *pb.Write_Delete:
		name = op.Delete
		w.isDelete = true
	case *pb.Write_Transform:
		name, transforms = op.Transform.GetDocument(), op.Transform.GetFieldTransforms()
		if len(transforms) == 0 {
			return nil, fmt.Errorf("the transform of %q has no field transforms", name)
		}
	default:
		return nil, fmt.Errorf("a write needs an operation")
	}
	if !w.isUpdate && (p.GetUpdateMask() != nil || len(p.GetUpdateTransforms()) > 0) {
		return nil, fmt.Errorf("update_mask and update_transforms are allowed only with an update")
	}
	var err error
	if w.name, err = parseDocumentName(name); err != nil {
		return nil, err
	}
	if err := checkFields(w.fields); err != nil {
		return nil, err
	}
	if p.GetUpdateMask() != nil {
		w.mask = []fieldPath{}
		for _, f := range p.GetUpdateMask().GetFieldPaths() {
			path, err := parseWritablePath(f)
			if err != nil {
				return nil, err
			}
			w.mask = append(w.mask, path)
		}
	}
	if len(transforms) > maxTransforms {
		return nil, fmt.Errorf("more than %d transforms of one document", maxTransforms)
	}
	for _, t := range transforms {
		path, err := parseWritablePath(t.GetFieldPath())
		if err != nil {
			return nil, err
		}
		if err := checkTransform(t); err != nil {
			return nil, err
		}
		w.transforms = append(w.transforms, transform{path: path, proto: t})
	}
	return w, nil
}

func parseWritablePath(s string) (fieldPath, error) {
	path, err := parseFieldPath(s)
	if err != nil {
		return nil, err
	}
	for _, name := range path {
		if isReserved(name) {
			return nil, fmt.Errorf("the property name %q is reserved", name)
		}
	}
	return path, nil
}

// apply makes the write in b. After an error b is unchanged. A write that changes no value keeps the update time.
func (w *write) apply(b *builder) (*pb.WriteResult, error) {
	old := b.get(w.name)
	if err := checkPrecondition(w.condition, w.name, old); err != nil {
		return nil, err
	}
	if w.isDelete {
		b.delete(w.name)
		return &pb.WriteResult{}, nil
	}
	var before, fields map[string]*pb.Value
	if w.isUpdate && w.mask == nil {
		fields = maps.Clone(w.fields)
	} else {
		before = old.fields()
		fields = maps.Clone(before)
	}
	if fields == nil {
		fields = make(map[string]*pb.Value)
	}
	for _, path := range w.mask {
		setField(fields, path, fieldOf(w.fields, path))
	}
	result := &pb.WriteResult{}
	for _, t := range w.transforms {
		value, reported := t.apply(fieldOf(fields, t.path), b.time)
		setField(fields, t.path, value)
		result.TransformResults = append(result.TransformResults, reported)
	}
	now := timestampOf(b.time)
	d := &pb.Document{Name: w.name.full, Fields: fields, CreateTime: now, UpdateTime: now}
	size := documentSize(d)
	if old != nil {
		d.CreateTime = timestampOf(old.created)
		if size == old.size && before == nil {
			before = old.fields()
		}
		if size == old.size && maps.EqualFunc(fields, before, identicalValues) {
			result.UpdateTime = timestampOf(old.updated)
			return result, nil
		}
	}
	if size > maxDocumentSize {
		return nil, status.Errorf(codes.InvalidArgument,
			"document %q cannot be written because its size (%d bytes) exceeds the maximum allowed size of %d bytes", d.Name, size, maxDocumentSize)
	}
	if w.isNested() {
		// The nesting of the merged maps may exceed the limit although each part is valid.
		if err := checkFields(fieldsAt(fields, w)); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	b.put(w.name, sizedDocument(d, size))
	result.UpdateTime = now
	return result, nil
}

// isNested reports whether w writes into a map inside the document.
func (w *write) isNested() bool {
	return slices.ContainsFunc(w.mask, func(path fieldPath) bool { return len(path) > 1 }) ||
		slices.ContainsFunc(w.transforms, func(t transform) bool { return len(t.path) > 1 })
}

// fieldsAt returns the top-level fields written by w.
func fieldsAt(fields map[string]*pb.Value, w *write) map[string]*pb.Value {
	touched := make(map[string]*pb.Value)
	note := func(path fieldPath) {
		if v := fields[path[0]]; v != nil {
			touched[path[0]] = v
		}
	}
	for _, path := range w.mask {
		note(path)
	}
	for _, t := range w.transforms {
		note(t.path)
	}
	return touched
}

// checkPrecondition returns the codes of the service: NOT_FOUND, ALREADY_EXISTS and FAILED_PRECONDITION.
func checkPrecondition(c *pb.Precondition, name documentName, d *document) error {
	switch c := c.GetConditionType().(type) {
	case *pb.Precondition_Exists:
		if c.Exists && d == nil {
			return status.Errorf(codes.NotFound, "No document to update: %s", name.full)
		}
		if !c.Exists && d != nil {
			return status.Errorf(codes.AlreadyExists, "Document already exists: %s", name.full)
		}
	case *pb.Precondition_UpdateTime:
		if d == nil {
			return status.Errorf(codes.FailedPrecondition, "no document with the required base version: %s", name.full)
		}
		if stored := timestampOf(d.updated); compareTimestamps(c.UpdateTime, stored) != 0 {
			return status.Errorf(codes.FailedPrecondition, "the stored version (%s) of %s does not match the required base version (%s)",
				stored.AsTime().Format(time.RFC3339Nano), name.full, c.UpdateTime.AsTime().Format(time.RFC3339Nano))
		}
	}
	return nil
}
