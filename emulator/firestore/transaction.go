package firestore

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A transaction expires after transactionIdle without a call, and after transactionLimit in any case:
// https://firebase.google.com/docs/firestore/quotas#limits.
const (
	transactionIdle  = 60 * time.Second
	transactionLimit = 270 * time.Second
)

const transactionIDSize = 26 // bytes, of rand.Text

// A transaction takes the newest state at its first read, reads only this state, and records all results. The commit
// succeeds only if the same reads have the same results at the commit.
type transaction struct {
	id       string
	database string
	readOnly bool
	began    time.Time

	mu       sync.Mutex
	used     time.Time // the last call, for transactionIdle
	snapshot *state    // nil before the first read
	readTime int64     // of snapshot, in microseconds
	docs     map[string]readDocument
	queries  []readQuery
}

type readDocument struct {
	name documentName
	doc  *document // nil: no document
}

type readQuery struct {
	query *query
	docs  []*document
}

// view returns the state read by the transaction, and its time.
func (t *transaction) view(s *store) (*state, int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.snapshot == nil {
		t.snapshot, t.readTime = s.read()
	}
	return t.snapshot, t.readTime
}

func (t *transaction) noteDocument(name documentName, d *document) {
	if t.readOnly {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.docs == nil {
		t.docs = make(map[string]readDocument)
	}
	t.docs[name.full] = readDocument{name: name, doc: d}
}

func (t *transaction) noteQuery(q *query, docs []*document) {
	if t.readOnly {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queries = append(t.queries, readQuery{query: q, docs: docs})
}

// validate compares the recorded results with the newest state, now. It returns ABORTED if a result has changed.
func (t *transaction) validate(now *state) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.docs {
		if now.get(r.name) != r.doc {
			return status.Errorf(codes.Aborted, "the transaction was aborted: %s changed after it was read; try again", r.name.full)
		}
	}
	for _, r := range t.queries {
		if r.query.unchanged(t.snapshot, now) {
			continue
		}
		if result := r.query.run(now); !slices.Equal(result.docs, r.docs) {
			return status.Error(codes.Aborted, "the transaction was aborted: the result of a query changed after it was read; try again")
		}
	}
	return nil
}

// transactions holds the open transactions by id.
type transactions struct {
	clock func() time.Time

	mu     sync.Mutex
	active map[string]*transaction
	swept  time.Time
}

func newTransactions(clock func() time.Time) *transactions {
	return &transactions{clock: clock, active: make(map[string]*transaction), swept: clock()}
}

func (ts *transactions) begin(database string, options *pb.TransactionOptions) (*transaction, error) {
	now := ts.clock()
	t := &transaction{id: rand.Text(), database: database, began: now, used: now}
	t.readOnly = options.GetReadOnly() != nil
	if retry := options.GetReadWrite().GetRetryTransaction(); len(retry) > 0 {
		if len(retry) != transactionIDSize {
			return nil, status.Error(codes.InvalidArgument, "the transaction to retry is invalid")
		}
		// The client may have left the earlier attempt open.
		ts.end(database, string(retry))
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.sweep(now)
	ts.active[t.id] = t
	return t, nil
}

// sweep removes expired transactions, at most once in transactionIdle/4, so that begin stays cheap.
func (ts *transactions) sweep(now time.Time) {
	if now.Sub(ts.swept) < transactionIdle/4 {
		return
	}
	ts.swept = now
	for id, t := range ts.active {
		if t.expired(now) {
			delete(ts.active, id)
		}
	}
}

func (t *transaction) expired(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return now.Sub(t.used) > transactionIdle || now.Sub(t.began) > transactionLimit
}

// get returns an open transaction for another call, and restarts the idle time of the transaction.
func (ts *transactions) get(database string, id []byte) (*transaction, error) {
	now := ts.clock()
	ts.mu.Lock()
	t := ts.active[string(id)]
	ts.mu.Unlock()
	if t == nil || t.database != database {
		return nil, status.Error(codes.InvalidArgument, "the referenced transaction has expired or is no longer valid")
	}
	if t.expired(now) {
		ts.end(database, t.id)
		return nil, status.Error(codes.InvalidArgument, "the referenced transaction has expired or is no longer valid")
	}
	t.mu.Lock()
	t.used = now
	t.mu.Unlock()
	return t, nil
}

// take is get for the last call of a transaction: it also ends the transaction.
func (ts *transactions) take(database string, id []byte) (*transaction, error) {
	t, err := ts.get(database, id)
	if err != nil {
		return nil, err
	}
	if !ts.end(database, t.id) {
		return nil, status.Error(codes.InvalidArgument, "the referenced transaction has expired or is no longer valid")
	}
	return t, nil
}

// end removes a transaction. It reports whether the transaction was open: of concurrent calls only one returns true.
func (ts *transactions) end(database, id string) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.active[id]
	if t == nil || t.database != database {
		return false
	}
	delete(ts.active, id)
	return true
}

// BeginTransaction starts a transaction. Concurrency control is optimistic in every requested concurrency mode.
func (s *service) BeginTransaction(ctx context.Context, req *pb.BeginTransactionRequest) (*pb.BeginTransactionResponse, error) {
	if _, err := parseDatabase(req.GetDatabase()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	t, err := s.begin(req.GetDatabase(), req.GetOptions())
	if err != nil {
		return nil, err
	}
	return &pb.BeginTransactionResponse{Transaction: []byte(t.id)}, nil
}

func (s *service) begin(database string, options *pb.TransactionOptions) (*transaction, error) {
	var snapshot *state
	var readTime int64
	if ro := options.GetReadOnly(); ro != nil {
		// A read-only transaction sees the moment of its begin.
		snapshot, readTime = s.store.read()
		if ro.GetReadTime() != nil {
			var err error
			if snapshot, readTime, err = s.store.readAt(ro.GetReadTime()); err != nil {
				return nil, err
			}
		}
	}
	t, err := s.transactions.begin(database, options)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.snapshot, t.readTime = snapshot, readTime
	t.mu.Unlock()
	return t, nil
}

// Rollback ends a transaction. An ended transaction is no error: clients roll back after a failed commit.
func (s *service) Rollback(ctx context.Context, req *pb.RollbackRequest) (*emptypb.Empty, error) {
	if _, err := parseDatabase(req.GetDatabase()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if len(req.GetTransaction()) != transactionIDSize {
		return nil, status.Error(codes.InvalidArgument, "the transaction is invalid")
	}
	s.transactions.end(req.GetDatabase(), string(req.GetTransaction()))
	return &emptypb.Empty{}, nil
}

// A consistency selects the state for a read request. At most one field is set.
type consistency struct {
	transaction    []byte
	newTransaction *pb.TransactionOptions
	readTime       *timestamppb.Timestamp
}

// A view is the state for one read request.
type view struct {
	*state
	readTime *timestamppb.Timestamp
	tx       *transaction // nil outside a transaction
	begun    []byte       // the id of tx for the answer, if the request began tx
}

func (s *service) view(database string, c consistency) (*view, error) {
	var st *state
	var at int64
	var err error
	v := &view{}
	switch {
	case len(c.transaction) > 0:
		if v.tx, err = s.transactions.get(database, c.transaction); err != nil {
			return nil, err
		}
		st, at = v.tx.view(s.store)
	case c.newTransaction != nil:
		if v.tx, err = s.begin(database, c.newTransaction); err != nil {
			return nil, err
		}
		v.begun = []byte(v.tx.id)
		st, at = v.tx.view(s.store)
	case c.readTime != nil:
		if st, at, err = s.store.readAt(c.readTime); err != nil {
			return nil, err
		}
	default:
		st, at = s.store.read()
	}
	v.state, v.readTime = st, timestampOf(at)
	return v, nil
}

// document reads one document and records it in the transaction.
func (v *view) document(name documentName) *document {
	d := v.get(name)
	if v.tx != nil {
		v.tx.noteDocument(name, d)
	}
	return d
}

// query runs a query and records its result in the transaction.
func (v *view) query(q *query) result {
	r := q.run(v.state)
	if v.tx != nil {
		v.tx.noteQuery(q, r.docs)
	}
	return r
}
