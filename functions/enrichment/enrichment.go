// Package enrichment is the function that ties what happened to a known person, counts it in their document, and runs
// the operators' rules over it.
//
// Every event is published once on the topic of enriched events, for observers and, if a rule asked for it, for the
// personality function (the bus attribute next says so). Where a rule answers by itself, and nothing asks for a model's
// answer, the answer is sent from here, as the step rule:<id>; the event is published all the same, so that observers
// see everything in one place, for one publish more.
//
// # People and their ids
//
// A viewer of the same name on two platforms is two users, until an operator links one's id to the other
// (identities/{platform:id}, [store.Link]). From then on the linked id is that person's: what is counted, remembered and
// known is theirs, in one document, users/{the person's id}. Of the event's fields
//
//   - userId, and auth.identity, are the id by which the platform knows who spoke, as the event came with it. An answer
//     goes to that: a whisper on Twitch to the id on Twitch, a frame to the WebSocket that is authenticated with it.
//     auth.provider is then that id's platform, and so is the tag PROVIDER_<X>.
//   - user.id, and auth.userRef, are the person. Roles, tags, counts, cooldowns, status and the memory of
//     conversations go by them: who is blocked is blocked with every id.
//
// The name and the profile are those that the person's own platform tells; a linked one fills in what is missing. Each
// platform gives and takes its own roles, wherever the person is known; two ids of one platform share what that platform
// gave, and the one that was heard last decides. The document that a linked id had before stays as it was, and is used
// again when the id is unlinked. Links are remembered for a while (IDENTITIES_CACHE_TTL): an event that is redelivered
// across the making of a link may count for both.
//
// An event costs one read and one write of the user's document, and one write of the ledger if a rule answers. Events
// of one user that are worked on at the same time are told apart by the document's version: who comes second reads
// again and decides anew.
//
// A redelivery finds the event among the last ones that the document counted. It counts nothing, gets the same tags and
// the same rules, and does again what may not have been done: publish, and send.
//
// An event that asks for a moderator's action (package moderation) becomes an order to the platform where it is to be
// done if who asks may have it done; else it is published for observers and dead-lettered as forbidden. Rules may act,
// too.
//
// An event without an id, or with one that can't be, passes unmatched, as nobody's: rules run over it, without
// cooldowns, and whatever roles it claims are dropped. The users whose status is blocked or banned are counted, but no
// rule runs for them and no step is left pending: their events go to observers alone.
package enrichment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// Step is this function's name in a routing slip and in logs.
const Step = "enrichment"

// maxAttempts is how often a decision is made anew because the document changed meanwhile. Events of one user and
// channel come one after the other, so only somebody who talks in several channels at once gets in their own way.
const maxAttempts = 5

// codeInvalidUser is what enrichment notes in an event's errors where its user's id can't be one.
const codeInvalidUser = "invalid_user_id"

// Store is what the function reads and writes beside the ledger. [store.Store] is one.
type Store interface {
	User(ctx context.Context, id identity.UserID) (store.User, store.Version, error)
	LinkedUser(ctx context.Context, id, expected identity.UserID) (person identity.UserID, u store.User, v store.Version, broken, err error)
	UserByEmail(ctx context.Context, email string) (identity.UserID, store.User, store.Version, error)
	PutUser(ctx context.Context, id identity.UserID, u store.User, v store.Version) error
	Rules(ctx context.Context) (rules []store.Rule, broken map[string]error, err error)
}

// Publisher is what the function needs of the bus. [bus.Client] is one.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

// Sender sends answers, each once. [delivery.Sender] is one.
type Sender interface {
	SendToAll(ctx context.Context, e *event.Event, step string) (ids []string, err error)
}

// Deps is what a [Function] works with. All of it is required.
type Deps struct {
	Config Config
	Store  Store
	Bus    Publisher
	Sender Sender
	Now    func() time.Time
	Log    *slog.Logger
}

// Function enriches events. It is safe for concurrent use.
type Function struct {
	users        UsersConfig
	discordRoles map[string]string
	notRelayed   map[string]bool // users whose messages are not relayed
	store        Store
	bus          Publisher
	sender       Sender
	now          func() time.Time
	log          *slog.Logger
	rules        *ruleCache
	people       *personCache
}

// New makes a function.
func New(d Deps) *Function {
	return &Function{
		users: d.Config.Users, discordRoles: d.Config.Users.discordRoles(), notRelayed: d.Config.Relay.ignored(),
		store: d.Store, bus: d.Bus, sender: d.Sender, now: d.Now, log: d.Log,
		people: newPersonCache(d.Store, d.Config.Links.TTL, d.Now, d.Log),
		rules:  &ruleCache{load: d.Store.Rules, ttl: d.Config.Rules.TTL, now: d.Now, log: d.Log},
	}
}

// Enrich is the function's [bus.Handler].
func (f *Function) Enrich(ctx context.Context, in bus.Incoming) error {
	started := event.TruncateToMicros(f.now())
	rules, err := f.rules.get(ctx)
	if err != nil {
		return fmt.Errorf("enrich %s: %w", in.Event.CorrelationID, err)
	}
	// The time of publishing is the same at each delivery, so what is dated by it is, too; and it keeps sessions right
	// when events wait for long.
	at := event.TruncateToMicros(in.Published)
	if in.Published.IsZero() {
		at = started
	}
	d, err := f.decide(ctx, in.Event, rules, at)
	if err != nil {
		return fmt.Errorf("enrich %s: %w", in.Event.CorrelationID, err)
	}
	f.rules.logFailures(ctx, d.outcome.Failed)
	deliveries, err := f.publish(ctx, d, started)
	if err != nil {
		return fmt.Errorf("enrich %s: %w", in.Event.CorrelationID, err)
	}
	f.log.DebugContext(ctx, "enriched",
		"correlationId", d.event.CorrelationID, "type", d.event.Type, "source", d.event.Source,
		"matched", d.event.Auth.Matched, "repeated", d.repeated, "attempts", d.attempts, "next", d.event.Next(), "deliveries", deliveries,
		slog.Group("rules", "evaluated", d.outcome.Evaluated, "matched", len(d.outcome.Applied), "failed", len(d.outcome.Failed), "silent", d.outcome.OnCooldown, "echoes", d.outcome.RelaysDropped),
		"ms", f.now().Sub(started).Milliseconds())
	return nil
}

// decision is what becomes of an event.
type decision struct {
	event         *event.Event // tied to its user, but without what the rules add
	outcome       rule.Outcome
	authorization authorization
	excluded      bool // only observers get it
	repeated      bool // it was counted before
	attempts      int  // how often it was decided, because the document changed meanwhile
}

// decide finds out what becomes of an event, and has it stored in the user's document when it returns.
func (f *Function) decide(ctx context.Context, original *event.Event, rules *rule.Set, at time.Time) (decision, error) {
	id, err := identify(original)
	address := ""
	if err == nil && id.IsZero() {
		address = email(original)
	}
	for attempt := 1; err == nil && (!id.IsZero() || address != ""); attempt++ {
		var who subject
		var doc store.User
		var version store.Version
		if id.IsZero() {
			who, doc, version, err = f.people.findByEmail(ctx, address)
		} else {
			who, doc, version, err = f.people.find(ctx, id)
		}
		if id = who.id; err != nil || id.IsZero() {
			break
		}
		d, put := f.decideMatched(original, rules, at, who, doc)
		d.attempts = attempt
		if put == nil {
			return d, nil
		}
		err = f.store.PutUser(ctx, who.person, *put, version)
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
	// The id is bad, or that of the document which has the e-mail address; or there is nobody to be found.
	return f.decideUnmatched(original, rules, at, err), nil
}

// decideMatched decides what becomes of an event of a user, given their document, and what the document becomes: nil if it
// stays as it is.
func (f *Function) decideMatched(original *event.Event, rules *rule.Set, at time.Time, who subject, doc store.User) (decision, *store.User) {
	e := original.Clone()
	told := readAttributes(e, who.id, f.discordRoles)
	facts := told
	facts.authoritative = facts.authoritative && !who.linked()
	v := countEvent(doc, who, observation{correlationID: e.CorrelationID, at: at, message: isUserMessage(e), attributes: facts}, f.users.SessionLength)
	fillUser(e, who, v.doc, v.tags, at)
	d := decision{event: e, repeated: v.repeated, excluded: excluded(v.doc.Status)}
	d.authorization = authorize(e, v.doc, told, v.rules, d.excluded)
	if v.repeated {
		if !d.excluded {
			d.outcome = rules.Repeat(e, at, v.rules)
		}
		return d, nil
	}
	held := d.authorization.marks()
	if !d.excluded {
		c := cooldowns{until: v.doc.Cooldowns, channel: e.Channel, at: at}
		d.outcome = rules.Evaluate(e, at, c.silent)
		if f.mustNotRelay(original, who.id) {
			d.outcome.DropRelays()
		}
		began := map[string]time.Duration{}
		for _, a := range d.outcome.Applied {
			held = append(held, a.ID)
			if a.Cooldown > 0 {
				began[a.ID] = a.Cooldown
			}
		}
		v.doc.Cooldowns = c.after(began)
	}
	v.remember(e.CorrelationID, held)
	return d, &v.doc
}

// decideUnmatched decides what becomes of an event that is nobody's. cause, if not nil, is noted in it.
func (f *Function) decideUnmatched(original *event.Event, rules *rule.Set, at time.Time, cause error) decision {
	e := original.Clone()
	if cause != nil {
		e.Errors = append(e.Errors, event.Error{Code: codeInvalidUser, Message: cause.Error()})
	}
	if e.User != nil {
		// nobody vouches for them, and rules open doors by them
		e.User.Roles, e.User.RolesMeta, e.User.Status = nil, nil, ""
	}
	fillAuth(e, string(provider(e)), "", at)
	never := func(string) bool { return false } // there is no document that would remember a cooldown
	d := decision{event: e, outcome: rules.Evaluate(e, at, never), authorization: authorizeUnmatched(e)}
	if f.mustNotRelay(original, identity.UserID{}) {
		d.outcome.DropRelays()
	}
	return d
}

// fillUser puts who the user is into an event.
func fillUser(e *event.Event, who subject, doc store.User, tags []string, at time.Time) {
	u := &event.User{
		ID: who.person.String(), Email: doc.Email, DisplayName: doc.DisplayName, Roles: doc.Roles, Status: doc.Status,
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
	e.User, e.UserID = u, who.id.String()
	fillAuth(e, who.provider(doc), who.person.Ref(), at)
	if who.linked() {
		e.Auth.Identity = who.id.String()
	}
}

// fillAuth tells how the event was tied to a user; ref is empty if it was not.
func fillAuth(e *event.Event, provider, ref string, at time.Time) {
	a := &event.Auth{V: "1", Provider: provider, Method: event.MethodEnrichment, Matched: ref != "", UserRef: ref, At: at}
	if e.Auth != nil {
		a.Extra = e.Auth.Extra
	}
	e.Auth = a
}

// excluded reports whether users of a status get no answers.
func excluded(status string) bool {
	return strings.EqualFold(status, "blocked") || strings.EqualFold(status, "banned")
}

// skipPending leaves no step for others to do.
func skipPending(e *event.Event) {
	for i := range e.RoutingSlip {
		if e.RoutingSlip[i].Status == event.StepPending {
			e.RoutingSlip[i].Status = event.StepSkip
		}
	}
}

// maxSending is how many answers of one event are sent at a time.
const maxSending = 4

// publish finishes an event and gives it to the bus, and sends what rules answer, relay and do at the same time: none of
// it has to come first, because all are told from their repetition. It returns the deliveries' ids.
func (f *Function) publish(ctx context.Context, d decision, started time.Time) (deliveries []string, err error) {
	e := d.event
	e.Finish(Step, started, event.TruncateToMicros(f.now()), nil)
	if d.excluded {
		skipPending(e)
	}
	relays := d.outcome.Relays(e)
	d.outcome.AddTo(e)
	sends := append(relays, d.commands()...)
	if answer, ok := d.outcome.Answer(); ok && !hasPending(e, rule.Personality) {
		out := e.Clone()
		answer.Direct(out)
		sends = append(sends, rule.Relay{Step: answer.Step(), Event: out})
	}
	var publishErr error
	ids, errs := make([][]string, len(sends)), make([]error, len(sends))
	var all errgroup.Group // not one that cancels: what one of them meets must not break off the others
	all.SetLimit(1 + maxSending)
	all.Go(func() error {
		publishErr = f.bus.Publish(ctx, topology.Enriched, bus.Outgoing{Event: e, IdempotencyKey: digest.Of("enriched", e.CorrelationID)})
		return nil
	})
	for i, s := range sends {
		all.Go(func() error {
			ids[i], errs[i] = f.sender.SendToAll(ctx, s.Event, s.Step)
			return nil
		})
	}
	all.Wait() // the errors are kept
	// what can be tried again goes first: a dead letter would end all
	if publishErr != nil && errors.Is(publishErr, event.ErrInvalid) {
		publishErr = deadletter.New(deadletter.InvalidEvent, publishErr)
	}
	return slices.Concat(ids...), delivery.WorstError(append([]error{d.authorization.refusal(), publishErr}, errs...))
}

func hasPending(e *event.Event, step string) bool {
	return slices.ContainsFunc(e.RoutingSlip, func(s event.Step) bool { return s.ID == step && s.Status == event.StepPending })
}
