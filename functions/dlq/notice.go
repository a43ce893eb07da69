package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"

	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/telemetry"
)

// SendNotice handles a message of the egress topic without a ledger entry. Another system published the message there, to
// say something by itself. SendNotice opens an entry and publishes the notice for its recipient, so a notice has one
// outcome, too. A redelivery, and a message with the same idempotency key and content, is the same notice.
//
// A message that can never be sent becomes one dead letter. An operator can redrive the dead letter.
func (f *Function) SendNotice(ctx context.Context, m bus.Message) error {
	if !delivery.IsNotice(m.Attributes) { // Google's Pub/Sub emulator ignores the subscription's filter
		return nil
	}
	ctx = telemetry.Extract(ctx, m.Attributes)
	attributes := maps.Clone(m.Attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	key := noticeKey(attributes, m.ID)
	e, err := event.Decode(m.Data)
	if err != nil {
		// a gateway of an older revision may dead-letter the same message: with this id, both are one dead letter
		return f.refuse(ctx, m, attributes, digest.Of(string(m.Topic), m.ID), deadletter.New(deadletter.InvalidEvent, err))
	}
	ids, err := f.sender.SendNotice(ctx, e, key)
	if dead, ok := errors.AsType[*deadletter.Error](err); ok {
		return f.refuse(ctx, m, attributes, noticeLetterID(key, m.Data), dead)
	}
	if err != nil {
		return fmt.Errorf("send the notice %s: %w", m.ID, err)
	}
	f.log.InfoContext(ctx, "notice sent", "correlationId", e.CorrelationID, "message", m.ID, "deliveries", ids)
	return nil
}

// refuse dead-letters a notice. A redriven notice keeps the id of its dead letter.
func (f *Function) refuse(ctx context.Context, m bus.Message, attributes map[string]string, id string, why *deadletter.Error) error {
	return f.bus.Announce(ctx, m.Data, attributes, deadletter.Announcement{
		ID: cmp.Or(deadletter.RedrivenID(m.Attributes), id), Reason: why.Reason, Message: why.Err.Error(), Source: Step, Topic: string(m.Topic), Attempts: m.Attempt,
	})
}

// noticeKey returns the key of a notice: the idempotency key, or else id. In that case noticeKey adds id to the
// attributes as idempotency key. A redrive publishes the attributes again, so the redriven notice has the same key.
func noticeKey(attributes map[string]string, id string) string {
	if attributes[bus.AttrIdempotencyKey] == "" {
		attributes[bus.AttrIdempotencyKey] = id
	}
	return attributes[bus.AttrIdempotencyKey]
}

// noticeLetterID returns the id of a notice's dead letter. The data is a part of the id, because two systems may use the
// same key for different notices.
func noticeLetterID(key string, data []byte) string { return digest.Of("notice", key, string(data)) }
