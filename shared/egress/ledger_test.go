package egress_test

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
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/egress"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

func connect(t *testing.T, env emulatortest.Env) *firestore.Client {
	t.Helper()
	client, err := store.Connect(t.Context(), env.Deployment())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func entry(id string) egress.Entry {
	now := event.Now(time.Now())
	return egress.Entry{ID: id, State: egress.Pending, Destination: "api-gateway", Type: "chat", UserID: "twitch:1",
		CorrelationID: "c", Step: "s", CreatedAt: now, Deadline: now.Add(time.Minute), ExpireAt: now.Add(time.Hour)}
}

func TestAnEntryIsOpenedOnce(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l := egress.NewLedger(connect(t, env), "one", time.Now)
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
		if got.UserID != "twitch:1" || got.State != egress.Pending {
			t.Errorf("second Open found %+v; want the first entry", got)
		}
	})
}

func TestOfManyWhoSettleTheOutcomeIsOne(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client := connect(t, env)
		e, _, err := egress.NewLedger(client, "opener", time.Now).Open(t.Context(), entry("d1"))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				l := egress.NewLedger(client, fmt.Sprintf("instance-%d", i), time.Now)
				if state, err := l.Deliver(t.Context(), e.Ref()); err != nil || state != egress.Delivered {
					t.Errorf("Deliver = %q, %v", state, err)
				}
			})
		}
		wg.Wait()
		got, err := egress.NewLedger(client, "reader", time.Now).Get(t.Context(), "d1")
		if err != nil {
			t.Fatal(err)
		}
		if got.State != egress.Delivered || got.Instance == "" || got.SettledAt.IsZero() {
			t.Errorf("entry = %+v", got)
		}
		again, err := egress.NewLedger(client, "late", time.Now).Deliver(t.Context(), got.Ref())
		if err != nil || again != egress.Delivered {
			t.Errorf("late Deliver = %q, %v", again, err)
		}
		if after, _ := egress.NewLedger(client, "reader", time.Now).Get(t.Context(), "d1"); after.Instance != got.Instance {
			t.Errorf("settled by %s, then by %s", got.Instance, after.Instance)
		}
	})
}

func TestWhatIsNotInTheLedger(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l := egress.NewLedger(connect(t, env), "one", time.Now)
		if _, err := l.Get(t.Context(), "nope"); !errors.Is(err, egress.ErrNotFound) {
			t.Errorf("Get = %v; want ErrNotFound", err)
		}
		if _, err := l.Deliver(t.Context(), egress.Ref{ID: "nope"}); !errors.Is(err, egress.ErrNotFound) {
			t.Errorf("Deliver = %v; want ErrNotFound", err)
		}
	})
}

// publisher keeps what is published, and fails as often as it is told to.
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

func answer(text string) *event.Event {
	return &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1", Channel: "lobby",
		Candidates: []event.Candidate{{ID: "a", Text: text}}}
}

func TestSendingAgainPublishesWhatWasOpenedFirst(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{fail: 1}
		s := egress.NewSender(egress.NewLedger(connect(t, env), "one", time.Now), p, egress.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		if found, err := s.Resume(t.Context(), answer(""), "personality"); err != nil || found {
			t.Fatalf("Resume before = %v, %v; want nothing", found, err)
		}
		if _, err := s.Send(t.Context(), answer("first"), "personality"); err == nil {
			t.Fatal("the failure to publish was swallowed")
		}
		if found, err := s.Resume(t.Context(), answer(""), "personality"); err != nil || !found {
			t.Fatalf("Resume = %v, %v; want found", found, err)
		}
		if _, err := s.Send(t.Context(), answer("second"), "personality"); err != nil {
			t.Fatal(err)
		}
		if len(p.sent) != 2 {
			t.Fatalf("published %d times; want 2", len(p.sent))
		}
		for _, out := range p.sent {
			if got := egress.Text(out.Event); got != "first" {
				t.Errorf("published %q; want what was opened first", got)
			}
			ref, err := egress.Receive(bus.Incoming{Event: out.Event, Attributes: out.Attributes})
			if err != nil || ref.ID != egress.DeliveryID("c1", "personality") {
				t.Errorf("Receive = %+v, %v", ref, err)
			}
		}
	})
}

func TestSettledAnswersAreNotPublishedAgain(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{}
		l := egress.NewLedger(connect(t, env), "one", time.Now)
		s := egress.NewSender(l, p, egress.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		if _, err := s.Send(t.Context(), answer("hi"), "personality"); err != nil {
			t.Fatal(err)
		}
		ref, err := egress.Receive(bus.Incoming{Attributes: p.sent[0].Attributes})
		if err != nil {
			t.Fatal(err)
		}
		if state, err := l.Deliver(t.Context(), ref); err != nil || state != egress.Delivered {
			t.Fatalf("Deliver = %q, %v", state, err)
		}
		if _, err := s.Send(t.Context(), answer("hi"), "personality"); err != nil {
			t.Fatal(err)
		}
		if len(p.sent) != 1 {
			t.Errorf("published %d times; want once", len(p.sent))
		}
	})
}

func TestSendRefusesWhatCanNeverBeSent(t *testing.T) {
	nobody := answer("hi")
	nobody.UserID, nobody.Channel = "", ""
	nowhere := answer("hi")
	nowhere.Source = "timer"
	tests := map[deadletter.Reason]*event.Event{
		deadletter.NoRecipient: nobody, deadletter.NoPlatform: nowhere, deadletter.NoText: answer(""),
	}
	for want, e := range tests {
		t.Run(string(want), func(t *testing.T) {
			s := egress.NewSender(nil, nil, egress.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
			_, err := s.Send(t.Context(), e, "s")
			if d, ok := errors.AsType[*deadletter.Error](err); !ok || d.Reason != want {
				t.Errorf("Send = %v; want %s", err, want)
			}
		})
	}
}

func TestTheEventsOwnTimeToLiveShortensTheDeadline(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		now := event.Now(time.Now())
		l := egress.NewLedger(connect(t, env), "one", time.Now)
		s := egress.NewSender(l, &publisher{}, egress.Config{Deadline: time.Minute, Retention: time.Hour}, func() time.Time { return now })
		for ttl, want := range map[int]time.Duration{0: time.Minute, 10: 10 * time.Second, 600: time.Minute, 10_000_000_000: time.Minute, math.MaxInt: time.Minute} {
			e := answer("hi")
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
