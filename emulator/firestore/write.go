package firestore

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	maxRequestSize = 10 << 20 // bytes: https://firebase.google.com/docs/firestore/quotas#limits
	maxBatchWrites = 500
	maxTransforms  = 500 // on one document in one commit
)

// Commit applies writes one after another and all or none of them, in a
// transaction where the request names one.
func (s *service) Commit(ctx context.Context, req *pb.CommitRequest) (*pb.CommitResponse, error) {
	writes, err := parseWrites(req.GetDatabase(), req.GetWrites(), req)
	if err != nil {
		return nil, err
	}
	var tx *transaction
	if len(req.GetTransaction()) > 0 {
		if tx, err = s.transactions.take(req.GetDatabase(), req.GetTransaction()); err != nil {
			return nil, err
		}
		if tx.readOnly && len(writes) > 0 {
			return nil, status.Error(codes.InvalidArgument, "cannot write in a read-only transaction")
		}
	}
	if len(writes) == 0 && (tx == nil || tx.readOnly) {
		_, now := s.store.read()
		return &pb.CommitResponse{CommitTime: timestampOf(now)}, nil
	}
	results := make([]*pb.WriteResult, len(writes))
	at, err := s.store.commit(ctx, func(b *builder) error {
		if tx != nil {
			if err := tx.validate(b.state); err != nil {
				return err
			}
		}
		for i, w := range writes {
			if results[i], err = w.apply(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, w := range writes {
		s.counts.addWrite(w)
	}
	return &pb.CommitResponse{WriteResults: results, CommitTime: timestampOf(at)}, nil
}

// BatchWrite applies every write on its own and answers with a status for each.
func (s *service) BatchWrite(ctx context.Context, req *pb.BatchWriteRequest) (*pb.BatchWriteResponse, error) {
	if n := len(req.GetWrites()); n > maxBatchWrites {
		return nil, status.Errorf(codes.InvalidArgument, "cannot write more than %d entities in a single call, got %d", maxBatchWrites, n)
	}
	writes, err := parseWrites(req.GetDatabase(), req.GetWrites(), req)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(writes))
	for _, w := range writes {
		if seen[w.name.full] {
			return nil, status.Errorf(codes.InvalidArgument, "a batch cannot write to the same document more than once: %s", w.name.full)
		}
		seen[w.name.full] = true
	}
	results := make([]*pb.WriteResult, len(writes))
	errs := make([]error, len(writes))
	_, err = s.store.commit(ctx, func(b *builder) error {
		// A write that fails leaves the builder as it was.
		for i, w := range writes {
			results[i], errs[i] = w.apply(b)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	statuses := make([]*rpcstatus.Status, len(writes))
	for i, w := range writes {
		statuses[i] = status.Convert(errs[i]).Proto()
		if statuses[i] == nil {
			statuses[i] = &rpcstatus.Status{}
		}
		if errs[i] != nil {
			results[i] = &pb.WriteResult{}
			continue
		}
		s.counts.addWrite(w)
	}
	return &pb.BatchWriteResponse{WriteResults: results, Status: statuses}, nil
}

// CreateDocument makes a document that must not exist, under an id of the
// server's choice where the request has none.
func (s *service) CreateDocument(ctx context.Context, req *pb.CreateDocumentRequest) (*pb.Document, error) {
	database, err := parseParent(req.GetParent())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetDocument().GetName() != "" {
		return nil, status.Error(codes.InvalidArgument, "the document's name must not be set")
	}
	id := req.GetDocumentId()
	if id == "" {
		id = newDocumentID()
	}
	d := &pb.Document{
		Name:   req.GetParent() + "/" + req.GetCollectionId() + "/" + id,
		Fields: req.GetDocument().GetFields(),
	}
	return s.writeOne(ctx, database, req.GetMask(), &pb.Write{
		Operation:       &pb.Write_Update{Update: d},
		CurrentDocument: &pb.Precondition{ConditionType: &pb.Precondition_Exists{Exists: false}},
	})
}

// UpdateDocument changes a document, or makes it where it does not exist.
func (s *service) UpdateDocument(ctx context.Context, req *pb.UpdateDocumentRequest) (*pb.Document, error) {
	name, err := parseDocumentName(req.GetDocument().GetName())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return s.writeOne(ctx, name.database, req.GetMask(), &pb.Write{
		Operation:       &pb.Write_Update{Update: req.GetDocument()},
		UpdateMask:      req.GetUpdateMask(),
		CurrentDocument: req.GetCurrentDocument(),
	})
}

// DeleteDocument removes a document. One that does not exist is removed as
// well, unless the request has a precondition.
func (s *service) DeleteDocument(ctx context.Context, req *pb.DeleteDocumentRequest) (*emptypb.Empty, error) {
	name, err := parseDocumentName(req.GetName())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	_, err = s.writeOne(ctx, name.database, nil, &pb.Write{
		Operation:       &pb.Write_Delete{Delete: req.GetName()},
		CurrentDocument: req.GetCurrentDocument(),
	})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// writeOne commits one write and returns the document after it, with the
// fields of mask.
func (s *service) writeOne(ctx context.Context, database string, mask *pb.DocumentMask, w *pb.Write) (*pb.Document, error) {
	fields, err := parseMask(mask)
	if err != nil {
		return nil, err
	}
	writes, err := parseWrites(database, []*pb.Write{w}, w)
	if err != nil {
		return nil, err
	}
	var after *document
	_, err = s.store.commit(ctx, func(b *builder) error {
		_, err := writes[0].apply(b)
		after = b.get(writes[0].name)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.counts.addWrite(writes[0])
	if after == nil {
		return nil, nil
	}
	return project(after.proto, fields), nil
}

// newDocumentID returns an id like those that the clients make.
func newDocumentID() string {
	return rand.Text()[:20]
}

// A write is a checked pb.Write.
type write struct {
	name       documentName
	isDelete   bool
	isUpdate   bool
	fields     map[string]*pb.Value
	mask       []fieldPath // what of fields to set or delete; nil: replace all
	transforms []transform
	condition  *pb.Precondition
}

// A transform is a checked pb.DocumentTransform_FieldTransform.
type transform struct {
	path  fieldPath
	proto *pb.DocumentTransform_FieldTransform
}

// parseWrites checks all that can be checked without the stored documents.
// req is the message that carries the writes.
func parseWrites(database string, protos []*pb.Write, req proto.Message) ([]*write, error) {
	if _, err := parseDatabase(database); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if n := proto.Size(req); n > maxRequestSize {
		return nil, status.Errorf(codes.InvalidArgument, "request payload size of %d bytes exceeds the limit: %d bytes", n, maxRequestSize)
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
		return nil, fmt.Errorf("update_mask and update_transforms go with an update only")
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

// apply makes the write, and leaves b as it was where it returns an error.
func (w *write) apply(b *builder) (*pb.WriteResult, error) {
	old := b.get(w.name)
	if err := checkPrecondition(w.condition, w.name, old); err != nil {
		return nil, err
	}
	if w.isDelete {
		b.delete(w.name)
		return &pb.WriteResult{}, nil
	}
	fields := maps.Clone(old.fields())
	if fields == nil {
		fields = make(map[string]*pb.Value)
	}
	switch {
	case w.isUpdate && w.mask == nil:
		fields = maps.Clone(w.fields)
		if fields == nil {
			fields = make(map[string]*pb.Value)
		}
	case w.isUpdate:
		for _, path := range w.mask {
			setField(fields, path, fieldOf(w.fields, path))
		}
	}
	result := &pb.WriteResult{}
	for _, t := range w.transforms {
		value, reported := t.apply(fieldOf(fields, t.path), b.time)
		setField(fields, t.path, value)
		result.TransformResults = append(result.TransformResults, reported)
	}
	if old != nil && maps.EqualFunc(fields, old.fields(), identicalValues) {
		result.UpdateTime = old.proto.UpdateTime
		return result, nil
	}
	now := timestampOf(b.time)
	d := &pb.Document{Name: w.name.full, Fields: fields, CreateTime: now, UpdateTime: now}
	if old != nil {
		d.CreateTime = old.proto.CreateTime
	}
	if size := documentSize(d); size > maxDocumentSize {
		return nil, status.Errorf(codes.InvalidArgument,
			"document %q cannot be written because its size (%d bytes) exceeds the maximum allowed size of %d bytes", d.Name, size, maxDocumentSize)
	}
	if len(w.transforms) > 0 || w.mask != nil {
		// The parts may each be fine and the whole too deep.
		if err := checkFields(fieldsAt(fields, w)); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	b.put(w.name, d)
	result.UpdateTime = now
	return result, nil
}

// fieldsAt returns the top-level fields that w put together from parts.
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

func (d *document) fields() map[string]*pb.Value {
	if d == nil {
		return nil
	}
	return d.proto.GetFields()
}

// checkPrecondition gives the codes of the service: NOT_FOUND, ALREADY_EXISTS
// and FAILED_PRECONDITION.
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
		if compareTimestamps(c.UpdateTime, d.proto.UpdateTime) != 0 {
			return status.Errorf(codes.FailedPrecondition, "the stored version (%s) of %s does not match the required base version (%s)",
				d.proto.UpdateTime.AsTime().Format(time.RFC3339Nano), name.full, c.UpdateTime.AsTime().Format(time.RFC3339Nano))
		}
	}
	return nil
}

// setField sets the value at path, or deletes it where v is nil. It changes
// fields itself and copies the maps within, which older versions of the
// document share.
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

// apply returns the new value of the field and the value to report for it.
func (t transform) apply(old *pb.Value, now int64) (value, reported *pb.Value) {
	switch k := t.proto.GetTransformType().(type) {
	case *pb.DocumentTransform_FieldTransform_SetToServerValue:
		// The service's server timestamps have the precision of milliseconds.
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

// increment adds two numbers; integers stop at the ends of their range.
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

// extreme returns the larger of two numbers where sign is 1 and the smaller
// where it is -1, the stored one of two equals, and NaN where either is.
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

// parseMask returns the paths of a mask on what is read, nil where it is not
// set: everything.
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

// project returns the document with only those fields; nil is all of them.
func project(d *pb.Document, fields []fieldPath) *pb.Document {
	if fields == nil {
		return d
	}
	p := &pb.Document{Name: d.Name, CreateTime: d.CreateTime, UpdateTime: d.UpdateTime, Fields: make(map[string]*pb.Value)}
	for _, path := range fields {
		if v := fieldOf(d.Fields, path); v != nil && !strings.HasPrefix(path[0], "__") {
			setField(p.Fields, path, v)
		}
	}
	return p
}
