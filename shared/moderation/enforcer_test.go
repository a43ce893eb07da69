package moderation_test

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
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/egress"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// deaf is a bus on which nobody listens.
type deaf struct{}

func (deaf) Publish(context.Context, topology.Topic, bus.Outgoing) error { return nil }
func (deaf) Announce(context.Context, []byte, map[string]string, deadletter.Announcement) error {
	return nil
}

// desk is a ledger with records, and a platform that answers as it is told.
type desk struct {
	*emulatortest.Clock
	t       *testing.T
	client  *firestore.Client
	ledger  *egress.Ledger
	records *moderation.Records
	sender  *egress.Sender

	answers []moderation.Answer // the next ones; Done when there are none left
	asked   []moderation.Order
	during  func() // what happens while the platform is asked; nil for nothing
	notMine bool
}

func onDesk(t *testing.T, run func(d *desk)) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := store.Connect(t.Context(), env.Deployment())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		d := &desk{t: t, client: client, Clock: emulatortest.NewClock(event.Now(time.Now()))}
		d.ledger = egress.NewLedger(client, "one", d.Now)
		d.records = moderation.NewRecords(client, "one", d.Now)
		d.sender = egress.NewSender(d.ledger, deaf{}, egress.Config{Deadline: 2 * time.Minute, Retention: time.Hour}, d.Now)
		run(d)
	})
}

func (d *desk) undertaker() *egress.Undertaker {
	return egress.NewUndertaker(d.ledger, deadletter.NewBox(d.client, d.Now), deaf{}, "test", 20*time.Second)
}

func (d *desk) enforcer() *moderation.Enforcer {
	return moderation.NewEnforcer(d.ledger, d.undertaker(), d.records, moderation.Options{Log: slog.New(slog.DiscardHandler), Now: d.Now, Backoff: time.Millisecond})
}

func (d *desk) platform() moderation.Platform {
	return moderation.Platform{
		Mine: func() bool { return !d.notMine },
		Act: func(_ context.Context, o moderation.Order) moderation.Answer {
			d.asked = append(d.asked, o)
			if d.during != nil {
				d.during()
			}
			if len(d.answers) == 0 {
				return moderation.Answer{Outcome: moderation.Done}
			}
			a := d.answers[0]
			d.answers = d.answers[1:]
			return a
		},
	}
}

// order opens the delivery of an order, and gives it as a gateway gets it.
func (d *desk) order(payload string) *moderation.Job {
	d.t.Helper()
	asked := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: payload, Type: moderation.Type, UserID: "api-gateway:eve"}
	a, err := moderation.Parse([]byte(payload), "twitch:streamer")
	if err != nil {
		d.t.Fatal(err)
	}
	o := moderation.Order{Action: a, By: moderation.Asker{UserID: "api-gateway:eve", Roles: []string{"moderator"}, Source: "api-gateway", Right: "moderator by hand"}}
	id, err := d.sender.Send(d.t.Context(), o.Event(asked), "action")
	if err != nil {
		d.t.Fatal(err)
	}
	return d.job(id)
}

func (d *desk) job(id string) *moderation.Job {
	d.t.Helper()
	e := d.entry(id)
	decoded, err := event.Decode(e.Event)
	if err != nil {
		d.t.Fatal(err)
	}
	return &moderation.Job{Ref: e.Ref(), Event: decoded, Begun: e.State == egress.Claimed}
}

func (d *desk) entry(id string) egress.Entry {
	d.t.Helper()
	e, err := d.ledger.Get(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return e
}

func (d *desk) record(id string) moderation.Record {
	d.t.Helper()
	r, err := d.records.Get(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (d *desk) ends(j *moderation.Job, state egress.State, outcome moderation.Outcome) {
	d.t.Helper()
	if done, _ := d.enforcer().Carry(d.t.Context(), j, d.platform()); !done {
		d.t.Fatal("something is left to do")
	}
	e, r := d.entry(j.Ref.ID), d.record(j.Ref.ID)
	if e.State != state || r.Outcome != outcome {
		d.t.Errorf("entry = %s (%s: %s), record = %s; want %s, %s", e.State, e.Reason, e.Message, r.Outcome, state, outcome)
	}
}

const aBan = `{"action":"ban","userId":"twitch:7","reason":"spam"}`

func TestAnOrderIsRecordedBeforeItIsDone(t *testing.T) {
	onDesk(t, func(d *desk) {
		j := d.order(aBan)
		d.during = func() {
			r := d.record(j.Ref.ID)
			if r.Outcome != moderation.Begun || r.UserID != "twitch:7" || r.AskedBy.UserID != "api-gateway:eve" || r.AskedBy.Right != "moderator by hand" ||
				r.Action != "ban" || r.Reason != "spam" || r.Channel != "twitch:streamer" || r.CorrelationID != aBan || len(r.Tries) != 1 || r.Tries[0].Instance != "one" {
				t.Errorf("record while it is done = %+v", r)
			}
		}
		d.answers = []moderation.Answer{{Outcome: moderation.Done, Words: "until tomorrow"}}
		d.ends(j, egress.Delivered, moderation.Done)
		if got := d.entry(j.Ref.ID).Note; got != "done: until tomorrow" {
			t.Errorf("note = %q", got)
		}
		if r := d.record(j.Ref.ID); r.Tries[0].Answer != "until tomorrow" || r.Tries[0].EndedAt.IsZero() {
			t.Errorf("record = %+v", r)
		}
		// delivered again
		if done, _ := d.enforcer().Carry(t.Context(), j, d.platform()); !done || len(d.asked) != 1 {
			t.Errorf("asked %d times; want once", len(d.asked))
		}
	})
}

func TestWhatThePlatformSaysDecides(t *testing.T) {
	lost := moderation.Answer{Outcome: moderation.Unknown, Words: "no answer"}
	limited := moderation.Answer{Outcome: moderation.PutOff, Code: deadletter.RateLimited, Words: "status 429", After: time.Millisecond}
	for _, tt := range []struct {
		name    string
		answers []moderation.Answer
		state   egress.State
		outcome moderation.Outcome
		reason  deadletter.Reason
		asked   int
	}{
		{"done", nil, egress.Delivered, moderation.Done, "", 1},
		{"so already", []moderation.Answer{{Outcome: moderation.Held, Words: "already banned"}}, egress.Delivered, moderation.Held, "", 1},
		{"refused", []moderation.Answer{{Outcome: moderation.Refused, Code: deadletter.MissingScope, Words: "log in again"}}, egress.Dead, moderation.Refused, deadletter.MissingScope, 1},
		{"a lost answer is asked for again", []moderation.Answer{lost, lost}, egress.Delivered, moderation.Done, "", 3},
		{"what may be done is not given back", []moderation.Answer{lost, limited, {Outcome: moderation.Held}}, egress.Delivered, moderation.Held, "", 3},
	} {
		onDesk(t, func(d *desk) {
			d.answers = tt.answers
			j := d.order(aBan)
			d.ends(j, tt.state, tt.outcome)
			if e := d.entry(j.Ref.ID); e.Reason != string(tt.reason) || len(d.asked) != tt.asked {
				t.Errorf("%s: reason = %q, asked %d times; want %q, %d", tt.name, e.Reason, len(d.asked), tt.reason, tt.asked)
			}
		})
	}
}

func TestWhatHasToWaitIsDoneLaterOrGivenUpForThatReason(t *testing.T) {
	onDesk(t, func(d *desk) {
		limited := moderation.Answer{Outcome: moderation.PutOff, Code: deadletter.RateLimited, Words: "status 429", After: time.Second}
		d.answers = []moderation.Answer{limited, limited}
		j, x := d.order(aBan), d.enforcer()
		for range 2 {
			if done, wait := x.Carry(t.Context(), j, d.platform()); done || wait < time.Second {
				t.Fatalf("Carry = %v, %s; want to wait for a second", done, wait)
			}
			if e, r := d.entry(j.Ref.ID), d.record(j.Ref.ID); e.State != egress.Pending || r.Outcome != moderation.PutOff {
				t.Errorf("entry = %s, record = %s", e.State, r.Outcome)
			}
		}
		d.ends(j, egress.Delivered, moderation.Done)
		if r := d.record(j.Ref.ID); len(r.Tries) != 1 || r.Tries[0].Times != 3 {
			t.Errorf("tries = %+v; want one, begun three times", r.Tries)
		}

		limited.After = time.Hour
		d.answers = []moderation.Answer{limited}
		late := d.order(`{"action":"unban","userId":"twitch:8"}`)
		if done, wait := x.Carry(t.Context(), late, d.platform()); done || wait > 2*time.Minute {
			t.Errorf("Carry = %v, %s; want to wait until the deadline at most", done, wait)
		}
		d.Advance(3 * time.Minute)
		if done, _ := x.Carry(t.Context(), late, d.platform()); !done {
			t.Fatal("something is left to do")
		}
		if e := d.entry(late.Ref.ID); e.State != egress.Dead || e.Reason != string(deadletter.RateLimited) || !strings.Contains(e.Message, "429") {
			t.Errorf("entry = %s, %s: %s", e.State, e.Reason, e.Message)
		}

		// one that waits since before a redrive does not give up what the redrive opened anew
		err := d.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			write, err := d.ledger.ReopenIn(tx, late.Ref.ID, 1, egress.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return write()
		})
		if err != nil {
			t.Fatal(err)
		}
		if done, _ := x.Carry(t.Context(), late, d.platform()); !done {
			t.Error("something is left to do")
		}
		if e := d.entry(late.Ref.ID); e.State != egress.Pending {
			t.Errorf("the redriven entry is %s for %s", e.State, e.Reason)
		}
	})
}

// Whoever dies in the midst leaves a claim that runs out; whoever comes next brings it to one end, and the sweep has
// nothing to give up.
func TestADeathInTheMidstHasOneOutcome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		asked int    // times in all
		dies  string // where
	}{
		{"before it is done", 1, "before"},
		{"after it was done", 2, "after"},
		{"after its outcome was recorded", 1, "recorded"},
	} {
		onDesk(t, func(d *desk) {
			j := d.order(`{"action":"timeout","userId":"twitch:7","durationSeconds":600}`)
			ledger := egress.NewLedger(d.client, "one", d.Now)
			claim, _, err := ledger.Claim(t.Context(), j.Ref)
			if err != nil || claim == nil {
				t.Fatal(claim, err)
			}
			order, err := moderation.Read(j.Event)
			if err != nil {
				t.Fatal(err)
			}
			if tt.dies != "before" {
				try(t, d, j, order)
			}
			if tt.dies == "recorded" {
				if err := moderation.End(d.records, t.Context(), j.Ref.ID, moderation.Answer{Outcome: moderation.Done, Words: "by the dead"}); err != nil {
					t.Fatal(err)
				}
			}
			if done, _ := d.enforcer().Carry(t.Context(), d.job(j.Ref.ID), d.platform()); !done || d.entry(j.Ref.ID).State != egress.Claimed {
				t.Errorf("%s: taken over while the claim held", tt.name)
			}
			d.Advance(egress.ClaimLease + 5*time.Second)
			entries, err := d.ledger.Repeatable(t.Context(), "twitch", "twitch:streamer", event.EgressEvent)
			if err != nil || len(entries) != 1 {
				t.Fatalf("%s: %d to go on with, %v", tt.name, len(entries), err)
			}
			d.ends(d.job(j.Ref.ID), egress.Delivered, moderation.Done)
			if len(d.asked) != tt.asked {
				t.Errorf("%s: asked %d times; want %d", tt.name, len(d.asked), tt.asked)
			}
			// what was begun 65 s ago ends when it would have ended
			if last := len(d.asked) - 1; tt.dies == "after" && d.asked[last].Seconds != 535 {
				t.Errorf("%s: for %d s; want what is left", tt.name, d.asked[last].Seconds)
			}
			d.Advance(time.Hour)
			if swept, err := d.undertaker().Sweep(t.Context()); err != nil || swept.GivenUp != 0 {
				t.Errorf("%s: swept %+v, %v", tt.name, swept, err)
			}
		})
	}
}

// try is what an instance does that dies after it acted.
func try(t *testing.T, d *desk, j *moderation.Job, o moderation.Order) {
	t.Helper()
	if err := moderation.Begin(d.records, t.Context(), j.Ref.ID, 0, o); err != nil {
		t.Fatal(err)
	}
	d.asked = append(d.asked, o)
}

func TestAPlatformThatNeverAnswersIsAnUnknownOutcome(t *testing.T) {
	onDesk(t, func(d *desk) {
		d.during = func() {
			d.Advance(6 * time.Second)
			d.answers = []moderation.Answer{{Outcome: moderation.Unknown, Words: "no answer"}}
		}
		j := d.order(aBan)
		d.ends(j, egress.Dead, moderation.Unknown)
		if e := d.entry(j.Ref.ID); e.Reason != string(deadletter.OutcomeUnknown) || len(d.asked) != 5 {
			t.Errorf("reason = %s, asked %d times", e.Reason, len(d.asked))
		}

		// a redrive is a new try, of which the record keeps both
		if err := d.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			write, err := d.ledger.ReopenIn(tx, j.Ref.ID, 1, egress.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return write()
		}); err != nil {
			t.Fatal(err)
		}
		d.during, d.answers = nil, nil
		d.ends(d.job(j.Ref.ID), egress.Delivered, moderation.Done)
		r := d.record(j.Ref.ID)
		if len(r.Tries) != 2 || r.Tries[0].Outcome != moderation.Unknown || r.Tries[1].Outcome != moderation.Done || r.Tries[1].Attempt != 1 {
			t.Errorf("tries = %+v", r.Tries)
		}
	})
}

func TestATimeoutThatIsOverIsNotDoneAgain(t *testing.T) {
	onDesk(t, func(d *desk) {
		d.answers = []moderation.Answer{{Outcome: moderation.Unknown, Words: "no answer"}}
		d.during = func() { d.Advance(11 * time.Second) }
		j := d.order(`{"action":"timeout","userId":"twitch:7","durationSeconds":10}`)
		d.ends(j, egress.Dead, moderation.Unknown)
		if len(d.asked) != 1 {
			t.Errorf("asked %d times; want once", len(d.asked))
		}
	})
}

// Who loses the channel gives back what is certainly not done, and leaves what may be to the next owner.
func TestWhoLosesTheChannelLeavesWhatMayBeDone(t *testing.T) {
	onDesk(t, func(d *desk) {
		d.notMine = true
		j := d.order(aBan)
		if done, _ := d.enforcer().Carry(t.Context(), j, d.platform()); done || len(d.asked) != 0 || d.entry(j.Ref.ID).State != egress.Pending {
			t.Errorf("done = %v, asked %d times, entry = %s", done, len(d.asked), d.entry(j.Ref.ID).State)
		}
		d.notMine = false
		d.answers = []moderation.Answer{{Outcome: moderation.Unknown, Words: "no answer"}}
		d.during = func() { d.notMine = true }
		if done, _ := d.enforcer().Carry(t.Context(), j, d.platform()); !done || len(d.asked) != 1 || d.entry(j.Ref.ID).State != egress.Claimed {
			t.Errorf("done = %v, asked %d times, entry = %s", done, len(d.asked), d.entry(j.Ref.ID).State)
		}
	})
}

func TestAnOrderThatNobodyHasAllowedIsNotCarriedOut(t *testing.T) {
	onDesk(t, func(d *desk) {
		e := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: moderation.Type, Channel: "twitch:streamer",
			Payload: []byte(aBan), Egress: &event.Egress{Destination: "twitch", Type: event.EgressEvent}}
		id, err := d.sender.Send(t.Context(), e, "action")
		if err != nil {
			t.Fatal(err)
		}
		if done, _ := d.enforcer().Carry(t.Context(), d.job(id), d.platform()); !done || len(d.asked) != 0 {
			t.Errorf("done = %v, asked %d times", done, len(d.asked))
		}
		if got := d.entry(id); got.State != egress.Dead || got.Reason != string(deadletter.InvalidEvent) {
			t.Errorf("entry = %s, %s", got.State, got.Reason)
		}
		if _, err := d.records.Get(t.Context(), id); !errors.Is(err, moderation.ErrNoRecord) {
			t.Errorf("record: %v; want none of what was not begun", err)
		}
	})
}

func TestManyWhoGetOneOrderDoItOnce(t *testing.T) {
	onDesk(t, func(d *desk) {
		j := d.order(aBan)
		var mu sync.Mutex
		var by []int
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				d.enforcer().Carry(t.Context(), &moderation.Job{Ref: j.Ref, Event: j.Event}, moderation.Platform{
					Mine: func() bool { return true },
					Act: func(context.Context, moderation.Order) moderation.Answer {
						mu.Lock()
						defer mu.Unlock()
						by = append(by, i)
						return moderation.Answer{Outcome: moderation.Done}
					},
				})
			})
		}
		wg.Wait()
		if len(by) != 1 || d.entry(j.Ref.ID).State != egress.Delivered {
			t.Errorf("done by %v, entry = %s", slices.Sorted(slices.Values(by)), d.entry(j.Ref.ID).State)
		}
	})
}
