package firestore_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/firestore"
)

func (b *backend) begin(t testing.TB, options *pb.TransactionOptions) []byte {
	t.Helper()
	return must[*pb.BeginTransactionResponse](t)(b.raw.BeginTransaction(b.ctx(t), &pb.BeginTransactionRequest{Database: b.db, Options: options})).Transaction
}

func (b *backend) getIn(t testing.TB, tx []byte, path string) (*pb.Document, error) {
	return b.raw.GetDocument(b.ctx(t), &pb.GetDocumentRequest{Name: b.root + "/" + path,
		ConsistencySelector: &pb.GetDocumentRequest_Transaction{Transaction: tx}})
}

func (b *backend) commitIn(t testing.TB, tx []byte, writes ...*pb.Write) error {
	_, err := b.raw.Commit(b.ctx(t), &pb.CommitRequest{Database: b.db, Transaction: tx, Writes: writes})
	return err
}

var readOnly = &pb.TransactionOptions{Mode: &pb.TransactionOptions_ReadOnly_{ReadOnly: &pb.TransactionOptions_ReadOnly{}}}

func TestTransactionsOnOneDocumentAllTakeEffect(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		doc := b.client.Doc("c/counter")
		must[*client.WriteResult](t)(doc.Set(t.Context(), map[string]any{"n": 0}))
		const workers = 4
		var g errgroup.Group
		for range workers {
			g.Go(func() error {
				return b.client.RunTransaction(t.Context(), func(ctx context.Context, tx *client.Transaction) error {
					snap, err := tx.Get(doc)
					if err != nil {
						return err
					}
					n, err := snap.DataAt("n")
					if err != nil {
						return err
					}
					return tx.Set(doc, map[string]any{"n": n.(int64) + 1})
				}, client.MaxAttempts(20))
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		b.wantFields(t, "c/counter", fields{"n": integer(workers)})
	})
}

func TestOfTwoTransactionsInConflictOneIsAborted(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/d": {"n": integer(0)}})
		var errs [2]error
		for range 5 { // Google's emulator uses locks: in a deadlock it may abort both transactions
			var tx [2][]byte
			for i := range tx {
				tx[i] = b.begin(t, nil)
				must[*pb.Document](t)(b.getIn(t, tx[i], "c/d"))
			}
			// Both commit at the same time, because the first commit may have to wait for the second.
			var wg sync.WaitGroup
			for i := range tx {
				wg.Go(func() { errs[i] = b.commitIn(t, tx[i], update(b.root+"/c/d", fields{"n": integer(int64(i + 1))})) })
			}
			wg.Wait()
			if errs[0] == nil || errs[1] == nil {
				break
			}
		}
		if errs[0] != nil {
			errs[0], errs[1] = errs[1], errs[0]
		}
		if errs[0] != nil {
			t.Fatalf("both were aborted: %v, %v", errs[0], errs[1])
		}
		wantCode(t, errs[1], codes.Aborted)
	})
}

// The following conflicts apply to optimistic transactions only. Google's emulator makes the second writer wait.
func TestACommitIsAbortedIfAReadDocumentHasChanged(t *testing.T) {
	t.Parallel()
	b := ours(t)
	query := func(tx []byte, q *pb.StructuredQuery) error {
		stream, err := b.raw.RunQuery(b.ctx(t), &pb.RunQueryRequest{Parent: b.root,
			QueryType:           &pb.RunQueryRequest_StructuredQuery{StructuredQuery: q},
			ConsistencySelector: &pb.RunQueryRequest_Transaction{Transaction: tx}})
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	read := func(path string) func(tx []byte) error {
		return func(tx []byte) error {
			_, err := b.getIn(t, tx, path)
			if status.Code(err) == codes.NotFound {
				return nil
			}
			return err
		}
	}
	ones := from("c")
	ones.Where = where("n", "==", integer(1))
	cases := []struct {
		name string
		read func(tx []byte) error
		by   *pb.Write
		want codes.Code
	}{
		{"a document that changes", read("c/a"), update(b.root+"/c/a", fields{"n": integer(7)}), codes.Aborted},
		{"a document that is written as it was", read("c/a"), update(b.root+"/c/a", fields{"n": integer(1)}), codes.OK},
		{"a document that is deleted", read("c/a"), remove(b.root + "/c/a"), codes.Aborted},
		{"a missing document that is made", read("c/none"), update(b.root+"/c/none", nil), codes.Aborted},
		{"another document that changes", read("c/a"), update(b.root+"/c/b", fields{"n": integer(7)}), codes.OK},
		{"a query and a document that it found", func(tx []byte) error { return query(tx, ones) }, update(b.root+"/c/a", fields{"n": integer(7)}), codes.Aborted},
		{"a query and a document that joins it", func(tx []byte) error { return query(tx, ones) }, update(b.root+"/c/x", fields{"n": integer(1)}), codes.Aborted},
		{"a query and a document outside it", func(tx []byte) error { return query(tx, ones) }, update(b.root+"/c/x", fields{"n": integer(2)}), codes.OK},
	}
	for _, c := range cases {
		b.mustCommit(t, update(b.root+"/c/a", fields{"n": integer(1)}), update(b.root+"/c/b", fields{"n": integer(2)}), remove(b.root+"/c/none"), remove(b.root+"/c/x"))
		tx := b.begin(t, nil)
		if err := c.read(tx); err != nil {
			t.Fatal(err)
		}
		b.mustCommit(t, c.by)
		err := b.commitIn(t, tx, update(b.root+"/other/d", nil))
		if status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if c.want == codes.Aborted {
			// The next attempt names this transaction, and succeeds.
			tx = b.begin(t, &pb.TransactionOptions{Mode: &pb.TransactionOptions_ReadWrite_{ReadWrite: &pb.TransactionOptions_ReadWrite{RetryTransaction: tx}}})
			if err := c.read(tx); err != nil {
				t.Fatal(err)
			}
			if err := b.commitIn(t, tx, update(b.root+"/other/d", nil)); err != nil {
				t.Errorf("%s: the next attempt: %v", c.name, err)
			}
		}
	}
}

func TestReadsOfATransactionSeeOneMoment(t *testing.T) {
	t.Parallel()
	b := ours(t)
	b.fill(t, map[string]fields{"c/a": {"n": integer(1)}, "c/b": {"n": integer(1)}})
	for _, options := range []*pb.TransactionOptions{nil, readOnly} {
		b.mustCommit(t, update(b.root+"/c/b", fields{"n": integer(1)}))
		tx := b.begin(t, options)
		must[*pb.Document](t)(b.getIn(t, tx, "c/a"))
		b.mustCommit(t, update(b.root+"/c/b", fields{"n": integer(2)}))
		if d := must[*pb.Document](t)(b.getIn(t, tx, "c/b")); d.Fields["n"].GetIntegerValue() != 1 {
			t.Error("the second read saw a later commit than the first")
		}
	}
}

func TestAReadOnlyTransactionReadsButDoesNotWrite(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/a": {"n": integer(1)}})
		tx := b.begin(t, readOnly)
		must[*pb.Document](t)(b.getIn(t, tx, "c/a"))
		if err := b.commitIn(t, tx); err != nil {
			t.Error(err)
		}
		tx = b.begin(t, readOnly)
		wantCode(t, b.commitIn(t, tx, update(b.root+"/c/a", nil)), codes.InvalidArgument)
	})
}

func TestAReadOnlyTransactionReadsAtATimeInThePast(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		doc := b.client.Doc("c/d")
		first := must[*client.WriteResult](t)(doc.Set(t.Context(), map[string]any{"n": 1}))
		must[*client.WriteResult](t)(doc.Set(t.Context(), map[string]any{"n": 2}))
		err := b.client.RunTransaction(t.Context(), func(ctx context.Context, tx *client.Transaction) error {
			snap, err := tx.Get(doc)
			if err == nil && snap.Data()["n"] != int64(1) {
				t.Errorf("it read %v", snap.Data())
			}
			return err
		}, client.ReadOnly, client.TransactionReadTime(first.UpdateTime))
		if err != nil {
			t.Error(err)
		}
	})
}

func TestARequestCanBeginATransaction(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/a": {"n": integer(1)}})
		begin := &pb.TransactionOptions{Mode: &pb.TransactionOptions_ReadWrite_{ReadWrite: &pb.TransactionOptions_ReadWrite{}}}
		batch, err := b.raw.BatchGetDocuments(b.ctx(t), &pb.BatchGetDocumentsRequest{Database: b.db, Documents: []string{b.root + "/c/a"},
			ConsistencySelector: &pb.BatchGetDocumentsRequest_NewTransaction{NewTransaction: begin}})
		if err != nil {
			t.Fatal(err)
		}
		first := must[*pb.BatchGetDocumentsResponse](t)(batch.Recv())
		if err := b.commitIn(t, first.Transaction, update(b.root+"/c/b", nil)); err != nil {
			t.Error(err)
		}
		query, err := b.raw.RunQuery(b.ctx(t), &pb.RunQueryRequest{Parent: b.root, QueryType: &pb.RunQueryRequest_StructuredQuery{StructuredQuery: from("c")},
			ConsistencySelector: &pb.RunQueryRequest_NewTransaction{NewTransaction: begin}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.commitIn(t, must[*pb.RunQueryResponse](t)(query.Recv()).Transaction); err != nil {
			t.Error(err)
		}
	})
}

func TestATransactionThatHasEndedIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		committed, rolledBack := b.begin(t, nil), b.begin(t, nil)
		if err := b.commitIn(t, committed, update(b.root+"/c/d", nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.raw.Rollback(b.ctx(t), &pb.RollbackRequest{Database: b.db, Transaction: rolledBack}); err != nil {
			t.Fatal(err)
		}
		for name, tx := range map[string][]byte{"committed": committed, "rolled back": rolledBack, "unknown": []byte("nonsense")} {
			_, err := b.getIn(t, tx, "c/d")
			wantCode(t, err, codes.InvalidArgument)
			err = b.commitIn(t, tx, update(b.root+"/c/d", nil))
			wantCode(t, err, codes.InvalidArgument)
			_, err = b.raw.Rollback(b.ctx(t), &pb.RollbackRequest{Database: b.db, Transaction: tx})
			if name == "unknown" {
				wantCode(t, err, codes.InvalidArgument)
			} else {
				wantCode(t, err, codes.OK)
			}
		}
	})
}

func TestATransactionThatCannotBeginIsRefused(t *testing.T) {
	retry := func(id []byte) *pb.TransactionOptions {
		return &pb.TransactionOptions{Mode: &pb.TransactionOptions_ReadWrite_{ReadWrite: &pb.TransactionOptions_ReadWrite{RetryTransaction: id}}}
	}
	onBoth(t, func(t *testing.T, b *backend) {
		for _, c := range []struct {
			name     string
			database string
			options  *pb.TransactionOptions
			want     codes.Code
		}{
			{"a retry of another", b.db, retry(b.begin(t, nil)), codes.OK},
			{"a retry of nonsense", b.db, retry([]byte("nonsense")), codes.InvalidArgument},
			{"no database", "x", nil, codes.InvalidArgument},
		} {
			_, err := b.raw.BeginTransaction(b.ctx(t), &pb.BeginTransactionRequest{Database: c.database, Options: c.options})
			if status.Code(err) != c.want {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
	})
}

func TestATransactionExpires(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	srv, err := firestore.New(firestore.WithClock(func() time.Time { return time.Unix(0, now.Load()) }))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	b := connect(t, "ours", srv.Addr())
	b.fill(t, map[string]fields{"c/d": {}})
	idle := b.begin(t, nil)
	now.Add(int64(59 * time.Second))
	must[*pb.Document](t)(b.getIn(t, idle, "c/d"))
	now.Add(int64(61 * time.Second))
	_, err = b.getIn(t, idle, "c/d")
	wantCode(t, err, codes.InvalidArgument)

	long := b.begin(t, nil)
	for range 9 {
		now.Add(int64(30 * time.Second))
		must[*pb.Document](t)(b.getIn(t, long, "c/d"))
	}
	now.Add(int64(time.Second))
	wantCode(t, b.commitIn(t, long), codes.InvalidArgument)
}

func TestCommitTimesIncreaseWhereTheClockGoesBack(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	srv, err := firestore.New(firestore.WithClock(func() time.Time { return time.Unix(0, now.Load()) }))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	b := connect(t, "ours", srv.Addr())
	var last time.Time
	for i := range 3 {
		resp := b.mustCommit(t, update(b.root+"/c/d", fields{"n": integer(int64(i))}))
		if at := resp.CommitTime.AsTime(); !at.After(last) {
			t.Errorf("%v is not after %v", at, last)
		} else {
			last = at
		}
		now.Add(-int64(time.Hour))
	}
}
