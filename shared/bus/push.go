package bus

import (
	"context"
	"fmt"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
)

// MessagePublished is the type of the CloudEvent that a function receives for a Pub/Sub message
// (https://cloud.google.com/eventarc/docs/cloudevents#pubsub).
const MessagePublished = "google.cloud.pubsub.topic.v1.messagePublished"

// pushed is the data of such a CloudEvent.
type pushed struct {
	Message struct {
		Data        []byte            `json:"data"`
		Attributes  map[string]string `json:"attributes"`
		MessageID   string            `json:"messageId"`
		PublishTime time.Time         `json:"publishTime"`
	} `json:"message"`
}

// CloudEvent is the entry point of a function: it gives the Pub/Sub message in a CloudEvent to a handler. An error has
// the service push the message again, by the subscription's back-off.
func (c *Client) CloudEvent(ctx context.Context, ce cloudevents.Event, h Handler) error {
	if ce.Type() != MessagePublished {
		return fmt.Errorf("CloudEvent of type %q; want %s: is the trigger a Pub/Sub push subscription?", ce.Type(), MessagePublished)
	}
	var p pushed
	if err := ce.DataAs(&p); err != nil {
		return fmt.Errorf("read the CloudEvent's data: %w", err)
	}
	topic, _ := c.deployment.Prefix.Bare(ce.Source())
	m := message{topic: topic, id: p.Message.MessageID, data: p.Message.Data, attributes: p.Message.Attributes, published: p.Message.PublishTime}
	if m.id == "" {
		m.id = ce.ID()
	}
	if m.published.IsZero() {
		m.published = ce.Time()
	}
	return c.handle(ctx, m, h)
}
