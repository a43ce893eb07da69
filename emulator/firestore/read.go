package firestore

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// GetDocument returns one document, or NOT_FOUND.
func (s *service) GetDocument(ctx context.Context, req *pb.GetDocumentRequest) (*pb.Document, error) {
	name, err := parseDocumentName(req.GetName())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	fields, err := parseMask(req.GetMask())
	if err != nil {
		return nil, err
	}
	v, err := s.view(name.database, consistency{transaction: req.GetTransaction(), readTime: req.GetReadTime()})
	if err != nil {
		return nil, err
	}
	s.counts.addReads(1)
	d := v.document(name)
	if d == nil {
		return nil, status.Errorf(codes.NotFound, "%q not found", name.full)
	}
	return d.answer(fields), nil
}

// BatchGetDocuments returns the documents and the names of missing documents, each once, in the order of the request.
func (s *service) BatchGetDocuments(req *pb.BatchGetDocumentsRequest, stream pb.Firestore_BatchGetDocumentsServer) error {
	database, err := parseDatabase(req.GetDatabase())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	fields, err := parseMask(req.GetMask())
	if err != nil {
		return err
	}
	var names []documentName
	seen := make(map[string]bool, len(req.GetDocuments()))
	for _, full := range req.GetDocuments() {
		name, err := parseDocumentName(full)
		if err == nil && name.database != database {
			err = fmt.Errorf("document %q is not in the database %q of the request", full, database)
		}
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		if !seen[full] {
			seen[full] = true
			names = append(names, name)
		}
	}
	v, err := s.view(database, consistency{
		transaction: req.GetTransaction(), newTransaction: req.GetNewTransaction(), readTime: req.GetReadTime(),
	})
	if err != nil {
		return err
	}
	if v.begun != nil {
		if err := stream.Send(&pb.BatchGetDocumentsResponse{Transaction: v.begun, ReadTime: v.readTime}); err != nil {
			return err
		}
	}
	s.counts.addReads(len(names))
	for _, name := range names {
		answer := &pb.BatchGetDocumentsResponse{ReadTime: v.readTime}
		if d := v.document(name); d != nil {
			answer.Result = &pb.BatchGetDocumentsResponse_Found{Found: d.answer(fields)}
		} else {
			answer.Result = &pb.BatchGetDocumentsResponse_Missing{Missing: name.full}
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

// RunQuery streams the result of a query.
func (s *service) RunQuery(req *pb.RunQueryRequest, stream pb.Firestore_RunQueryServer) error {
	q, err := parseQuery(req.GetParent(), req.GetStructuredQuery())
	if err != nil {
		return err
	}
	if req.GetExplainOptions() != nil {
		return status.Error(codes.Unimplemented, "RunQuery with explain_options is not implemented")
	}
	if err := s.prepare(stream.Context(), q); err != nil {
		return err
	}
	v, err := s.view(q.database, consistency{
		transaction: req.GetTransaction(), newTransaction: req.GetNewTransaction(), readTime: req.GetReadTime(),
	})
	if err != nil {
		return err
	}
	if v.begun != nil {
		if err := stream.Send(&pb.RunQueryResponse{Transaction: v.begun}); err != nil {
			return err
		}
	}
	r := v.query(q)
	s.counts.addReads(max(1, len(r.docs)+r.skipped))
	skipped := int32(r.skipped)
	if len(r.docs) == 0 {
		return stream.Send(&pb.RunQueryResponse{ReadTime: v.readTime, SkippedResults: skipped})
	}
	for _, d := range r.docs {
		answer := &pb.RunQueryResponse{Document: d.answer(q.projection), ReadTime: v.readTime, SkippedResults: skipped}
		if err := stream.Send(answer); err != nil {
			return err
		}
		skipped = 0
	}
	return nil
}

// prepare makes the indexes for a query on a large collection.
func (s *service) prepare(ctx context.Context, q *query) error {
	current, _ := s.store.read()
	path, fields := q.wantedIndexes(current)
	if len(fields) == 0 {
		return nil
	}
	_, err := s.store.commit(ctx, func(b *builder) error {
		for _, field := range fields {
			b.index(path, field)
		}
		return nil
	})
	return err
}

// ListDocuments returns the documents of a collection in pages, by default of 100 documents and at most of 300. With
// show_missing it includes missing documents with subcollections.
func (s *service) ListDocuments(ctx context.Context, req *pb.ListDocumentsRequest) (*pb.ListDocumentsResponse, error) {
	if req.GetPageSize() < 0 {
		return nil, status.Error(codes.InvalidArgument, "the page size is negative")
	}
	fields, err := parseMask(req.GetMask())
	if err != nil {
		return nil, err
	}
	orders, err := parseOrderBy(req.GetOrderBy())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetShowMissing() && len(orders) > 0 {
		return nil, status.Error(codes.InvalidArgument, "show_missing and order_by cannot be used together")
	}
	start, err := parsePageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	const defaultPage, maxPage = 100, 300
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	size = min(size, maxPage)
	q, err := parseQuery(req.GetParent(), &pb.StructuredQuery{
		From:    []*pb.StructuredQuery_CollectionSelector{{CollectionId: req.GetCollectionId()}},
		OrderBy: orders,
		Limit:   wrapperspb.Int32(int32(size + 1)), // the extra document shows that a page follows
	})
	if err != nil {
		return nil, err
	}
	if start != nil && len(start.GetValues()) != len(q.orders) {
		return nil, status.Error(codes.InvalidArgument, "the page token belongs to another list")
	}
	q.start = start
	v, err := s.view(q.database, consistency{transaction: req.GetTransaction(), readTime: req.GetReadTime()})
	if err != nil {
		return nil, err
	}
	docs := v.query(q).docs
	if req.GetShowMissing() {
		docs = withMissing(v.state, q, docs, size+1)
	}
	answer := &pb.ListDocumentsResponse{}
	if len(docs) > size {
		docs = docs[:size]
		answer.NextPageToken = q.pageToken(docs[size-1])
	}
	s.counts.addReads(max(1, len(docs)))
	for _, d := range docs {
		answer.Documents = append(answer.Documents, d.answer(fields))
	}
	return answer, nil
}

// withMissing merges docs, the first results of q, with missing documents with subcollections. It returns the first
// results, at most the given number. q must be ordered by name.
func withMissing(s *state, q *query, docs []*document, most int) []*document {
	merged := make(map[string]*document, len(docs))
	for _, d := range docs {
		merged[d.name] = d
	}
	found := 0
	s.below(q.parent, func(c *collection) bool {
		// parent/COLLECTION/ID/...
		ids := strings.SplitN(c.path[len(q.parent)+1:], "/", 3)
		if len(ids) < 3 || q.collectionID != "" && ids[0] != q.collectionID {
			return true
		}
		name := q.parent + "/" + ids[0] + "/" + ids[1]
		missing := newDocument(&pb.Document{Name: name})
		if merged[name] != nil || !q.afterStart(match{doc: missing}) {
			return true
		}
		if parsed, err := parseDocumentName(name); err != nil || s.get(parsed) != nil {
			return true
		}
		merged[name] = missing
		found++
		return found < most
	})
	all := make([]*document, 0, len(merged))
	for _, d := range merged {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *document) int { return compareNames(a.name, b.name) })
	return all[:min(most, len(all))]
}

// parseOrderBy parses orders such as "priority desc, __name__".
func parseOrderBy(s string) ([]*pb.StructuredQuery_Order, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var orders []*pb.StructuredQuery_Order
	for part := range strings.SplitSeq(s, ",") {
		words := strings.Fields(part)
		o := &pb.StructuredQuery_Order{Direction: pb.StructuredQuery_ASCENDING}
		switch {
		case len(words) == 1, len(words) == 2 && strings.EqualFold(words[1], "asc"):
		case len(words) == 2 && strings.EqualFold(words[1], "desc"):
			o.Direction = pb.StructuredQuery_DESCENDING
		default:
			return nil, fmt.Errorf("invalid order %q", part)
		}
		o.Field = &pb.StructuredQuery_FieldReference{FieldPath: words[0]}
		orders = append(orders, o)
	}
	return orders, nil
}

// A page token is the position after the last document of the page.
func (q *query) pageToken(last *document) string {
	c := &pb.Cursor{}
	for _, o := range q.orders {
		if o.path.isName() {
			c.Values = append(c.Values, &pb.Value{ValueType: &pb.Value_ReferenceValue{ReferenceValue: last.name}})
		} else {
			c.Values = append(c.Values, last.field(o.path))
		}
	}
	b, err := proto.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("marshal a cursor of stored values: %v", err)) // stored values came in as protobuf
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parsePageToken(token string) (*pb.Cursor, error) {
	if token == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	c := &pb.Cursor{}
	if err == nil {
		err = proto.Unmarshal(b, c)
	}
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "invalid page token: %v", err)
	}
	return c, nil
}

// ListCollectionIds lists the ids of the collections directly below a document or the root.
func (s *service) ListCollectionIds(ctx context.Context, req *pb.ListCollectionIdsRequest) (*pb.ListCollectionIdsResponse, error) {
	database, err := parseParent(req.GetParent())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetPageSize() < 0 {
		return nil, status.Error(codes.InvalidArgument, "the page size is negative")
	}
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "invalid page token: %v", err)
	}
	v, err := s.view(database, consistency{readTime: req.GetReadTime()})
	if err != nil {
		return nil, err
	}
	const defaultPage = 1000
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	answer := &pb.ListCollectionIdsResponse{}
	s.counts.addReads(1)
	prefix := req.GetParent() + "/"
	last := string(after)
	v.below(req.GetParent(), func(c *collection) bool {
		// Also list a collection that has only missing documents with subcollections.
		id, _, _ := strings.Cut(c.path[len(prefix):], "/")
		if id == last || last != "" && compareIDs(id, last) < 0 {
			return true
		}
		if len(answer.CollectionIds) == size {
			answer.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(last))
			return false
		}
		answer.CollectionIds = append(answer.CollectionIds, id)
		last = id
		return true
	})
	return answer, nil
}
