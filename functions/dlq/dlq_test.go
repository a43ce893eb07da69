package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/dlq"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/redrive"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

type system struct {
	*dlq.Function
	client  *firestore.Client
	letters *deadletter.Store
	ledger  *delivery.Ledger
	bus     *recorder
	log     *bytes.Buffer
	now     time.Time
}

func open(t *testing.T, env emulatortest.Env) *system {
	t.Helper()
	s := &system{now: time.Now(), log: &bytes.Buffer{}, bus: &recorder{}}
	clock := func() time.Time { return s.now }
	c := dlq.Config{Deployment: env.Deployment(), SweepBudget: time.Minute, SweepGrace: time.Second, Egress: delivery.Config{Deadline: 2 * time.Minute, Retention: 72 * time.Hour}}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	var err error
	if s.client, err = store.Connect(t.Context(), c.Deployment, env.FirestoreOption(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.client.Close() })
	admin, err := pubsub.NewClient(t.Context(), env.Project, env.PubSubOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	for _, topic := range topology.Topics() {
		if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: c.Prefix.Topic(env.Project, topic).String()}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := bus.Open(t.Context(), c.Deployment, "sweep", slog.New(slog.DiscardHandler), env.PubSubOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s.letters = deadletter.NewStore(s.client, clock)
	s.ledger = delivery.NewLedger(s.client, "sweep", clock)
	s.Function = dlq.New(dlq.Deps{
		Config: c, Letters: s.letters, Reaper: delivery.NewReaper(s.ledger, s.letters, b, "sweep", c.SweepGrace),
		Redriver: redrive.New(s.client, s.letters, s.ledger, delivery.NewSender(s.ledger, s.bus, c.Egress, clock), b, c.Egress),
		Sender:   delivery.NewSender(s.ledger, s.bus, c.Egress, clock), Bus: s.bus, Log: log,
	})
	s.bus.keep = s.Keep
	return s
}

func TestMessageIsStoredAndLoggedOnce(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 2<<20)
	tests := []struct {
		name string
		in   bus.Message
		want deadletter.DeadLetter
	}{
		{
			"a part's decision",
			bus.Message{ID: "m1", Data: []byte(`{"v":"2","source":"s","correlationId":"c1","type":"chat.message"}`), Attributes: deadletter.Announcement{
				ID: "d1", Reason: deadletter.ModelRefused, Message: "blocked", Source: "personality", Topic: "internal.user.enriched.v1",
			}.Attributes(map[string]string{"correlationId": "c1"})},
			deadletter.DeadLetter{ID: "d1", Reason: deadletter.ModelRefused, Message: "blocked", Source: "personality", CorrelationID: "c1", Topic: "internal.user.enriched.v1"},
		},
		{
			"poison, longer than a document",
			bus.Message{ID: "m2", Data: long, Attributes: deadletter.Announcement{ID: "d2", Reason: deadletter.InvalidEvent, Source: "enrichment"}.Attributes(nil)},
			deadletter.DeadLetter{ID: "d2", Reason: deadletter.InvalidEvent, Source: "enrichment"},
		},
		{
			"what Pub/Sub gave up",
			bus.Message{ID: "m3", Data: []byte("\xff"), Attributes: map[string]string{
				"CloudPubSubDeadLetterSourceSubscription": "personality", "CloudPubSubDeadLetterSourceDeliveryCount": "10", "correlationId": "c3",
			}},
			deadletter.DeadLetter{ID: digest.Of("message", "m3"), Reason: deadletter.Exhausted, Source: "personality", CorrelationID: "c3", Topic: "internal.user.enriched.v1"},
		},
	}
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		for _, tt := range tests {
			s.log.Reset()
			for range 2 {
				if err := s.Keep(t.Context(), tt.in); err != nil {
					t.Fatalf("%s: %v", tt.name, err)
				}
			}
			if n := strings.Count(s.log.String(), "level=ERROR"); n != 1 || !strings.Contains(s.log.String(), string(tt.want.Reason)) {
				t.Errorf("%s: %d error lines: %s", tt.name, n, s.log)
			}
			got, err := s.letters.Get(t.Context(), tt.want.ID)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if got.Reason != tt.want.Reason || got.Message != tt.want.Message || got.Source != tt.want.Source || got.CorrelationID != tt.want.CorrelationID || got.Topic != tt.want.Topic || got.Attempts != 1 {
				t.Errorf("%s: kept %+v; want %+v", tt.name, got, tt.want)
			}
			if !bytes.Equal(got.Data, tt.in.Data) {
				t.Errorf("%s: kept %d bytes of %d", tt.name, len(got.Data), len(tt.in.Data))
			}
		}
	})
}

// forwarded returns an event as Pub/Sub forwards it after too many attempts.
func forwarded(t *testing.T, id, subscription string, attributes map[string]string) bus.Message {
	t.Helper()
	data, err := event.Encode(&event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c", Type: event.TypeChatMessage})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"CloudPubSubDeadLetterSourceSubscription": subscription, "CloudPubSubDeadLetterSourceDeliveryCount": "10", "correlationId": "c"}
	maps.Copy(all, attributes)
	return bus.Message{ID: id, Data: data, Attributes: all}
}

func TestDeliveryForwardedByPubSubIsOneDeadLetter(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		in := forwarded(t, "m1", "whisper", map[string]string{delivery.AttrDelivery: "d1"})
		_, _, err := s.ledger.Open(t.Context(), delivery.Entry{ID: "d1", State: delivery.Pending, CorrelationID: "c", Deadline: s.now.Add(time.Minute), Event: in.Data})
		if err != nil {
			t.Fatal(err)
		}
		letters := func() (all []deadletter.DeadLetter) {
			if err := s.letters.List(t.Context(), deadletter.Filter{}, func(l deadletter.DeadLetter) error { all = append(all, l); return nil }); err != nil {
				t.Fatal(err)
			}
			return all
		}
		for range 2 {
			if err := s.Keep(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		s.now = s.now.Add(2 * time.Minute)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if all := letters(); len(all) != 1 || all[0].ID != "d1" || !all[0].Delivery || all[0].Reason != deadletter.Exhausted {
			t.Fatalf("%d dead letters: %+v", len(all), all)
		}

		// the old message does not change a redriven entry
		err = s.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			mark, n, err := s.letters.MarkRedrivingTx(tx, "d1", "olga")
			if err != nil {
				return err
			}
			reopen, err := s.ledger.ReopenTx(tx, "d1", n, delivery.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return errors.Join(mark(), reopen())
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Keep(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if e, err := s.ledger.Get(t.Context(), "d1"); err != nil || e.State != delivery.Pending {
			t.Errorf("the redriven entry is %q, %v", e.State, err)
		}

		// without a ledger entry, the message becomes a dead letter of its own
		if err := s.Keep(t.Context(), forwarded(t, "m2", "whisper", map[string]string{delivery.AttrDelivery: "d2"})); err != nil {
			t.Fatal(err)
		}
		if all := letters(); len(all) != 2 {
			t.Errorf("%d dead letters; want that of the unknown delivery, too", len(all))
		}
	})
}

// markRedriving records a redrive of a dead letter.
func (s *system) markRedriving(t *testing.T, id string) error {
	return s.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
		mark, _, err := s.letters.MarkRedrivingTx(tx, id, "olga")
		if err != nil {
			return err
		}
		return mark()
	})
}

func TestRepeatedFailureIsAnotherAttemptOfTheDeadLetter(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		id := digest.Of("c", "personality") // the id of the function's own dead letter
		if err := s.Keep(t.Context(), forwarded(t, "m1", "personality", nil)); err != nil {
			t.Fatal(err)
		}
		if err := s.markRedriving(t, id); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Keep(t.Context(), forwarded(t, "m2", "personality", map[string]string{deadletter.AttrRedrive: "1"})); err != nil {
				t.Fatal(err)
			}
		}
		if l, err := s.letters.Get(t.Context(), id); err != nil || l.Attempts != 2 || l.Status != deadletter.Open || l.Topic != string(topology.Enriched) {
			t.Errorf("dead letter = %+v, %v", l, err)
		}
	})
}

// A sender can repeat some failures at will: 100 of them make one document and one line in the log.
func TestHourlyFailuresAreOneDeadLetter(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		why := deadletter.Hourly(deadletter.Forbidden, errors.New("no role"), "twitch:1", s.now)
		keep := func(message string, attributes map[string]string) {
			t.Helper()
			m := bus.Message{ID: message, Data: []byte(message), Attributes: deadletter.Announcement{
				ID: why.ID, Reason: why.Reason, Message: why.Err.Error(), Source: "enrichment", Topic: string(topology.Ingress),
			}.Attributes(attributes)}
			if err := s.Keep(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 100 {
			keep(fmt.Sprint("m", n), nil)
		}
		all := s.allLetters(t)
		if len(all) != 1 || string(all[0].Data) != "m0" || all[0].Attempts != 1 || all[0].Status != deadletter.Open {
			t.Fatalf("dead letters %+v; want one, of the first", all)
		}
		if n := strings.Count(s.log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d error lines; want 1", n)
		}

		// redriven and refused again: another attempt of the dead letter; further failures of the hour change nothing
		if err := s.markRedriving(t, why.ID); err != nil {
			t.Fatal(err)
		}
		keep("m100", nil)
		keep("m0", deadletter.MarkRedriven(nil, why.ID, 1))
		keep("m101", nil)
		all = s.allLetters(t)
		if len(all) != 1 || string(all[0].Data) != "m0" || all[0].Attempts != 2 || all[0].Status != deadletter.Open {
			t.Errorf("dead letters %+v; want another attempt of the first", all)
		}
	})
}

// A redriven message that fails again is another attempt of its dead letter, whatever the first failure was.
func TestRedrivenMessageKeepsItsDeadLetter(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(s *system, m bus.Message) error
	}{
		{"forwarded by Pub/Sub", func(s *system, m bus.Message) error {
			m.Attributes["CloudPubSubDeadLetterSourceSubscription"] = "personality"
			return s.Keep(t.Context(), m)
		}},
		{"a notice that is no event", func(s *system, m bus.Message) error { return s.SendNotice(t.Context(), m) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
				s := open(t, env)
				l := deadletter.DeadLetter{ID: "p1", Reason: deadletter.InvalidEvent, Topic: string(topology.Egress), Data: []byte("not JSON")}
				if _, err := s.letters.Put(t.Context(), l, 0); err != nil {
					t.Fatal(err)
				}
				if err := s.markRedriving(t, l.ID); err != nil {
					t.Fatal(err)
				}
				if err := tt.fail(s, noticeMessage("m2", l.Data, deadletter.MarkRedriven(nil, l.ID, 1))); err != nil {
					t.Fatal(err)
				}
				if all := s.allLetters(t); len(all) != 1 || all[0].ID != "p1" || all[0].Attempts != 2 || all[0].Status != deadletter.Open {
					t.Errorf("dead letters %+v; want a second attempt of p1", all)
				}
			})
		})
	}
}

func TestDisconnectedUserIsOneDeadLetterAfterTheDeadline(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		data, err := event.Encode(&event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c", Type: event.TypeChatMessage})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.ledger.Open(t.Context(), delivery.Entry{ID: "d1", State: delivery.Pending, CorrelationID: "c", Deadline: s.now.Add(time.Minute), Event: data})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.letters.Get(t.Context(), "d1"); !errors.Is(err, deadletter.ErrNotFound) {
			t.Errorf("before the deadline: %v", err)
		}
		s.now = s.now.Add(62 * time.Second)
		for range 2 {
			if err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		l, err := s.letters.Get(t.Context(), "d1")
		if err != nil || l.Reason != deadletter.NoConnection || l.Attempts != 1 || !l.Delivery {
			t.Errorf("dead letter = %+v, %v", l, err)
		}
	})
}

func TestSweepFinishesAnInterruptedRedrive(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		l := deadletter.DeadLetter{ID: "d1", Reason: deadletter.ModelFailed, Topic: string(topology.Enriched), Data: []byte("{}")}
		if _, err := s.letters.Put(t.Context(), l, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.markRedriving(t, "d1"); err != nil {
			t.Fatal(err)
		}
		for _, want := range []deadletter.Status{deadletter.Redriving, deadletter.Redriven} {
			if err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if l, err := s.letters.Get(t.Context(), "d1"); err != nil || l.Status != want {
				t.Errorf("dead letter is %q, %v; want %q", l.Status, err, want)
			}
			s.now = s.now.Add(2 * time.Minute)
		}
	})
}

func TestTopicDecidesTheAction(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		handle, err := dlq.Build(t.Context(), []string{"GOOGLE_CLOUD_PROJECT=" + env.Project})
		if err != nil {
			t.Fatal(err)
		}
		push := func(topic topology.Topic, data string) bus.Message {
			return bus.Message{Topic: topic, ID: "m1", Data: []byte(data)}
		}
		if err := handle(t.Context(), push(topology.Sweep, "{}")); err != nil {
			t.Errorf("sweep: %v", err)
		}
		broken := map[string]any{"state": "pending", "shard": 0, "deadline": s.now.Add(-time.Hour), "attempt": "two"}
		if _, err := s.client.Collection("deliveries").Doc("broken").Set(t.Context(), broken); err != nil {
			t.Fatal(err)
		}
		if err := handle(t.Context(), push(topology.Sweep, "{}")); err != nil {
			t.Errorf("a failed sweep causes a redelivery of its tick: %v", err)
		}
		if err := handle(t.Context(), push(topology.DeadLetter, "poison")); err != nil {
			t.Errorf("dead letter: %v", err)
		}
		if l, err := s.letters.Get(t.Context(), digest.Of("message", "m1")); err != nil || string(l.Data) != "poison" {
			t.Errorf("kept %+v, %v", l, err)
		}
	}, emulatortest.InEnvironment)
}

func TestGraceBelowOneSecondIsRefused(t *testing.T) {
	for value, want := range map[string]bool{"0s": false, "-1s": false, "999ms": false, "1s": true} {
		_, err := config.Load[dlq.Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "SWEEP_GRACE=" + value})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "SWEEP_GRACE: ") {
			t.Errorf("%s: %v", value, err)
		}
	}
}
