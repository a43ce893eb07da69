package enrichment

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/chattext"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
	"parley.internal/shared/store"
)

const (
	// maxAttempts bounds the decisions for one event when the user's document keeps changing. A batcher keeps the events
	// of one user in one instance apart, so a conflict needs a second instance, a linked id, or an operator.
	maxAttempts = 6

	// The pauses between attempts are about 25, 50, 100, 200 and 400 ms. They spread the writes of several instances.
	firstPause, longestPause = 25 * time.Millisecond, 400 * time.Millisecond

	// decideTimeout bounds the decision about one batch. A call waits for at most a few batches, and the
	// subscription's ack deadline is 60 s.
	decideTimeout = 20 * time.Second
)

// codeInvalidUser is the code in an event's errors for a malformed user id.
const codeInvalidUser = "invalid_user_id"

// decision is the result for one event.
type decision struct {
	event         *event.Event // with its user, but without the rules' additions
	at            time.Time    // publish time of the message, the same for every delivery
	outcome       rule.Outcome
	authorization authorization
	excluded      bool // only observers receive the event
	repeated      bool // the event was counted before
	attempts      int  // decisions made because the document changed meanwhile
}

// decide decides about an event, and stores the decision in the user's document before it returns.
func (f *Function) decide(ctx context.Context, original *event.Event, rules *rule.Set, at time.Time) (decision, error) {
	id, err := identify(original)
	q := &request{event: original, rules: rules, at: at}
	matched := err == nil && !id.IsZero()
	switch {
	case matched:
		f.batches.do(id, q, func(batch []*request) { f.decideBatch(ctx, id, nil, batch) })
		err = q.err
	case err == nil:
		var found foundUser
		if address := email(original); address != "" {
			found, err = f.people.findByEmail(ctx, address)
		}
		if matched = err == nil && !found.id.IsZero(); matched {
			f.decideBatch(ctx, found.id, &found, []*request{q})
			err = q.err
		}
	}
	switch {
	case err != nil && !errors.Is(err, identity.ErrInvalid):
		return decision{}, err
	case matched && err == nil:
		return q.decision, nil
	}
	// The event's id is malformed, or the id of the document with the e-mail address; or no person was found.
	return f.decideUnmatched(original, rules, at, err), nil
}

// decideBatch decides about events of one user, in their order, with one read and one write of the user's document. If
// the document changed meanwhile, decideBatch starts over. found is the document as read before, or nil.
func (f *Function) decideBatch(ctx context.Context, id identity.UserID, found *foundUser, batch []*request) {
	// The batch holds events of other calls, so the context of this call must not cancel it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), decideTimeout)
	defer cancel()
	err := f.tryBatch(ctx, id, found, batch)
	for _, q := range batch {
		q.err = err
	}
}

// tryBatch is decideBatch with one error for all events.
func (f *Function) tryBatch(ctx context.Context, id identity.UserID, found *foundUser, batch []*request) error {
	backoff := retry.NewBackoff(firstPause, longestPause)
	for attempt := 1; ; attempt++ {
		if found == nil {
			read, err := f.people.find(ctx, id)
			if err != nil {
				return err
			}
			found = &read
		}
		doc, counted := found.doc, false
		for _, q := range batch {
			d, changed := f.decideMatched(q.event, q.rules, q.at, found.subject, doc)
			d.attempts = attempt
			q.decision = d
			if changed != nil {
				doc, counted = *changed, true
			}
		}
		if !counted {
			return nil
		}
		err := f.store.PutUser(ctx, found.person, doc, found.version)
		if err == nil || !errors.Is(err, store.ErrConflict) || attempt == maxAttempts || backoff.Wait(ctx) != nil {
			return err
		}
		found = nil
	}
}

// decideMatched decides about an event of a known user. It also returns the changed document, or nil if the document
// stays as stored.
func (f *Function) decideMatched(original *event.Event, rules *rule.Set, at time.Time, user subject, doc store.User) (decision, *store.User) {
	e := withVisibleText(original)
	read := readAttributes(e, user.id, f.discordRoles)
	o := observation{correlationID: e.CorrelationID, at: at, message: isUserMessage(e), attributes: read}
	o.attributes.authoritative = read.authoritative && !user.linked()
	u := countEvent(doc, user, o, f.users.SessionLength)
	fillUser(e, user, u.doc, u.tags, at)
	fillRoles(e, u.doc, read)
	d := decision{event: e, at: at, repeated: u.repeated, excluded: store.Blocked(u.doc.Status)}
	d.authorization = authorize(e, u.doc, read, u.rules, d.excluded)
	if u.repeated {
		if !d.excluded {
			d.outcome = rules.Repeat(e, at, u.rules)
		}
		return d, nil
	}
	held := d.authorization.marks()
	if !d.excluded {
		c := newCooldowns(u.doc.Cooldowns, e, at)
		d.outcome = rules.Evaluate(e, at, c.active)
		if f.mustNotRelay(original, user.id) {
			d.outcome.DropRelays()
		}
		began := map[string]time.Duration{}
		held = append(held, d.outcome.Held()...)
		for _, a := range d.outcome.Applied {
			if a.Cooldown > 0 {
				began[a.ID] = a.Cooldown
			}
		}
		u.doc.Cooldowns = c.after(began)
	}
	u.remember(e.CorrelationID, held)
	return d, &u.doc
}

// decideUnmatched decides about an event without a known user. A cause, if not nil, is added to the event's errors.
func (f *Function) decideUnmatched(original *event.Event, rules *rule.Set, at time.Time, cause error) decision {
	e := withVisibleText(original)
	if cause != nil {
		e.Errors = append(e.Errors, event.Error{Code: codeInvalidUser, Message: cause.Error()})
	}
	if e.User != nil {
		// These values are unverified claims, and rules grant rights by them.
		e.User.Roles, e.User.RolesMeta, e.User.RolesIn, e.User.Status = nil, nil, nil, ""
	}
	fillAuth(e, string(provider(e)), "", at)
	never := func(string) bool { return false } // no document stores cooldowns
	d := decision{event: e, at: at, outcome: rules.Evaluate(e, at, never), authorization: authorizeUnmatched(e)}
	if f.mustNotRelay(original, identity.UserID{}) {
		d.outcome.DropRelays()
	}
	return d
}

// withVisibleText copies an event for the rules and the models: its text has nothing invisible at the ends, so that
// "!help" with an invisible character is the command. The original stays as received, because the mark of a relayed text
// may be at its end ([answer.WasRelayed]).
func withVisibleText(original *event.Event) *event.Event {
	e := original.Clone()
	if e.Message != nil {
		e.Message.Text = chattext.Trim(e.Message.Text)
	}
	return e
}

// fillUser writes the user into the event, apart from roles.
func fillUser(e *event.Event, user subject, doc store.User, tags []string, at time.Time) {
	u := &event.User{
		ID: user.person.String(), Email: doc.Email, DisplayName: doc.DisplayName, Status: doc.Status,
		Notes: doc.Notes, Tags: slices.Clone(doc.Tags), Profile: doc.Profile,
	}
	if e.User != nil {
		u.Extra = e.User.Extra
	}
	for _, tag := range tags {
		if !slices.Contains(u.Tags, tag) {
			u.Tags = append(u.Tags, tag)
		}
	}
	e.User, e.UserID = u, user.id.String()
	fillAuth(e, user.provider(doc), user.person.Ref(), at)
	if user.linked() {
		e.Auth.Identity = user.id.String()
	}
}

// fillRoles writes the user's roles into the event: the roles given by hand, which count everywhere, and the roles given
// by the platform in the place of this event. Roles in other places are only in rolesIn.
func fillRoles(e *event.Event, doc store.User, read attributes) {
	u, here := e.User, doc.RolesIn[read.place]
	if read.hasRoles {
		here = read.roles // a redelivered event keeps its own roles
	}
	u.RolesIn = doc.RolesIn
	if read.place != "" {
		u.RolesIn = storeRoles(storeRoles(doc.RolesIn, read.place, here), e.Channel, here)
	}
	hand := doc.ManualRoles()
	u.Roles = hand
	for _, role := range here {
		if !slices.Contains(u.Roles, role) {
			u.Roles = append(u.Roles, role)
		}
	}
	meta := map[string][]string{store.Manual: hand, string(read.platform): here}
	maps.DeleteFunc(meta, func(_ string, roles []string) bool { return len(roles) == 0 })
	if len(meta) > 0 {
		u.RolesMeta = meta
	}
}

// fillAuth writes the match between event and user. An empty ref means no match.
func fillAuth(e *event.Event, provider, ref string, at time.Time) {
	a := &event.Auth{V: "1", Provider: provider, Method: event.MethodEnrichment, Matched: ref != "", UserRef: ref, At: at}
	if e.Auth != nil {
		a.Extra = e.Auth.Extra
	}
	e.Auth = a
}
