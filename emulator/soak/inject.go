package soak

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"parley.internal/shared/delivery"
)

// injector makes the servers' answers go wrong while faults are on. Which of the calls are met is drawn anew in every
// run: the calls are not the same ones, either.
type injector struct {
	mu    sync.Mutex
	rates map[Kind]float64 // of the faults that are on
	hits  map[Kind]int     // calls, deliveries or answers that were met
	held  map[string]*hold // by gateway instance
	// claims are which instance claimed a delivery, by the document's name: who settles a claim does not write it again
	claims map[string]string
}

// hold keeps a gateway from recording what it delivered.
type hold struct {
	reached chan struct{} // closed when the first record was held
	once    sync.Once
	freed   chan struct{} // closed by whoever made the hold: what was held is lost
}

func newInjector() *injector {
	return &injector{rates: map[Kind]float64{}, hits: map[Kind]int{}, held: map[string]*hold{}, claims: map[string]string{}}
}

func (i *injector) begin(k Kind, rate float64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rates[k] = rate
}

func (i *injector) end(k Kind) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.rates, k)
}

// strikes decides whether a fault meets a call.
func (i *injector) strikes(k Kind) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	rate, on := i.rates[k]
	if !on || rand.Float64() >= rate {
		return false
	}
	i.hits[k]++
	return true
}

// holdSettling holds what an instance wants to record, until release is called.
func (i *injector) holdSettling(instance string) (h *hold, release func()) {
	h = &hold{reached: make(chan struct{}), freed: make(chan struct{})}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.held[instance] = h
	return h, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.held, instance)
		close(h.freed)
	}
}

// writing is a request that writes documents: Commit, or BatchWrite for several that have nothing to do with each other.
type writing interface{ GetWrites() []*firestorepb.Write }

// settling finds the hold for a request that records an outcome.
func (i *injector) settling(r writing) *hold {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, w := range r.GetWrites() {
		d := w.GetUpdate()
		if d == nil || !strings.Contains(d.Name, "/documents/deliveries/") {
			continue
		}
		instance := d.Fields["instance"].GetStringValue()
		switch delivery.State(d.Fields["state"].GetStringValue()) {
		case delivery.Pending:
			continue
		case delivery.Claimed:
			i.claims[d.Name] = instance
			continue
		}
		if h := i.held[cmp.Or(instance, i.claims[d.Name])]; h != nil {
			i.hits[KillBeforeSettling]++
			return h
		}
	}
	return nil
}

// bystander marks the calls of the harness itself, which nothing happens to.
const bystander = "parley-soak-bystander"

func isBystander(ctx context.Context) bool {
	return len(metadata.ValueFromIncomingContext(ctx, bystander)) > 0
}

// asBystander are the options of the harness's own connections.
func asBystander() []grpc.DialOption {
	mark := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, bystander, "1")
	}
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoker(mark(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return streamer(mark(ctx), desc, cc, method, opts...)
		}),
	}
}

func injected(c codes.Code, what string) error { return status.Error(c, "injected: "+what) }

// wait waits for a time that a slow server takes.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// publishWait is how long a Publish that times out takes; less than the real 60 s, so that there are more of them.
const publishWait = 300 * time.Millisecond

// slowest is the longest that a slow Firestore takes.
const slowest = 1500 * time.Millisecond

func (i *injector) pubsubUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if isBystander(ctx) {
		return handler(ctx, req)
	}
	switch r := req.(type) {
	case *pubsubpb.PublishRequest:
		switch {
		case i.strikes(PublishUnavailable):
			return nil, injected(codes.Unavailable, "nothing was published")
		case i.strikes(PublishTimeout):
			if err := wait(ctx, publishWait); err != nil {
				return nil, err
			}
			return nil, injected(codes.DeadlineExceeded, "nothing was published")
		case i.strikes(PublishAnswerLost):
			if _, err := handler(ctx, req); err != nil {
				return nil, err
			}
			return nil, injected(codes.Unavailable, "published all the same")
		}
	case *pubsubpb.AcknowledgeRequest:
		var kept []string
		for _, id := range r.AckIds {
			if !i.strikes(AcksLost) {
				kept = append(kept, id)
			}
		}
		if len(kept) == 0 {
			return &emptypb.Empty{}, nil
		}
		req = &pubsubpb.AcknowledgeRequest{Subscription: r.Subscription, AckIds: kept}
	}
	return handler(ctx, req)
}

func (i *injector) pubsubStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, &reorderingStream{ServerStream: stream, injector: i})
}

// reorderingStream sends the messages of a batch in another order; those of one key stay in theirs.
type reorderingStream struct {
	grpc.ServerStream
	injector *injector
}

func (s *reorderingStream) SendMsg(m any) error {
	r, ok := m.(*pubsubpb.StreamingPullResponse)
	if !ok || len(r.ReceivedMessages) < 2 || !s.injector.strikes(Reorder) {
		return s.ServerStream.SendMsg(m)
	}
	byKey := map[string][]*pubsubpb.ReceivedMessage{}
	var keys []string
	for _, rm := range r.ReceivedMessages {
		key := rm.Message.OrderingKey
		if _, ok := byKey[key]; !ok {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], rm)
	}
	rand.Shuffle(len(keys), func(a, b int) { keys[a], keys[b] = keys[b], keys[a] })
	out := &pubsubpb.StreamingPullResponse{SubscriptionProperties: r.SubscriptionProperties}
	for _, key := range keys {
		out.ReceivedMessages = append(out.ReceivedMessages, byKey[key]...)
	}
	return s.ServerStream.SendMsg(out)
}

func (i *injector) firestoreUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if isBystander(ctx) {
		return handler(ctx, req)
	}
	if err := i.firestoreBefore(ctx); err != nil {
		return nil, err
	}
	commit, ok := req.(writing)
	if !ok {
		return handler(ctx, req)
	}
	if h := i.settling(commit); h != nil {
		h.once.Do(func() { close(h.reached) })
		select {
		case <-h.freed:
		case <-ctx.Done():
		}
		return nil, injected(codes.Unavailable, "nothing was committed")
	}
	switch {
	case i.strikes(FirestoreAborted):
		return nil, injected(codes.Aborted, "nothing was committed")
	case i.strikes(FirestoreAnswerLost):
		if _, err := handler(ctx, req); err != nil {
			return nil, err
		}
		return nil, injected(codes.Unavailable, "committed all the same")
	}
	return handler(ctx, req)
}

func (i *injector) firestoreStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !isBystander(stream.Context()) {
		if err := i.firestoreBefore(stream.Context()); err != nil {
			return err
		}
	}
	return handler(srv, stream)
}

// firestoreBefore is what happens to a call before it is looked at.
func (i *injector) firestoreBefore(ctx context.Context) error {
	if i.strikes(FirestoreUnavailable) {
		return injected(codes.Unavailable, "nothing was done")
	}
	if i.strikes(FirestoreSlow) {
		return wait(ctx, rand.N(slowest))
	}
	return nil
}

// pushes sends Pub/Sub's push requests, and loses answers.
type pushes struct {
	http.RoundTripper
	injector *injector
}

var errAnswerLost = errors.New("injected: the answer is lost")

// reorderWait is how long a push may be held back, so that those of other keys overtake it.
const reorderWait = 100 * time.Millisecond

func (p pushes) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.injector.strikes(Reorder) {
		if err := wait(r.Context(), rand.N(reorderWait)); err != nil {
			return nil, err
		}
	}
	resp, err := p.RoundTripper.RoundTrip(r)
	if err == nil && p.injector.strikes(PushAnswersLost) {
		resp.Body.Close()
		return nil, errAnswerLost
	}
	return resp, err
}
