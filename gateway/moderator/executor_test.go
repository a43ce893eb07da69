package moderator_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/emulatortest"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/gateway/moderator"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// fixture is a ledger with records and a fake platform.
type fixture struct {
	*emulatortest.Clock
	t       *testing.T
	client  *firestore.Client
	ledger  *delivery.Ledger
	records *moderator.Records
	sender  *delivery.Sender

	answers   []moderator.Answer // the next answers of Act, then Done
	asked     []moderation.Command
	during    func() // called by Act; nil for nothing
	leaseLost bool

	mu     sync.Mutex
	counts []string
}

func withFixture(t *testing.T, run func(d *fixture)) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		d := &fixture{t: t, client: client, Clock: emulatortest.NewClock(event.TruncateToMicros(time.Now()))}
		d.ledger = delivery.NewLedger(client, "one", d.Now)
		d.records = moderator.NewRecords(client, "one", d.Now)
		d.sender = delivery.NewSender(d.ledger, gatewaytest.SilentBus{}, delivery.Config{Deadline: 2 * time.Minute, Retention: time.Hour}, d.Now)
		run(d)
	})
}

func (d *fixture) reaper() *delivery.Reaper {
	return delivery.NewReaper(d.ledger, deadletter.NewStore(d.client, d.Now), gatewaytest.SilentBus{}, "test", 20*time.Second)
}

func (d *fixture) executor() *moderator.Executor {
	return moderator.NewExecutor(d.ledger, d.reaper(), d.records, moderator.Options{
		Log: slog.New(slog.DiscardHandler), Now: d.Now, Backoff: time.Millisecond,
		Count: func(outcome string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.counts = append(d.counts, outcome)
		},
	})
}

func (d *fixture) platform() moderator.Platform {
	return moderator.Platform{
		HoldsLease: func() bool { return !d.leaseLost },
		Act: func(_ context.Context, o moderation.Command) moderator.Answer {
			d.asked = append(d.asked, o)
			if d.during != nil {
				d.during()
			}
			if len(d.answers) == 0 {
				return moderator.Answer{Outcome: moderator.Done}
			}
			a := d.answers[0]
			d.answers = d.answers[1:]
			return a
		},
	}
}

// command opens the delivery of a command and returns the job of a gateway.
func (d *fixture) command(payload string) *moderator.Job {
	d.t.Helper()
	asked := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: payload, Type: moderation.Type, UserID: "api-gateway:eve"}
	a, err := moderation.Parse([]byte(payload), "twitch:streamer")
	if err != nil {
		d.t.Fatal(err)
	}
	o := moderation.Command{Action: a, By: moderation.Requester{UserID: "api-gateway:eve", Roles: []string{"moderator"}, Source: "api-gateway", Right: "moderator by hand"}}
	id, err := d.sender.Send(d.t.Context(), o.Event(asked), "action")
	if err != nil {
		d.t.Fatal(err)
	}
	return d.job(id)
}

func (d *fixture) job(id string) *moderator.Job {
	d.t.Helper()
	e := d.entry(id)
	decoded, err := event.Decode(e.Event)
	if err != nil {
		d.t.Fatal(err)
	}
	return &moderator.Job{Job: delivery.Job{Ref: e.Ref(), Begun: e.State == delivery.Claimed}, Event: decoded}
}

func (d *fixture) entry(id string) delivery.Entry {
	d.t.Helper()
	e, err := d.ledger.Get(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return e
}

func (d *fixture) record(id string) moderator.Record {
	d.t.Helper()
	r, err := d.records.Get(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (d *fixture) ends(j *moderator.Job, state delivery.State, outcome moderator.Outcome) {
	d.t.Helper()
	if done, _ := d.executor().Execute(d.t.Context(), j, d.platform()); !done {
		d.t.Fatal("something is left to do")
	}
	e, r := d.entry(j.Ref.ID), d.record(j.Ref.ID)
	if e.State != state || r.Outcome != outcome {
		d.t.Errorf("entry = %s (%s: %s), record = %s; want %s, %s", e.State, e.Reason, e.Message, r.Outcome, state, outcome)
	}
}

const aBan = `{"action":"ban","userId":"twitch:7","reason":"spam"}`

func TestCommandIsRecordedBeforeTheAction(t *testing.T) {
	withFixture(t, func(d *fixture) {
		j := d.command(aBan)
		d.during = func() {
			r := d.record(j.Ref.ID)
			if r.Outcome != moderator.Begun || r.UserID != "twitch:7" || r.AskedBy.UserID != "api-gateway:eve" || r.AskedBy.Right != "moderator by hand" ||
				r.Action != "ban" || r.Reason != "spam" || r.Channel != "twitch:streamer" || r.CorrelationID != aBan || len(r.Tries) != 1 || r.Tries[0].Instance != "one" {
				t.Errorf("record while it is done = %+v", r)
			}
		}
		d.answers = []moderator.Answer{{Outcome: moderator.Done, Words: "until tomorrow"}}
		d.ends(j, delivery.Delivered, moderator.Done)
		if got := d.entry(j.Ref.ID).Note; got != "done: until tomorrow" {
			t.Errorf("note = %q", got)
		}
		if r := d.record(j.Ref.ID); r.Tries[0].Answer != "until tomorrow" || r.Tries[0].EndedAt.IsZero() {
			t.Errorf("record = %+v", r)
		}
		// delivered again
		if done, _ := d.executor().Execute(t.Context(), j, d.platform()); !done || len(d.asked) != 1 {
			t.Errorf("asked %d times; want once", len(d.asked))
		}
	})
}

func TestPlatformsAnswerDecidesTheOutcome(t *testing.T) {
	lost := moderator.Answer{Outcome: moderator.Unknown, Words: "no answer"}
	limited := moderator.Answer{Outcome: moderator.PutOff, Code: deadletter.RateLimited, Words: "status 429", After: time.Millisecond}
	for _, tt := range []struct {
		name    string
		answers []moderator.Answer
		state   delivery.State
		outcome moderator.Outcome
		reason  deadletter.Reason
		asked   int
	}{
		{"done", nil, delivery.Delivered, moderator.Done, "", 1},
		{"nothing to do", []moderator.Answer{{Outcome: moderator.Held, Words: "already banned"}}, delivery.Delivered, moderator.Held, "", 1},
		{"refused", []moderator.Answer{{Outcome: moderator.Refused, Code: deadletter.MissingScope, Words: "log in again"}}, delivery.Dead, moderator.Refused, deadletter.MissingScope, 1},
		{"a request without an answer is repeated", []moderator.Answer{lost, lost}, delivery.Delivered, moderator.Done, "", 3},
		{"a possible action is not released", []moderator.Answer{lost, limited, {Outcome: moderator.Held}}, delivery.Delivered, moderator.Held, "", 3},
	} {
		withFixture(t, func(d *fixture) {
			d.answers = tt.answers
			j := d.command(aBan)
			d.ends(j, tt.state, tt.outcome)
			if e := d.entry(j.Ref.ID); e.Reason != string(tt.reason) || len(d.asked) != tt.asked {
				t.Errorf("%s: reason = %q, asked %d times; want %q, %d", tt.name, e.Reason, len(d.asked), tt.reason, tt.asked)
			}
		})
	}
}

func TestPostponedCommandIsDoneLaterOrDeadForTheReason(t *testing.T) {
	withFixture(t, func(d *fixture) {
		limited := moderator.Answer{Outcome: moderator.PutOff, Code: deadletter.RateLimited, Words: "status 429", After: time.Second}
		d.answers = []moderator.Answer{limited, limited}
		j, x := d.command(aBan), d.executor()
		for range 2 {
			if done, wait := x.Execute(t.Context(), j, d.platform()); done || wait < time.Second {
				t.Fatalf("Execute = %v, %s; want to wait for a second", done, wait)
			}
			if e, r := d.entry(j.Ref.ID), d.record(j.Ref.ID); e.State != delivery.Pending || r.Outcome != moderator.PutOff {
				t.Errorf("entry = %s, record = %s", e.State, r.Outcome)
			}
		}
		d.ends(j, delivery.Delivered, moderator.Done)
		if r := d.record(j.Ref.ID); len(r.Tries) != 1 || r.Tries[0].Times != 3 {
			t.Errorf("tries = %+v; want one, begun three times", r.Tries)
		}

		limited.After = time.Hour
		d.answers = []moderator.Answer{limited}
		late := d.command(`{"action":"unban","userId":"twitch:8"}`)
		if done, wait := x.Execute(t.Context(), late, d.platform()); done || wait > 2*time.Minute {
			t.Errorf("Execute = %v, %s; want to wait until the deadline at most", done, wait)
		}
		d.Advance(3 * time.Minute)
		if done, _ := x.Execute(t.Context(), late, d.platform()); !done {
			t.Fatal("something is left to do")
		}
		if e := d.entry(late.Ref.ID); e.State != delivery.Dead || e.Reason != string(deadletter.RateLimited) || !strings.Contains(e.Message, "429") {
			t.Errorf("entry = %s, %s: %s", e.State, e.Reason, e.Message)
		}

		// a job from before a redrive does not mark the redriven entry dead
		err := d.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			write, err := d.ledger.ReopenTx(tx, late.Ref.ID, 1, delivery.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return write()
		})
		if err != nil {
			t.Fatal(err)
		}
		if done, _ := x.Execute(t.Context(), late, d.platform()); !done {
			t.Error("something is left to do")
		}
		if e := d.entry(late.Ref.ID); e.State != delivery.Pending {
			t.Errorf("the redriven entry is %s for %s", e.State, e.Reason)
		}
	})
}

// A crashed instance leaves a claim that expires. The next instance reaches one outcome, and nothing is left to the
// sweep.
func TestCrashAtAnyPointHasOneOutcome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		asked int    // times in all
		dies  string // where
	}{
		{"before it is done", 1, "before"},
		{"after it was done", 2, "after"},
		{"after its outcome was recorded", 1, "recorded"},
	} {
		withFixture(t, func(d *fixture) {
			j := d.command(`{"action":"timeout","userId":"twitch:7","durationSeconds":600}`)
			ledger := delivery.NewLedger(d.client, "one", d.Now)
			claim, _, err := ledger.Claim(t.Context(), j.Ref)
			if err != nil || claim == nil {
				t.Fatal(claim, err)
			}
			command, err := moderation.Read(j.Event)
			if err != nil {
				t.Fatal(err)
			}
			if tt.dies != "before" {
				try(t, d, j, command)
			}
			if tt.dies == "recorded" {
				if err := moderator.End(d.records, t.Context(), j.Ref.ID, moderator.Answer{Outcome: moderator.Done, Words: "by the dead"}); err != nil {
					t.Fatal(err)
				}
			}
			if done, _ := d.executor().Execute(t.Context(), d.job(j.Ref.ID), d.platform()); !done || d.entry(j.Ref.ID).State != delivery.Claimed {
				t.Errorf("%s: claimed again before the claim expired", tt.name)
			}
			d.Advance(delivery.ClaimLease + 5*time.Second)
			entries, err := d.ledger.PendingOrAbandoned(t.Context(), "twitch", "twitch:streamer", event.EgressEvent)
			if err != nil || len(entries) != 1 {
				t.Fatalf("%s: %d to go on with, %v", tt.name, len(entries), err)
			}
			d.ends(d.job(j.Ref.ID), delivery.Delivered, moderator.Done)
			if len(d.asked) != tt.asked {
				t.Errorf("%s: asked %d times; want %d", tt.name, len(d.asked), tt.asked)
			}
			// a time-out begun 65 s ago keeps its end
			if last := len(d.asked) - 1; tt.dies == "after" && d.asked[last].Seconds != 535 {
				t.Errorf("%s: for %d s; want what is left", tt.name, d.asked[last].Seconds)
			}
			d.Advance(time.Hour)
			if swept, err := d.reaper().Sweep(t.Context()); err != nil || swept.MarkedDead != 0 {
				t.Errorf("%s: swept %+v, %v", tt.name, swept, err)
			}
		})
	}
}

// try acts like an instance that crashes after its action.
func try(t *testing.T, d *fixture, j *moderator.Job, o moderation.Command) {
	t.Helper()
	if err := moderator.Begin(d.records, t.Context(), j.Ref.ID, 0, o); err != nil {
		t.Fatal(err)
	}
	d.asked = append(d.asked, o)
}

func TestPlatformWithoutAnAnswerIsAnUnknownOutcome(t *testing.T) {
	withFixture(t, func(d *fixture) {
		d.during = func() {
			d.Advance(6 * time.Second)
			d.answers = []moderator.Answer{{Outcome: moderator.Unknown, Words: "no answer"}}
		}
		j := d.command(aBan)
		d.ends(j, delivery.Dead, moderator.Unknown)
		if e := d.entry(j.Ref.ID); e.Reason != string(deadletter.OutcomeUnknown) || len(d.asked) != 5 {
			t.Errorf("reason = %s, asked %d times", e.Reason, len(d.asked))
		}

		// a redrive is a new try; the record keeps both tries
		if err := d.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			write, err := d.ledger.ReopenTx(tx, j.Ref.ID, 1, delivery.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return write()
		}); err != nil {
			t.Fatal(err)
		}
		d.during, d.answers = nil, nil
		d.ends(d.job(j.Ref.ID), delivery.Delivered, moderator.Done)
		r := d.record(j.Ref.ID)
		if len(r.Tries) != 2 || r.Tries[0].Outcome != moderator.Unknown || r.Tries[1].Outcome != moderator.Done || r.Tries[1].Attempt != 1 {
			t.Errorf("tries = %+v", r.Tries)
		}
	})
}

func TestFinishedTimeoutIsNotRepeated(t *testing.T) {
	withFixture(t, func(d *fixture) {
		d.answers = []moderator.Answer{{Outcome: moderator.Unknown, Words: "no answer"}}
		d.during = func() { d.Advance(11 * time.Second) }
		j := d.command(`{"action":"timeout","userId":"twitch:7","durationSeconds":10}`)
		d.ends(j, delivery.Dead, moderator.Unknown)
		if len(d.asked) != 1 {
			t.Errorf("asked %d times; want once", len(d.asked))
		}
	})
}

// An instance without the lease releases an action that was certainly not done, and leaves a possible action to the
// next owner.
func TestLostLeaseLeavesAPossibleActionToTheNextOwner(t *testing.T) {
	withFixture(t, func(d *fixture) {
		d.leaseLost = true
		j := d.command(aBan)
		if done, _ := d.executor().Execute(t.Context(), j, d.platform()); done || len(d.asked) != 0 || d.entry(j.Ref.ID).State != delivery.Pending {
			t.Errorf("done = %v, asked %d times, entry = %s", done, len(d.asked), d.entry(j.Ref.ID).State)
		}
		d.leaseLost, d.counts = false, nil
		d.answers = []moderator.Answer{{Outcome: moderator.Unknown, Words: "no answer"}, {Outcome: moderator.PutOff, Code: deadletter.RateLimited, Words: "status 429"}}
		d.during = func() { d.leaseLost = len(d.asked) == 2 }
		if done, _ := d.executor().Execute(t.Context(), j, d.platform()); !done || len(d.asked) != 2 || d.entry(j.Ref.ID).State != delivery.Claimed {
			t.Errorf("done = %v, asked %d times, entry = %s", done, len(d.asked), d.entry(j.Ref.ID).State)
		}
		if !slices.Equal(d.counts, []string{"left"}) {
			t.Errorf("counted %q; want left", d.counts)
		}
	})
}

// A platform that can't be asked again soon is not asked all the time.
func TestPausesGrowWhileTheOutcomeIsUnknown(t *testing.T) {
	withFixture(t, func(d *fixture) {
		d.answers = []moderator.Answer{{Outcome: moderator.Unknown, Words: "no answer"}}
		for range 29 {
			d.answers = append(d.answers, moderator.Answer{Outcome: moderator.PutOff, Code: deadletter.PlatformUnavailable, Words: "down"})
		}
		begun := time.Now()
		d.ends(d.command(aBan), delivery.Delivered, moderator.Done)
		if took := time.Since(begun); took < 100*time.Millisecond { // 27 pauses of 8 ms, each shortened to half at most
			t.Errorf("asked %d times in %s", len(d.asked), took)
		}
	})
}

func TestPostponedCommandKeepsTheUserFoundByName(t *testing.T) {
	withFixture(t, func(d *fixture) {
		user, err := identity.Parse("twitch:7")
		if err != nil {
			t.Fatal(err)
		}
		d.answers = []moderator.Answer{{Outcome: moderator.PutOff, Code: deadletter.RateLimited, Words: "status 429", User: user}}
		j := d.command(`{"action":"ban","login":"spammer"}`)
		if done, _ := d.executor().Execute(t.Context(), j, d.platform()); done {
			t.Fatal("nothing is left to do")
		}
		if r := d.record(j.Ref.ID); r.UserID != "twitch:7" || r.Outcome != moderator.PutOff {
			t.Errorf("record = %+v", r)
		}
	})
}

func TestUnauthorizedCommandIsDead(t *testing.T) {
	withFixture(t, func(d *fixture) {
		e := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: moderation.Type, Channel: "twitch:streamer",
			Payload: []byte(aBan), Egress: &event.Egress{Destination: "twitch", Type: event.EgressEvent}}
		id, err := d.sender.Send(t.Context(), e, "action")
		if err != nil {
			t.Fatal(err)
		}
		if done, _ := d.executor().Execute(t.Context(), d.job(id), d.platform()); !done || len(d.asked) != 0 {
			t.Errorf("done = %v, asked %d times", done, len(d.asked))
		}
		if got := d.entry(id); got.State != delivery.Dead || got.Reason != string(deadletter.InvalidEvent) {
			t.Errorf("entry = %s, %s", got.State, got.Reason)
		}
		if _, err := d.records.Get(t.Context(), id); !errors.Is(err, moderator.ErrNoRecord) {
			t.Errorf("record: %v; want no record of an action that was not begun", err)
		}
	})
}

func TestConcurrentExecutionsActOnce(t *testing.T) {
	withFixture(t, func(d *fixture) {
		j := d.command(aBan)
		var mu sync.Mutex
		var by []int
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				d.executor().Execute(t.Context(), &moderator.Job{Job: delivery.Job{Ref: j.Ref}, Event: j.Event}, moderator.Platform{
					HoldsLease: func() bool { return true },
					Act: func(context.Context, moderation.Command) moderator.Answer {
						mu.Lock()
						defer mu.Unlock()
						by = append(by, i)
						return moderator.Answer{Outcome: moderator.Done}
					},
				})
			})
		}
		wg.Wait()
		if len(by) != 1 || d.entry(j.Ref.ID).State != delivery.Delivered {
			t.Errorf("done by %v, entry = %s", slices.Sorted(slices.Values(by)), d.entry(j.Ref.ID).State)
		}
	})
}
