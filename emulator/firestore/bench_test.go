package firestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"parley.internal/emulator/firestore"
)

// eachBackend runs a benchmark on this server in memory, on this server with a directory, and on Google's emulator.
func eachBackend(b *testing.B, bench func(b *testing.B, s *backend)) {
	b.Run("memory", func(b *testing.B) { _, s := start(b); bench(b, s) })
	b.Run("directory", func(b *testing.B) {
		srv, s := open(b, b.TempDir())
		defer srv.Close()
		bench(b, s)
	})
	b.Run("google", func(b *testing.B) { bench(b, googles(b)) })
}

// message is a document of the size of a chat message.
func message(i int) fields {
	return fields{
		"session": str(fmt.Sprintf("s%d", i%2000)), "at": integer(int64(i)), "role": str("user"),
		"text": str(strings.Repeat("lorem ipsum ", 20)), "tokens": integer(int64(i % 500)),
	}
}

// parallel calls do from several goroutines.
func parallel(b *testing.B, do func(i int) error) {
	var n atomic.Int64
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := do(int(n.Add(1))); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	eachBackend(b, func(b *testing.B, s *backend) {
		ctx := s.ctx(b)
		parallel(b, func(i int) error {
			_, err := s.raw.Commit(ctx, &pb.CommitRequest{Database: s.db, Writes: []*pb.Write{
				update(fmt.Sprintf("%s/c/%d", s.root, i), message(i))}})
			return err
		})
	})
}

func BenchmarkBatchGet(b *testing.B) {
	eachBackend(b, func(b *testing.B, s *backend) {
		ctx := s.ctx(b)
		load(b, s, 1000, message)
		parallel(b, func(i int) error {
			var names []string
			for j := range 10 {
				names = append(names, fmt.Sprintf("%s/c/%06d", s.root, (i+j*97)%1000))
			}
			stream, err := s.raw.BatchGetDocuments(ctx, &pb.BatchGetDocumentsRequest{Database: s.db, Documents: names})
			for err == nil {
				_, err = stream.Recv()
			}
			return endOf(err)
		})
	})
}

func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func BenchmarkTransaction(b *testing.B) {
	eachBackend(b, func(b *testing.B, s *backend) {
		load(b, s, 1000, message)
		parallel(b, func(i int) error {
			doc := s.client.Doc(fmt.Sprintf("c/%06d", i%1000))
			return s.client.RunTransaction(b.Context(), func(ctx context.Context, tx *client.Transaction) error {
				if _, err := tx.Get(doc); err != nil {
					return err
				}
				return tx.Update(doc, []client.Update{{Path: "tokens", Value: client.Increment(1)}})
			})
		})
	})
}

// BenchmarkRunQuery queries a collection of 100,000 documents.
func BenchmarkRunQuery(b *testing.B) {
	const docs = 100_000
	eachBackend(b, func(b *testing.B, s *backend) {
		load(b, s, docs, message)
		for _, q := range []struct {
			name  string
			query func(i int) *sq
		}{
			{"equality+order", func(i int) *sq {
				return &sq{Where: where("session", "==", str(fmt.Sprintf("s%d", i%2000))), OrderBy: orderBy("-at"), Limit: wrapperspb.Int32(20)}
			}},
			{"order+limit", func(i int) *sq { return &sq{OrderBy: orderBy("-at"), Limit: wrapperspb.Int32(20)} }},
			{"range+limit", func(i int) *sq {
				return &sq{Where: where("at", ">=", integer(int64(i%docs))), Limit: wrapperspb.Int32(20)}
			}},
			{"names", func(i int) *sq {
				return &sq{OrderBy: orderBy("__name__"), Limit: wrapperspb.Int32(20),
					StartAt: &pb.Cursor{Values: []*pb.Value{ref(fmt.Sprintf("%s/c/%06d", s.root, i%docs))}}}
			}},
		} {
			b.Run(q.name, func(b *testing.B) {
				ctx := s.ctx(b)
				run := func(i int) error {
					sq := q.query(i)
					sq.From = from("c").From
					stream, err := s.raw.RunQuery(ctx, &pb.RunQueryRequest{Parent: s.root, QueryType: &pb.RunQueryRequest_StructuredQuery{StructuredQuery: sq}})
					for err == nil {
						_, err = stream.Recv()
					}
					return endOf(err)
				}
				if err := run(0); err != nil { // the first query may make an index
					b.Fatal(err)
				}
				parallel(b, run)
			})
		}
	})
}

// load stores n documents.
func load(b *testing.B, s *backend, n int, doc func(i int) fields) {
	b.Helper()
	ctx := s.ctx(b)
	for i := 0; i < n; i += 500 {
		var writes []*pb.Write
		for j := i; j < min(i+500, n); j++ {
			writes = append(writes, update(fmt.Sprintf("%s/c/%06d", s.root, j), doc(j)))
		}
		if _, err := s.raw.Commit(ctx, &pb.CommitRequest{Database: s.db, Writes: writes}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory reports the memory of a stored document of the shape of Parley's ledger entries: 17 fields, two of them
// with an index, and 1500 bytes of payload.
func BenchmarkMemory(b *testing.B) {
	const docs = 20_000
	payload := []byte(strings.Repeat("lorem ipsum ", 125))
	now := time.Now()
	entry := func(i int) fields {
		return fields{
			"state": str("delivered"), "destination": str("api-gateway"), "type": str("chat"), "userId": str(fmt.Sprintf("twitch:%d", i%100)),
			"channel": str("room"), "correlationId": str(fmt.Sprintf("correlation-%032d", i)), "step": str("personality"),
			"createdAt": instant(now), "openedAt": instant(now), "deadline": instant(now), "expireAt": instant(now.Add(time.Hour)),
			"settledAt": instant(now), "shard": integer(int64(i % 16)), "attempt": integer(0), "instance": str("gateway-1"),
			"claim": str(fmt.Sprintf("claim-%026d", i)), "event": {ValueType: &pb.Value_BytesValue{BytesValue: payload}},
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // the first one only moves the content of pools aside
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		srv, err := firestore.New()
		if err != nil {
			b.Fatal(err)
		}
		s := connect(b, "ours", srv.Addr())
		before := heap()
		load(b, s, docs, entry)
		// The query makes the two indexes.
		equal := and(where("userId", "==", str("twitch:1")), where("state", "==", str("pending")))
		if _, err := s.query(b, s.root, &sq{From: from("c").From, Where: equal}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(heap()-before)/docs, "bytes/doc")
		if err := srv.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
