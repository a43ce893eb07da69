// Package enrichment is the Cloud Function that ties each event to a person, counts the event in the person's document,
// and applies the operators' rules. Start at [Function.Enrich]. The package decides no routing to platforms: package
// delivery and the gateways do.
//
// Rules and models see the text of a message without white space and invisible characters at its ends
// ([chattext.Trim]). The platform's raw payload stays as it came.
//
// Every event is published once to the topic of enriched events, for observers. If a rule requested a model's answer,
// the bus attribute next also addresses the event to the personality function. If a rule answers by itself and no rule
// requests a model, this function sends the answer as the step rule:<id>. Observers still receive the event. So all
// events are on one topic; such an answer costs one more publish.
//
// # People and their ids
//
// A viewer with the same name on two platforms is two users until an operator links one id to the other
// (identities/{platform:id}, [store.Link]). From then on counts, roles and memory of the linked id belong to the person,
// in the document users/{the person's id}. The event's fields:
//
//   - userId and auth.identity hold the sender's id on the sending platform. An answer goes to this id: a whisper to the
//     Twitch id, a frame to the WebSocket authenticated with the id. auth.provider and the tag PROVIDER_<X> name the
//     platform of this id.
//   - user.id and auth.userRef hold the person. Roles, tags, counts, cooldowns, status and conversation memory belong to
//     the person: a blocked person is blocked under every id.
//
// Name and profile come from the person's own platform; a linked id fills in missing values. Roles given by hand count
// everywhere. A platform gives and revokes roles in a place: a Twitch channel, or a Discord guild. These roles count for
// events in this place only, so a moderator of one channel has no role in another, in a private message or in a web
// room. Two ids of one platform share the roles of a place, and the latest event decides.
// The earlier document of a linked id stays unchanged, and is used again after the id is unlinked. Links are cached for
// IDENTITIES_CACHE_TTL: an event redelivered while a link is being made may count for both people.
//
// # Cost, concurrency and redelivery
//
// An event costs one read and one write of the user's document, and one ledger write if a rule answers. Concurrent events
// of one user share a read and a write in each instance, so a user may talk in many channels at once. The document's
// version detects concurrent writers in other instances: the second writer reads again and decides again.
//
// The document remembers the last counted events. A redelivered event counts nothing, gets the same tags and the same
// rules, and repeats the steps that may be missing: publish, and send.
//
// # Moderation, unmatched and excluded users
//
// An event that requests a moderation action (package moderation) becomes a command to the platform if the user has
// permission. Otherwise observers receive the event, and it is dead-lettered as forbidden. Only the first such request of
// a user in an hour is stored; each is logged as a warning. The gateway refuses most of these requests earlier, by a
// cached document; the decision of this package counts.
//
// Rules may act too. If a rule holds but its action can't be made, such as a time-out longer than the platform's limit,
// the event is dead-lettered as invalid_event, with the rule and the field. After the rule is repaired, a redrive acts.
//
// An event without a valid id passes unmatched. Rules apply without cooldowns, and roles claimed by the event are
// dropped. Events of users with the status blocked or banned are counted and published for observers, but no rule
// applies and pending steps are skipped.
package enrichment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

// Step is the name of this function in routing slips and logs.
const Step = "enrichment"

// Store is the function's access to Firestore, apart from the ledger. [store.Store] implements it.
type Store interface {
	User(ctx context.Context, id identity.UserID) (store.User, store.Version, error)
	LinkedUser(ctx context.Context, id, expected identity.UserID) (person identity.UserID, u store.User, v store.Version, broken, err error)
	UserByEmail(ctx context.Context, email string) (identity.UserID, store.User, store.Version, error)
	PutUser(ctx context.Context, id identity.UserID, u store.User, v store.Version) error
	Rules(ctx context.Context) (rules []store.Rule, broken map[string]error, err error)
}

// Publisher publishes to the bus. [bus.Client] implements it.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

// Sender sends each answer once. [delivery.Sender] implements it.
type Sender interface {
	SendToAll(ctx context.Context, e *event.Event, step string) (ids []string, err error)
}

// Deps holds the dependencies of a [Function]. All are required.
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
	notRelayed   map[string]bool // by user id (platform:id)
	store        Store
	bus          Publisher
	sender       Sender
	now          func() time.Time
	log          *slog.Logger
	rules        *ruleCache
	people       *personCache
	batches      *batcher
}

// New returns a function with the given dependencies.
func New(d Deps) *Function {
	return &Function{
		users: d.Config.Users, discordRoles: d.Config.Users.discordRoles(), notRelayed: d.Config.Relay.ignored(),
		store: d.Store, bus: d.Bus, sender: d.Sender, now: d.Now, log: d.Log,
		batches: newBatcher(),
		people:  newPersonCache(d.Store, d.Config.Links.TTL, d.Now, d.Log),
		rules:   &ruleCache{load: d.Store.Rules, ttl: d.Config.Rules.TTL, now: d.Now, log: d.Log},
	}
}

// Enrich handles one event. It is the function's [bus.Handler], so a redelivery is safe.
func (f *Function) Enrich(ctx context.Context, in bus.Incoming) error {
	started := event.TruncateToMicros(f.now())
	rules, err := f.rules.get(ctx)
	if err != nil {
		return fmt.Errorf("enrich %s: %w", in.Event.CorrelationID, err)
	}
	// The publish time is the same for every delivery, so all timestamps are. It also keeps sessions right when events
	// wait for long.
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
		f.logRefusal(ctx, d.event, err)
		return fmt.Errorf("enrich %s: %w", in.Event.CorrelationID, err)
	}
	f.log.DebugContext(ctx, "enriched",
		"correlationId", d.event.CorrelationID, "type", d.event.Type, "source", d.event.Source,
		"matched", d.event.Auth.Matched, "repeated", d.repeated, "attempts", d.attempts, "next", d.event.Next(), "deliveries", deliveries,
		slog.Group("rules", "evaluated", d.outcome.Evaluated, "matched", len(d.outcome.Applied), "failed", len(d.outcome.Failed), "onCooldown", d.outcome.OnCooldown, "relaysDropped", d.outcome.RelaysDropped),
		"ms", f.now().Sub(started).Milliseconds())
	return nil
}

// skipPending marks all pending steps as skipped.
func skipPending(e *event.Event) {
	for i := range e.RoutingSlip {
		if e.RoutingSlip[i].Status == event.StepPending {
			e.RoutingSlip[i].Status = event.StepSkip
		}
	}
}

// maxSending is the number of answers sent concurrently for one event.
const maxSending = 4

// publish finishes the event and publishes it. At the same time it sends the rules' answers, relays and commands. No
// order is needed, because each of these steps recognizes a repetition. publish returns the ids of the deliveries.
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
	var all errgroup.Group // without a context: one failure must not cancel the other sends
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
	all.Wait() // errors are in publishErr and errs
	// WorstError prefers a retryable error: a dead letter would end all retries.
	if publishErr != nil && errors.Is(publishErr, event.ErrInvalid) {
		publishErr = deadletter.New(deadletter.InvalidEvent, publishErr)
	}
	return slices.Concat(ids...), delivery.WorstError(append([]error{d.refusal(), publishErr}, errs...))
}

// hasPending reports whether the routing slip holds the step as pending.
func hasPending(e *event.Event, step string) bool {
	return slices.ContainsFunc(e.RoutingSlip, func(s event.Step) bool { return s.ID == step && s.Status == event.StepPending })
}
