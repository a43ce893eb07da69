package soak

import (
	"context"
	"testing"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"parley.internal/shared/delivery"
)

// settle returns a request that moves a delivery to a state.
func settle(id string, state delivery.State, instance string) *firestorepb.CommitRequest {
	fields := map[string]*firestorepb.Value{"state": {ValueType: &firestorepb.Value_StringValue{StringValue: string(state)}}}
	if instance != "" {
		fields["instance"] = &firestorepb.Value{ValueType: &firestorepb.Value_StringValue{StringValue: instance}}
	}
	return &firestorepb.CommitRequest{Writes: []*firestorepb.Write{{Operation: &firestorepb.Write_Update{Update: &firestorepb.Document{
		Name: "projects/p/databases/(default)/documents/deliveries/" + id, Fields: fields,
	}}}}}
}

func TestFaultsAffectCallsWhileActiveAndNeverExemptCalls(t *testing.T) {
	i := newInjector()
	called := 0
	publish := func(ctx context.Context) error {
		_, err := i.pubsubUnary(ctx, &pubsubpb.PublishRequest{}, nil, func(context.Context, any) (any, error) { called++; return nil, nil })
		return err
	}
	ours := metadata.NewIncomingContext(t.Context(), metadata.Pairs(exempt, "1"))
	for _, step := range []struct {
		name   string
		kind   Kind // active during the call
		ctx    context.Context
		want   codes.Code
		called bool
	}{
		{"without a fault", "", t.Context(), codes.OK, true},
		{"unavailable", PublishUnavailable, t.Context(), codes.Unavailable, false},
		{"timeout", PublishTimeout, t.Context(), codes.DeadlineExceeded, false},
		{"answer lost", PublishAnswerLost, t.Context(), codes.Unavailable, true},
		{"exempt", PublishUnavailable, ours, codes.OK, true},
		{"after the fault", "", t.Context(), codes.OK, true},
	} {
		called = 0
		if step.kind != "" {
			i.begin(step.kind, 1)
		}
		err := publish(step.ctx)
		i.end(step.kind)
		if status.Code(err) != step.want || (called == 1) != step.called {
			t.Errorf("%s: %v, %d calls reached the server; want %s, %v", step.name, err, called, step.want, step.called)
		}
	}
	if i.hits[PublishUnavailable] != 1 || i.hits[PublishTimeout] != 1 || i.hits[PublishAnswerLost] != 1 {
		t.Errorf("hits = %v; want one of each kind", i.hits)
	}
}

func TestLostAcknowledgementsDoNotReachTheServer(t *testing.T) {
	i := newInjector()
	var acked []string
	ack := func() {
		if _, err := i.pubsubUnary(t.Context(), &pubsubpb.AcknowledgeRequest{AckIds: []string{"a", "b"}}, nil, func(_ context.Context, req any) (any, error) {
			acked = append(acked, req.(*pubsubpb.AcknowledgeRequest).AckIds...)
			return nil, nil
		}); err != nil {
			t.Error(err)
		}
	}
	i.begin(AcksLost, 1)
	ack()
	i.end(AcksLost)
	if len(acked) != 0 {
		t.Errorf("%v reached the server", acked)
	}
	ack()
	if len(acked) != 2 {
		t.Errorf("after the fault, %v reached the server; want both", acked)
	}
}

func TestHoldBlocksOnlySettlingWritesOfItsInstance(t *testing.T) {
	i := newInjector()
	_, release := i.holdSettling("held")
	defer release()
	for _, step := range []struct {
		name    string
		request writeRequest
		held    bool
	}{
		{"a pending delivery", settle("d1", delivery.Pending, "held"), false},
		{"a claim", settle("d1", delivery.Claimed, "held"), false},
		{"the outcome of the claim, without the instance", settle("d1", delivery.Delivered, ""), true},
		{"an outcome with the instance", settle("d2", delivery.Dead, "held"), true},
		{"an outcome of another instance", settle("d3", delivery.Delivered, "free"), false},
		{"an outcome without a claim", settle("d4", delivery.Delivered, ""), false},
		{"no writes", &firestorepb.CommitRequest{}, false},
	} {
		if got := i.holdFor(step.request) != nil; got != step.held {
			t.Errorf("%s: held %v; want %v", step.name, got, step.held)
		}
	}
}
