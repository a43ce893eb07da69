package soak

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"parley.internal/gateway/gap"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
)

// PlatformReport is the result of [RunPlatforms].
type PlatformReport struct {
	Summary
	Platforms map[identity.Platform]PlatformTally
	Dead      map[string]int // dead answers and questions, by platform and reason, such as "twitch expired"; without outcome_unknown
}

// PlatformTally counts the questions and answers on one platform.
type PlatformTally struct {
	Asked         int // questions posted
	Ingested      int // questions published as events
	Repeated      int // further publications of the same event
	Missed        int // questions not ingested, posted in a recorded gap
	MissedJoined  int // of these, posted while the bot was in the channel: its gateway was about to be killed
	Answered      int // delivered, and posted once
	Unknown       int // dead with outcome_unknown
	UnknownPosted int // of these, posted
	Dead          int // dead with another reason
	Overtaken     int // posted after the answer to a later question of the same person in the same channel
	Gaps          int
	GapTime       time.Duration // total duration of the gaps
}

// findings is a snapshot of all questions and their outcomes.
type findings struct {
	ledger
	questions map[identity.Platform][]posted
	ingested  map[string]map[string]int // by platform:message id and correlation id
	gaps      map[string][]gap.Gap      // by platform:channel
}

// find takes a snapshot.
func (s *platformSoak) find(ctx context.Context) (f findings, err error) {
	f = findings{questions: map[identity.Platform][]posted{}, ingested: map[string]map[string]int{}, gaps: map[string][]gap.Gap{}}
	// Gaps come first: a gap recorded later belongs to a question that counts as open until the next snapshot.
	gaps, err := readAll(s.client.Collection("gaps").Documents(ctx), func(*gap.Gap, string) {})
	if err != nil {
		return f, err
	}
	for _, g := range gaps {
		f.gaps[g.Channel] = append(f.gaps[g.Channel], g)
	}
	s.mu.Lock()
	for key, correlations := range s.ingested {
		f.ingested[key] = maps.Clone(correlations)
	}
	s.mu.Unlock()
	if f.ledger, err = s.readLedger(ctx); err != nil {
		return f, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for platform, questions := range s.questions {
		f.questions[platform] = slices.Clone(questions)
	}
	return f, nil
}

// missed reports whether a question was posted in a recorded gap.
func (f findings) missed(platform identity.Platform, q posted) bool {
	return slices.ContainsFunc(f.gaps[messageKey(platform, q.channel)], func(g gap.Gap) bool {
		return !q.at.Before(g.From) && !q.at.After(g.To)
	})
}

// progress is the state of a question during the run.
type progress string

const (
	unsettled progress = "unsettled" // not ingested yet, or without an outcome
	missed    progress = "missed"    // not ingested, in a recorded gap
	answered  progress = "answered"  // delivered
	dead      progress = "dead"      // dead-lettered
)

// progress returns the state of a question.
func (f findings) progress(platform identity.Platform, q posted) progress {
	correlations := f.ingested[messageKey(platform, q.id)]
	if len(correlations) == 0 {
		if f.missed(platform, q) {
			return missed
		}
		return unsettled
	}
	for correlation := range correlations {
		entries, deadLetters := f.entries[correlation], f.deadLetters[correlation]
		if len(entries) == 0 && len(deadLetters) > 0 {
			return dead
		}
		for _, e := range entries {
			switch {
			case e.State == string(delivery.Delivered):
				return answered
			case e.State == string(delivery.Dead) && len(deadLetters) > 0:
				return dead
			}
		}
	}
	return unsettled
}

// audit compares the questions and the bot's posts with the documents in Firestore.
func (s *platformSoak) audit(ctx context.Context) (*PlatformReport, error) {
	s.setPhase("auditing")
	f, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	r := &PlatformReport{Summary: s.summary(), Platforms: map[identity.Platform]PlatformTally{}}
	known := map[string]bool{} // correlation ids of questions
	for _, c := range s.communities {
		a := newPlatformAuditor(r, f, c)
		a.at = s.at
		a.history = func(q posted, correlation string) []string { return s.history(a, q, correlation) }
		a.run()
		maps.Copy(known, a.known)
		r.Platforms[c.platform()] = a.tally
	}
	for correlation, entries := range f.entries {
		if !known[correlation] {
			r.Violations = append(r.Violations, Violation{What: fmt.Sprintf("delivery %s without a question (%s)", entries[0].ID, correlation)})
		}
	}
	for correlation, deadLetters := range f.deadLetters {
		if d := deadLetters[0]; !known[correlation] {
			r.Violations = append(r.Violations, Violation{What: fmt.Sprintf("dead letter %s (%s: %s) without a question", d.ID, d.Reason, d.Message)})
		}
	}
	r.sortViolations()
	return r, nil
}

// platformAuditor decides which questions on one platform break the promise. It reads its input only, and writes the
// report and the tally.
type platformAuditor struct {
	findings
	report    *PlatformReport
	community community
	platform  identity.Platform
	tally     PlatformTally
	answers   map[string][]posted // the bot's posts, by the answered question
	known     map[string]bool     // correlation ids of questions
	at        func(time.Time) string
	history   func(q posted, correlation string) []string
}

// newPlatformAuditor makes an auditor without history.
func newPlatformAuditor(r *PlatformReport, f findings, c community) *platformAuditor {
	return &platformAuditor{
		findings: f, report: r, community: c, platform: c.platform(), answers: map[string][]posted{}, known: map[string]bool{},
		at:      func(t time.Time) string { return t.String() },
		history: func(posted, string) []string { return nil },
	}
}

// run audits the platform.
func (a *platformAuditor) run() {
	questions := a.questions[a.platform]
	number := map[string]int{} // of each question in the order of asking
	for i, q := range questions {
		number[q.id] = i
	}
	for _, channel := range a.community.channels() {
		a.posts(channel, questions, number)
		for _, g := range a.gaps[messageKey(a.platform, channel)] {
			a.tally.Gaps++
			a.tally.GapTime += g.To.Sub(g.From)
		}
	}
	for _, q := range questions {
		a.question(q)
	}
}

// posts audits the bot's posts in a channel.
func (a *platformAuditor) posts(channel string, questions []posted, number map[string]int) {
	latest := map[string]int{} // the latest answered question, by person
	for _, p := range a.community.botPosts(channel) {
		if a.ingested[messageKey(a.platform, p.id)] != nil {
			a.violation(Violation{What: fmt.Sprintf("the bot's own post was ingested: %s:%s", a.platform, p.id)}, posted{}, "")
		}
		a.answers[p.replyTo] = append(a.answers[p.replyTo], p)
		i, ok := number[p.replyTo]
		if !ok {
			a.violation(Violation{What: fmt.Sprintf("the bot posted %q in %s:%s, without a question", p.text, a.platform, channel)}, posted{}, "")
			continue
		}
		q := questions[i]
		if q.channel != channel {
			a.violation(Violation{What: fmt.Sprintf("a question in %s:%s was answered in %s", a.platform, q.channel, channel), Lost: true}, q, "")
		}
		if i < latest[q.person] {
			a.tally.Overtaken++
		}
		latest[q.person] = max(latest[q.person], i)
	}
}

// question audits that a question was ingested once, or missed in a recorded gap.
func (a *platformAuditor) question(q posted) {
	a.tally.Asked++
	correlation, times := "", 0
	ingested := a.ingested[messageKey(a.platform, q.id)]
	for c, n := range ingested {
		correlation, times = c, n
		a.known[c] = true
	}
	if len(ingested) == 0 {
		a.uningested(q)
		return
	}
	if len(ingested) > 1 {
		a.doubled(q, correlation, "ingested as %d events", len(ingested))
	}
	a.tally.Ingested++
	a.tally.Repeated += times - 1
	if n := len(a.answers[q.id]); n > 1 {
		a.doubled(q, correlation, "answered %d times", n)
	}
	a.outcome(q, correlation)
}

// uningested audits a question that is not an event.
func (a *platformAuditor) uningested(q posted) {
	inGap := a.missed(a.platform, q)
	switch {
	case len(a.answers[q.id]) > 0:
		a.doubled(q, "", "answered, and never ingested")
	case inGap && a.platform == identity.Twitch:
		a.tally.Missed++
		if q.joined {
			a.tally.MissedJoined++
		}
	default:
		a.lost(q, "", "never ingested (bot in the channel: %v; in a recorded gap: %v)", q.joined, inGap)
	}
}

// outcome audits that an ingested question has exactly one outcome.
func (a *platformAuditor) outcome(q posted, correlation string) {
	answers, entries, deadLetters := a.answers[q.id], a.entries[correlation], a.deadLetters[correlation]
	if len(entries) > 1 || len(deadLetters) > 1 {
		a.doubled(q, correlation, "%d answers in the ledger, %d dead letters", len(entries), len(deadLetters))
		return
	}
	for _, d := range deadLetters {
		if d.Attempts != 1 {
			a.doubled(q, correlation, "its dead letter was written %d times", d.Attempts)
		}
	}
	if len(entries) == 0 {
		if len(deadLetters) == 0 {
			a.lost(q, correlation, "no answer in the ledger and no dead letter")
		} else {
			a.dead(deadLetters[0].Reason)
		}
		return
	}
	e := entries[0]
	switch state := delivery.State(e.State); {
	case state == delivery.Delivered && len(deadLetters) > 0:
		a.doubled(q, correlation, "delivered, and a dead letter (%s)", deadLetters[0].Reason)
	case state == delivery.Delivered && len(answers) == 0:
		a.lost(q, correlation, "delivered, and not posted")
	case state == delivery.Delivered:
		a.tally.Answered++
	case state == delivery.Dead && len(deadLetters) == 0:
		a.lost(q, correlation, "dead, without a dead letter")
	case state == delivery.Dead && e.Reason == string(deadletter.OutcomeUnknown):
		a.tally.Unknown++
		a.tally.UnknownPosted += len(answers)
	case state == delivery.Dead && len(answers) > 0:
		a.doubled(q, correlation, "dead (%s), and posted", e.Reason)
	case state == delivery.Dead:
		a.dead(e.Reason)
	default:
		a.lost(q, correlation, "neither delivered nor dead: %s", e.State)
	}
}

// dead counts a dead-lettered question. The reason is not outcome_unknown.
func (a *platformAuditor) dead(reason string) {
	a.tally.Dead++
	if a.report.Dead == nil {
		a.report.Dead = map[string]int{}
	}
	a.report.Dead[string(a.platform)+" "+reason]++
}

// lost adds a violation that counts as lost.
func (a *platformAuditor) lost(q posted, correlation, format string, args ...any) {
	a.violation(Violation{What: a.name(q) + fmt.Sprintf(format, args...), Lost: true}, q, correlation)
}

// doubled adds a violation that counts as doubled.
func (a *platformAuditor) doubled(q posted, correlation, format string, args ...any) {
	a.violation(Violation{What: a.name(q) + fmt.Sprintf(format, args...), Doubled: true}, q, correlation)
}

// name describes a question at the beginning of a violation.
func (a *platformAuditor) name(q posted) string {
	return fmt.Sprintf("%s in %s, asked at %s: ", messageKey(a.platform, q.id), q.channel, a.at(q.at))
}

// violation adds a violation to the report. q is the question concerned, or the zero value.
func (a *platformAuditor) violation(v Violation, q posted, correlation string) {
	a.report.add(v, q.id != "", func() []string { return a.history(q, correlation) })
}

// history collects what is known about a question: the ledger, the bot's posts, gaps, faults at the time, and log lines.
func (s *platformSoak) history(a *platformAuditor, q posted, correlation string) (lines []string) {
	ids := []string{q.id}
	for _, e := range a.entries[correlation] {
		lines = append(lines, fmt.Sprintf("ledger: %+v; opened at %s", e, s.at(e.OpenedAt)))
		ids = append(ids, e.ID)
	}
	for _, p := range a.answers[q.id] {
		lines = append(lines, fmt.Sprintf("posted at %s: %q", s.at(p.at), p.text))
	}
	for _, g := range a.gaps[messageKey(a.platform, q.channel)] {
		lines = append(lines, fmt.Sprintf("gap from %s to %s, found by %s", s.at(g.From), s.at(g.To), g.Instance))
	}
	lines = append(lines, s.faultsBetween(q.at, q.at)...)
	return append(lines, s.logged(ids...)...)
}
