package bus

import (
	"cmp"
	"context"
	"errors"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

// Message is a received Pub/Sub message. The data is not decoded, and may be no event.
type Message struct {
	Topic      topology.Topic // empty if the topic is not in the topology
	ID         string         // Pub/Sub's message id, the same on every redelivery
	Data       []byte
	Attributes map[string]string
	Published  time.Time // by Pub/Sub's clock
	Attempt    int       // the number of this delivery, from 1; 0 if Pub/Sub does not count
}

// Incoming is a received event.
type Incoming struct {
	Event      *event.Event
	Topic      topology.Topic // as in [Message]
	Data       []byte         // the encoded event, as in [Message]
	Attributes map[string]string
	ID         string    // as in [Message]
	Published  time.Time // as in [Message]
	Attempt    int       // as in [Message]

	settleLater func() (settle func(error)) // nil if the handler's return must settle the message
}

// SettleLater lets a handler return before the outcome is stored, so that the next message of the ordering key can be
// handled in the meantime. After a call with ok, the handler returns nil, and calls settle exactly once: the argument
// of settle then takes the place of the handler's result. A handler calls SettleLater at most once.
//
// ok is false for a pushed message, because the HTTP response is the acknowledgement. The handler must then store the
// outcome before returning.
func (in Incoming) SettleLater() (settle func(error), ok bool) {
	if in.settleLater == nil {
		return nil, false
	}
	return in.settleLater(), true
}

// Handler processes one event. The result decides the acknowledgement, as the package documentation says.
type Handler func(ctx context.Context, in Incoming) error

// Handle passes the event in a pushed message to a handler. A function calls Handle for every push. An error means
// that the message must be delivered again.
func (c *Client) Handle(ctx context.Context, m Message, h Handler) error {
	_, err := c.handle(ctx, m, h, nil)
	return err
}

// handle passes the event in a message to a handler. An error means that the message must be delivered again.
//
// If settle is not nil, the handler may call [Incoming.SettleLater]. Then handle returns deferred = true and nil, and
// settle is called with the final result.
func (c *Client) handle(ctx context.Context, m Message, h Handler, settle func(error)) (deferred bool, err error) {
	ctx = telemetry.Extract(ctx, m.Attributes)
	e, err := event.Decode(m.Data)
	if err != nil {
		return false, c.deadLetter(ctx, m, digest.Of(string(m.Topic), m.ID), deadletter.New(deadletter.InvalidEvent, err))
	}
	outcome := func(err error) error {
		if d, ok := errors.AsType[*deadletter.Error](err); ok {
			return c.deadLetter(ctx, m, cmp.Or(d.ID, digest.Of(e.CorrelationID, c.source)), d)
		}
		return err
	}
	in := Incoming{Event: e, Topic: m.Topic, Data: m.Data, Attributes: m.Attributes, ID: m.ID, Published: m.Published, Attempt: m.Attempt}
	if settle != nil {
		in.settleLater = func() func(error) {
			deferred = true
			return func(err error) { settle(outcome(err)) }
		}
	}
	err = outcome(h(ctx, in))
	return deferred, err
}

// deadLetter publishes an unchanged message on the dead-letter topic. id is the id of the dead letter, unless the message
// was redriven: then the failure is another attempt of the redriven dead letter.
func (c *Client) deadLetter(ctx context.Context, m Message, id string, d *deadletter.Error) error {
	return c.Announce(ctx, m.Data, m.Attributes, deadletter.Announcement{
		ID: cmp.Or(deadletter.RedrivenID(m.Attributes), id), Reason: d.Reason, Message: d.Err.Error(), Source: c.source, Topic: string(m.Topic), Attempts: m.Attempt,
	})
}
