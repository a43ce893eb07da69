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

// Attributes of an answer on the bus, beside those of every message.
const (
	AttrDelivery = "delivery" // the id of its ledger entry
	AttrVersion  = "version"  // of the entry as it was opened: see [Ledger.MarkDelivered]
	AttrDeadline = "deadline" // after which nobody may write it any more (RFC 3339)
)

// Config says how long answers are kept.
type Config struct {
	Deadline  time.Duration `env:"EGRESS_DEADLINE" envDefault:"2m" help:"An answer that reached nobody for this long is dead-lettered as no_connection; an event's own qos.ttl shortens it."`
	Retention time.Duration `env:"EGRESS_RETENTION" envDefault:"72h" help:"How long the ledger keeps a delivery, and a client that reconnects can ask for what it missed; at least an hour more than EGRESS_DEADLINE."`
}

// minKept is how much longer than its deadline the ledger has to keep an answer: until a sweep has given it up, and as
// long as what was answered may come again, which has to find that it was answered.
const minKept = time.Hour

// Validate checks what the types cannot.
func (c Config) Validate() error {
	if c.Deadline < time.Second {
		return fmt.Errorf("EGRESS_DEADLINE: %s is less than 1s", c.Deadline)
	}
	if c.Retention-minKept < c.Deadline {
		return fmt.Errorf("EGRESS_RETENTION: %s is not %s more than EGRESS_DEADLINE (%s)", c.Retention, minKept, c.Deadline)
	}
	return nil
}

// Publisher is what a [Sender] needs of the bus.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

// Sender sends answers: it opens an entry in the ledger for each, then publishes it.
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

// Send sends the answer that e holds, made by a step, and returns its delivery's id. Sending the same answer again
// does only what is missing: what was opened first is what is published. It fails with a [deadletter.Error] if the
// answer can never be sent. Where it goes to several places, [Sender.SendToAll] sends it.
func (s *Sender) Send(ctx context.Context, e *event.Event, step string) (string, error) {
	entry, err := s.open(ctx, e, step)
	if err != nil {
		return "", err
	}
	return entry.ID, s.publish(ctx, entry)
}

// open opens the answer's entry in the ledger, or finds the one that is there.
func (s *Sender) open(ctx context.Context, e *event.Event, step string) (Entry, error) {
	id := ID(e.CorrelationID, step)
	out, err := answer.Prepare(e)
	if err != nil {
		return Entry{}, err
	}
	now := event.TruncateToMicros(s.now())
	if !e.TimeoutAt.IsZero() && now.After(e.TimeoutAt) {
		entry, err := s.ledger.Get(ctx, id) // opened in time, it has an outcome of its own
		if errors.Is(err, ErrNotFound) {
			err = deadletter.New(deadletter.Expired, fmt.Errorf("an answer was wanted until %s", e.TimeoutAt.Format(time.RFC3339)))
		}
		return entry, err
	}
	data, err := event.Encode(out)
	if err != nil {
		return Entry{}, deadletter.New(deadletter.InvalidEvent, err)
	}
	deadline := now.Add(s.config.Deadline)
	// compared in seconds: a duration of as many as an event may name can overflow
	if e.QoS != nil && e.QoS.TTL > 0 && float64(e.QoS.TTL) < s.config.Deadline.Seconds() {
		deadline = now.Add(time.Duration(e.QoS.TTL) * time.Second)
	}
	entry, _, err := s.ledger.Open(ctx, Entry{
		ID: id, State: Pending, Destination: out.Egress.Destination, Type: out.Egress.Type,
		UserID: out.UserID, Channel: out.Channel, CorrelationID: out.CorrelationID, Step: step,
		CreatedAt: now, Deadline: deadline, ExpireAt: now.Add(s.config.Retention), Shard: shard(id), Event: data, decoded: out,
	})
	return entry, err
}

// PublishEntry publishes an entry of the ledger that is pending, as after a redrive.
func (s *Sender) PublishEntry(ctx context.Context, id string) error {
	entry, err := s.ledger.Get(ctx, id)
	if err != nil {
		return err
	}
	return s.publish(ctx, entry)
}

// publish puts an entry's event on the bus. Publishing one twice does no harm: its receivers know it by its id.
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

// route says who delivers an answer: a line to one person alone on Twitch is a whisper, which a function makes; all else
// is the gateways'.
func route(e Entry) string {
	if e.Destination == string(identity.Twitch) && e.Type == event.EgressDM {
		return bus.RouteWhisper
	}
	return bus.RouteBroadcast
}

// ParseRef finds which entry of the ledger an answer from the egress topic belongs to. One that was put on the topic
// without an entry has no outcome to record; it is refused with [deadletter.InvalidEvent].
func ParseRef(in bus.Incoming) (Ref, error) {
	id := in.Attributes[AttrDelivery]
	if id == "" {
		return Ref{}, deadletter.New(deadletter.InvalidEvent, fmt.Errorf("the attribute %s is missing: answers are sent by way of the ledger", AttrDelivery))
	}
	// What can't be read counts as not known: then settling reads the entry first, there is no deadline to keep, and it
	// is the first attempt.
	version, _ := time.Parse(time.RFC3339Nano, in.Attributes[AttrVersion])
	deadline, _ := time.Parse(time.RFC3339Nano, in.Attributes[AttrDeadline])
	attempt, _ := strconv.Atoi(in.Attributes[deadletter.AttrRedrive])
	return Ref{ID: id, Deadline: deadline, RedriveCount: attempt, version: version}, nil
}
