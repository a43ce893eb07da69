package soak

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
)

// ClientReport is the result of [RunClients].
type ClientReport struct {
	Summary
	Sent        int            // questions sent
	Accepted    int            // questions accepted by the ingress topic
	Egress      int            // messages accepted by the egress topic
	Forgone     int            // questions not accepted before their user left for good
	Delivered   int            // answers
	Dead        map[string]int // dead answers, and questions without an answer, by reason
	Unrecorded  int            // of the dead answers, received by a client that could not say so in time
	Overtaken   int            // answers received after the answer to a later question
	Hits        map[Kind]int   // calls, deliveries or answers affected by faults
	Connections int            // of all users
	LongestWait time.Duration  // from a question to its answer
	Departed    Departures
}

// Departures summarizes the ends of rolled gateways.
type Departures struct {
	Slowest           time.Duration // from SIGTERM to the end
	Late              int           // gateways killed 10 s after SIGTERM
	Failed            int           // gateways with an exit code other than 0
	LeftSubscriptions int           // subscriptions not deleted by the gateway
}

// add counts the end of a gateway.
func (d *Departures) add(end departure) {
	d.Slowest = max(d.Slowest, end.took)
	switch {
	case !end.inTime:
		d.Late++
	case !end.clean:
		d.Failed++
	}
	if end.subscriptionLeft {
		d.LeftSubscriptions++
	}
}

// audit compares the answers received by users and the documents in Firestore with the accepted questions.
func (s *clientSoak) audit(ctx context.Context) (*ClientReport, error) {
	s.setPhase("auditing")
	l, err := s.readLedger(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &ClientReport{
		Summary: s.summary(), Sent: int(s.asked.Load()), Accepted: len(s.accepted), Egress: s.egress,
		Hits: maps.Clone(s.injector.hits), Departed: s.departures,
	}
	a := newClientAuditor(r, s.users, s.accepted, l)
	a.killed = s.killed
	a.history = func(e entry) []string { return s.history(a, e) }
	a.run()
	return r, nil
}

// clientAuditor decides which answers and questions break the promise. It reads its input only, and writes the report.
type clientAuditor struct {
	ledger
	report    *ClientReport
	users     []*user
	accepted  map[questionID]string // correlation ids
	questions map[string]questionID // by correlation id
	receipts  map[string][]receipt  // by delivery
	receivers map[string]string     // user with the delivery in the transcript, by delivery
	killed    map[string]bool       // gateway instances ended by SIGKILL
	history   func(entry) []string  // collects what is known about a delivery
}

// newClientAuditor makes an auditor without history.
func newClientAuditor(r *ClientReport, users []*user, accepted map[questionID]string, l ledger) *clientAuditor {
	if r.Dead == nil {
		r.Dead = map[string]int{}
	}
	return &clientAuditor{
		ledger: l, report: r, users: users, accepted: accepted, questions: byCorrelation(accepted),
		receipts: map[string][]receipt{}, receivers: map[string]string{}, history: func(entry) []string { return nil },
	}
}

// run audits everything.
func (a *clientAuditor) run() {
	for _, u := range a.users {
		a.transcript(u)
	}
	known := map[string]bool{} // deliveries in the ledger
	for correlation, entries := range a.entries {
		for _, e := range entries {
			known[e.ID] = true
			if _, ok := a.questions[correlation]; !ok {
				a.violation(Violation{What: "an answer without a question"}, e)
			}
			a.entry(e)
		}
	}
	for q, correlation := range a.accepted {
		a.question(q, correlation)
	}
	for _, u := range a.users {
		a.unaccepted(u)
	}
	for id, receipts := range a.receipts {
		if !known[id] {
			a.violation(Violation{What: fmt.Sprintf("%s received %s (to %s), which is missing in the ledger", a.receivers[id], id, receipts[0].question)}, entry{})
		}
	}
	for _, all := range a.deadLetters {
		for _, d := range all {
			a.deadLetter(d, known[d.ID])
		}
	}
	a.report.sortViolations()
}

// transcript collects the receipts of a user.
func (a *clientAuditor) transcript(u *user) {
	a.report.Overtaken += u.overtaken
	a.report.Connections += u.connections
	a.report.LongestWait = max(a.report.LongestWait, u.longest)
	for _, r := range u.transcript {
		if other, ok := a.receivers[r.delivery]; ok && other != u.id {
			a.violation(Violation{What: fmt.Sprintf("%s and %s both received delivery %s", other, u.id, r.delivery), Doubled: true}, entry{})
		}
		a.receipts[r.delivery] = append(a.receipts[r.delivery], r)
		a.receivers[r.delivery] = u.id
	}
}

// entry audits one answer.
func (a *clientAuditor) entry(e entry) {
	received := len(a.receipts[e.ID])
	dead := slices.ContainsFunc(a.deadLetters[e.CorrelationID], func(d deadLetter) bool { return d.ID == e.ID })
	switch delivery.State(e.State) {
	case delivery.Delivered:
		a.report.Delivered++
		if received == 0 {
			a.violation(Violation{What: "delivered, and in no transcript", Lost: true}, e)
		}
		if dead {
			a.violation(Violation{What: "delivered, and a dead letter", Doubled: true}, e)
		}
	case delivery.Dead:
		a.report.Dead[e.Reason]++
		switch {
		case received > 0 && a.unrecorded(e):
			a.report.Unrecorded++
		case received > 0:
			a.violation(Violation{What: "dead, and in a transcript", Doubled: true}, e)
		}
		if !dead {
			a.violation(Violation{What: "dead, without a dead letter", Lost: true}, e)
		}
	default:
		a.violation(Violation{What: "neither delivered nor dead: " + e.State, Lost: true}, e)
	}
	if received > 1 {
		a.violation(Violation{What: fmt.Sprintf("received %d times", received), Doubled: true}, e)
	}
	if user := a.receivers[e.ID]; received > 0 && user != e.UserID {
		a.violation(Violation{What: fmt.Sprintf("received by %s instead of %s", user, e.UserID), Lost: true}, e)
	}
}

// unrecorded reports whether the gateways could not know that a dead answer was received: the receiving connection ended
// without a record of the receipt, and the client did not return before the answer was dead-lettered. The protocol
// says so to its clients (package websocket). An answer without acknowledgements is recorded after its write, so only
// a killed gateway leaves no record of such an answer.
func (a *clientAuditor) unrecorded(e entry) bool {
	for _, u := range a.users {
		i := slices.IndexFunc(u.transcript, func(r receipt) bool { return r.delivery == e.ID })
		if i < 0 {
			continue
		}
		lost := false
		for _, v := range u.visits {
			switch {
			case v.connection == u.transcript[i].connection:
				lost = !v.ended.IsZero() && v.ended.Before(e.SettledAt) && (u.acks || a.killed[v.instance])
			case v.named-maxAfter <= i && i < v.named && v.ready.Before(e.SettledAt):
				return false
			}
		}
		return lost
	}
	return false
}

// question audits that an accepted question has exactly one outcome.
func (a *clientAuditor) question(q questionID, correlation string) {
	entries := a.entries[correlation]
	var own []deadLetter // of the question itself, not of an answer
	for _, d := range a.deadLetters[correlation] {
		// a refusal's dead letter is that of its entry, although a redrive repeats the question
		if !d.Delivery && !slices.ContainsFunc(entries, func(e entry) bool { return e.ID == d.ID }) {
			own = append(own, d)
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

// unaccepted audits the questions of a user that the ingress topic never accepted. A user who left may have such questions.
func (a *clientAuditor) unaccepted(u *user) {
	for n := range u.asked {
		q := questionID{u.id, questionName(n + 1)}
		if _, ok := a.accepted[q]; ok {
			continue
		}
		if u.leaves {
			a.report.Forgone++
			continue
		}
		a.violation(Violation{What: fmt.Sprintf("question %s of %s was sent repeatedly and never accepted", q.id, q.user), Lost: true}, entry{})
	}
}

// deadLetter audits a dead letter. known tells whether the ledger has a delivery with the dead letter's id.
func (a *clientAuditor) deadLetter(d deadLetter, known bool) {
	if !slices.ContainsFunc(deadletter.Reasons, func(r deadletter.ReasonInfo) bool { return string(r.Reason) == d.Reason }) {
		a.violation(Violation{What: fmt.Sprintf("dead letter %s has the unknown reason %q", d.ID, d.Reason)}, entry{})
	}
	if d.Attempts != 1 {
		a.violation(Violation{What: fmt.Sprintf("dead letter %s was written %d times", d.ID, d.Attempts), Doubled: true}, entry{})
	}
	if d.Delivery && !known {
		a.violation(Violation{What: fmt.Sprintf("dead letter %s belongs to a delivery missing in the ledger", d.ID)}, entry{})
	}
	if _, ok := a.questions[d.CorrelationID]; !ok {
		a.violation(Violation{What: fmt.Sprintf("dead letter %s (%s: %s) without a question", d.ID, d.Reason, d.Message)}, entry{})
	}
}

// violation adds a violation to the report. e is the delivery concerned, or the zero entry.
func (a *clientAuditor) violation(v Violation, e entry) {
	if e.ID != "" {
		v.What += ": delivery " + e.ID
	}
	a.report.add(v, e.CorrelationID != "", func() []string { return a.history(e) })
}

// history collects what is known about an answer: the ledger, the receipts, reconnections of the user, dead letters,
// faults at the time, and log lines.
func (s *clientSoak) history(a *clientAuditor, e entry) (lines []string) {
	lines = append(lines, fmt.Sprintf("ledger: %+v; opened at %s, deadline %s, settled at %s", e, s.at(e.OpenedAt), s.at(e.Deadline), s.at(e.SettledAt)))
	from, until := e.OpenedAt, e.SettledAt
	for _, r := range a.receipts[e.ID] {
		lines = append(lines, fmt.Sprintf("received at %s on connection %d, gateway%d, to question %s", s.at(r.at), r.connection, r.gateway, r.question))
		if r.at.After(until) {
			until = r.at
		}
	}
	for _, u := range a.users {
		if u.id != e.UserID {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: acknowledges %v, leaves %v, %d connections", u.id, u.acks, u.leaves, u.connections))
		for i, r := range u.transcript {
			if i == 0 || u.transcript[i-1].connection == r.connection {
				continue
			}
			if last := u.transcript[i-1]; r.at.After(from.Add(-margin)) && last.at.Before(until.Add(margin)) {
				lines = append(lines, fmt.Sprintf("%s: last answer on connection %d at %s (%s), first on connection %d, gateway%d, at %s (%s)",
					u.id, last.connection, s.at(last.at), last.question, r.connection, r.gateway, s.at(r.at), r.question))
			}
		}
	}
	for _, d := range a.deadLetters[e.CorrelationID] {
		lines = append(lines, fmt.Sprintf("dead letter: %+v; at %s", d, s.at(d.At)))
	}
	lines = append(lines, s.faultsBetween(from, until)...)
	return append(lines, s.logged(e.ID, e.CorrelationID)...)
}
