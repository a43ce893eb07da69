package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

func connect(t *testing.T, env emulatortest.Env) *firestore.Client {
	t.Helper()
	client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func entry(id string) delivery.Entry {
	now := event.TruncateToMicros(time.Now())
	return delivery.Entry{ID: id, State: delivery.Pending, Destination: "api-gateway", Type: "chat", UserID: "twitch:1",
		CorrelationID: "c", Step: "s", CreatedAt: now, Deadline: now.Add(time.Minute), ExpireAt: now.Add(time.Hour)}
}

func TestEntryIsOpenedOnce(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l := delivery.NewLedger(connect(t, env), "one", time.Now)
		first := entry("d1")
		if _, opened, err := l.Open(t.Context(), first); err != nil || !opened {
			t.Fatalf("Open = %v, %v", opened, err)
		}
		second := entry("d1")
		second.UserID = "twitch:2"
		got, opened, err := l.Open(t.Context(), second)
		if err != nil || opened {
			t.Fatalf("second Open = %v, %v; want not opened", opened, err)
		}
		if got.UserID != "twitch:1" || got.State != delivery.Pending {
			t.Errorf("second Open found %+v; want the first entry", got)
		}
	})
}

func TestConcurrentMarkDeliveredSettlesOnce(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client := connect(t, env)
		e, _, err := delivery.NewLedger(client, "opener", time.Now).Open(t.Context(), entry("d1"))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				l := delivery.NewLedger(client, fmt.Sprintf("instance-%d", i), time.Now)
				if state, err := l.MarkDelivered(t.Context(), e.Ref()); err != nil || state != delivery.Delivered {
					t.Errorf("MarkDelivered = %q, %v", state, err)
				}
			})
		}
		wg.Wait()
		got, err := delivery.NewLedger(client, "reader", time.Now).Get(t.Context(), "d1")
		if err != nil {
			t.Fatal(err)
		}
		if got.State != delivery.Delivered || got.Instance == "" || got.SettledAt.IsZero() {
			t.Errorf("entry = %+v", got)
		}
		again, err := delivery.NewLedger(client, "late", time.Now).MarkDelivered(t.Context(), got.Ref())
		if err != nil || again != delivery.Delivered {
			t.Errorf("late MarkDelivered = %q, %v", again, err)
		}
		if after, _ := delivery.NewLedger(client, "reader", time.Now).Get(t.Context(), "d1"); after.Instance != got.Instance {
			t.Errorf("settled by %s, then by %s", got.Instance, after.Instance)
		}
	})
}

func TestMissingEntryIsErrNotFound(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l := delivery.NewLedger(connect(t, env), "one", time.Now)
		if _, err := l.Get(t.Context(), "nope"); !errors.Is(err, delivery.ErrNotFound) {
			t.Errorf("Get = %v; want ErrNotFound", err)
		}
		if _, err := l.MarkDelivered(t.Context(), delivery.Ref{ID: "nope"}); !errors.Is(err, delivery.ErrNotFound) {
			t.Errorf("MarkDelivered = %v; want ErrNotFound", err)
		}
	})
}

// publisher records the published messages, and fails a set number of times.
type publisher struct {
	mu   sync.Mutex
	fail int
	sent []bus.Outgoing
}

func (p *publisher) Publish(_ context.Context, t topology.Topic, out bus.Outgoing) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail > 0 {
		p.fail--
		return errors.New("bus is down")
	}
	p.sent = append(p.sent, out)
	return nil
}

func newAnswer(text string) *event.Event {
	return &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1", Channel: "lobby",
		Candidates: []event.Candidate{{ID: "a", Text: text}}}
}

func TestSendingAgainPublishesTheFirstAnswer(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{fail: 1}
		s := delivery.NewSender(delivery.NewLedger(connect(t, env), "one", time.Now), p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		if found, err := s.Resume(t.Context(), newAnswer(""), "personality"); err != nil || found {
			t.Fatalf("Resume before = %v, %v; want nothing", found, err)
		}
		if _, err := s.Send(t.Context(), newAnswer("first"), "personality"); err == nil {
			t.Fatal("the failure to publish was swallowed")
		}
		if found, err := s.Resume(t.Context(), newAnswer(""), "personality"); err != nil || !found {
			t.Fatalf("Resume = %v, %v; want found", found, err)
		}
		if _, err := s.Send(t.Context(), newAnswer("second"), "personality"); err != nil {
			t.Fatal(err)
		}
		if len(p.sent) != 2 {
			t.Fatalf("published %d times; want 2", len(p.sent))
		}
		for _, out := range p.sent {
			if got := answer.Text(out.Event); got != "first" {
				t.Errorf("published %q; want what was opened first", got)
			}
			ref, err := delivery.ParseRef(bus.Incoming{Event: out.Event, Attributes: out.Attributes})
			if err != nil || ref.ID != delivery.ID("c1", "personality") {
				t.Errorf("ParseRef = %+v, %v", ref, err)
			}
		}
	})
}

func TestSettledAnswersAreNotPublishedAgain(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{}
		l := delivery.NewLedger(connect(t, env), "one", time.Now)
		s := delivery.NewSender(l, p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		if _, err := s.Send(t.Context(), newAnswer("hi"), "personality"); err != nil {
			t.Fatal(err)
		}
		ref, err := delivery.ParseRef(bus.Incoming{Attributes: p.sent[0].Attributes})
		if err != nil {
			t.Fatal(err)
		}
		if state, err := l.MarkDelivered(t.Context(), ref); err != nil || state != delivery.Delivered {
			t.Fatalf("MarkDelivered = %q, %v", state, err)
		}
		if _, err := s.Send(t.Context(), newAnswer("hi"), "personality"); err != nil {
			t.Fatal(err)
		}
		if len(p.sent) != 1 {
			t.Errorf("published %d times; want once", len(p.sent))
		}
	})
}

func TestSendRefusesImpossibleAnswers(t *testing.T) {
	noRecipient := newAnswer("hi")
	noRecipient.UserID, noRecipient.Channel = "", ""
	nowhere := newAnswer("hi")
	nowhere.Source = "timer"
	tests := map[deadletter.Reason]*event.Event{
		deadletter.NoRecipient: noRecipient, deadletter.NoPlatform: nowhere, deadletter.NoText: newAnswer(""),
	}
	for want, e := range tests {
		t.Run(string(want), func(t *testing.T) {
			s := delivery.NewSender(nil, nil, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
			_, err := s.Send(t.Context(), e, "s")
			if d, ok := errors.AsType[*deadletter.Error](err); !ok || d.Reason != want {
				t.Errorf("Send = %v; want %s", err, want)
			}
		})
	}
}

func TestTimeToLiveShortensTheDeadline(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		now := event.TruncateToMicros(time.Now())
		l := delivery.NewLedger(connect(t, env), "one", time.Now)
		s := delivery.NewSender(l, &publisher{}, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, func() time.Time { return now })
		for ttl, want := range map[int]time.Duration{0: time.Minute, 10: 10 * time.Second, 600: time.Minute, 10_000_000_000: time.Minute, math.MaxInt: time.Minute} {
			e := newAnswer("hi")
			e.CorrelationID = fmt.Sprintf("ttl-%d", ttl)
			e.QoS = &event.QoS{TTL: ttl}
			id, err := s.Send(t.Context(), e, "s")
			if err != nil {
				t.Fatal(err)
			}
			got, err := l.Get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if d := got.Deadline.Sub(now); d != want {
				t.Errorf("ttl %d: deadline after %s; want %s", ttl, d, want)
			}
		}
	})
}

func TestDeliveryIDIsTheSameForTheSameAnswer(t *testing.T) {
	first := delivery.ID("c", "personality")
	if again := delivery.ID("c", "personality"); again != first {
		t.Errorf("the same answer is %s, then %s", first, again)
	}
	for _, other := range []string{delivery.ID("c", "rule:x"), delivery.ID("d", "personality")} {
		if other == first {
			t.Errorf("another answer is %s, too", other)
		}
	}
}
