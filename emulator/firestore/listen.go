package firestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Listen sends the documents that the targets of the stream match, and later every change. If commits are faster than the
// client, one update covers several commits.
func (s *service) Listen(stream pb.Firestore_ListenServer) error {
	l := &listener{service: s, stream: stream, targets: make(map[int32]*target)}
	l.state, l.time = s.store.read()
	requests := make(chan *pb.ListenRequest)
	ended := make(chan error, 1)
	// The goroutine ends with the stream, after Listen returns.
	go receiveRequests(stream, requests, ended)
	for {
		var err error
		select {
		case err = <-ended:
			if errors.Is(err, io.EOF) {
				return nil // the client ended the stream
			}
		case req := <-requests:
			err = l.handle(req)
		case <-l.state.superseded:
			err = l.advance()
		case <-s.store.stopped:
			err = status.Error(codes.Unavailable, "the server is closed")
		}
		if err != nil {
			return err
		}
	}
}

func receiveRequests(stream pb.Firestore_ListenServer, requests chan<- *pb.ListenRequest, ended chan<- error) {
	for {
		req, err := stream.Recv()
		if err != nil {
			ended <- err
			return
		}
		select {
		case requests <- req:
		case <-stream.Context().Done():
			return
		}
	}
}

// A listener is one Listen stream. All its targets show the same state.
type listener struct {
	service  *service
	stream   pb.Firestore_ListenServer
	database string // of the first request
	state    *state
	time     int64 // in microseconds; state holds all commits up to this time
	targets  map[int32]*target
}

// A target is a query or a list of documents watched by a client.
type target struct {
	id    int32
	query *query // nil: the documents in names
	names []documentName
	docs  map[string]*document // the client's documents by name
}

// docsIn returns the documents matched in a state, in the order of sending.
func (t *target) docsIn(s *state) []*document {
	if t.query != nil {
		return t.query.run(s).docs
	}
	var docs []*document
	for _, name := range t.names {
		if d := s.get(name); d != nil {
			docs = append(docs, d)
		}
	}
	return docs
}

func (t *target) project(d *document) *pb.Document {
	if t.query == nil {
		return d.answer(nil)
	}
	return d.answer(t.query.projection)
}

func byName(docs []*document) map[string]*document {
	m := make(map[string]*document, len(docs))
	for _, d := range docs {
		m[d.name] = d
	}
	return m
}

func (l *listener) handle(req *pb.ListenRequest) error {
	database, err := parseDatabase(req.GetDatabase())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if l.database == "" {
		l.database = database
	}
	if database != l.database {
		return status.Error(codes.InvalidArgument, "a stream listens to one database")
	}
	switch change := req.GetTargetChange().(type) {
	case *pb.ListenRequest_AddTarget:
		return l.add(change.AddTarget)
	case *pb.ListenRequest_RemoveTarget:
		if l.targets[change.RemoveTarget] == nil {
			return nil
		}
		delete(l.targets, change.RemoveTarget)
		return l.send(&pb.TargetChange{TargetChangeType: pb.TargetChange_REMOVE, TargetIds: []int32{change.RemoveTarget}})
	default:
		return status.Error(codes.InvalidArgument, "the request neither adds nor removes a target")
	}
}

// add starts a target. An error ends the target, not the stream.
func (l *listener) add(p *pb.Target) error {
	t, err := l.parseTarget(p)
	if err == nil {
		// An index is not necessary, but makes the queries of this target faster.
		err = l.prepare(l.stream.Context(), t)
	}
	if err != nil {
		return l.send(&pb.TargetChange{
			TargetChangeType: pb.TargetChange_REMOVE, TargetIds: []int32{p.GetTargetId()}, Cause: status.Convert(err).Proto(),
		})
	}
	// All targets show the same state, so the other targets advance first.
	if err := l.advance(); err != nil {
		return err
	}
	ids := []int32{t.id}
	if err := l.send(&pb.TargetChange{TargetChangeType: pb.TargetChange_ADD, TargetIds: ids}); err != nil {
		return err
	}
	if known, resumes, ok := l.resumed(p); ok {
		t.docs = byName(t.docsIn(known))
	} else if resumes {
		if err := l.send(&pb.TargetChange{TargetChangeType: pb.TargetChange_RESET, TargetIds: ids}); err != nil {
			return err
		}
	}
	if _, err := l.update(t); err != nil {
		return err
	}
	for _, name := range t.names {
		if l.state.get(name) == nil {
			if err := l.sendDelete(t, name.full); err != nil {
				return err
			}
		}
	}
	current := &pb.TargetChange{TargetChangeType: pb.TargetChange_CURRENT, TargetIds: ids, ReadTime: timestampOf(l.time), ResumeToken: l.token()}
	if err := l.send(current); err != nil {
		return err
	}
	if p.GetOnce() {
		if err := l.send(&pb.TargetChange{TargetChangeType: pb.TargetChange_REMOVE, TargetIds: ids}); err != nil {
			return err
		}
	} else {
		l.targets[t.id] = t
	}
	return l.sendConsistent()
}

func (l *listener) prepare(ctx context.Context, t *target) error {
	if t.query == nil {
		return nil
	}
	return l.service.prepare(ctx, t.query)
}

func (l *listener) parseTarget(p *pb.Target) (*target, error) {
	t := &target{id: p.GetTargetId()}
	if t.id < 0 || l.targets[t.id] != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the target id %d is negative or in use", t.id)
	}
	for t.id == 0 || l.targets[t.id] != nil {
		t.id++
	}
	switch kind := p.GetTargetType().(type) {
	case *pb.Target_Query:
		q, err := parseQuery(kind.Query.GetParent(), kind.Query.GetStructuredQuery())
		if err != nil {
			return nil, err
		}
		t.query = q
		if q.database != l.database {
			return nil, status.Errorf(codes.InvalidArgument, "the query is not in the database %q", l.database)
		}
	case *pb.Target_Documents:
		for _, full := range kind.Documents.GetDocuments() {
			name, err := parseDocumentName(full)
			if err == nil && name.database != l.database {
				err = fmt.Errorf("document %q is not in the database %q", full, l.database)
			}
			if err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			t.names = append(t.names, name)
		}
	default:
		return nil, status.Error(codes.InvalidArgument, "a target needs a type")
	}
	return t, nil
}

// resumed returns the state last seen by the client of a resumed target. resumes reports whether the target is resumed,
// ok whether the state is still in the history.
func (l *listener) resumed(p *pb.Target) (known *state, resumes, ok bool) {
	var at *timestamppb.Timestamp
	switch r := p.GetResumeType().(type) {
	case *pb.Target_ResumeToken:
		if len(r.ResumeToken) != 8 {
			return nil, true, false
		}
		at = timestampOf(int64(binary.BigEndian.Uint64(r.ResumeToken)))
	case *pb.Target_ReadTime:
		at = r.ReadTime
	default:
		return nil, false, false
	}
	known, _, err := l.service.store.readAt(at)
	return known, true, err == nil
}

// advance moves all targets to the newest state.
func (l *listener) advance() error {
	before := l.state
	l.state, l.time = l.service.store.read()
	changed := false
	for _, t := range l.targets {
		if t.query != nil && t.query.unchanged(before, l.state) {
			continue
		}
		c, err := l.update(t)
		if err != nil {
			return err
		}
		changed = changed || c
	}
	if !changed {
		return nil
	}
	return l.sendConsistent()
}

// update sends the differences between the documents of the target and those of the client. Without a difference it
// returns false.
func (l *listener) update(t *target) (bool, error) {
	docs := t.docsIn(l.state)
	next := byName(docs)
	changed := false
	for _, name := range sortedNames(t.docs) {
		if next[name] != nil {
			continue
		}
		changed = true
		if err := l.sendGone(t, name); err != nil {
			return false, err
		}
	}
	for _, d := range docs {
		if t.docs[d.name] == d {
			continue
		}
		changed = true
		l.service.counts.addReads(1)
		err := l.stream.Send(&pb.ListenResponse{ResponseType: &pb.ListenResponse_DocumentChange{
			DocumentChange: &pb.DocumentChange{Document: t.project(d), TargetIds: []int32{t.id}},
		}})
		if err != nil {
			return false, err
		}
	}
	t.docs = next
	return changed, nil
}

func sortedNames(docs map[string]*document) []string {
	names := make([]string, 0, len(docs))
	for name := range docs {
		names = append(names, name)
	}
	slices.SortFunc(names, compareNames)
	return names
}

// sendGone reports a document that left the target: deleted, changed to no match, or displaced by a limit.
func (l *listener) sendGone(t *target, full string) error {
	name, err := parseDocumentName(full)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	d := l.state.get(name)
	switch {
	case d == nil:
		return l.sendDelete(t, full)
	case d != t.docs[full]:
		return l.stream.Send(&pb.ListenResponse{ResponseType: &pb.ListenResponse_DocumentChange{
			DocumentChange: &pb.DocumentChange{Document: t.project(d), RemovedTargetIds: []int32{t.id}},
		}})
	default:
		return l.stream.Send(&pb.ListenResponse{ResponseType: &pb.ListenResponse_DocumentRemove{
			DocumentRemove: &pb.DocumentRemove{Document: full, RemovedTargetIds: []int32{t.id}, ReadTime: timestampOf(l.time)},
		}})
	}
}

func (l *listener) sendDelete(t *target, full string) error {
	l.service.counts.addReads(1)
	return l.stream.Send(&pb.ListenResponse{ResponseType: &pb.ListenResponse_DocumentDelete{
		DocumentDelete: &pb.DocumentDelete{Document: full, RemovedTargetIds: []int32{t.id}, ReadTime: timestampOf(l.time)},
	}})
}

// sendConsistent marks the end of an update: the client now has one consistent state.
func (l *listener) sendConsistent() error {
	return l.send(&pb.TargetChange{TargetChangeType: pb.TargetChange_NO_CHANGE, ReadTime: timestampOf(l.time), ResumeToken: l.token()})
}

func (l *listener) send(c *pb.TargetChange) error {
	return l.stream.Send(&pb.ListenResponse{ResponseType: &pb.ListenResponse_TargetChange{TargetChange: c}})
}

// token returns the resume token: a client can continue from the listener's state.
func (l *listener) token() []byte { return binary.BigEndian.AppendUint64(nil, uint64(l.time)) }
