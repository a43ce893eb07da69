package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// system is a deployment with its topics and a client.
type system struct {
	*bus.Client
	admin   *pubsub.Client
	project string
	prefix  topology.Prefix
}

func open(t *testing.T, env emulatortest.Env, prefix string) *system {
	t.Helper()
	p, err := topology.ParsePrefix(prefix)
	if err != nil {
		t.Fatal(err)
	}
	d := env.Deployment()
	d.Prefix = p
	admin, err := pubsub.NewClient(t.Context(), env.Project, env.PubSubOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	for _, topic := range topology.Topics() {
		if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: p.Topic(env.Project, topic).String()}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := bus.Open(t.Context(), d, "tester", slog.New(slog.DiscardHandler), env.PubSubOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &system{c, admin, env.Project, p}
}

// watch receives all later messages of a topic.
func (s *system) watch(t *testing.T, topic topology.Topic) <-chan *pubsub.Message {
	t.Helper()
	name := s.prefix.Subscription(s.project, "watch-"+string(topic)).String()
	_, err := s.admin.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: name, Topic: s.prefix.Topic(s.project, topic).String(), EnableMessageOrdering: true, AckDeadlineSeconds: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *pubsub.Message, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.admin.Subscriber(name).Receive(ctx, func(_ context.Context, m *pubsub.Message) { m.Ack(); ch <- m })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return ch
}

func next(t *testing.T, ch <-chan *pubsub.Message) *pubsub.Message {
	t.Helper()
	select {
	case m := <-ch:
		return m
	case <-time.After(time.Minute):
		t.Fatal("no message")
		return nil
	}
}

func said(id string) *event.Event {
	return &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: id, Type: event.TypeChatMessage, Channel: "lobby", UserID: "twitch:1",
		RoutingSlip: []event.Step{{ID: "personality", Status: event.StepPending}}}
}

func TestPublishedEventCarriesItsAttributesAndTrace(t *testing.T) {
	for _, prefix := range []string{"", "staging."} {
		emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
			s := open(t, env, prefix)
			ch := s.watch(t, topology.Ingress)
			ctx, traceID := telemetry.StartTrace(t.Context())
			if err := s.Publish(ctx, topology.Ingress, bus.Outgoing{Event: said("c1"), Attributes: map[string]string{bus.AttrRoute: bus.RouteBroadcast}}); err != nil {
				t.Fatal(err)
			}
			m := next(t, ch)
			for name, want := range map[string]string{
				"type": "chat.message", "correlationId": "c1", "idempotencyKey": "c1", "source": "api-gateway", "channel": "lobby", "route": "broadcast", "next": "personality",
			} {
				if m.Attributes[name] != want {
					t.Errorf("attribute %s = %q; want %q", name, m.Attributes[name], want)
				}
			}
			for _, absent := range []string{"instance", "traceId"} {
				if v, ok := m.Attributes[absent]; ok {
					t.Errorf("attribute %s = %q without a value", absent, v)
				}
			}
			if !strings.Contains(m.Attributes["traceparent"], traceID) {
				t.Errorf("traceparent = %q; want trace %s", m.Attributes["traceparent"], traceID)
			}
			if m.OrderingKey != "lobby|twitch:1" {
				t.Errorf("ordering key %q", m.OrderingKey)
			}
		})
	}
}

func TestPublishRefusesAnInvalidEvent(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		if err := s.Publish(t.Context(), topology.Ingress, bus.Outgoing{Event: &event.Event{}}); !errors.Is(err, event.ErrInvalid) {
			t.Errorf("Publish = %v; want ErrInvalid", err)
		}
	})
}

func TestMessagesOfOneKeyKeepTheirOrder(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		ch := s.watch(t, topology.Ingress)
		const n = 100
		for i := range n {
			if err := s.Publish(t.Context(), topology.Ingress, bus.Outgoing{Event: said(fmt.Sprint(i))}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			if got := next(t, ch).Attributes["correlationId"]; got != fmt.Sprint(i) {
				t.Fatalf("message %d is %s", i, got)
			}
		}
	})
}

func TestEveryInstanceReceivesBroadcasts(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		var mu sync.Mutex
		got := map[string][]string{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		for _, id := range []string{"a", "b"} {
			sub, err := s.Subscribe(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				err := sub.Receive(ctx, func(_ context.Context, in bus.Incoming) error {
					mu.Lock()
					defer mu.Unlock()
					got[id] = append(got[id], in.Event.CorrelationID)
					if len(got["a"])+len(got["b"]) == 2 {
						cancel()
					}
					return nil
				})
				if err != nil {
					t.Errorf("Receive: %v", err)
				}
				if err := sub.Delete(context.WithoutCancel(ctx)); err != nil {
					t.Errorf("Delete: %v", err)
				}
				if err := sub.Delete(context.WithoutCancel(ctx)); err != nil {
					t.Errorf("second Delete: %v", err)
				}
			})
		}
		if err := s.Publish(t.Context(), topology.Egress, bus.Outgoing{Event: said("c1"), Attributes: map[string]string{bus.AttrRoute: bus.RouteBroadcast}}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if !slices.Equal(got["a"], []string{"c1"}) || !slices.Equal(got["b"], []string{"c1"}) {
			t.Errorf("received %v; want c1 on each", got)
		}
	})
}

func TestInstanceIDWithFilterSyntaxIsRefused(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		if _, err := open(t, env, "").Subscribe(t.Context(), `x" OR attributes:type`); err == nil {
			t.Error("Subscribe accepted the id")
		}
	})
}

// pushed makes the message of a push.
func pushed(data []byte, attributes map[string]string) bus.Message {
	return bus.Message{Topic: topology.Ingress, ID: "m1", Data: data, Attributes: attributes, Published: time.Now()}
}

func TestHandlersResultDecidesTheAcknowledgement(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		ch := s.watch(t, topology.DeadLetter)
		data, err := event.Encode(said("c1"))
		if err != nil {
			t.Fatal(err)
		}
		attributes := map[string]string{"correlationId": "c1", "type": "chat.message"}

		if err := s.Handle(t.Context(), pushed(data, attributes), func(context.Context, bus.Incoming) error { return nil }); err != nil {
			t.Errorf("nil: %v; want an acknowledgement", err)
		}
		boom := errors.New("try again")
		if err := s.Handle(t.Context(), pushed(data, attributes), func(context.Context, bus.Incoming) error { return boom }); !errors.Is(err, boom) {
			t.Errorf("an error: %v; want the same error, so that the message is delivered again", err)
		}
		refuse := func(context.Context, bus.Incoming) error {
			return fmt.Errorf("answer: %w", deadletter.New(deadletter.ModelRefused, errors.New("blocked")))
		}
		if err := s.Handle(t.Context(), pushed(data, attributes), refuse); err != nil {
			t.Errorf("a dead letter: %v; want an acknowledgement", err)
		}
		m := next(t, ch)
		a, original := deadletter.ParseAnnouncement(m.Attributes, m.ID)
		if a.Reason != deadletter.ModelRefused || a.Message != "blocked" || a.Source != "tester" || string(m.Data) != string(data) || original["type"] != "chat.message" {
			t.Errorf("announced %+v with %q", a, m.Data)
		}
	})
}

// The id of a dead letter is made from the event and the part, or set by the error. A redriven message keeps the id.
func TestIDsOfDeadLetters(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		ch := s.watch(t, topology.DeadLetter)
		data, err := event.Encode(said("c1"))
		if err != nil {
			t.Fatal(err)
		}
		own := deadletter.New(deadletter.Forbidden, errors.New("no role"))
		hourly := deadletter.Hourly(deadletter.Forbidden, errors.New("no role"), "twitch:1", time.Now())
		redriven := deadletter.MarkRedriven(map[string]string{"type": "chat.message"}, "earlier", 1)
		for _, tt := range []struct {
			name       string
			data       []byte
			attributes map[string]string
			why        *deadletter.Error
			want       string
		}{
			{"of the event", data, nil, own, digest.Of("c1", "tester")},
			{"of the hour", data, nil, hourly, hourly.ID},
			{"of the event, redriven", data, redriven, own, "earlier"},
			{"of the hour, redriven", data, redriven, hourly, "earlier"},
			{"no event", []byte("poison"), nil, nil, digest.Of(string(topology.Ingress), "m1")},
			{"no event, redriven", []byte("poison"), redriven, nil, "earlier"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				if err := s.Handle(t.Context(), pushed(tt.data, tt.attributes), func(context.Context, bus.Incoming) error { return tt.why }); err != nil {
					t.Fatal(err)
				}
				m := next(t, ch)
				if a, _ := deadletter.ParseAnnouncement(m.Attributes, m.ID); a.ID != tt.want || (a.Redrive == 1) != (tt.attributes != nil) {
					t.Errorf("announced %+v; want the id %s", a, tt.want)
				}
			})
		}
	})
}

func TestEventIsDeadLetteredInPlaceOfPublishing(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		ingress, dead := s.watch(t, topology.Ingress), s.watch(t, topology.DeadLetter)
		why := deadletter.Hourly(deadletter.Forbidden, errors.New("no role"), "twitch:1", time.Now())
		if err := s.DeadLetter(t.Context(), topology.Ingress, bus.Outgoing{Event: said("c1")}, why); err != nil {
			t.Fatal(err)
		}
		m := next(t, dead)
		a, attributes := deadletter.ParseAnnouncement(m.Attributes, m.ID)
		if a.ID != why.ID || a.Reason != deadletter.Forbidden || a.Message != "no role" || a.Source != "tester" || a.Topic != string(topology.Ingress) {
			t.Errorf("announced %+v", a)
		}
		if e, err := event.Decode(m.Data); err != nil || e.CorrelationID != "c1" {
			t.Errorf("event %+v, %v", e, err)
		}
		// a redrive publishes the attributes again
		if attributes["idempotencyKey"] != "c1" || attributes["type"] != "chat.message" || attributes["channel"] != "lobby" {
			t.Errorf("attributes %v", attributes)
		}
		if err := s.DeadLetter(t.Context(), topology.Ingress, bus.Outgoing{Event: &event.Event{}}, why); !errors.Is(err, event.ErrInvalid) {
			t.Errorf("an invalid event: %v; want ErrInvalid", err)
		}
		select {
		case m := <-ingress:
			t.Errorf("published %s", m.Data)
		default:
		}
	})
}

func TestInvalidEventIsDeadLetteredUnchanged(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		ch := s.watch(t, topology.DeadLetter)
		never := func(context.Context, bus.Incoming) error { t.Error("the handler was called"); return nil }
		ids := map[string]bool{}
		for i, poison := range []string{"not JSON", "\xff\xfe", `{"type":"t"}`, strings.Repeat("[", 1000), strings.Repeat("x", event.MaxSize+1)} {
			if err := s.Handle(t.Context(), pushed([]byte(poison), nil), never); err != nil {
				t.Fatalf("poison %d: %v; want an acknowledgement", i, err)
			}
			m := next(t, ch)
			a, _ := deadletter.ParseAnnouncement(m.Attributes, m.ID)
			if a.Reason != deadletter.InvalidEvent || a.Message == "" || string(m.Data) != poison {
				t.Errorf("poison %d: announced %+v with %d bytes", i, a, len(m.Data))
			}
			ids[a.ID] = true
		}
		if len(ids) != 1 { // all five have the message id m1
			t.Errorf("%d dead letters for one message id", len(ids))
		}
	})
}

// The limit of a message is 10 MB with its attributes, and a dead letter has more attributes than its message.
func TestTooLargeMessageIsDeadLetteredAtOnce(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		ch := s.watch(t, topology.DeadLetter)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // less than the time of all retries
		defer cancel()
		huge := []byte(strings.Repeat("x", 10_000_000-200))
		if err := s.Handle(ctx, pushed(huge, nil), nil); err != nil {
			t.Fatalf("poison of %d bytes: %v; want an acknowledgement", len(huge), err)
		}
		m := next(t, ch)
		a, _ := deadletter.ParseAnnouncement(m.Attributes, m.ID)
		if a.Reason != deadletter.InvalidEvent || !strings.Contains(a.Message, "of 9999800 bytes") || len(m.Data) < 9_000_000 {
			t.Errorf("announced %+v with %d bytes", a, len(m.Data))
		}

		err := s.Republish(ctx, topology.Ingress, append(huge, huge...), nil)
		if d, ok := errors.AsType[*deadletter.Error](err); !ok || d.Reason != deadletter.InvalidEvent || !errors.Is(err, event.ErrInvalid) || ctx.Err() != nil {
			t.Errorf("Republish = %v; want a refusal at once", err)
		}
	})
}

func TestDeferredMessageIsAcknowledgedAfterItsOutcome(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		sub, err := s.Subscribe(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"c1", "c2"} { // of one ordering key
			out := bus.Outgoing{Event: said(id), Attributes: map[string]string{bus.AttrRoute: bus.RouteBroadcast}}
			if err := s.Publish(t.Context(), topology.Egress, out); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		times := map[string]int{}
		var first func(error)
		again := make(chan struct{})
		err = sub.Receive(ctx, func(_ context.Context, in bus.Incoming) error {
			mu.Lock()
			defer mu.Unlock()
			id := in.Event.CorrelationID
			times[id]++
			switch {
			case id == "c1" && times[id] == 1:
				var ok bool
				if first, ok = in.SettleLater(); !ok {
					t.Error("a pulled message can't be deferred")
				}
			case id == "c2" && times[id] == 1: // delivered although c1 has no outcome yet
				go first(errors.New("could not be stored"))
			case id == "c1":
				finish, _ := in.SettleLater()
				cancel() // Receive still waits for the outcome
				go func() {
					finish(nil)
					close(again)
				}()
			}
			return nil
		})
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		select {
		case <-again:
		default:
			t.Error("Receive returned before the deferred outcome")
		}
		if times["c1"] != 2 {
			t.Errorf("c1 was handled %d times; want a redelivery after the failed outcome", times["c1"])
		}
	})
}

func TestPushedMessageIsNotDeferred(t *testing.T) {
	emulatortest.PubSub(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env, "")
		data, err := event.Encode(said("c1"))
		if err != nil {
			t.Fatal(err)
		}
		err = s.Handle(t.Context(), pushed(data, nil), func(_ context.Context, in bus.Incoming) error {
			if _, ok := in.SettleLater(); ok {
				t.Error("SettleLater is ok for a push, although the response is the acknowledgement")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
