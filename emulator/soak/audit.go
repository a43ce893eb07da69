package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
)

// entry is what the ledger says of a delivery.
type entry struct {
	ID            string    `firestore:"-"`
	State         string    `firestore:"state"`
	UserID        string    `firestore:"userId"`
	CorrelationID string    `firestore:"correlationId"`
	Step          string    `firestore:"step"`
	CreatedAt     time.Time `firestore:"createdAt"`
	OpenedAt      time.Time `firestore:"openedAt"`
	Deadline      time.Time `firestore:"deadline"`
	SettledAt     time.Time `firestore:"settledAt"`
	Instance      string    `firestore:"instance"`
	Reason        string    `firestore:"reason"`
}

// letter is what is kept of a dead letter.
type letter struct {
	ID            string    `firestore:"-"`
	Reason        string    `firestore:"reason"`
	Message       string    `firestore:"message"`
	Source        string    `firestore:"source"`
	CorrelationID string    `firestore:"correlationId"`
	Delivery      bool      `firestore:"delivery"`
	Attempts      int       `firestore:"attempts"`
	At            time.Time `firestore:"at"`
}

var (
	entryFields  = []string{"state", "userId", "correlationId", "step", "createdAt", "openedAt", "deadline", "settledAt", "instance", "reason"}
	letterFields = []string{"reason", "message", "source", "correlationId", "delivery", "attempts", "at"}
)

func (w *world) entries(ctx context.Context, q firestore.Query) ([]entry, error) {
	return all(q.Select(entryFields...).Documents(ctx), func(e *entry, id string) { e.ID = id })
}

func (w *world) letters(ctx context.Context, q firestore.Query) ([]letter, error) {
	return all(q.Select(letterFields...).Documents(ctx), func(l *letter, id string) { l.ID = id })
}

// all reads what a query finds.
func all[T any](it *firestore.DocumentIterator, name func(*T, string)) ([]T, error) {
	defer it.Stop()
	var found []T
	for {
		snap, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return found, nil
		}
		var v T
		if err == nil {
			err = snap.DataTo(&v)
		}
		if err != nil {
			return nil, fmt.Errorf("read what Firestore holds: %w", err)
		}
		name(&v, snap.Ref.ID)
		found = append(found, v)
	}
}

func (w *world) deliveries() firestore.Query  { return w.client.Collection("deliveries").Query }
func (w *world) deadletters() firestore.Query { return w.client.Collection("deadletters").Query }

// obituaries finds out, again and again, which questions will have no answer, so that nobody waits for one.
func (w *world) obituaries(ctx context.Context) {
	for wait(ctx, w.Pace.Sweep) == nil {
		letters, err := w.letters(ctx, w.deadletters())
		if err != nil {
			if ctx.Err() == nil {
				w.fail("look for dead letters: %v", err)
			}
			return
		}
		w.mu.Lock()
		byCorrelation := w.byCorrelation()
		for _, l := range letters {
			if q, ok := byCorrelation[l.CorrelationID]; ok {
				w.dead[q] = true
			}
		}
		w.mu.Unlock()
	}
}

// byCorrelation names the questions by their correlation ids. The world's lock must be held.
func (w *world) byCorrelation() map[string]questionID {
	m := make(map[string]questionID, len(w.accepts))
	for q, id := range w.accepts {
		m[id] = q
	}
	return m
}

// settled waits until every question that was taken has an answer or a dead letter, no delivery is pending, and every
// dead one is announced. Nobody else waits for the questions of those who went away: Pub/Sub may be about to try one
// again.
func (w *world) settled(ctx context.Context) error {
	limit := time.Now().Add(w.drainTime())
	for {
		open, err := w.withoutOutcome(ctx)
		if err != nil {
			return err
		}
		pending, err := w.entries(ctx, w.deliveries().Where("state", "==", delivery.Pending))
		if err != nil {
			return err
		}
		silent, err := w.entries(ctx, w.deliveries().Where("state", "==", delivery.Dead).Where("announced", "==", false))
		if err != nil {
			return err
		}
		if open+len(pending)+len(silent) == 0 {
			return nil
		}
		if time.Now().After(limit) {
			w.fail("%d questions have no outcome, %d deliveries are pending and %d dead ones not announced, %s after the last fault was mended",
				open, len(pending), len(silent), w.drainTime())
			return nil
		}
		if err := wait(ctx, w.Pace.Sweep/2); err != nil {
			return ctx.Err()
		}
	}
}

// withoutOutcome counts the questions that were taken of which neither an answer nor a dead letter is known.
func (w *world) withoutOutcome(ctx context.Context) (int, error) {
	entries, err := w.entries(ctx, w.deliveries())
	if err != nil {
		return 0, err
	}
	letters, err := w.letters(ctx, w.deadletters())
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	open := w.byCorrelation()
	w.mu.Unlock()
	for _, e := range entries {
		delete(open, e.CorrelationID)
	}
	for _, l := range letters {
		delete(open, l.CorrelationID)
	}
	return len(open), nil
}

// Violation is something that must not be.
type Violation struct {
	What    string
	Lost    bool // counts as lost
	Doubled bool // counts as doubled
	History []string
}

// Report is what came of a soak.
type Report struct {
	Seed                   uint64
	Elapsed                time.Duration
	Sent, Accepted, Egress int            // questions that were asked and that were taken; messages on the egress topic
	Forgone                int            // questions that were not taken before their user went away for good
	Delivered              int            // answers
	Dead                   map[string]int // answers, and questions that never got so far, by reason
	Lost, Doubled          int
	Overtaken              int          // answers that came after one to a later question
	Faults                 map[Kind]int // that were made
	Hits                   map[Kind]int // calls, deliveries or answers that they met
	Gateways, Connections  int          // how many there were, one after the other
	LongestWait            time.Duration
	Departed               Departures
	Violations             []Violation
}

// Clean reports whether nothing is wrong.
func (r *Report) Clean() bool { return len(r.Violations) == 0 }

// audit compares what users were given, what Firestore holds, and what was asked.
func (w *world) audit(ctx context.Context) (*Report, error) {
	w.enter("auditing")
	entries, err := w.entries(ctx, w.deliveries())
	if err != nil {
		return nil, err
	}
	letters, err := w.letters(ctx, w.deadletters())
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &Report{
		Seed: w.Seed, Elapsed: time.Since(w.began), Sent: int(w.asked.Load()), Accepted: len(w.accepts), Egress: w.egress,
		Dead: map[string]int{}, Faults: map[Kind]int{}, Hits: maps.Clone(w.injector.hits), Departed: w.departed,
	}
	for _, h := range w.log {
		r.Faults[h.kind]++
	}
	for _, s := range w.gateways {
		r.Gateways += s.born
	}
	for _, what := range w.failures {
		r.Violations = append(r.Violations, Violation{What: what})
	}
	a := &auditor{world: w, report: r, given: map[string][]receipt{}, byUser: map[string]string{}, letters: map[string][]letter{}, entries: map[string][]entry{}}
	a.compare(entries, letters)
	return r, nil
}

// auditor holds what is compared, in the orders in which it is looked up.
type auditor struct {
	world   *world
	report  *Report
	given   map[string][]receipt // by delivery
	byUser  map[string]string    // whose transcript a delivery stands in
	letters map[string][]letter  // by correlation id
	entries map[string][]entry   // by correlation id
}

func (a *auditor) compare(entries []entry, letters []letter) {
	w, r := a.world, a.report
	for _, u := range w.users {
		r.Overtaken += u.overtaken
		r.Connections += u.connections
		r.LongestWait = max(r.LongestWait, u.longest)
		for _, g := range u.transcript {
			if other, ok := a.byUser[g.delivery]; ok && other != u.id {
				a.violation(Violation{What: fmt.Sprintf("delivery %s was given to %s and to %s", g.delivery, other, u.id), Doubled: true}, entry{})
			}
			a.given[g.delivery] = append(a.given[g.delivery], g)
			a.byUser[g.delivery] = u.id
		}
	}
	for _, l := range letters {
		a.letters[l.CorrelationID] = append(a.letters[l.CorrelationID], l)
	}
	known := map[string]bool{}
	questions := w.byCorrelation()
	for _, e := range entries {
		known[e.ID] = true
		a.entries[e.CorrelationID] = append(a.entries[e.CorrelationID], e)
		if _, ok := questions[e.CorrelationID]; !ok {
			a.violation(Violation{What: "an answer to nothing that was asked"}, e)
		}
		a.entry(e)
	}
	for q, correlation := range w.accepts {
		a.question(q, correlation)
	}
	for _, u := range w.users {
		for n := range u.asked {
			q := questionID{u.id, questionName(n + 1)}
			if _, taken := w.accepts[q]; taken {
				continue
			}
			if u.leaves {
				r.Forgone++
				continue
			}
			a.violation(Violation{What: fmt.Sprintf("question %s of %s was never taken, although they asked again and again", q.id, q.user), Lost: true}, entry{})
		}
	}
	for id, given := range a.given {
		if !known[id] {
			a.violation(Violation{What: fmt.Sprintf("%s was given %s (to %s), which the ledger does not know", a.byUser[id], id, given[0].question)}, entry{})
		}
	}
	for _, l := range letters {
		if !slices.ContainsFunc(deadletter.Reasons, func(x deadletter.ReasonInfo) bool { return string(x.Reason) == l.Reason }) {
			a.violation(Violation{What: fmt.Sprintf("dead letter %s has the reason %q", l.ID, l.Reason)}, entry{})
		}
		if l.Attempts != 1 {
			a.violation(Violation{What: fmt.Sprintf("dead letter %s was written %d times", l.ID, l.Attempts), Doubled: true}, entry{})
		}
		if l.Delivery && !known[l.ID] {
			a.violation(Violation{What: fmt.Sprintf("dead letter %s is of a delivery that the ledger does not know", l.ID)}, entry{})
		}
		if _, ok := questions[l.CorrelationID]; !ok {
			a.violation(Violation{What: fmt.Sprintf("dead letter %s (%s: %s) is of nothing that was asked", l.ID, l.Reason, l.Message)}, entry{})
		}
	}
	slices.SortFunc(r.Violations, func(x, y Violation) int { return cmp.Compare(x.What, y.What) })
}

// entry checks one answer.
func (a *auditor) entry(e entry) {
	given := len(a.given[e.ID])
	mine := slices.ContainsFunc(a.letters[e.CorrelationID], func(l letter) bool { return l.ID == e.ID && l.Delivery })
	switch delivery.State(e.State) {
	case delivery.Delivered:
		a.report.Delivered++
		if given == 0 {
			a.violation(Violation{What: "delivered, and in no transcript", Lost: true}, e)
		}
		if mine {
			a.violation(Violation{What: "delivered, and a dead letter", Doubled: true}, e)
		}
	case delivery.Dead:
		a.report.Dead[e.Reason]++
		if given > 0 {
			a.violation(Violation{What: "dead, and in a transcript", Doubled: true}, e)
		}
		if !mine {
			a.violation(Violation{What: "dead, without a dead letter", Lost: true}, e)
		}
	default:
		a.violation(Violation{What: "neither delivered nor dead: " + e.State, Lost: true}, e)
	}
	if given > 1 {
		a.violation(Violation{What: fmt.Sprintf("given %d times", given), Doubled: true}, e)
	}
	if user := a.byUser[e.ID]; given > 0 && user != e.UserID {
		a.violation(Violation{What: fmt.Sprintf("given to %s instead of %s", user, e.UserID), Lost: true}, e)
	}
}

// question checks that a question that was taken has one outcome.
func (a *auditor) question(q questionID, correlation string) {
	entries := a.entries[correlation]
	var own []letter // of the question, not of an answer
	for _, l := range a.letters[correlation] {
		if !l.Delivery {
			own = append(own, l)
		}
	}
	what := fmt.Sprintf("question %s of %s (%s): ", q.id, q.user, correlation)
	first := entry{CorrelationID: correlation}
	if len(entries) > 0 {
		first = entries[0]
	}
	switch {
	case len(entries) == 0 && len(own) == 0:
		a.violation(Violation{What: what + "no answer and no dead letter", Lost: true}, first)
	case len(entries) == 0 && len(own) == 1:
		a.report.Dead[own[0].Reason]++
	case len(entries) > 1:
		a.violation(Violation{What: what + fmt.Sprintf("%d answers", len(entries)), Doubled: true}, first)
	case len(own) > 0 && len(entries)+len(own) > 1:
		a.violation(Violation{What: what + fmt.Sprintf("an answer, and a dead letter (%s)", own[0].Reason), Doubled: true}, first)
	}
}

// maxHistories bounds for how many violations the history is gathered.
const maxHistories = 25

func (a *auditor) violation(v Violation, e entry) {
	if v.Lost {
		a.report.Lost++
	}
	if v.Doubled {
		a.report.Doubled++
	}
	if e.ID != "" {
		v.What += ": delivery " + e.ID
	}
	if len(a.report.Violations) < maxHistories && e.CorrelationID != "" {
		v.History = a.history(e)
	}
	a.report.Violations = append(a.report.Violations, v)
}

// around is how long before and after an answer's life faults may have to do with it.
const around = 5 * time.Second

// history tells what is known about an answer.
func (a *auditor) history(e entry) (lines []string) {
	w := a.world
	at := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return fmt.Sprintf("%.3fs", t.Sub(w.began).Seconds())
	}
	lines = append(lines, fmt.Sprintf("ledger: %+v; opened at %s, deadline %s, settled at %s", e, at(e.OpenedAt), at(e.Deadline), at(e.SettledAt)))
	from, until := e.OpenedAt, e.SettledAt
	for _, g := range a.given[e.ID] {
		lines = append(lines, fmt.Sprintf("given at %s on connection %d, gateway%d, to question %s", at(g.at), g.connection, g.gateway, g.question))
		until = latest(until, g.at)
	}
	for _, u := range w.users {
		if u.id != e.UserID {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: acknowledges %v, leaves %v, %d connections", u.id, u.acks, u.leaves, u.connections))
		for i, g := range u.transcript {
			near := i > 0 && u.transcript[i-1].connection != g.connection
			if near && g.at.After(from.Add(-around)) && u.transcript[i-1].at.Before(until.Add(around)) {
				lines = append(lines, fmt.Sprintf("%s: last answer on connection %d at %s (%s), first on connection %d, gateway%d, at %s (%s)",
					u.id, u.transcript[i-1].connection, at(u.transcript[i-1].at), u.transcript[i-1].question, g.connection, g.gateway, at(g.at), g.question))
			}
		}
	}
	for _, l := range a.letters[e.CorrelationID] {
		lines = append(lines, fmt.Sprintf("dead letter: %+v; at %s", l, at(l.At)))
	}
	for _, h := range w.log {
		if h.ended.After(from.Add(-around)) && h.began.Before(until.Add(around)) {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("fault: %s %s, from %s until %s", h.fault, h.who, at(h.began), at(h.ended))))
		}
	}
	return append(lines, w.logged(e.ID, e.CorrelationID)...)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
