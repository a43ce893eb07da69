package redrive_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/redrive"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

type system struct {
	client    *firestore.Client
	letters   *deadletter.Store
	ledger    *delivery.Ledger
	sender    *delivery.Sender
	reaper    *delivery.Reaper
	redriver  *redrive.Redriver
	published map[topology.Topic]chan *pubsub.Message
	addTopic  func(topology.Topic)
	later     time.Duration // how far the clock of the dead letters is ahead
}

func open(t *testing.T, env emulatortest.Env) *system {
	t.Helper()
	d := env.Deployment()
	client, err := store.Connect(t.Context(), d, env.FirestoreOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	admin, err := pubsub.NewClient(t.Context(), env.Project, env.PubSubOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	s := &system{client: client, published: map[topology.Topic]chan *pubsub.Message{}}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s.addTopic = func(topic topology.Topic) {
		name := d.Prefix.Topic(env.Project, topic).String()
		if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: name}); err != nil {
			t.Fatal(err)
		}
		sub := d.Prefix.Subscription(env.Project, "watch-"+string(topic)).String()
		if _, err := admin.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: sub, Topic: name, AckDeadlineSeconds: 10}); err != nil {
			t.Fatal(err)
		}
		ch, done := make(chan *pubsub.Message, 100), make(chan struct{})
		s.published[topic] = ch
		go func() {
			defer close(done)
			admin.Subscriber(sub).Receive(ctx, func(_ context.Context, m *pubsub.Message) { m.Ack(); ch <- m })
		}()
		t.Cleanup(func() { cancel(); <-done })
	}
	for _, topic := range topology.Topics() {
		s.addTopic(topic)
	}
	b, err := bus.Open(t.Context(), d, "tester", slog.New(slog.DiscardHandler), env.PubSubOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	c := delivery.Config{Deadline: time.Minute, Retention: time.Hour}
	s.letters = deadletter.NewStore(client, func() time.Time { return time.Now().Add(s.later) })
	s.ledger = delivery.NewLedger(client, "tester", time.Now)
	s.sender = delivery.NewSender(s.ledger, b, c, time.Now)
	s.reaper = delivery.NewReaper(s.ledger, s.letters, b, "tester", time.Second)
	s.redriver = redrive.New(client, s.letters, s.ledger, s.sender, b, c)
	return s
}

func (s *system) next(t *testing.T, topic topology.Topic) *pubsub.Message {
	t.Helper()
	select {
	case m := <-s.published[topic]:
		return m
	case <-time.After(time.Minute):
		t.Fatalf("nothing came on %s", topic)
		return nil
	}
}

func (s *system) run(t *testing.T, o redrive.Options) map[string]error {
	t.Helper()
	o.PerSecond = 1000
	got := map[string]error{}
	if err := s.redriver.Run(t.Context(), o, func(r redrive.Result) { got[r.Letter.ID] = r.Err }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDeliveryIsRedrivenOncePerDecision(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		e := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1", Candidates: []event.Candidate{{ID: "a", Text: "hi"}}}
		id, err := s.sender.Send(t.Context(), e, "personality")
		if err != nil {
			t.Fatal(err)
		}
		s.next(t, topology.Egress)
		why := deadletter.New(deadletter.NoConnection, errors.New("no connection"))
		if _, err := s.reaper.MarkDead(t.Context(), id, 0, why); err != nil {
			t.Fatal(err)
		}

		sel := deadletter.Filter{Reason: deadletter.NoConnection, From: time.Now().Add(-time.Minute), Until: time.Now().Add(time.Minute)}
		if got := s.run(t, redrive.Options{Selection: sel, By: "olga", DryRun: true}); len(got) != 1 || got[id] != nil {
			t.Errorf("dry run = %v", got)
		}
		if e, _ := s.ledger.Get(t.Context(), id); e.State != delivery.Dead {
			t.Fatalf("the dry run made it %q", e.State)
		}
		if got := s.run(t, redrive.Options{Selection: sel, By: "olga"}); len(got) != 1 || got[id] != nil {
			t.Fatalf("redrive = %v", got)
		}
		m := s.next(t, topology.Egress)
		ref, err := delivery.ParseRef(bus.Incoming{Attributes: m.Attributes})
		if err != nil || ref.ID != id || ref.RedriveCount != 1 {
			t.Errorf("published %+v, %v", ref, err)
		}
		if got := s.run(t, redrive.Options{Selection: sel, By: "olga"}); len(got) != 0 {
			t.Errorf("by reason again = %v; want nothing open", got)
		}
		byID := deadletter.Filter{IDs: []string{id}}
		if got := s.run(t, redrive.Options{Selection: byID, By: "olga"}); !errors.Is(got[id], deadletter.ErrNotOpen) {
			t.Errorf("by id again = %v; want ErrNotOpen", got)
		}

		// a further failure is another attempt of the same dead letter
		if state, err := s.reaper.MarkDead(t.Context(), id, ref.RedriveCount, why); err != nil || state != delivery.Dead {
			t.Fatalf("MarkDead = %q, %v", state, err)
		}
		l, err := s.letters.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if l.Status != deadletter.Open || l.Attempts != 2 || len(l.Redrives) != 1 || l.Redrives[0].By != "olga" || l.Redrives[0].At.IsZero() {
			t.Errorf("dead letter = %+v", l)
		}

		// and in the end it is delivered
		if got := s.run(t, redrive.Options{Selection: byID, By: "olga"}); got[id] != nil {
			t.Fatal(got)
		}
		ref, err = delivery.ParseRef(bus.Incoming{Attributes: s.next(t, topology.Egress).Attributes})
		if err != nil || ref.RedriveCount != 2 {
			t.Errorf("published %+v, %v", ref, err)
		}
		if state, err := s.ledger.MarkDelivered(t.Context(), ref); err != nil || state != delivery.Delivered {
			t.Errorf("Deliver = %q, %v", state, err)
		}
	})
}

func TestUnfinishedRedriveDoesNotReopenAClaimedAnswer(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		e := &event.Event{V: event.Version, Source: "twitch", CorrelationID: "c1", Type: event.TypeChatMessage, Channel: "twitch:parley", Candidates: []event.Candidate{{ID: "a", Text: "hi"}}}
		id, err := s.sender.Send(t.Context(), e, "personality")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.reaper.MarkDead(t.Context(), id, 0, deadletter.New(deadletter.OutcomeUnknown, errors.New("died"))); err != nil {
			t.Fatal(err)
		}
		// the first redrive crashes after publishing, before MarkRedriven
		err = s.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			mark, n, err := s.letters.MarkRedrivingTx(tx, id, "otto")
			if err != nil {
				return err
			}
			reopen, err := s.ledger.ReopenTx(tx, id, n, delivery.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return errors.Join(mark(), reopen())
		})
		if err != nil {
			t.Fatal(err)
		}
		claim, _, err := s.ledger.Claim(t.Context(), delivery.Ref{ID: id})
		if err != nil || claim == nil {
			t.Fatalf("Claim = %v, %v", claim, err)
		}

		s.later = 2 * time.Minute
		byID := redrive.Options{Selection: deadletter.Filter{IDs: []string{id}}, By: "olga"}
		if got := s.run(t, byID); got[id] == nil {
			t.Error("redriven although the answer is claimed")
		}
		if second, state, err := s.ledger.Claim(t.Context(), delivery.Ref{ID: id}); err != nil || second != nil {
			t.Errorf("claimed twice: %q, %v", state, err)
		}
		if state, err := claim.MarkDelivered(t.Context(), "m1"); err != nil || state != delivery.Delivered {
			t.Errorf("MarkDelivered = %q, %v", state, err)
		}
		if got := s.run(t, byID); !errors.Is(got[id], delivery.ErrDelivered) {
			t.Errorf("redrive of a delivered answer = %v", got[id])
		}
		if l, err := s.letters.Get(t.Context(), id); err != nil || l.Status != deadletter.Redriven {
			t.Errorf("dead letter is %q, %v", l.Status, err)
		}
	})
}

func TestMessageIsRedrivenOnItsTopic(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		poison := []byte("not JSON at all")
		letter := deadletter.DeadLetter{ID: "p1", Reason: deadletter.InvalidEvent, Topic: string(topology.Ingress), Data: poison, Attributes: map[string]string{"type": "x"}}
		if isNew, err := s.letters.Put(t.Context(), letter, 0); err != nil || !isNew {
			t.Fatalf("Put = %v, %v", isNew, err)
		}
		if isNew, err := s.letters.Put(t.Context(), letter, 0); err != nil || isNew {
			t.Fatalf("Put again = %v, %v; want false", isNew, err)
		}
		if got := s.run(t, redrive.Options{Selection: deadletter.Filter{IDs: []string{"p1"}}, By: "olga"}); got["p1"] != nil {
			t.Fatal(got)
		}
		m := s.next(t, topology.Ingress)
		if string(m.Data) != string(poison) || m.Attributes["type"] != "x" || m.Attributes[deadletter.AttrRedrive] != "1" || deadletter.RedrivenID(m.Attributes) != "p1" {
			t.Errorf("published %q with %v", m.Data, m.Attributes)
		}
		for _, tt := range []struct {
			redrive int
			isNew   bool
			what    string
		}{{0, false, "an old failure told late"}, {1, true, "the redriven one failing"}, {1, false, "the same told again"}} {
			if isNew, err := s.letters.Put(t.Context(), letter, tt.redrive); err != nil || isNew != tt.isNew {
				t.Errorf("%s: Put = %v, %v; want %v", tt.what, isNew, err, tt.isNew)
			}
		}
		if l, err := s.letters.Get(t.Context(), "p1"); err != nil || l.Attempts != 2 || l.Status != deadletter.Open {
			t.Errorf("dead letter = %+v, %v", l, err)
		}
	})
}

// begin records a redrive by otto, who is interrupted before publishing.
func (s *system) begin(t *testing.T, id string, answer bool) {
	t.Helper()
	err := s.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
		mark, n, err := s.letters.MarkRedrivingTx(tx, id, "otto")
		if err != nil {
			return err
		}
		reopen := func() error { return nil }
		if answer {
			if reopen, err = s.ledger.ReopenTx(tx, id, n, delivery.Config{Deadline: time.Minute, Retention: time.Hour}); err != nil {
				return err
			}
		}
		return errors.Join(mark(), reopen())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *system) list(t *testing.T, f deadletter.Filter) (ids []string) {
	t.Helper()
	if err := s.letters.List(t.Context(), f, func(l deadletter.DeadLetter) error { ids = append(ids, l.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestFailedRedriveIsFinishedByTheNextRedrive(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		const topic topology.Topic = "late.v1" // does not exist at first, so publishing fails
		letter := deadletter.DeadLetter{ID: "p1", Reason: deadletter.InvalidEvent, Topic: string(topic), Data: []byte("poison")}
		if _, err := s.letters.Put(t.Context(), letter, 0); err != nil {
			t.Fatal(err)
		}
		byReason := redrive.Options{Selection: deadletter.Filter{Reason: deadletter.InvalidEvent}, By: "olga"}
		for range 2 {
			if got := s.run(t, byReason); len(got) != 1 || got["p1"] == nil || errors.Is(got["p1"], deadletter.ErrNotOpen) {
				t.Fatalf("redrive without the topic = %v; want the error of publishing", got)
			}
		}
		if ids := s.list(t, deadletter.Filter{Status: deadletter.Unfinished}); len(ids) != 1 {
			t.Errorf("unfinished: %v; want p1", ids)
		}
		s.addTopic(topic)
		if got := s.run(t, byReason); len(got) != 1 || got["p1"] != nil {
			t.Fatalf("redrive with the topic = %v; want it at once", got)
		}
		if m := s.next(t, topic); string(m.Data) != "poison" || m.Attributes[deadletter.AttrRedrive] != "1" {
			t.Errorf("published %q with %v", m.Data, m.Attributes)
		}
		l, err := s.letters.Get(t.Context(), "p1")
		if err != nil || l.Status != deadletter.Redriven || len(l.Redrives) != 1 {
			t.Errorf("dead letter = %+v, %v", l, err)
		}
		if ids := s.list(t, deadletter.Filter{Status: deadletter.Unfinished}); len(ids) != 0 {
			t.Errorf("unfinished: %v; want none", ids)
		}
	})
}

func TestInterruptedRedriveIsFinishedOnce(t *testing.T) {
	for _, answer := range []bool{false, true} {
		t.Run(map[bool]string{false: "message", true: "answer"}[answer], func(t *testing.T) {
			emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
				s := open(t, env)
				id, topic, reason := "p1", topology.Ingress, deadletter.InvalidEvent
				if answer {
					e := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1", Candidates: []event.Candidate{{ID: "a", Text: "hi"}}}
					var err error
					if id, err = s.sender.Send(t.Context(), e, "personality"); err != nil {
						t.Fatal(err)
					}
					topic, reason = topology.Egress, deadletter.NoConnection
					s.next(t, topic)
					if _, err := s.reaper.MarkDead(t.Context(), id, 0, deadletter.New(reason, errors.New("nobody"))); err != nil {
						t.Fatal(err)
					}
				} else if _, err := s.letters.Put(t.Context(), deadletter.DeadLetter{ID: id, Reason: reason, Topic: string(topic), Data: []byte("poison")}, 0); err != nil {
					t.Fatal(err)
				}
				s.begin(t, id, answer)

				// otto may still be at work
				byReason := redrive.Options{Selection: deadletter.Filter{Reason: reason}, By: "olga"}
				if got := s.run(t, byReason); !errors.Is(got[id], deadletter.ErrNotOpen) {
					t.Errorf("a redrive at once = %v; want to wait for otto's", got)
				}
				if n, err := s.redriver.Finish(t.Context()); n != 0 || err != nil {
					t.Errorf("Finish at once = %d, %v", n, err)
				}

				s.later = 2 * time.Minute
				if n, err := s.redriver.Finish(t.Context()); n != 1 || err != nil {
					t.Fatalf("Finish = %d, %v; want 1", n, err)
				}
				if m := s.next(t, topic); m.Attributes[deadletter.AttrRedrive] != "1" {
					t.Errorf("published with %v", m.Attributes)
				}
				l, err := s.letters.Get(t.Context(), id)
				if err != nil || l.Status != deadletter.Redriven || len(l.Redrives) != 1 || l.Redrives[0].By != "otto" {
					t.Errorf("dead letter = %+v, %v", l, err)
				}
				if n, err := s.redriver.Finish(t.Context()); n != 0 || err != nil {
					t.Errorf("Finish again = %d, %v", n, err)
				}
				if got := s.run(t, byReason); len(got) != 0 {
					t.Errorf("a redrive afterwards = %v; want nothing left", got)
				}
			})
		})
	}
}

func TestRedriveRequiresAnOperator(t *testing.T) {
	if err := redrive.New(nil, nil, nil, nil, nil, delivery.Config{}).Run(t.Context(), redrive.Options{}, nil); err == nil {
		t.Error("redriven without an operator")
	}
}
