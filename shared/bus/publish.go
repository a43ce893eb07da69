package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/retry"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

const (
	// publishTimeout limits one Publish with all its retries. The limit is below the acknowledgement deadline of every
	// push subscription: a function fails before Pub/Sub stops waiting, and the message is delivered again.
	publishTimeout = 30 * time.Second

	minBackoff, maxBackoff = 50 * time.Millisecond, 5 * time.Second
)

// Outgoing is an event to publish.
type Outgoing struct {
	Event          *event.Event
	Data           []byte            // the encoded event, published as is; nil encodes Event
	IdempotencyKey string            // equal for every publication of the same content; empty means the correlation id
	Attributes     map[string]string // additional attributes, such as [AttrRoute]
}

// Publish sends an event to Pub/Sub and returns after Pub/Sub has stored the message. Successive messages of one
// ordering key ([event.Event.OrderingKey]) are delivered in the order of publication.
//
// Publish retries temporary failures for up to 30 s, or until ctx is done. A failure does not block the ordering key.
// The error matches [event.ErrInvalid] if the event can't be encoded, or is too large for Pub/Sub.
func (c *Client) Publish(ctx context.Context, t topology.Topic, out Outgoing) error {
	data, attributes, err := out.encode(ctx)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", t, err)
	}
	return c.publish(ctx, t, &pubsub.Message{Data: data, Attributes: attributes, OrderingKey: out.Event.OrderingKey()})
}

// DeadLetter publishes an event on the dead-letter topic in place of t, for a part that refuses an event before
// publishing it. A redrive publishes the event to t. Retries and errors are as for [Client.Publish].
func (c *Client) DeadLetter(ctx context.Context, t topology.Topic, out Outgoing, why *deadletter.Error) error {
	data, attributes, err := out.encode(ctx)
	if err != nil {
		return fmt.Errorf("dead-letter an event for %s: %w", t, err)
	}
	id := cmp.Or(why.ID, digest.Of(out.Event.CorrelationID, c.source))
	return c.deadLetter(ctx, Message{Topic: t, Data: data, Attributes: attributes}, id, why)
}

// encode returns the data and the attributes of the message.
func (out Outgoing) encode(ctx context.Context) (data []byte, attributes map[string]string, err error) {
	e := out.Event
	if data = out.Data; data == nil {
		if data, err = event.Encode(e); err != nil {
			return nil, nil, err
		}
	}
	attributes = map[string]string{}
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
	return data, attributes, nil
}

// publish sends a message and retries temporary failures.
func (c *Client) publish(ctx context.Context, t topology.Topic, m *pubsub.Message) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	p := c.publisher(t)
	backoff := retry.NewBackoff(minBackoff, maxBackoff)
	for {
		_, err := p.Publish(ctx, m).Get(ctx)
		if err == nil {
			return nil
		}
		if m.OrderingKey != "" {
			p.ResumePublish(m.OrderingKey) // the library pauses an ordering key after a failure
		}
		if errors.Is(err, pubsub.ErrOversizedMessage) {
			err = fmt.Errorf("publish to %s: %w: larger than the limit of a request, %d bytes", t, event.ErrInvalid, int(pubsub.MaxPublishRequestBytes))
			return deadletter.New(deadletter.InvalidEvent, err)
		}
		if permanent(err) || backoff.Wait(ctx) != nil {
			return fmt.Errorf("publish to %s: %w", t, err)
		}
	}
}

// permanent reports whether the same call would fail again
// (https://cloud.google.com/pubsub/docs/reference/error-codes).
func permanent(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// Republish publishes unchanged data with the given attributes. It sets the ordering key if data is an event.
func (c *Client) Republish(ctx context.Context, t topology.Topic, data []byte, attributes map[string]string) error {
	m := &pubsub.Message{Data: data, Attributes: attributes}
	if e, err := event.Decode(data); err == nil {
		m.OrderingKey = e.OrderingKey()
	}
	return c.publish(ctx, t, m)
}

// maxAttributes is an upper bound for all fields of a message except the data. Pub/Sub allows 100 attributes, with 256
// bytes for a name and 1024 for a value (https://cloud.google.com/pubsub/quotas#resource_limits).
const maxAttributes = 256 << 10

// Announce publishes a dead letter with unchanged data on the dead-letter topic. If data leaves no room for the
// attributes, Announce cuts off the end of data and says so in the dead letter's message.
func (c *Client) Announce(ctx context.Context, data []byte, attributes map[string]string, a deadletter.Announcement) error {
	err := c.publish(ctx, topology.DeadLetter, &pubsub.Message{Data: data, Attributes: a.Attributes(attributes)})
	if most := int(pubsub.MaxPublishRequestBytes) - maxAttributes; errors.Is(err, event.ErrInvalid) && len(data) > most {
		a.Message = fmt.Sprintf("only the first %d of %d bytes are kept: %s", most, len(data), a.Message)
		err = c.publish(ctx, topology.DeadLetter, &pubsub.Message{Data: data[:most], Attributes: a.Attributes(attributes)})
	}
	return err
}
