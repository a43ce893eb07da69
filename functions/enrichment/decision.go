package enrichment

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// maxAttempts bounds the decisions for one event when the user's document keeps changing. Events of one user in one
// channel are ordered, so conflicts only occur for a user who talks in several channels at once.
const maxAttempts = 5

// codeInvalidUser is the code in an event's errors for a malformed user id.
const codeInvalidUser = "invalid_user_id"

// decision is the result for one event.
type decision struct {
	event         *event.Event // with its user, but without the rules' additions
	outcome       rule.Outcome
	authorization authorization
	excluded      bool // only observers receive the event
	repeated      bool // the event was counted before
	attempts      int  // decisions made because the document changed meanwhile
}

// decide decides about an event, and stores the decision in the user's document before it returns.
func (f *Function) decide(ctx context.Context, original *event.Event, rules *rule.Set, at time.Time) (decision, error) {
	id, err := identify(original)
	address := ""
	if err == nil && id.IsZero() {
		address = email(original)
	}
	for attempt := 1; err == nil && (!id.IsZero() || address != ""); attempt++ {
		var user subject
		var doc store.User
		var version store.Version
		if id.IsZero() {
			user, doc, version, err = f.people.findByEmail(ctx, address)
		} else {
			user, doc, version, err = f.people.find(ctx, id)
		}
		if id = user.id; err != nil || id.IsZero() {
			break
		}
		d, changed := f.decideMatched(original, rules, at, user, doc)
		d.attempts = attempt
		if changed == nil {
			return d, nil
		}
		err = f.store.PutUser(ctx, user.person, *changed, version)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, store.ErrConflict) || attempt == maxAttempts {
			return decision{}, err
		}
		err = nil
	}
	if err != nil && !errors.Is(err, identity.ErrInvalid) {
		return decision{}, err
	}
	// The event's id is malformed, or the id of the document with the e-mail address; or no person was found.
	return f.decideUnmatched(original, rules, at, err), nil
}

// decideMatched decides about an event of a known user. It also returns the changed document, or nil if the document
// stays as stored.
func (f *Function) decideMatched(original *event.Event, rules *rule.Set, at time.Time, user subject, doc store.User) (decision, *store.User) {
	e := original.Clone()
	read := readAttributes(e, user.id, f.discordRoles)
	o := observation{correlationID: e.CorrelationID, at: at, message: isUserMessage(e), attributes: read}
	o.attributes.authoritative = read.authoritative && !user.linked()
	u := countEvent(doc, user, o, f.users.SessionLength)
	fillUser(e, user, u.doc, u.tags, at)
	d := decision{event: e, repeated: u.repeated, excluded: excluded(u.doc.Status)}
	d.authorization = authorize(e, u.doc, read, u.rules, d.excluded)
	if u.repeated {
		if !d.excluded {
			d.outcome = rules.Repeat(e, at, u.rules)
		}
		return d, nil
	}
	held := d.authorization.marks()
	if !d.excluded {
		c := cooldowns{until: u.doc.Cooldowns, channel: e.Channel, at: at}
		d.outcome = rules.Evaluate(e, at, c.active)
		if f.mustNotRelay(original, user.id) {
			d.outcome.DropRelays()
		}
		began := map[string]time.Duration{}
		for _, a := range d.outcome.Applied {
			held = append(held, a.ID)
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
	e := original.Clone()
	if cause != nil {
		e.Errors = append(e.Errors, event.Error{Code: codeInvalidUser, Message: cause.Error()})
	}
	if e.User != nil {
		// These values are unverified claims, and rules grant rights by them.
		e.User.Roles, e.User.RolesMeta, e.User.Status = nil, nil, ""
	}
	fillAuth(e, string(provider(e)), "", at)
	never := func(string) bool { return false } // no document stores cooldowns
	d := decision{event: e, outcome: rules.Evaluate(e, at, never), authorization: authorizeUnmatched(e)}
	if f.mustNotRelay(original, identity.UserID{}) {
		d.outcome.DropRelays()
	}
	return d
}

// fillUser writes the user into the event.
func fillUser(e *event.Event, user subject, doc store.User, tags []string, at time.Time) {
	u := &event.User{
		ID: user.person.String(), Email: doc.Email, DisplayName: doc.DisplayName, Roles: doc.Roles, Status: doc.Status,
		Notes: doc.Notes, Tags: slices.Clone(doc.Tags), Profile: doc.Profile, RolesMeta: doc.RolesMeta,
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

// fillAuth writes the match between event and user. An empty ref means no match.
func fillAuth(e *event.Event, provider, ref string, at time.Time) {
	a := &event.Auth{V: "1", Provider: provider, Method: event.MethodEnrichment, Matched: ref != "", UserRef: ref, At: at}
	if e.Auth != nil {
		a.Extra = e.Auth.Extra
	}
	e.Auth = a
}

// excluded reports whether users with this status get no answers.
func excluded(status string) bool {
	return strings.EqualFold(status, "blocked") || strings.EqualFold(status, "banned")
}
