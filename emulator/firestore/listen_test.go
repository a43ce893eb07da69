package firestore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
)

func TestTheGoClientWatchesAQuery(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := b.client.Collection("c")
		set := func(id string, n int) { must[*client.WriteResult](t)(c.Doc(id).Set(ctx, map[string]any{"n": n})) }
		set("a", 1)
		set("b", 2)
		set("z", 100)
		it := c.Where("n", "<", 10).OrderBy("n", client.Desc).Limit(3).Snapshots(ctx)
		defer it.Stop()
		// until waits for the state; a snapshot may show one write or several.
		until := func(want string) []client.DocumentChange {
			t.Helper()
			var changes []client.DocumentChange
			for {
				snap, err := it.Next()
				if err != nil {
					t.Fatal(err)
				}
				changes = append(changes, snap.Changes...)
				var got []string
				for _, d := range must[[]*client.DocumentSnapshot](t)(snap.Documents.GetAll()) {
					got = append(got, d.Ref.ID)
				}
				if strings.Join(got, " ") == want {
					return changes
				}
			}
		}
		until("b a")
		set("c", 3)
		until("c b a")
		set("d", 4) // a is now over the limit of the query
		until("d c b")
		set("c", 50) // c leaves the result, and a is within the limit again
		until("d b a")
		must[*client.WriteResult](t)(c.Doc("b").Delete(ctx))
		changes := until("d a")
		if n := len(changes); n != 1 || changes[0].Kind != client.DocumentRemoved || changes[0].Doc.Ref.ID != "b" {
			t.Errorf("the delete came as %d changes", n)
		}
		set("a", 5)
		until("a d")
	})
}

func TestTheGoClientWatchesADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		doc := b.client.Doc("c/d")
		it := doc.Snapshots(ctx)
		defer it.Stop()
		for i, step := range []func(){
			func() {},
			func() { must[*client.WriteResult](t)(doc.Set(ctx, map[string]any{"n": 1})) },
			func() { must[*client.WriteResult](t)(doc.Set(ctx, map[string]any{"n": 2})) },
			func() { must[*client.WriteResult](t)(doc.Delete(ctx)) },
		} {
			step()
			snap, err := it.Next()
			if err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if exists := i == 1 || i == 2; exists != snap.Exists() {
				t.Errorf("step %d: exists is %v", i, snap.Exists())
			} else if exists && snap.Data()["n"] != int64(i) {
				t.Errorf("step %d: n is %v", i, snap.Data()["n"])
			}
		}
	})
}

func TestAWatchedQueryFollowsConcurrentWriters(t *testing.T) {
	t.Parallel()
	b := ours(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	it := b.client.Collection("c").Where("n", ">=", 0).Snapshots(ctx)
	defer it.Stop()
	const writers, writes = 4, 100
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for i := range writes {
				name := fmt.Sprintf("%s/c/%d-%d", b.root, w, i%10)
				if _, err := b.commit(t, update(name, fields{"n": integer(int64(i))})); err != nil {
					return err
				}
				if i%3 == 0 && i < writes-10 {
					if _, err := b.commit(t, remove(name)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	want := ids(b.query(t, b.root, from("c")))
	for {
		snap, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		last := int64(0)
		var got []string
		for _, d := range must[[]*client.DocumentSnapshot](t)(snap.Documents.GetAll()) {
			got = append(got, d.Ref.ID)
			last += d.Data()["n"].(int64)
		}
		slices.Sort(got)
		if strings.Join(got, " ") == want && last == writers*10*(writes-10+writes-1)/2 {
			return
		}
	}
}

// A watch reads the consistent states of a Listen stream.
type watch struct {
	stream pb.Firestore_ListenClient
	token  []byte
}

func (b *backend) listen(t testing.TB) *watch {
	stream, err := b.raw.Listen(b.ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	return &watch{stream: stream}
}

func (w *watch) add(t testing.TB, b *backend, target *pb.Target) {
	t.Helper()
	if err := w.stream.Send(&pb.ListenRequest{Database: b.db, TargetChange: &pb.ListenRequest_AddTarget{AddTarget: target}}); err != nil {
		t.Fatal(err)
	}
}

// next returns the changes up to the next consistent state with changes.
func (w *watch) next(t testing.TB) []string {
	t.Helper()
	last := func(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
	var events []string
	for {
		resp, err := w.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch r := resp.ResponseType.(type) {
		case *pb.ListenResponse_DocumentChange:
			if len(r.DocumentChange.TargetIds) > 0 {
				events = append(events, "+"+last(r.DocumentChange.Document.Name))
			} else {
				events = append(events, "-"+last(r.DocumentChange.Document.Name))
			}
		case *pb.ListenResponse_DocumentDelete:
			events = append(events, "-"+last(r.DocumentDelete.Document))
		case *pb.ListenResponse_DocumentRemove:
			events = append(events, "-"+last(r.DocumentRemove.Document))
		case *pb.ListenResponse_TargetChange:
			tc := r.TargetChange
			if tc.TargetChangeType == pb.TargetChange_NO_CHANGE && len(tc.TargetIds) == 0 && tc.ReadTime != nil {
				w.token = tc.ResumeToken
				if len(events) > 0 {
					return events
				}
				continue
			}
			if tc.TargetChangeType != pb.TargetChange_NO_CHANGE {
				events = append(events, tc.TargetChangeType.String())
			}
			if tc.Cause != nil {
				return append(events, codes.Code(tc.Cause.Code).String())
			}
		}
	}
}

func queryTarget(b *backend, id int32, q *pb.StructuredQuery) *pb.Target {
	return &pb.Target{TargetId: id, TargetType: &pb.Target_Query{Query: &pb.Target_QueryTarget{
		Parent: b.root, QueryType: &pb.Target_QueryTarget_StructuredQuery{StructuredQuery: q}}}}
}

func TestAListenStreamResumesWhereItEnded(t *testing.T) {
	t.Parallel()
	b := ours(t)
	b.fill(t, map[string]fields{"c/a": {}, "c/b": {}, "c/c": {}})
	w := b.listen(t)
	w.add(t, b, queryTarget(b, 1, from("c")))
	if got := w.next(t); !slices.Equal(got, []string{"ADD", "+a", "+b", "+c", "CURRENT"}) {
		t.Errorf("the first state came as %v", got)
	}
	b.mustCommit(t, remove(b.root+"/c/b"), update(b.root+"/c/d", nil), update(b.root+"/c/a", fields{"n": integer(1)}))
	again := b.listen(t)
	target := queryTarget(b, 1, from("c"))
	target.ResumeType = &pb.Target_ResumeToken{ResumeToken: w.token}
	again.add(t, b, target)
	if got := again.next(t); !slices.Equal(got, []string{"ADD", "-b", "+a", "+d", "CURRENT"}) {
		t.Errorf("the resumed stream sent %v", got)
	}
	if got := w.next(t); !slices.Equal(got, []string{"-b", "+a", "+d"}) {
		t.Errorf("the first stream sent %v", got)
	}
	target = queryTarget(b, 1, from("c"))
	target.ResumeType = &pb.Target_ResumeToken{ResumeToken: []byte("unknown")}
	fresh := b.listen(t)
	fresh.add(t, b, target)
	if got := fresh.next(t); !slices.Equal(got, []string{"ADD", "RESET", "+a", "+c", "+d", "CURRENT"}) {
		t.Errorf("a stream with an unknown token sent %v", got)
	}
}

func TestTargetsComeAndGoOnOneStream(t *testing.T) {
	t.Parallel()
	b := ours(t)
	b.fill(t, map[string]fields{"c/a": {}, "d/b": {}})
	w := b.listen(t)
	w.add(t, b, queryTarget(b, 1, from("c")))
	w.next(t)
	w.add(t, b, queryTarget(b, 2, from("d")))
	if got := w.next(t); !slices.Equal(got, []string{"ADD", "+b", "CURRENT"}) {
		t.Errorf("the second target came as %v", got)
	}
	bad := from("c")
	bad.Offset = -1
	w.add(t, b, queryTarget(b, 3, bad))
	if got := w.next(t); !slices.Equal(got, []string{"REMOVE", "InvalidArgument"}) {
		t.Errorf("a bad target came as %v", got)
	}
	if err := w.stream.Send(&pb.ListenRequest{Database: b.db, TargetChange: &pb.ListenRequest_RemoveTarget{RemoveTarget: 1}}); err != nil {
		t.Fatal(err)
	}
	w.add(t, b, &pb.Target{TargetId: 4, Once: true, TargetType: &pb.Target_Documents{
		Documents: &pb.Target_DocumentsTarget{Documents: []string{b.root + "/d/b", b.root + "/d/none"}}}})
	if got := w.next(t); !slices.Equal(got, []string{"REMOVE", "ADD", "+b", "-none", "CURRENT", "REMOVE"}) {
		t.Errorf("a target of documents came as %v", got)
	}
	b.mustCommit(t, update(b.root+"/c/a", fields{"n": integer(1)}), update(b.root+"/d/b", fields{"n": integer(1)}))
	if got := w.next(t); !slices.Equal(got, []string{"+b"}) {
		t.Errorf("the target that is left sent %v", got)
	}
}
