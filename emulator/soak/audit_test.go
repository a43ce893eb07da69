package soak

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.internal/gateway/gap"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
)

const noConnection = string(deadletter.NoConnection)

// clientCase is the input of the clients' audit. There are the users alice and bob, and alice asked question q1.
type clientCase struct {
	name        string
	unaccepted  bool                // q1 was not accepted by the ingress topic
	leaves      bool                // alice left
	acks        bool                // alice acknowledges answers
	visits      []*visit            // of alice
	killed      bool                // gateway g1 was killed
	received    map[string][]string // delivery ids, by user
	entries     []entry
	deadLetters []deadLetter
	wantLost    int
	wantDoubled int
	wantOther   int
	wantText    string // part of a violation
}

// audit runs the clients' audit.
func (c clientCase) audit() *ClientReport {
	alice, bob := &user{id: "alice", asked: 1, leaves: c.leaves, acks: c.acks, visits: c.visits}, &user{id: "bob"}
	for _, u := range []*user{alice, bob} {
		for _, id := range c.received[u.id] {
			u.transcript = append(u.transcript, receipt{delivery: id, question: "q1", connection: 1})
		}
	}
	accepted := map[questionID]string{}
	if !c.unaccepted {
		accepted[questionID{"alice", "q1"}] = "c1"
	}
	r := &ClientReport{}
	a := newClientAuditor(r, []*user{alice, bob}, accepted, newLedger(c.entries, c.deadLetters))
	a.killed = map[string]bool{"g1": c.killed}
	a.run()
	return r
}

func TestClientAudit(t *testing.T) {
	delivered := entry{ID: "d1", State: string(delivery.Delivered), UserID: "alice", CorrelationID: "c1"}
	dead := entry{ID: "d1", State: string(delivery.Dead), UserID: "alice", CorrelationID: "c1", Reason: noConnection}
	ofDelivery := deadLetter{ID: "d1", CorrelationID: "c1", Reason: noConnection, Delivery: true, Attempts: 1}
	ofQuestion := deadLetter{ID: "x1", CorrelationID: "c1", Reason: string(deadletter.InvalidEvent), Attempts: 1}
	second, pending := delivered, delivered
	second.ID, pending.State = "d2", string(delivery.Pending)
	twice, unknown := ofDelivery, ofDelivery
	twice.Attempts, unknown.Reason = 2, "weather"
	once := map[string][]string{"alice": {"d1"}}
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	dead.SettledAt = at(10)
	first, open := &visit{connection: 1, instance: "g1", ready: at(1), ended: at(3)}, &visit{connection: 1, instance: "g1", ready: at(1)}
	early, late := &visit{connection: 2, named: 1, ready: at(9)}, &visit{connection: 2, named: 1, ready: at(11)}
	for _, c := range []clientCase{
		{name: "delivered and received", received: once, entries: []entry{delivered}},
		{name: "dead with a dead letter", entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}},
		{name: "dead question", deadLetters: []deadLetter{ofQuestion}},
		{name: "refused with a dead letter", entries: []entry{dead}, deadLetters: []deadLetter{{ID: "d1", CorrelationID: "c1", Reason: noConnection, Attempts: 1}}},
		{name: "unaccepted question of a user who left", unaccepted: true, leaves: true},
		{name: "unaccepted question", unaccepted: true, wantLost: 1, wantText: "never accepted"},
		{name: "no outcome", wantLost: 1, wantText: "no answer and no dead letter"},
		{name: "delivered and not received", entries: []entry{delivered}, wantLost: 1, wantText: "in no transcript"},
		{name: "received twice", received: map[string][]string{"alice": {"d1", "d1"}}, entries: []entry{delivered}, wantDoubled: 1, wantText: "received 2 times"},
		{name: "received by another user", received: map[string][]string{"bob": {"d1"}}, entries: []entry{delivered}, wantLost: 1, wantText: "received by bob instead of alice"},
		{name: "delivered and dead-lettered", received: once, entries: []entry{delivered}, deadLetters: []deadLetter{ofDelivery}, wantDoubled: 1, wantText: "delivered, and a dead letter"},
		{name: "dead and received", received: once, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, wantDoubled: 1, wantText: "dead, and in a transcript"},
		{name: "dead, and the client returned in time", received: once, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, acks: true, killed: true, visits: []*visit{first, early}, wantDoubled: 1, wantText: "dead, and in a transcript"},
		{name: "dead on an open connection", received: once, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, acks: true, visits: []*visit{open}, wantDoubled: 1, wantText: "dead, and in a transcript"},
		{name: "dead after the write of a living gateway", received: once, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, visits: []*visit{first, late}, wantDoubled: 1, wantText: "dead, and in a transcript"},
		{name: "dead, and the client returned too late with its acknowledgement", received: once, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, acks: true, visits: []*visit{first, late}},
		{name: "dead after the write of a killed gateway", received: once, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, killed: true, visits: []*visit{first, late}},
		{name: "dead without a dead letter", entries: []entry{dead}, wantLost: 1, wantText: "dead, without a dead letter"},
		{name: "pending", received: once, entries: []entry{pending}, wantLost: 1, wantText: "neither delivered nor dead"},
		{name: "two answers", received: map[string][]string{"alice": {"d1", "d2"}}, entries: []entry{delivered, second}, wantDoubled: 1, wantText: "2 answers"},
		{name: "answer and dead question", received: once, entries: []entry{delivered}, deadLetters: []deadLetter{ofQuestion}, wantDoubled: 1, wantText: "an answer, and a dead letter"},
		{name: "answer without a question", received: map[string][]string{"alice": {"d1", "d2"}}, entries: []entry{delivered, {ID: "d2", State: string(delivery.Delivered), UserID: "alice", CorrelationID: "c9"}}, wantOther: 1, wantText: "an answer without a question"},
		{name: "delivery missing in the ledger", received: map[string][]string{"alice": {"d1", "d3"}}, entries: []entry{delivered}, wantOther: 1, wantText: "missing in the ledger"},
		{name: "dead letter written twice", entries: []entry{dead}, deadLetters: []deadLetter{twice}, wantDoubled: 1, wantText: "written 2 times"},
		{name: "dead letter with an unknown reason", entries: []entry{dead}, deadLetters: []deadLetter{unknown}, wantOther: 1, wantText: `unknown reason "weather"`},
		{name: "dead letter without a question", received: once, entries: []entry{delivered}, deadLetters: []deadLetter{{ID: "x9", CorrelationID: "c9", Reason: noConnection, Attempts: 1}}, wantOther: 1, wantText: "without a question"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkSummary(t, &c.audit().Summary, c.wantLost, c.wantDoubled, c.wantOther, c.wantText)
		})
	}
}

// checkSummary compares the violations of a report with the expected numbers, and looks for a text.
func checkSummary(t *testing.T, s *Summary, lost, doubled, other int, text string) {
	t.Helper()
	if got := len(s.Violations) - s.Lost - s.Doubled; s.Lost != lost || s.Doubled != doubled || got != other {
		t.Errorf("%d lost, %d doubled, %d other; want %d, %d, %d: %+v", s.Lost, s.Doubled, got, lost, doubled, other, s.Violations)
	}
	if s.Clean() != (lost+doubled+other == 0) {
		t.Errorf("Clean() = %v with %+v", s.Clean(), s.Violations)
	}
	if text != "" && !slices.ContainsFunc(s.Violations, func(v Violation) bool { return strings.Contains(v.What, text) }) {
		t.Errorf("no violation contains %q: %+v", text, s.Violations)
	}
}

// fakeCommunity is a platform with one channel and the given posts of the bot.
type fakeCommunity struct {
	id    identity.Platform
	posts []posted
}

func (c fakeCommunity) platform() identity.Platform { return c.id }
func (c fakeCommunity) channels() []string          { return []string{"lobby"} }
func (c fakeCommunity) botPosts(string) []posted    { return c.posts }
func (c fakeCommunity) ask(string, int, string) (posted, error) {
	panic("the audit must not ask")
}

func TestPlatformAudit(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	q := posted{id: "m1", channel: "lobby", person: "ada", at: noon, joined: true}
	ingested := map[string]int{"c1": 1}
	answer := posted{id: "a1", channel: "lobby", replyTo: "m1", text: "yes"}
	delivered := entry{ID: "d1", State: string(delivery.Delivered), CorrelationID: "c1"}
	dead := entry{ID: "d1", State: string(delivery.Dead), CorrelationID: "c1", Reason: noConnection}
	outcomeUnknown := dead
	outcomeUnknown.Reason = string(deadletter.OutcomeUnknown)
	ofDelivery := deadLetter{ID: "d1", CorrelationID: "c1", Delivery: true, Attempts: 1}
	around := gap.Gap{From: noon.Add(-time.Second), To: noon.Add(time.Second)}
	before := gap.Gap{From: noon.Add(-2 * time.Second), To: noon.Add(-time.Second)}
	for _, test := range []struct {
		name        string
		platform    identity.Platform
		ingested    map[string]int // by correlation id
		own         bool           // the bot's answer was ingested too
		posts       []posted
		entries     []entry
		deadLetters []deadLetter
		gaps        []gap.Gap
		want        PlatformTally // without Asked, Gaps and GapTime
		lost        int
		doubled     int
		other       int
		text        string
	}{
		{name: "answered once", ingested: ingested, posts: []posted{answer}, entries: []entry{delivered}, want: PlatformTally{Ingested: 1, Answered: 1}},
		{name: "published three times", ingested: map[string]int{"c1": 3}, posts: []posted{answer}, entries: []entry{delivered}, want: PlatformTally{Ingested: 1, Repeated: 2, Answered: 1}},
		{name: "missed in a gap on Twitch", platform: identity.Twitch, gaps: []gap.Gap{around}, want: PlatformTally{Missed: 1, MissedJoined: 1}},
		{name: "missed in a gap on Discord", platform: identity.Discord, gaps: []gap.Gap{around}, lost: 1, text: "never ingested"},
		{name: "missed outside the gap", platform: identity.Twitch, gaps: []gap.Gap{before}, lost: 1, text: "never ingested"},
		{name: "answered without an event", posts: []posted{answer}, doubled: 1, text: "answered, and never ingested"},
		{name: "two events", ingested: map[string]int{"c1": 1, "c2": 1}, lost: 1, doubled: 1, want: PlatformTally{Ingested: 1}, text: "ingested as 2 events"},
		{name: "answered twice", ingested: ingested, posts: []posted{answer, answer}, entries: []entry{delivered}, doubled: 1, want: PlatformTally{Ingested: 1, Answered: 1}, text: "answered 2 times"},
		{name: "no outcome", ingested: ingested, lost: 1, want: PlatformTally{Ingested: 1}, text: "no answer in the ledger and no dead letter"},
		{name: "delivered and not posted", ingested: ingested, entries: []entry{delivered}, lost: 1, want: PlatformTally{Ingested: 1}, text: "delivered, and not posted"},
		{name: "delivered and dead-lettered", ingested: ingested, posts: []posted{answer}, entries: []entry{delivered}, deadLetters: []deadLetter{ofDelivery}, doubled: 1, want: PlatformTally{Ingested: 1}, text: "delivered, and a dead letter"},
		{name: "dead question", ingested: ingested, deadLetters: []deadLetter{ofDelivery}, want: PlatformTally{Ingested: 1, Dead: 1}},
		{name: "dead with a dead letter", ingested: ingested, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, want: PlatformTally{Ingested: 1, Dead: 1}},
		{name: "dead without a dead letter", ingested: ingested, entries: []entry{dead}, lost: 1, want: PlatformTally{Ingested: 1}, text: "dead, without a dead letter"},
		{name: "dead and posted", ingested: ingested, posts: []posted{answer}, entries: []entry{dead}, deadLetters: []deadLetter{ofDelivery}, doubled: 1, want: PlatformTally{Ingested: 1}, text: "and posted"},
		{name: "outcome unknown and posted", ingested: ingested, posts: []posted{answer}, entries: []entry{outcomeUnknown}, deadLetters: []deadLetter{ofDelivery}, want: PlatformTally{Ingested: 1, Unknown: 1, UnknownPosted: 1}},
		{name: "post without a question", ingested: ingested, posts: []posted{answer, {id: "a2", replyTo: "m9"}}, entries: []entry{delivered}, other: 1, want: PlatformTally{Ingested: 1, Answered: 1}, text: "without a question"},
		{name: "own post ingested", ingested: ingested, own: true, posts: []posted{answer}, entries: []entry{delivered}, other: 1, want: PlatformTally{Ingested: 1, Answered: 1}, text: "own post was ingested"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.platform == "" {
				test.platform = identity.Discord
			}
			f := findings{
				ledger:    newLedger(test.entries, test.deadLetters),
				questions: map[identity.Platform][]posted{test.platform: {q}},
				ingested:  map[string]map[string]int{},
				gaps:      map[string][]gap.Gap{messageKey(test.platform, "lobby"): test.gaps},
			}
			if test.ingested != nil {
				f.ingested[messageKey(test.platform, "m1")] = maps.Clone(test.ingested)
			}
			if test.own {
				f.ingested[messageKey(test.platform, "a1")] = map[string]int{"c2": 1}
			}
			r := &PlatformReport{}
			a := newPlatformAuditor(r, f, fakeCommunity{test.platform, test.posts})
			a.run()
			checkSummary(t, &r.Summary, test.lost, test.doubled, test.other, test.text)
			a.tally.Asked, a.tally.Gaps, a.tally.GapTime = 0, 0, 0
			if a.tally != test.want {
				t.Errorf("tally %+v; want %+v", a.tally, test.want)
			}
		})
	}
}

func TestOvertakenAnswersAreCountedPerPersonAndChannel(t *testing.T) {
	f := findings{ledger: newLedger(nil, nil), questions: map[identity.Platform][]posted{}}
	for _, q := range []posted{{id: "m1", person: "ada"}, {id: "m2", person: "bob"}, {id: "m3", person: "ada"}} {
		q.channel = "lobby"
		f.questions[identity.Twitch] = append(f.questions[identity.Twitch], q)
	}
	a := newPlatformAuditor(&PlatformReport{}, f, fakeCommunity{identity.Twitch, []posted{{replyTo: "m3"}, {replyTo: "m2"}, {replyTo: "m1"}}})
	a.run()
	if a.tally.Overtaken != 1 {
		t.Errorf("%d answers were overtaken; want 1: only the answer to Ada's first question", a.tally.Overtaken)
	}
}

func TestProgressOfAPlatformQuestion(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	q := posted{id: "m1", channel: "lobby", at: noon}
	ingested := map[string]map[string]int{"twitch:m1": {"c1": 1}}
	died := entry{State: string(delivery.Dead), CorrelationID: "c1"}
	for _, test := range []struct {
		name string
		in   findings
		want progress
	}{
		{"not ingested", findings{}, unsettled},
		{"in a gap", findings{gaps: map[string][]gap.Gap{"twitch:lobby": {{From: noon, To: noon}}}}, missed},
		{"ingested", findings{ingested: ingested}, unsettled},
		{"pending", findings{ingested: ingested, ledger: newLedger([]entry{{State: string(delivery.Pending), CorrelationID: "c1"}}, nil)}, unsettled},
		{"delivered", findings{ingested: ingested, ledger: newLedger([]entry{{State: string(delivery.Delivered), CorrelationID: "c1"}}, nil)}, answered},
		{"dead without its dead letter", findings{ingested: ingested, ledger: newLedger([]entry{died}, nil)}, unsettled},
		{"dead with its dead letter", findings{ingested: ingested, ledger: newLedger([]entry{died}, []deadLetter{{CorrelationID: "c1"}})}, dead},
		{"a dead question", findings{ingested: ingested, ledger: newLedger(nil, []deadLetter{{CorrelationID: "c1"}})}, dead},
	} {
		if got := test.in.progress(identity.Twitch, q); got != test.want {
			t.Errorf("%s: %s; want %s", test.name, got, test.want)
		}
	}
}
