package firestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"parley.internal/emulator/firestore"
)

func start(t testing.TB, opts ...firestore.Option) (*firestore.Server, *backend) {
	t.Helper()
	srv, err := firestore.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv, connect(t, "ours", srv.Addr())
}

func TestTheAddressIsReadyAndCanBeChosen(t *testing.T) {
	t.Parallel()
	first, _ := start(t)
	if _, err := firestore.New(firestore.WithAddr(first.Addr())); err == nil {
		t.Error("two servers listen at one address")
	}
	host, _, err := net.SplitHostPort(first.Addr())
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("it listens at %s, %v", first.Addr(), err)
	}
	second, b := start(t, firestore.WithAddr("localhost:0"))
	b.mustCommit(t, update(b.root+"/c/d", nil))
	_ = second
}

func TestUnsupportedCallsAreUnimplementedAndNamed(t *testing.T) {
	t.Parallel()
	b := ours(t)
	pipeline, err := b.raw.ExecutePipeline(b.ctx(t), &pb.ExecutePipelineRequest{})
	if err == nil {
		_, err = pipeline.Recv()
	}
	wantUnimplemented(t, err, "ExecutePipeline")
	write, err := b.raw.Write(b.ctx(t))
	if err == nil {
		_, err = write.Recv()
	}
	wantUnimplemented(t, err, "Write")
	_, err = b.raw.PartitionQuery(b.ctx(t), &pb.PartitionQueryRequest{})
	wantUnimplemented(t, err, "PartitionQuery")
	nearest := from("c")
	nearest.FindNearest = &pb.StructuredQuery_FindNearest{}
	_, err = b.query(t, b.root, nearest)
	wantUnimplemented(t, err, "find_nearest")
}

func wantUnimplemented(t *testing.T, err error, name string) {
	t.Helper()
	wantCode(t, err, codes.Unimplemented)
	if !strings.Contains(err.Error(), name) {
		t.Errorf("%q does not name %s", err, name)
	}
}

func TestInterceptorsCanInjectFaults(t *testing.T) {
	t.Parallel()
	fault := status.Error(codes.ResourceExhausted, "injected")
	srv, b := start(t,
		firestore.WithUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if strings.HasSuffix(info.FullMethod, "/Commit") {
				return nil, fault
			}
			return next(ctx, req)
		}),
		firestore.WithStreamInterceptor(func(s any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return fault
		}))
	_, err := b.commit(t, update(b.root+"/c/d", nil))
	wantCode(t, err, codes.ResourceExhausted)
	_, err = b.query(t, b.root, from("c"))
	wantCode(t, err, codes.ResourceExhausted)
	_, err = b.get(t, "c/d")
	wantCode(t, err, codes.NotFound)
	want := map[string]int64{"Commit": 1, "RunQuery": 1, "GetDocument": 1}
	if diff := cmp.Diff(want, srv.Counts().RPCs); diff != "" {
		t.Error(diff)
	}
}

func TestCallsAndBilledOperationsAreCounted(t *testing.T) {
	t.Parallel()
	srv, b := start(t)
	ctx := t.Context()
	c := b.client.Collection("c")
	count := func(name string, want firestore.Counts, do func()) {
		t.Helper()
		before := srv.Counts()
		do()
		if diff := cmp.Diff(want, srv.Counts().Sub(before)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	rpc := func(method string) map[string]int64 { return map[string]int64{method: 1} }
	all := func(q client.Query) func() {
		return func() { must[[]*client.DocumentSnapshot](t)(q.Documents(ctx).GetAll()) }
	}
	count("a commit of three", firestore.Counts{RPCs: rpc("Commit"), Writes: 2, Deletes: 1}, func() {
		b.mustCommit(t, update(b.root+"/c/a", nil), update(b.root+"/c/b", nil), remove(b.root+"/c/x"))
	})
	count("a commit that fails", firestore.Counts{RPCs: rpc("Commit")}, func() {
		_, err := b.commit(t, update(b.root+"/c/a", nil), with(update(b.root+"/c/x", nil), exists(true)))
		wantCode(t, err, codes.NotFound)
	})
	count("a get", firestore.Counts{RPCs: rpc("BatchGetDocuments"), Reads: 1}, func() { must[*client.DocumentSnapshot](t)(c.Doc("a").Get(ctx)) })
	count("a get of a missing document", firestore.Counts{RPCs: rpc("BatchGetDocuments"), Reads: 1}, func() {
		_, err := c.Doc("x").Get(ctx)
		wantCode(t, err, codes.NotFound)
	})
	count("a query", firestore.Counts{RPCs: rpc("RunQuery"), Reads: 2}, all(c.Query))
	count("a query with an offset", firestore.Counts{RPCs: rpc("RunQuery"), Reads: 2}, all(c.Offset(1)))
	count("a query that finds nothing", firestore.Counts{RPCs: rpc("RunQuery"), Reads: 1}, all(c.Where("n", "==", 1)))
	count("an aggregation", firestore.Counts{RPCs: rpc("RunAggregationQuery"), Reads: 1}, func() {
		if _, err := c.NewAggregationQuery().WithCount("n").Get(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsCallsAndGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	srv, err := firestore.New(firestore.WithDataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("calls", func(t *testing.T) {
		b := connect(t, "ours", srv.Addr())
		w := b.listen(t)
		w.add(t, b, queryTarget(b, 1, from("c")))
		w.next(t)
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		_, err := w.stream.Recv()
		for err == nil {
			_, err = w.stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			t.Error("the stream ended in order")
		}
	})
	// The goroutines of the connections end soon after Close.
	deadline := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

func TestLargeCollectionsAnswerLikeSmallOnes(t *testing.T) {
	t.Parallel()
	b := ours(t)
	// Many more documents than minIndexedDocs, with writes between the queries.
	const n = 1000
	value := func(i, round int) fields {
		f := fields{"i": integer(int64(i)), "mod": integer(int64((i + round) % 7)), "half": double(float64((i*31+round)%n) / 2)}
		if i%10 == 0 {
			delete(f, "half")
		}
		if i%11 == 0 {
			f["mod"] = str("x")
		}
		return f
	}
	id := func(i int) string { return fmt.Sprintf("%04d", i) }
	queries := []*sq{
		{},
		{Where: where("mod", "==", integer(3))},
		{Where: where("mod", "in", array(integer(1), double(1), integer(4), str("x")))},
		{Where: where("mod", "in", array(integer(1), integer(4))), OrderBy: orderBy("-half"), Limit: wrapperspb.Int32(10)},
		{Where: where("mod", "==", double(3)), OrderBy: orderBy("-half"), Limit: wrapperspb.Int32(10)},
		{Where: and(where("mod", "==", integer(3)), where("half", ">", integer(100))), Limit: wrapperspb.Int32(20), Offset: 5},
		{Where: and(where("mod", "==", integer(3)), where("i", "==", integer(10)))},
		{OrderBy: orderBy("half"), Limit: wrapperspb.Int32(30)},
		{OrderBy: orderBy("-half"), Limit: wrapperspb.Int32(30)},
		{OrderBy: orderBy("half", "-__name__"), Limit: wrapperspb.Int32(30)},
		{Where: and(where("half", ">", integer(100)), where("half", "<=", integer(110)))},
		{Where: and(where("half", ">", integer(100)), where("half", "<=", integer(110))), OrderBy: orderBy("-half")},
		{Where: where("mod", ">", str("")), OrderBy: orderBy("mod", "-i"), Limit: wrapperspb.Int32(9)},
		{OrderBy: orderBy("half"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(50)}}, EndAt: &pb.Cursor{Values: []*pb.Value{integer(60)}}},
		{OrderBy: orderBy("-half"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(60)}, Before: true}, EndAt: &pb.Cursor{Values: []*pb.Value{integer(50)}, Before: true}},
		{Where: where("mod", "!=", integer(3)), Limit: wrapperspb.Int32(25)},
		{OrderBy: orderBy("-__name__"), Limit: wrapperspb.Int32(25)},
		{Where: where("mod", "==", integer(2)), OrderBy: orderBy("-__name__"), Limit: wrapperspb.Int32(5)},
		{OrderBy: orderBy("__name__"), StartAt: &pb.Cursor{Values: []*pb.Value{ref(b.root + "/large/0500")}}, Limit: wrapperspb.Int32(5)},
		{OrderBy: orderBy("-__name__"), StartAt: &pb.Cursor{Values: []*pb.Value{ref(b.root + "/large/0500")}}, Limit: wrapperspb.Int32(5)},
	}
	for round := range 3 {
		var writes []*pb.Write
		for i := range n {
			if round == 2 && i%3 == 0 {
				writes = append(writes, remove(b.root+"/large/"+id(i)))
				continue
			}
			writes = append(writes, update(b.root+"/large/"+id(i), value(i, round)))
		}
		b.mustCommit(t, writes...)
		for i, q := range queries {
			q.From = from("large").From
			indexed := ids(b.query(t, b.root, q))
			// A collection group is scanned without an index.
			q.From = []*pb.StructuredQuery_CollectionSelector{{CollectionId: "large", AllDescendants: true}}
			scanned := ids(b.query(t, b.root, q))
			if indexed != scanned {
				t.Errorf("round %d, query %d:\nindexed %s\nscanned %s", round, i, indexed, scanned)
			}
		}
	}
}

func TestReadersNeverSeeHalfACommit(t *testing.T) {
	t.Parallel()
	b := ours(t)
	b.mustCommit(t, update(b.root+"/c/a", fields{"n": integer(0)}), update(b.root+"/c/b", fields{"n": integer(0)}))
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(done)
		for i := range int64(300) {
			if _, err := b.commit(t, update(b.root+"/c/a", fields{"n": integer(i)}), update(b.root+"/c/b", fields{"n": integer(i)})); err != nil {
				return err
			}
		}
		return nil
	})
	for range 3 {
		g.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				docs, err := b.query(t, b.root, from("c"))
				if err != nil {
					return err
				}
				if a, b := docs[0].Fields["n"].GetIntegerValue(), docs[1].Fields["n"].GetIntegerValue(); a != b {
					return fmt.Errorf("one reads %d, the other %d", a, b)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
