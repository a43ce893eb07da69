package delivery

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// Attributes of an answer on the bus, besides the attributes of every message.
const (
	AttrDelivery = "delivery" // the id of its ledger entry
	AttrVersion  = "version"  // of the opened entry: see [Ledger.MarkDelivered]
	AttrDeadline = "deadline" // the answer must not be sent later (RFC 3339)
)

// Config configures the lifetime of answers.
type Config struct {
	Deadline  time.Duration `env:"EGRESS_DEADLINE" envDefault:"2m" help:"After this time an undelivered answer is dead-lettered as no_connection; an event's qos.ttl shortens the time."`
	Retention time.Duration `env:"EGRESS_RETENTION" envDefault:"72h" help:"How long the ledger keeps a delivery, so that a reconnecting client can get missed answers; at least an hour more than EGRESS_DEADLINE."`
}

// minKept is how much longer than its deadline the ledger keeps an answer. The sweep needs the entry, and so does a
// late duplicate of the answered event, which must find its answer.
const minKept = time.Hour

// Validate checks the ranges.
func (c Config) Validate() error {
	if c.Deadline < time.Second {
		return fmt.Errorf("EGRESS_DEADLINE: %s is less than 1s", c.Deadline)
	}
	if c.Retention-minKept < c.Deadline {
		return fmt.Errorf("EGRESS_RETENTION: %s is not %s more than EGRESS_DEADLINE (%s)", c.Retention, minKept, c.Deadline)
	}
	return nil
}

// Publisher is the part of the bus that a [Sender] needs.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

// Sender sends answers: it opens an entry in the ledger for each, then publishes the answer on the bus. It is safe for
// concurrent use.
type Sender struct {
	ledger *Ledger
	bus    Publisher
	config Config
	now    func() time.Time
}

// NewSender makes a sender.
func NewSender(l *Ledger, p Publisher, c Config, now func() time.Time) *Sender {
	return &Sender{ledger: l, bus: p, config: c, now: now}
}

// Send sends the answer in e, made by a step, and returns the delivery's id. A repeated call does only the missing
// part: it publishes the answer that was opened first. An answer that can never be sent is a [deadletter.Error].
// [Sender.SendToAll] sends an answer to several addresses.
func (s *Sender) Send(ctx context.Context, e *event.Event, step string) (string, error) {
	return s.send(ctx, e.CorrelationID, answer.Part{Event: e, Step: step})
}

// send sends one answer. cause identifies the cause of the answer: see [ID].
func (s *Sender) send(ctx context.Context, cause string, p answer.Part) (string, error) {
	entry, err := s.open(ctx, cause, p)
	if err != nil {
		return "", err
	}
	return entry.ID, s.publish(ctx, entry)
}

// open opens the answer's entry, or returns the existing entry.
func (s *Sender) open(ctx context.Context, cause string, p answer.Part) (Entry, error) {
	e, id := p.Event, ID(cause, p.Step)
	out, err := answer.Prepare(e)
	if err != nil {
		return Entry{}, err
	}
	now := event.TruncateToMicros(s.now())
	if !e.TimeoutAt.IsZero() && now.After(e.TimeoutAt) {
		entry, err := s.ledger.Get(ctx, id) // an entry opened in time keeps its own outcome
		if errors.Is(err, ErrNotFound) {
			err = deadletter.New(deadletter.Expired, fmt.Errorf("the answer was wanted until %s", e.TimeoutAt.Format(time.RFC3339)))
		}
		return entry, err
	}
	data, err := event.Encode(out)
	if err != nil {
		return Entry{}, deadletter.New(deadletter.InvalidEvent, err)
	}
	deadline := now.Add(s.config.Deadline)
	// compared in seconds, because the TTL may be too large for a time.Duration
	if e.QoS != nil && e.QoS.TTL > 0 && float64(e.QoS.TTL) < s.config.Deadline.Seconds() {
		deadline = now.Add(time.Duration(e.QoS.TTL) * time.Second)
	}
	entry, _, err := s.ledger.Open(ctx, Entry{
		ID: id, State: Pending, Destination: out.Egress.Destination, Type: out.Egress.Type,
		UserID: out.UserID, Channel: out.Channel, CorrelationID: out.CorrelationID, Step: p.Step,
		CreatedAt: now, Deadline: deadline, ExpireAt: now.Add(s.config.Retention), Shard: shard(id), Event: data, decoded: out,
	})
	return entry, err
}

// PublishEntry publishes a pending entry of the ledger, as after a redrive.
func (s *Sender) PublishEntry(ctx context.Context, id string) error {
	entry, err := s.ledger.Get(ctx, id)
	if err != nil {
		return err
	}
	return s.publish(ctx, entry)
}

// publish publishes the stored bytes of an entry. A duplicate is harmless: receivers recognize the id.
func (s *Sender) publish(ctx context.Context, entry Entry) error {
	if entry.State != Pending {
		return nil
	}
	e, err := entry.decode()
	if err != nil {
		return err
	}
	attributes := map[string]string{
		bus.AttrRoute: route(entry),
		AttrDelivery:  entry.ID,
		AttrVersion:   entry.version.UTC().Format(time.RFC3339Nano),
		AttrDeadline:  entry.Deadline.UTC().Format(time.RFC3339Nano),
	}
	if entry.RedriveCount > 0 {
		attributes[deadletter.AttrRedrive] = strconv.Itoa(entry.RedriveCount)
	}
	return s.bus.Publish(ctx, topology.Egress, bus.Outgoing{Event: e, Data: entry.Event, IdempotencyKey: entry.ID, Attributes: attributes})
}

// route returns the receiver of an answer. The whisper function sends direct messages on Twitch; the gateways send all
// other answers.
func route(e Entry) string {
	if e.Destination == string(identity.Twitch) && e.Type == event.EgressDM {
		return bus.RouteWhisper
	}
	return bus.RouteBroadcast
}

// IsNotice reports whether a message of the egress topic has no ledger entry: another system published the message. The
// subscription of the notices has the same filter, NOT attributes:delivery. Only the dlq function handles notices: it
// opens an entry and publishes the notice again ([Sender.SendNotice]).
func IsNotice(attributes map[string]string) bool {
	_, recorded := attributes[AttrDelivery]
	return !recorded
}

// ParseRef returns the ledger entry of an answer from the egress topic. An answer without an entry has no place for an
// outcome, so it is [deadletter.InvalidEvent].
func ParseRef(in bus.Incoming) (Ref, error) {
	id := in.Attributes[AttrDelivery]
	if id == "" {
		return Ref{}, deadletter.New(deadletter.InvalidEvent, fmt.Errorf("the attribute %s is missing: the answer has no ledger entry", AttrDelivery))
	}
	// An invalid value counts as not known: settling reads the entry first, there is no deadline, and no redrive.
	version, _ := time.Parse(time.RFC3339Nano, in.Attributes[AttrVersion])
	deadline, _ := time.Parse(time.RFC3339Nano, in.Attributes[AttrDeadline])
	attempt, _ := strconv.Atoi(in.Attributes[deadletter.AttrRedrive])
	return Ref{ID: id, Deadline: deadline, RedriveCount: attempt, version: version}, nil
}
