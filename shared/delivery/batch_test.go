package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"parley.internal/emulator/emulatortest"
	"parley.internal/emulator/firestore"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/store"
)

func TestConcurrentSettlingHasOneOutcomeEach(t *testing.T) {
	const n = 100
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client := connect(t, env)
		l := delivery.NewLedger(client, "one", time.Now)
		reaper := delivery.NewReaper(l, deadletter.NewStore(client, time.Now), &announcer{}, "one", 0)
		refs := make([]delivery.Ref, n)
		var wg sync.WaitGroup
		for i := range refs {
			wg.Go(func() {
				e, _, err := l.Open(t.Context(), entry(fmt.Sprint("d", i)))
				if err != nil {
					t.Error(err)
				}
				refs[i] = e.Ref()
				if i%10 == 0 { // marked dead meanwhile
					if _, err := reaper.MarkDead(t.Context(), e.ID, 0, deadletter.New(deadletter.NoConnection, errors.New("no connection"))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for i, ref := range refs {
			for range 2 { // each twice: a call can't have the same document twice
				wg.Go(func() {
					want := delivery.Delivered
					if i%10 == 0 {
						want = delivery.Dead
					}
					if state, err := l.MarkDelivered(t.Context(), ref); err != nil || state != want {
						t.Errorf("delivery %d: %q, %v; want %q", i, state, err, want)
					}
				})
			}
		}
		wg.Go(func() {
			if _, err := l.MarkDelivered(t.Context(), delivery.Ref{ID: "none"}); !errors.Is(err, delivery.ErrNotFound) {
				t.Errorf("missing entry: %v", err)
			}
		})
		wg.Wait()
	})
}

// held is a ledger with its own Firestore. While hold is set, calls of Firestore wait for gate.
type held struct {
	*delivery.Ledger
	hold  atomic.Bool
	calls chan struct{} // receives a value for each waiting call
	gate  chan struct{} // closed to continue the waiting calls

	contended string // the id of a delivery refused because of contention, until settled is set
	settled   atomic.Bool
	refused   atomic.Int32 // number of these refusals
}

func hold(t *testing.T) *held {
	t.Helper()
	h := &held{calls: make(chan struct{}, 1000), gate: make(chan struct{})}
	server, err := firestore.New(firestore.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if h.hold.Load() {
			h.calls <- struct{}{}
			<-h.gate
		}
		if batch, ok := req.(*firestorepb.BatchWriteRequest); ok && h.contended != "" {
			return h.contend(ctx, batch, handler)
		}
		return handler(ctx, req)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	env := emulatortest.Env{Project: "p", Firestore: server.Addr()}
	client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	h.Ledger = delivery.NewLedger(client, "one", time.Now)
	return h
}

// open opens a delivery.
func (h *held) open(t *testing.T, id string) delivery.Ref {
	t.Helper()
	e, _, err := h.Open(t.Context(), entry(id))
	if err != nil {
		t.Fatal(err)
	}
	return e.Ref()
}

// deliver settles a delivery in a goroutine of wg.
func (h *held) deliver(t *testing.T, wg *sync.WaitGroup, ref delivery.Ref) {
	wg.Go(func() {
		if state, err := h.MarkDelivered(t.Context(), ref); err != nil || state != delivery.Delivered {
			t.Errorf("%s: %q, %v", ref.ID, state, err)
		}
	})
}

// contend writes all deliveries of a batch except the contended one.
func (h *held) contend(ctx context.Context, batch *firestorepb.BatchWriteRequest, handler grpc.UnaryHandler) (any, error) {
	all := &firestorepb.BatchWriteResponse{}
	for _, w := range batch.Writes {
		result, outcome := new(firestorepb.WriteResult), &statuspb.Status{Code: int32(codes.Aborted), Message: "too much contention"}
		if path.Base(w.GetUpdate().GetName()) == h.contended && !h.settled.Load() {
			h.refused.Add(1)
		} else {
			answer, err := handler(ctx, &firestorepb.BatchWriteRequest{Database: batch.Database, Writes: []*firestorepb.Write{w}})
			if err != nil {
				return nil, err
			}
			one := answer.(*firestorepb.BatchWriteResponse)
			result, outcome = one.WriteResults[0], one.Status[0]
		}
		all.WriteResults, all.Status = append(all.WriteResults, result), append(all.Status, outcome)
	}
	return all, nil
}

func TestWritesDuringABusyCallShareTheNext(t *testing.T) {
	const n = 64
	l := hold(t)
	refs := make([]delivery.Ref, n)
	for i := range refs {
		e, _, err := l.Open(t.Context(), entry(fmt.Sprint("d", i)))
		if err != nil {
			t.Fatal(err)
		}
		refs[i] = e.Ref()
	}
	l.hold.Store(true)
	var wg sync.WaitGroup
	for _, ref := range refs {
		wg.Go(func() {
			if state, err := l.MarkDelivered(t.Context(), ref); err != nil || state != delivery.Delivered {
				t.Errorf("%q, %v", state, err)
			}
		})
	}
	for range 4 { // the number of concurrent calls
		<-l.calls
	}
	close(l.gate)
	wg.Wait()
	// four calls with one write each, and then calls of up to twenty; a write that came late may need a further call
	if got := 4 + len(l.calls); got >= n/2 {
		t.Errorf("%d settlements took %d calls", n, got)
	}
}

func TestWriteContinuesAfterTheCallerHasLeft(t *testing.T) {
	l := hold(t)
	e, _, err := l.Open(t.Context(), entry("d1"))
	if err != nil {
		t.Fatal(err)
	}
	l.hold.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := l.MarkDelivered(ctx, e.Ref())
		done <- err
	}()
	<-l.calls
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("MarkDelivered = %v", err)
	}
	close(l.gate)
	if state, err := l.MarkDelivered(t.Context(), e.Ref()); err != nil || state != delivery.Delivered {
		t.Errorf("the next call: %q, %v", state, err)
	}
}

func TestWriteOfACallerThatHasLeftIsDropped(t *testing.T) {
	l := hold(t)
	var busy, left []delivery.Ref
	for i := range 4 { // the number of concurrent calls
		busy, left = append(busy, l.open(t, fmt.Sprint("busy", i))), append(left, l.open(t, fmt.Sprint("left", i)))
	}
	live := l.open(t, "live")
	l.hold.Store(true)
	var wg sync.WaitGroup
	for _, ref := range busy { // one after the other, so that each has its own call
		l.deliver(t, &wg, ref)
		<-l.calls
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ref := range left {
		if _, err := l.MarkDelivered(ctx, ref); !errors.Is(err, context.Canceled) {
			t.Errorf("MarkDelivered = %v", err)
		}
	}
	l.deliver(t, &wg, live)
	close(l.gate)
	wg.Wait()
	for _, ref := range left {
		if e, err := l.Get(t.Context(), ref.ID); err != nil || e.State != delivery.Pending {
			t.Errorf("%s is %q, %v; want the dropped write to change nothing", ref.ID, e.State, err)
		}
	}
}

func TestContendedWriteDoesNotDelayOtherWrites(t *testing.T) {
	l := hold(t)
	l.contended = "contended"
	var busy, others []delivery.Ref
	for i := range 4 { // the number of concurrent calls
		busy = append(busy, l.open(t, fmt.Sprint("busy", i)))
	}
	for i := range 19 {
		others = append(others, l.open(t, fmt.Sprint("other", i)))
	}
	contended := l.open(t, l.contended)
	l.hold.Store(true)
	var free, alone sync.WaitGroup
	for _, ref := range busy { // one after the other, so that each has its own call
		l.deliver(t, &free, ref)
		<-l.calls
	}
	l.deliver(t, &alone, contended)
	for _, ref := range others {
		l.deliver(t, &free, ref)
	}
	l.hold.Store(false)
	close(l.gate)
	free.Wait()
	if n := l.refused.Load(); n > 3 {
		t.Errorf("the others waited until the contended one was refused %d times", n)
	}
	l.settled.Store(true)
	alone.Wait()
}
