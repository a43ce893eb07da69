package firestore

import (
	"context"
	"crypto/rand"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	maxRequestSize = 10 << 20 // bytes: https://firebase.google.com/docs/firestore/quotas#limits
	maxBatchWrites = 500
)

// Commit applies all writes in sequence, or none. If the request names a transaction, Commit checks the reads of the
// transaction first, and ends the transaction in any case.
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

// BatchWrite applies each write independently and returns a status for each.
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
		// A failed write does not change the builder.
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

// CreateDocument creates a document. An existing document is ALREADY_EXISTS. Without an id in the request the server
// chooses a random id.
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

// UpdateDocument updates or creates a document.
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

// DeleteDocument deletes a document. A missing document is an error only with a precondition.
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

// writeOne commits one write and returns the fields in mask of the resulting document, or nil after a delete.
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
	return after.answer(fields), nil
}

// newDocumentID returns a random id of 20 characters, like the client libraries.
func newDocumentID() string {
	return rand.Text()[:20]
}
