package pubsub_test

import (
	"context"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/pubsub"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx := testContext(t); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(what)
		}
	}
}

func TestCloseEndsEveryGoroutineOfABusyServer(t *testing.T) {
	before := runtime.NumGoroutine()
	srv := start(t)
	b := newBus(t, srv.Addr(), false)
	url, requests := endpoint(t)
	topic := b.topic(t)
	b.subscribe(t, topic, pushTo(url))
	sub := b.subscribe(t, topic)
	st := b.stream(t, sub)
	go b.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: b.subscribe(t, b.topic(t)), MaxMessages: 1})
	b.publish(t, topic, text("a"))
	st.next(1)
	p := nextPush(t, requests) // the push gets no answer
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := srv.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if _, err := st.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	b.conn.Close()
	p.answer <- http.StatusOK
	eventually(t, "goroutines of the server are left", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !strings.Contains(string(stacks), "emulator/pubsub.(*") || runtime.NumGoroutine() <= before
	})
}

func TestCallsAndMessagesAreCounted(t *testing.T) {
	srv := start(t)
	b := newBus(t, srv.Addr(), false)
	topic := b.topic(t)
	first, second := b.subscribe(t, topic), b.subscribe(t, topic)
	b.publish(t, topic, text("a"), text("b"))
	b.ack(t, first, b.pull(t, first, 2)...)
	st := b.stream(t, second)
	ms := st.next(2)
	st.nack(ms[0])
	st.ack(st.next(1)...)
	eventually(t, "no acknowledgement was counted", func() bool { return srv.Counts()[pubsub.CountAcked] == 3 })
	counts := srv.Counts()
	for key, want := range map[string]int64{
		"CreateTopic": 1, "CreateSubscription": 2, "Publish": 1, "StreamingPull": 1, "Acknowledge": 1,
		pubsub.CountPublished: 2, pubsub.CountDelivered: 5, pubsub.CountAcked: 3,
	} {
		if counts[key] != want {
			t.Errorf("%s: %d, want %d", key, counts[key], want)
		}
	}
	if counts[pubsub.CountDeliveredBytes] <= counts[pubsub.CountPublishedBytes] {
		t.Errorf("counts %v", counts)
	}
}

func TestBacklogIsEmptyAfterAllAcknowledgements(t *testing.T) {
	srv := start(t)
	b := newBus(t, srv.Addr(), false)
	topic := b.topic(t)
	sub := b.subscribe(t, topic, ordered)
	st := b.stream(t, sub)
	for range 20 {
		ms := make([]*pubsubpb.PubsubMessage, 100)
		for i := range ms {
			ms[i] = keyed("k", "x")
		}
		b.publish(t, topic, ms...)
	}
	for range 20 {
		st.ack(st.next(100)...)
	}
	eventually(t, "messages are left", func() bool { n, err := srv.Backlog(sub); return n == 0 && err == nil })
	_, err := srv.Backlog(sub + "-none")
	wantCode(t, "backlog of no subscription", err, codes.NotFound)
}

func TestEveryPublishedMessageIsSeenByTheHook(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	srv := start(t, pubsub.WithOnPublish(func(topic string, m *pubsubpb.PubsubMessage) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, topic+" "+string(m.Data)+" "+m.MessageId)
	}))
	b := newBus(t, srv.Addr(), false)
	topic, graveyard := b.topic(t), b.topic(t)
	sub := b.subscribe(t, topic, deadLetter(graveyard))
	ids := b.publish(t, topic, text("a"))
	for range 5 {
		b.nack(t, sub, b.pull(t, sub, 1)...)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 || seen[0] != topic+" a "+ids[0] || !strings.HasPrefix(seen[1], graveyard+" a ") {
		t.Errorf("seen %q", seen)
	}
}

func TestInterceptorInjectsAFault(t *testing.T) {
	srv := start(t, pubsub.WithServerOptions(grpc.ChainUnaryInterceptor(
		func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if info.FullMethod == "/google.pubsub.v1.Publisher/Publish" {
				return nil, status.Error(codes.Unavailable, "injected")
			}
			return h(ctx, req)
		})))
	b := newBus(t, srv.Addr(), false)
	_, err := b.Publish(testContext(t), &pubsubpb.PublishRequest{Topic: b.topic(t), Messages: []*pubsubpb.PubsubMessage{text("a")}})
	wantCode(t, "publish", err, codes.Unavailable)
	if n := srv.Counts()["Publish"]; n != 1 {
		t.Errorf("%d calls counted, want 1", n)
	}
}

func TestAddressInUseIsAnError(t *testing.T) {
	srv := start(t)
	if other, err := pubsub.New(pubsub.WithAddr(srv.Addr())); err == nil {
		other.Close()
		t.Error("a second server took the address")
	}
}

func TestPushOfAPoisonedMessageIsPacedAndDoesNotHoldUpOthers(t *testing.T) {
	b := newBus(t, start(t).Addr(), false)
	url, requests := endpoint(t)
	topic := b.topic(t)
	b.subscribe(t, topic, pushTo(url))
	b.publish(t, topic, text("poison"))
	begin := time.Now()
	for i, want := range []string{"poison", "other", "poison", "other", "poison", "other", "poison"} {
		p := nextPush(t, requests)
		if got := string(p.body.Message.Data); got != want {
			t.Errorf("push %d is %q, want %q", i, got, want)
		}
		if want == "other" {
			p.answer <- http.StatusOK
			continue
		}
		b.publish(t, topic, text("other")) // before the pause begins: a slow publish could take longer than the pause
		p.answer <- http.StatusInternalServerError
	}
	// Pauses of 100, 200 and 400 ms.
	if d := time.Since(begin); d < 690*time.Millisecond {
		t.Errorf("the message was pushed 4 times within %v", d)
	}
}

func TestPushWidensItsWindowWithSuccess(t *testing.T) {
	b := newBus(t, start(t).Addr(), false)
	url, requests := endpoint(t)
	topic := b.topic(t)
	b.subscribe(t, topic, pushTo(url))
	for range 8 {
		b.publish(t, topic, text("a"))
	}
	nextPush(t, requests).answer <- http.StatusOK
	for _, atOnce := range []int{2, 4} {
		var ps []*pushed
		for range atOnce {
			ps = append(ps, nextPush(t, requests))
		}
		for _, p := range slices.Backward(ps) {
			p.answer <- http.StatusOK
		}
	}
}
