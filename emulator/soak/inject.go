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
	"parley.internal/shared/retry"
)

// injector makes calls to the servers fail while faults are active. Every run draws the affected calls anew, because the
// calls themselves differ between runs. Its methods are safe for concurrent use.
type injector struct {
	mu    sync.Mutex
	rates map[Kind]float64 // of the active faults
	hits  map[Kind]int     // affected calls, deliveries or answers
	held  map[string]*hold // by gateway instance
	// claims maps the name of a delivery document to the instance with the claim: a settling write does not repeat the
	// instance.
	claims map[string]string
}

// hold keeps a gateway from recording outcomes.
type hold struct {
	reached chan struct{} // closed when the first write was held
	once    sync.Once
	freed   chan struct{} // closed by the owner of the hold; the held writes are lost
}

// newInjector makes an injector without active faults.
func newInjector() *injector {
	return &injector{rates: map[Kind]float64{}, hits: map[Kind]int{}, held: map[string]*hold{}, claims: map[string]string{}}
}

// begin activates a fault for a share of the calls.
func (i *injector) begin(k Kind, rate float64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rates[k] = rate
}

// end deactivates a fault.
func (i *injector) end(k Kind) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.rates, k)
}

// affects decides by chance whether an active fault affects a call, and counts the affected calls.
func (i *injector) affects(k Kind) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	rate, on := i.rates[k]
	if !on || rand.Float64() >= rate {
		return false
	}
	i.hits[k]++
	return true
}

// holdSettling blocks the settling writes of an instance until release is called.
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

// writeRequest is a Firestore request with writes: Commit, or BatchWrite for independent writes.
type writeRequest interface{ GetWrites() []*firestorepb.Write }

// holdFor returns the hold for a request that settles a delivery, or nil.
func (i *injector) holdFor(r writeRequest) *hold {
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

// exempt is the metadata key of the harness's own calls. Faults do not affect calls with this key.
const exempt = "parley-soak-exempt"

func isExempt(ctx context.Context) bool {
	return len(metadata.ValueFromIncomingContext(ctx, exempt)) > 0
}

// exemptCalls returns the dial options of the harness's own connections.
func exemptCalls() []grpc.DialOption {
	mark := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, exempt, "1")
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

// publishWait is the duration of a Publish that times out. It is less than the real 60 s, to get more timeouts per run.
const publishWait = 300 * time.Millisecond

// slowest is the longest delay of a slow Firestore call.
const slowest = 1500 * time.Millisecond

// pubsubUnary intercepts the unary calls to Pub/Sub.
func (i *injector) pubsubUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if isExempt(ctx) {
		return handler(ctx, req)
	}
	switch r := req.(type) {
	case *pubsubpb.PublishRequest:
		switch {
		case i.affects(PublishUnavailable):
			return nil, injected(codes.Unavailable, "nothing was published")
		case i.affects(PublishTimeout):
			if err := retry.Sleep(ctx, publishWait); err != nil {
				return nil, err
			}
			return nil, injected(codes.DeadlineExceeded, "nothing was published")
		case i.affects(PublishAnswerLost):
			if _, err := handler(ctx, req); err != nil {
				return nil, err
			}
			return nil, injected(codes.Unavailable, "the messages were published")
		}
	case *pubsubpb.AcknowledgeRequest:
		var kept []string
		for _, id := range r.AckIds {
			if !i.affects(AcksLost) {
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

// pubsubStream intercepts the streams of Pub/Sub.
func (i *injector) pubsubStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, &reorderingStream{ServerStream: stream, injector: i})
}

// reorderingStream shuffles the messages of a batch. Messages with the same ordering key keep their order.
type reorderingStream struct {
	grpc.ServerStream
	injector *injector
}

// SendMsg sends a batch of messages, shuffled if the fault affects the batch.
func (s *reorderingStream) SendMsg(m any) error {
	r, ok := m.(*pubsubpb.StreamingPullResponse)
	if !ok || len(r.ReceivedMessages) < 2 || !s.injector.affects(Reorder) {
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

// firestoreUnary intercepts the unary calls to Firestore.
func (i *injector) firestoreUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if isExempt(ctx) {
		return handler(ctx, req)
	}
	if err := i.beforeFirestore(ctx); err != nil {
		return nil, err
	}
	write, ok := req.(writeRequest)
	if !ok {
		return handler(ctx, req)
	}
	if h := i.holdFor(write); h != nil {
		h.once.Do(func() { close(h.reached) })
		select {
		case <-h.freed:
		case <-ctx.Done():
		}
		return nil, injected(codes.Unavailable, "nothing was committed")
	}
	switch {
	case i.affects(FirestoreAborted):
		return nil, injected(codes.Aborted, "nothing was committed")
	case i.affects(FirestoreAnswerLost):
		if _, err := handler(ctx, req); err != nil {
			return nil, err
		}
		return nil, injected(codes.Unavailable, "the writes were committed")
	}
	return handler(ctx, req)
}

// firestoreStream intercepts the streams of Firestore.
func (i *injector) firestoreStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !isExempt(stream.Context()) {
		if err := i.beforeFirestore(stream.Context()); err != nil {
			return err
		}
	}
	return handler(srv, stream)
}

// beforeFirestore applies the faults of every Firestore call before the server sees the call.
func (i *injector) beforeFirestore(ctx context.Context) error {
	if i.affects(FirestoreUnavailable) {
		return injected(codes.Unavailable, "nothing was done")
	}
	if i.affects(FirestoreSlow) {
		return retry.Sleep(ctx, rand.N(slowest))
	}
	return nil
}

// pushTransport sends Pub/Sub's push requests, delays some requests, and loses some responses.
type pushTransport struct {
	http.RoundTripper
	injector *injector
}

var errAnswerLost = errors.New("injected: the answer is lost")

// reorderWait is the longest delay of a push. During the delay, pushes with other keys overtake.
const reorderWait = 100 * time.Millisecond

// RoundTrip sends a push.
func (t pushTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.injector.affects(Reorder) {
		if err := retry.Sleep(r.Context(), rand.N(reorderWait)); err != nil {
			return nil, err
		}
	}
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil && t.injector.affects(PushAnswersLost) {
		resp.Body.Close()
		return nil, errAnswerLost
	}
	return resp, err
}
