// Package bus carries events between Parley's parts on Google Cloud Pub/Sub.
//
// A publisher hands over an event and a topic of the topology; the bus adds the prefix, the attributes on which
// subscriptions filter, the ordering key and the trace. A receiver hands over a [Handler]; the bus decodes, and turns
// what the handler returns into an acknowledgement: nil acknowledges, a [deadletter.Error] is announced on the
// dead-letter topic and then acknowledged, any other error has the message delivered again. Nothing is acknowledged
// before its outcome is stored somewhere.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

// The attributes of a message on the bus, beside those of the trace and of a dead letter. Each stands only where it
// has a value.
const (
	AttrType           = "type"
	AttrCorrelationID  = "correlationId"
	AttrIdempotencyKey = "idempotencyKey"
	AttrSource         = "source"
	AttrTraceID        = "traceId"
	AttrChannel        = "channel"
	AttrRoute          = "route"    // how an answer finds who delivers it: one of the routes below
	AttrInstance       = "instance" // the one gateway instance that an answer is meant for
	AttrNext           = "next"     // the next step of the routing slip
)

// The values of [AttrRoute].
const (
	RouteBroadcast = "broadcast" // every gateway instance is to see the answer
	RouteWhisper   = "whisper"   // the function whisper is to see it, and no gateway
)

const (
	// publishTimeout bounds one Publish with all its retries. It is less than the acknowledgement deadline of every
	// push subscription, so that a function that can't publish fails, and is tried again, rather than hangs.
	publishTimeout = 30 * time.Second

	// batchDelay is how long the publisher waits for more messages before it sends a batch. The library's own 10 ms
	// would be most of the end-to-end latency.
	batchDelay = time.Millisecond

	minBackoff, maxBackoff = 50 * time.Millisecond, 5 * time.Second
)

// Client publishes to and receives from the topics of one deployment. It is safe for concurrent use.
type Client struct {
	pubsub     *pubsub.Client
	deployment config.Deployment
	source     string
	log        *slog.Logger

	mu         sync.Mutex
	publishers map[topology.Topic]*pubsub.Publisher
}

// Open connects to Pub/Sub, or to the emulator that PUBSUB_EMULATOR_HOST names. source names the part in dead letters
// and logs: "enrichment".
func Open(ctx context.Context, d config.Deployment, source string, log *slog.Logger, opts ...option.ClientOption) (*Client, error) {
	client, err := pubsub.NewClient(ctx, d.Project, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	return &Client{pubsub: client, deployment: d, source: source, log: log, publishers: map[topology.Topic]*pubsub.Publisher{}}, nil
}

// Close sends what is still to be sent and disconnects.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.publishers {
		p.Stop()
	}
	clear(c.publishers)
	if err := c.pubsub.Close(); err != nil {
		return fmt.Errorf("disconnect from Pub/Sub: %w", err)
	}
	return nil
}

func (c *Client) publisher(t topology.Topic) *pubsub.Publisher {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.publishers[t]
	if p == nil {
		p = c.pubsub.Publisher(c.deployment.Prefix.Topic(c.deployment.Project, t).String())
		p.EnableMessageOrdering = true
		p.PublishSettings.DelayThreshold = batchDelay
		c.publishers[t] = p
	}
	return p
}

// Outgoing is an event to be published.
type Outgoing struct {
	Event          *event.Event
	Data           []byte            // the encoded event, if the caller has it: exactly these bytes are published
	IdempotencyKey string            // the same whenever the same thing is published; the correlation id if empty
	Attributes     map[string]string // more attributes: [AttrRoute] for example
}

// Publish hands an event over to Pub/Sub and returns when it is stored there. Messages of one ordering key
// ([event.Event.OrderingKey]) that are published one after the other are delivered in that order. What fails for a
// while is tried again, for up to 30 s or until ctx is done; an ordering key goes on by itself. The error matches
// [event.ErrInvalid] if the event can't be written, or Pub/Sub takes none that is so large.
func (c *Client) Publish(ctx context.Context, t topology.Topic, out Outgoing) error {
	e := out.Event
	data := out.Data
	if data == nil {
		var err error
		if data, err = event.Encode(e); err != nil {
			return fmt.Errorf("publish to %s: %w", t, err)
		}
	}
	attributes := map[string]string{}
	for name, value := range map[string]string{
		AttrType: e.Type, AttrCorrelationID: e.CorrelationID, AttrIdempotencyKey: out.IdempotencyKey,
		AttrSource: e.Source, AttrTraceID: e.TraceID, AttrChannel: e.Channel, AttrNext: e.Next(),
	} {
		if value != "" {
			attributes[name] = value
		}
	}
	if out.IdempotencyKey == "" {
		attributes[AttrIdempotencyKey] = e.CorrelationID
	}
	maps.Copy(attributes, out.Attributes)
	telemetry.Inject(ctx, attributes)
	return c.publish(ctx, t, &pubsub.Message{Data: data, Attributes: attributes, OrderingKey: e.OrderingKey()})
}

func (c *Client) publish(ctx context.Context, t topology.Topic, m *pubsub.Message) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	p := c.publisher(t)
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		_, err := p.Publish(ctx, m).Get(ctx)
		if err == nil {
			return nil
		}
		if m.OrderingKey != "" {
			p.ResumePublish(m.OrderingKey) // a failure stops the key until it is told to go on
		}
		if errors.Is(err, pubsub.ErrOversizedMessage) {
			err = fmt.Errorf("publish to %s: %w: larger than a request may be, %d bytes", t, event.ErrInvalid, int(pubsub.MaxPublishRequestBytes))
			return deadletter.New(deadletter.InvalidEvent, err)
		}
		if permanent(err) || ctx.Err() != nil {
			return fmt.Errorf("publish to %s: %w", t, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("publish to %s: %w", t, err)
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
	}
}

// permanent tells the errors that the same call would meet again
// (https://cloud.google.com/pubsub/docs/reference/error-codes).
func permanent(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// Republish puts a message on a topic again, its data as it was, with these attributes.
func (c *Client) Republish(ctx context.Context, t topology.Topic, data []byte, attributes map[string]string) error {
	m := &pubsub.Message{Data: data, Attributes: attributes}
	if e, err := event.Decode(data); err == nil {
		m.OrderingKey = e.OrderingKey()
	}
	return c.publish(ctx, t, m)
}

// Incoming is an event that was received.
type Incoming struct {
	Event      *event.Event
	Attributes map[string]string
	ID         string    // Pub/Sub's id of the message: the same on every redelivery
	Published  time.Time // by the service's clock
	Attempt    int       // which delivery of the message this is, from 1; 0 where Pub/Sub does not count

	later func() (finish func(error)) // nil where the message has to be answered when the handler returns
}

// Later lets a handler return before what it did is stored, so that the next message of the ordering key can be handled
// meanwhile: it then returns nil, and what finish is called with, once, decides what becomes of the message. It is to be
// called at most once. ok is false where that can't be; the handler then stores before it returns.
func (in Incoming) Later() (finish func(error), ok bool) {
	if in.later == nil {
		return nil, false
	}
	return in.later(), true
}

// Handler processes one event. What it returns decides what becomes of the message; see the package's documentation.
type Handler func(ctx context.Context, in Incoming) error

// Raw is a message as it came, which may or may not hold an event.
type Raw struct {
	Topic      topology.Topic
	ID         string // Pub/Sub's id of the message
	Data       []byte
	Attributes map[string]string
	Published  time.Time // by the service's clock
	Attempt    int       // see [Incoming]
}

// handle gives a message to a handler. An error means that it has to be delivered again. If later is not nil the handler
// may put off what becomes of the message: then handle returns nil and true, and later is called when that is known, with
// what handle would have returned.
func (c *Client) handle(ctx context.Context, m Raw, h Handler, later func(error)) (putOff bool, err error) {
	ctx = telemetry.Extract(ctx, m.Attributes)
	e, err := event.Decode(m.Data)
	if err != nil {
		return false, c.deadLetter(ctx, m, digest.Of(string(m.Topic), m.ID), deadletter.New(deadletter.InvalidEvent, err))
	}
	outcome := func(err error) error {
		if d, ok := errors.AsType[*deadletter.Error](err); ok {
			return c.deadLetter(ctx, m, digest.Of(e.CorrelationID, c.source), d)
		}
		return err
	}
	in := Incoming{Event: e, Attributes: m.Attributes, ID: m.ID, Published: m.Published, Attempt: m.Attempt}
	if later != nil {
		in.later = func() func(error) {
			putOff = true
			return func(err error) { later(outcome(err)) }
		}
	}
	err = outcome(h(ctx, in))
	return putOff, err
}

// deadLetter publishes a message, as it came, on the dead-letter topic.
func (c *Client) deadLetter(ctx context.Context, m Raw, id string, d *deadletter.Error) error {
	return c.Announce(ctx, m.Data, m.Attributes, deadletter.Announcement{
		ID: id, Reason: d.Reason, Message: d.Err.Error(), Source: c.source, Topic: string(m.Topic), Attempts: m.Attempt,
	})
}

// maxAttributes is more than the attributes of one message can have, 100 of 256 and 1024 bytes
// (https://cloud.google.com/pubsub/quotas#resource_limits), and the message's other fields with them.
const maxAttributes = 256 << 10

// Announce publishes the data of a message that was given up, unchanged, on the dead-letter topic. Of
// data that leaves no room for what is told of it, the end is cut off, and the announcement says so.
func (c *Client) Announce(ctx context.Context, data []byte, attributes map[string]string, a deadletter.Announcement) error {
	err := c.publish(ctx, topology.DeadLetter, &pubsub.Message{Data: data, Attributes: a.Attributes(attributes)})
	if most := int(pubsub.MaxPublishRequestBytes) - maxAttributes; errors.Is(err, event.ErrInvalid) && len(data) > most {
		a.Message = fmt.Sprintf("only the first %d of %d bytes are kept: %s", most, len(data), a.Message)
		err = c.publish(ctx, topology.DeadLetter, &pubsub.Message{Data: data[:most], Attributes: a.Attributes(attributes)})
	}
	return err
}

// Subscription is a gateway instance's own subscription.
type Subscription struct {
	client *Client
	spec   topology.Subscription
	name   topology.SubscriptionName
}

// Subscribe makes the subscription of the gateway instance with this id. When it returns, everything that is published
// from then on will be received.
func (c *Client) Subscribe(ctx context.Context, instance string) (*Subscription, error) {
	if !topology.ValidInstance(instance) {
		return nil, fmt.Errorf("subscribe: instance id %q can't stand in a filter", instance)
	}
	spec := topology.Gateway(instance)
	s := &Subscription{client: c, spec: spec, name: c.deployment.Prefix.Subscription(c.deployment.Project, spec.Name)}
	_, err := c.pubsub.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name:                     s.name.String(),
		Topic:                    c.deployment.Prefix.Topic(c.deployment.Project, spec.Topic).String(),
		Filter:                   spec.Filter,
		AckDeadlineSeconds:       int32(spec.AckDeadlineSeconds),
		EnableMessageOrdering:    spec.Ordered,
		MessageRetentionDuration: durationpb.New(spec.Retention()),
		ExpirationPolicy:         &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(spec.Expiration())},
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return nil, fmt.Errorf("create subscription %s: %w", s.name, err)
	}
	return s, nil
}

// Receive calls h for every message, several at a time, those of one ordering key one after the other, until ctx is
// done; then it waits for the calls that are under way, and for what they put off (see [Incoming.Later]), and returns
// nil. A subscription that vanished is an error.
func (s *Subscription) Receive(ctx context.Context, h Handler) error {
	sub := s.client.pubsub.Subscriber(s.name.String())
	err := sub.Receive(ctx, func(ctx context.Context, m *pubsub.Message) {
		// what has begun is brought to its end, also while the instance drains
		ctx = context.WithoutCancel(ctx)
		settle := func(err error) {
			if err != nil {
				s.client.log.WarnContext(ctx, "will be delivered again", "error", err, "message", m.ID)
				m.Nack()
				return
			}
			m.Ack()
		}
		raw := Raw{Topic: s.spec.Topic, ID: m.ID, Data: m.Data, Attributes: m.Attributes, Published: m.PublishTime}
		if putOff, err := s.client.handle(ctx, raw, h, settle); !putOff {
			settle(err)
		}
	})
	if err != nil {
		return fmt.Errorf("receive from %s: %w", s.name, err)
	}
	return nil
}

// Delete ends the subscription. One that is gone already is no error.
func (s *Subscription) Delete(ctx context.Context) error {
	err := s.client.pubsub.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.name.String()})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("delete subscription %s: %w", s.name, err)
	}
	return nil
}
