package websocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley.internal/gateway/gatewaytest"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

func TestARedeliveryIsRecordedButNotWrittenAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	one, two := f.dial("1"), f.dial("1")
	f.ledger.set("", errors.New("store is down"))
	if err := f.Deliver(t.Context(), incoming("d1", "twitch:1", "", "hi")); err == nil {
		t.Fatal("not settled, but no error")
	}
	late := f.dial("1") // connects after the first attempt
	f.ledger.set(delivery.Delivered, nil)
	for range 3 {
		if err := f.Deliver(t.Context(), incoming("d1", "twitch:1", "", "hi")); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.ledger.times("d1"); n != 2 {
		t.Errorf("settled %d times; want a failure and a success", n)
	}
	for i, c := range []*client{one, two, late} {
		if r := c.next(); r.Metadata["id"] != "d1" {
			t.Errorf("connection %d: %+v", i, r)
		}
		c.join("a") // the next frame: the answer was written once
	}
}

func TestAnAnswerToAnAbsentUserChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.dial("1")
	for _, in := range []struct{ user, room string }{{"twitch:2", ""}, {"twitch:2", "lobby-of-1"}, {"", "elsewhere"}} {
		if err := f.Deliver(t.Context(), incoming("d1", in.user, in.room, "hi")); err != nil {
			t.Error(err)
		}
	}
	if n := f.ledger.times("d1"); n != 0 {
		t.Errorf("the ledger was touched %d times", n)
	}
	if n := f.outcome(outcomeAbsent); n != 3 {
		t.Errorf("counted %d absent", n)
	}
}

func TestAnAnswerDeliveredAfterDeadLetteringIsNotRetried(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*ledger){
		"dead":      func(l *ledger) { l.set(delivery.Dead, nil) },
		"forgotten": func(l *ledger) { l.set("", fmt.Errorf("delivery: %w", delivery.ErrNotFound)) },
	} {
		f := newFixture(t, nil)
		c := f.dial("1")
		set(f.ledger)
		if err := f.Deliver(t.Context(), incoming("d1", "twitch:1", "", "hi")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.next()
	}
}

func TestAnAnswerWithoutADeliveryIDIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	in := incoming("d1", "twitch:1", "", "hi")
	delete(in.Attributes, delivery.AttrDelivery)
	err := f.Deliver(t.Context(), in)
	if d, ok := errors.AsType[*deadletter.Error](err); !ok || d.Reason != deadletter.InvalidEvent {
		t.Errorf("Deliver = %v", err)
	}
}

func TestASlowClientIsDisconnectedAndDelaysNoOtherClient(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.QueueFrames, c.WriteTimeout, c.PingInterval = 8, time.Minute, time.Minute })
	slow, fast := f.dial("1"), f.dial("2")
	for _, c := range []*client{slow, fast} {
		c.join("all")
	}
	got := make(chan string, 1000)
	go func() { // ends with the connection
		defer close(got)
		for {
			var r received
			if fast.ReadJSON(&r) != nil {
				return
			}
			got <- fmt.Sprint(r.Metadata["id"])
		}
	}()
	text := strings.Repeat("x", 200<<10)
	sent := 0
	fast.SetReadDeadline(time.Now().Add(patience))
	eventually(t, "the slow one is disconnected", func() bool {
		id := fmt.Sprint(sent)
		if err := f.Deliver(t.Context(), incoming(id, "", "all", text)); err != nil {
			t.Fatal(err)
		}
		sent++
		select {
		case r := <-got:
			if r != id {
				t.Fatalf("the fast one got %s; want %s", r, id)
			}
		case <-time.After(patience):
			t.Fatalf("the fast one did not get %s", id)
		}
		return f.connections() == 1
	})
	if f.ledger.times("0") != 1 {
		t.Error("not settled")
	}
	// the written frames are followed by the close code
	if code := slow.closeCode(); code != CloseSlow && code != 0 {
		t.Errorf("closed with %d; want %d", code, CloseSlow)
	}
}

func TestAnUnwrittenFrameIsLost(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.dial("1")
	conns := f.hub.receivers(nil, "twitch:1", "")
	conns[0].queue.close() // like a connection being closed
	if err := f.Deliver(t.Context(), incoming("d1", "twitch:1", "", "hi")); err != nil {
		t.Fatal(err)
	}
	if f.ledger.times("d1") != 0 || f.outcome(outcomeLost) != 1 {
		t.Errorf("settled %d times, lost %d", f.ledger.times("d1"), f.outcome(outcomeLost))
	}
	c := f.dial("1") // reconnects in time for a redelivery
	if err := f.Deliver(t.Context(), incoming("d1", "twitch:1", "", "hi")); err != nil {
		t.Fatal(err)
	}
	if r := c.next(); r.Metadata["id"] != "d1" || f.ledger.times("d1") != 1 {
		t.Errorf("got %+v, settled %d times", r, f.ledger.times("d1"))
	}
}

// A room has a client that does not read, and a client with acknowledgements. All answers have the same ordering key.
func TestAClientThatDoesNotReadDelaysNoAcknowledgements(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.WriteTimeout, c.PingInterval, c.QueueBytes = time.Minute, time.Minute, 1<<30 })
	answers := gatewaytest.NewWorld(t).Bus("test")
	subscription, err := answers.Subscribe(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	silent := f.dial("1")
	silent.join("room")
	stalled := f.hub.receivers(nil, "twitch:1", "")[0]
	f.stall(stalled)
	acks := f.dialWith("ack=1")
	acks.next()
	acks.join("room")
	ctx, cancel := context.WithCancel(t.Context())
	received := make(chan error, 1)
	go func() { received <- subscription.Receive(ctx, f.Deliver) }()

	const n = 5
	for i := range n {
		in := incoming(fmt.Sprint("a", i), "", "room", "hi")
		in.Attributes[bus.AttrRoute] = bus.RouteBroadcast
		in.Attributes[delivery.AttrDeadline] = time.Now().Add(time.Minute).Format(time.RFC3339Nano)
		if err := answers.Publish(t.Context(), topology.Egress, bus.Outgoing{Event: in.Event, Attributes: in.Attributes}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for i := range n {
		id := fmt.Sprint("a", i)
		if r := acks.next(); r.Metadata["id"] != id {
			t.Fatalf("got %+v; want %s", r, id)
		}
		acks.sendText(`{"type":"connection.ack","payload":{"ids":["` + id + `"]}}`)
		eventually(t, "it is settled", func() bool { return f.ledger.times(id) == 1 })
	}
	if d := time.Since(began); d >= deliverTimeout {
		t.Errorf("the acknowledging client waited for %s", d)
	}
	if got := f.outcome(outcomeFailed); got != 0 {
		t.Errorf("%d deliveries failed", got)
	}
	// a write to the connection without acknowledgements still counts
	in := incoming("last", "", "room", "hi")
	in.Attributes[bus.AttrRoute] = bus.RouteBroadcast
	in.Attributes[delivery.AttrDeadline] = time.Now().Add(time.Minute).Format(time.RFC3339Nano)
	if err := answers.Publish(t.Context(), topology.Egress, bus.Outgoing{Event: in.Event, Attributes: in.Attributes}); err != nil {
		t.Fatal(err)
	}
	acks.next() // not acknowledged
	if f.ledger.times("last") != 0 {
		t.Error("settled before a write or an acknowledgement")
	}
	for silent.next().Metadata["id"] != "last" {
	}
	eventually(t, "the write is recorded", func() bool { return f.ledger.times("last") == 1 })
	cancel()
	if err := <-received; err != nil {
		t.Error(err)
	}
}

func TestReceipt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := &receipt{}
	r.expect(2)
	r.resolve(false)
	cancel()
	if _, err := r.await(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait = %v while one is pending", err)
	}
	r.resolve(true)
	if ok, err := r.await(t.Context()); !ok || err != nil {
		t.Errorf("wait = %v, %v", ok, err)
	}
	r = &receipt{}
	r.expect(1)
	done := make(chan bool)
	go func() { ok, _ := r.await(t.Context()); done <- ok }()
	r.resolve(false)
	if <-done {
		t.Error("written, though nobody took it")
	}
}

func TestAnswersBecomeFrames(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		name string
		e    event.Event
		want string
	}{
		{"chat", event.Event{Source: "api-gateway", CorrelationID: "c", Type: "chat.message", UserID: "twitch:1", Metadata: event.Raw(map[string]any{"id": "m1"}),
			Candidates: []event.Candidate{{Text: `"hi"`}}},
			`{"type":"chat.message.received","payload":{"text":"\"hi\""},"metadata":{"id":"d","timestamp":"2026-01-02T03:04:05Z","source":"api-gateway","correlationId":"c","replyTo":"m1"}}`},
		{"room", event.Event{Source: "api-gateway", CorrelationID: "c", Type: "chat.message", Channel: "r", Metadata: event.Raw(map[string]any{"id": "m1"}),
			User: &event.User{ID: "twitch:1"}, Candidates: []event.Candidate{{Text: "hi"}}},
			`{"type":"chat.message.received","payload":{"text":"hi"},"metadata":{"id":"d","timestamp":"2026-01-02T03:04:05Z","source":"api-gateway","correlationId":"c","channel":"r","replyTo":"m1","replyToUser":"twitch:1"}}`},
		{"room, to somebody by another of their ids", event.Event{Source: "api-gateway", CorrelationID: "c", Type: "chat.message", Channel: "r", Metadata: event.Raw(map[string]any{"id": "m1"}),
			User: &event.User{ID: "twitch:1"}, Auth: &event.Auth{Identity: "discord:6"}, Candidates: []event.Candidate{{Text: "hi"}}},
			`{"type":"chat.message.received","payload":{"text":"hi"},"metadata":{"id":"d","timestamp":"2026-01-02T03:04:05Z","source":"api-gateway","correlationId":"c","channel":"r","replyTo":"m1","replyToUser":"discord:6"}}`},
		{"from another platform", event.Event{Source: "ingress.twitch", CorrelationID: "c", Type: "chat.message", UserID: "twitch:1", ReplyTo: "t1",
			Metadata: event.Raw(map[string]any{"id": "other"}), Candidates: []event.Candidate{{Text: "hi"}}},
			`{"type":"chat.message.received","payload":{"text":"hi"},"metadata":{"id":"d","timestamp":"2026-01-02T03:04:05Z","source":"ingress.twitch","correlationId":"c","replyTo":"t1"}}`},
		{"for programs", event.Event{Source: "s", CorrelationID: "c", Type: "poll.closed", Payload: event.Raw(map[string]any{"winner": 2, "text": "x"}),
			Egress: &event.Egress{Type: "event"}},
			`{"type":"poll.closed","payload":{"text":"x","winner":2},"metadata":{"id":"d","timestamp":"2026-01-02T03:04:05Z","source":"s","correlationId":"c"}}`},
		{"for programs, without payload", event.Event{Source: "s", CorrelationID: "c", Type: "ping", Egress: &event.Egress{Type: "event"}},
			`{"type":"ping","payload":{},"metadata":{"id":"d","timestamp":"2026-01-02T03:04:05Z","source":"s","correlationId":"c"}}`},
		{"payload without text", event.Event{Source: "s", CorrelationID: "c", Type: "x", Payload: event.Raw(map[string]any{"a": 1})},
			`{"type":"chat.message.received","payload":{"a":1},"metadata":{"id":"d","timestamp":"2026-01-02T03:04:05Z","source":"s","correlationId":"c"}}`},
	} {
		got, err := answerFrame(&test.e, "d", at).encode()
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if diff := cmp.Diff(test.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestAnOverdueAnswerIsNotWritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	c := f.dial("1")
	in := incoming("a", "twitch:1", "", "late")
	in.Attributes[delivery.AttrDeadline] = testTime.Add(-time.Second).Format(time.RFC3339Nano)
	if err := f.Deliver(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if f.outcome(outcomeOverdue) != 1 || f.ledger.times("a") != 0 {
		t.Errorf("settled %v", f.ledger.settled)
	}
	if err := f.Deliver(t.Context(), incoming("b", "twitch:1", "", "in time")); err != nil {
		t.Fatal(err)
	}
	if r := c.next(); r.Metadata["id"] != "b" {
		t.Errorf("got %+v", r)
	}
}

func TestARedrivenAnswerIsWrittenAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	c := f.dial("1")
	for _, redrive := range []string{"", "", "1", "1"} {
		in := incoming("a", "twitch:1", "", "again")
		if redrive != "" {
			in.Attributes[deadletter.AttrRedrive] = redrive
		}
		if err := f.Deliver(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Deliver(t.Context(), incoming("b", "twitch:1", "", "next")); err != nil {
		t.Fatal(err)
	}
	var got []any
	for range 3 {
		got = append(got, c.next().Metadata["id"])
	}
	if fmt.Sprint(got) != "[a a b]" {
		t.Errorf("got %v; want each attempt once", got)
	}
}

// stall blocks the writer of a connection with a frame larger than the network's buffers, and queues a second frame. The
// client does not read.
func (f *fixture) stall(c *conn) {
	f.t.Helper()
	network := c.frames.Conn.(*written)
	if err := network.Conn.(*net.TCPConn).SetWriteBuffer(256 << 10); err != nil {
		f.t.Fatal(err)
	}
	push := func(text string) {
		f.t.Helper()
		filler, err := prepare(answerFrame(incoming("filler", "twitch:1", "", text).Event, "", testTime), "answer")
		if err != nil {
			f.t.Fatal(err)
		}
		if !c.push(filler) {
			f.t.Fatal("the queue is full")
		}
	}
	push(strings.Repeat("x", 8<<20))
	eventually(f.t, "it is being written", func() bool {
		c.queue.mu.Lock()
		defer c.queue.mu.Unlock()
		return len(c.queue.frames) == 0 && network.now.Load()
	})
	push("behind it")
}

func TestAQueuedFrameIsNotWrittenAfterItsDeadline(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.WriteTimeout, c.PingInterval, c.QueueBytes = time.Minute, time.Minute, 1<<30 })
	c := f.dial("1")
	f.stall(f.hub.receivers(nil, "twitch:1", "")[0])
	in := incoming("a", "twitch:1", "", "late")
	in.Attributes[delivery.AttrDeadline] = time.Now().Add(50 * time.Millisecond).Format(time.RFC3339Nano)
	delivered := make(chan error, 1)
	go func() { delivered <- f.Deliver(t.Context(), in) }()
	time.Sleep(100 * time.Millisecond) // the deadline passes while the frame is queued
	go func() {
		if err := f.Deliver(t.Context(), incoming("b", "twitch:1", "", "in time")); err != nil {
			t.Error(err)
		}
	}()
	for {
		id := c.next().Metadata["id"]
		if id == "a" {
			t.Fatal("written after its deadline")
		}
		if id == "b" {
			break
		}
	}
	if err := <-delivered; err != nil || f.ledger.times("a") != 0 {
		t.Errorf("Deliver = %v, settled %d times", err, f.ledger.times("a"))
	}
}

func TestAnOverdueAnswerIsNotSentToFurtherConnections(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	var ahead atomic.Int64
	f.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	early := f.dial("1")
	in := incoming("a", "twitch:1", "", "hi")
	in.Attributes[delivery.AttrDeadline] = time.Now().Add(time.Minute).Format(time.RFC3339Nano)
	f.ledger.set("", errors.New("store is down"))
	if err := f.Deliver(t.Context(), in); err == nil {
		t.Fatal("not settled, but no error")
	}
	ahead.Store(int64(2 * time.Minute))
	late := f.dial("1")
	f.ledger.set(delivery.Delivered, nil)
	if err := f.Deliver(t.Context(), in); err != nil { // a frame written in time is still recorded
		t.Fatal(err)
	}
	if r := early.next(); r.Metadata["id"] != "a" || f.ledger.times("a") != 2 {
		t.Errorf("got %+v, settled %d times", r, f.ledger.times("a"))
	}
	late.join("a") // the next frame
}

func TestDeliverDoesNotWaitForAConnectionFailingDuringClose(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.WriteTimeout, c.PingInterval, c.QueueBytes = time.Minute, time.Minute, 1<<30 })
	f.dial("1")
	c := f.hub.receivers(nil, "twitch:1", "")[0]
	f.stall(c)
	delivered := make(chan error, 1)
	go func() { delivered <- f.Deliver(t.Context(), incoming("a", "twitch:1", "", "hi")) }()
	eventually(t, "it waits", func() bool {
		_, unsettled := f.recent.counts()
		return unsettled == 1
	})
	c.end(CloseMaxAge) // the writer's current write fails after closeTimeout
	if err := <-delivered; err != nil || f.outcome(outcomeLost) != 1 {
		t.Errorf("Deliver = %v, lost %d; want it to be left to where the client comes back", err, f.outcome(outcomeLost))
	}
}
